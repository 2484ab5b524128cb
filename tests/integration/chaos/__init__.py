"""The tools of the chaos suite."""
