"""Clients of every kind that bear faults as good clients do, and the log of what they saw."""

from tests.chaos.load.load import Load

__all__ = ["Load"]
