"""The life of a response: the command that runs it and the facts that follow."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from contracts.event import Contract
from contracts.principal import Principal

TerminalStatus = Literal["completed", "failed", "incomplete", "cancelled"]


class ClaimCheck(BaseModel):
    """A payload too big for a message, kept in the object store under `key`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    key: str
    size_bytes: int = Field(ge=0)
    sha256: str


class AttachedFile(BaseModel):
    """A file that input items name by `file_id`: what it is, and where its bytes are.

    `content_type` was detected from the bytes. `content` is not a copy: it is gone when the file is
    deleted.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    file_id: str
    filename: str
    content_type: str
    content: ClaimCheck


class RunResponseV1(Contract):
    """Run one response. Topic `responses.commands`, keyed by the response id.

    `request` is the body as the client sent it; `history` are the items that precede its input,
    oldest first, already resolved from `previous_response_id` or `conversation`. When either is
    large it is replaced by a claim check that holds the JSON object `{"request": ..., "history":
    [...]}`. `events_partition` is the partition of `responses.events` whose reader waits for the
    answer. `files` are those that items of request and history name by our `file_id`.
    `service_tier` is that of the request: it decides when a background response has its turn.
    """

    TYPE: ClassVar[str] = "antiphon.response.run.v1"

    response_id: str
    principal: Principal
    model: str
    accepted_at: AwareDatetime
    events_partition: int = Field(ge=0)
    stream: bool = False
    background: bool = False
    store: bool = True
    service_tier: str | None = None
    previous_response_id: str | None = None
    conversation_id: str | None = None
    request: dict[str, Any] | None = None
    history: list[dict[str, Any]] = Field(default_factory=list)
    payload: ClaimCheck | None = None
    files: list[AttachedFile] | None = None
    attempt: int = Field(default=1, ge=1)


class CancelResponseV1(Contract):
    """Stop a background response, wherever it is. Topic `responses.control`.

    Every worker hears it; the one that runs the response ends it as cancelled, and a response that
    still waits will be ended so by the worker that takes it up.
    """

    TYPE: ClassVar[str] = "antiphon.response.cancel.v1"

    response_id: str
    principal: Principal


class ResponseStartedV1(Contract):
    """A worker began a background response. Topic `responses.lifecycle`."""

    TYPE: ClassVar[str] = "antiphon.response.started.v1"

    response_id: str
    attempt: int = Field(ge=1)
    principal: Principal


class ResponseFinishedV1(Contract):
    """A response reached its terminal state. Topic `responses.lifecycle`.

    `response` is the Response object of the API as the client sees it, or a claim check when it is
    large. `model` is the model that answered, `provider` who served it. `estimated_usage` marks
    token counts that were not reported by the provider but counted from the partial output. `store`
    is false when the client asked for nothing to be kept: readers then keep figures, not content.
    `background` says that no connection waited for it.
    """

    TYPE: ClassVar[str] = "antiphon.response.finished.v1"

    response_id: str
    attempt: int = Field(ge=1)
    status: TerminalStatus
    principal: Principal
    model: str
    provider: str
    accepted_at: AwareDatetime
    started_at: AwareDatetime
    finished_at: AwareDatetime
    events_partition: int = Field(ge=0)
    last_sequence_number: int | None = None
    store: bool = True
    background: bool = False
    service_tier: str | None = None
    estimated_usage: bool = False
    response: dict[str, Any] | None = None
    payload: ClaimCheck | None = None


class ResponseDeletedV1(Contract):
    """The owner deleted a response: readers forget its content. Topic `responses.lifecycle`."""

    TYPE: ClassVar[str] = "antiphon.response.deleted.v1"

    response_id: str
    principal: Principal
