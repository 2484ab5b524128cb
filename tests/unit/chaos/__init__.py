"""Unit tests of the chaos suite."""
