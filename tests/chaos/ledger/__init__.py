"""The books of a run: what was promised, held against what every part of the system tells."""

from tests.chaos.ledger.checking import check
from tests.chaos.ledger.evidence import Report

__all__ = ["Report", "check"]
