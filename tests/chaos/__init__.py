"""Faults under load, and the books afterwards: `python -m tests.chaos`."""
