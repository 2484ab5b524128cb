"""What the costs service refuses, and what it can't find out."""

from __future__ import annotations


class CostsError(Exception):
    """The base of all refusals of this service."""


class UsageError(CostsError):
    """The usage figures of a response contradict themselves: no price can be put on them."""


class PayloadLostError(CostsError):
    """The payload that a claim check stands for is gone, or is not the one that was stored."""


class LedgerRefusedError(CostsError):
    """The database can't hold a line as it is, however often it is tried."""


class PriceFileError(CostsError):
    """A price file can't be used; the text names every mistake in it."""


class ParameterError(CostsError):
    """A query parameter is wrong."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class ProjectHiddenError(CostsError):
    """The caller asks for the costs of a project that is not its own."""
