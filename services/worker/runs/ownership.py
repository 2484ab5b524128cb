"""Whose a response is: nobody asks, says a last word or states a fact for another's."""

from __future__ import annotations

from typing import Protocol

from services.worker.domain import Job
from services.worker.errors import LeaseLostError


class Leases(Protocol):
    """What is known of the leases without asking the database."""

    def sure(self, response_id: str, attempt: int) -> bool:
        """Whether nobody else can have the response: its lease was renewed in time."""
        ...

    async def confirm(self, response_id: str, attempt: int) -> bool:
        """Ask the database, however long it is away; whether the response is still ours."""
        ...


class Assured:
    """The leases of a runner that is alone."""

    def sure(self, _: str, __: int) -> bool:
        """Say yes."""
        return True

    async def confirm(self, _: str, __: int) -> bool:
        """Say yes."""
        return True


async def make_sure(leases: Leases, job: Job) -> None:
    """Return when the response is this attempt's for certain; raises `LeaseLostError`.

    A process that stood still for longer than a lease goes on where it was, and another may have
    come to the end meanwhile: what costs money or is told for good is not done before this.
    """
    response_id, attempt = job.response_id, job.attempt
    if not leases.sure(response_id, attempt) and not await leases.confirm(response_id, attempt):
        raise LeaseLostError(response_id)
