"""The CloudEvents envelope and the base of every contract; what a message says lives beside it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, ClassVar, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SerializeAsAny


class Contract(BaseModel):
    """The data of one message type.

    `TYPE` is the CloudEvents `type` and ends in the contract's major version. Readers ignore fields
    they do not know, so a newer producer and an older consumer live side by side.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    TYPE: ClassVar[str]


class Envelope(BaseModel):
    """One message as it stands on a topic: CloudEvents 1.0, JSON event format.

    `id` is unique per fact and the same when a fact is sent again, so a consumer that has seen
    (`source`, `id`) may ignore the message. `subject` is the id of the aggregate and the Kafka key.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    specversion: Annotated[str, Field(pattern=r"^1\.0$")] = "1.0"
    id: str
    source: str
    type: str
    subject: str
    time: AwareDatetime
    datacontenttype: str = "application/json"
    traceparent: str | None = None
    data: SerializeAsAny[Contract]

    @classmethod
    def of(
        cls, data: Contract, *, event_id: str, source: str, subject: str, time: datetime
    ) -> Self:
        """Wrap `data`; `time` is when it became true, in UTC."""
        return cls(
            id=event_id, source=source, type=data.TYPE, subject=subject, time=time, data=data
        )

    def encode(self) -> bytes:
        """Return the UTF-8 JSON text of the message."""
        return self.model_dump_json(exclude_none=True).encode()


class UnknownContractError(ValueError):
    """A message names a type that is not registered for reading."""


def decode(value: bytes, contracts: dict[str, type[Contract]]) -> Envelope:
    """Parse and validate one message with the contract its `type` names.

    Raises `UnknownContractError` for a type outside `contracts`, and `ValueError` (which pydantic's
    `ValidationError` is) for anything that is not a valid message.
    """
    try:
        message = json.loads(value)
    except RecursionError as error:
        raise ValueError("a message that is nested too deeply") from error
    return from_object(message, contracts)


def from_object(message: object, contracts: dict[str, type[Contract]]) -> Envelope:
    """Validate a message that is already parsed from JSON; raises as `decode` does."""
    if not isinstance(message, dict):
        raise ValueError("a message is a JSON object")  # noqa: TRY004 - one error type for callers
    fields: dict[str, Any] = dict(message)
    contract = contracts.get(str(fields.get("type")))
    if contract is None:
        raise UnknownContractError(f"unknown message type {fields.get('type')!r}")
    fields["data"] = contract.model_validate(fields.get("data"))
    return Envelope.model_validate(fields)
