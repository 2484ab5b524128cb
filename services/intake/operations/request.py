"""What requests to count input tokens and to compact a conversation must look like."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, ValidationError

from services.intake.errors import invalid
from services.intake.request import (
    ConversationReference,
    InputItem,
    Object,
    Typed,
    exclusive_context,
    explain,
    missing,
)


class Operation(BaseModel):
    """What both have; parameters it does not know are left to the provider."""

    model_config = ConfigDict(extra="allow")

    model: StrictStr = Field(min_length=1, max_length=256)
    input: StrictStr | list[InputItem] | None = None
    instructions: StrictStr | None = None
    previous_response_id: StrictStr | None = None


class CountInputTokens(Operation):
    """The parameters of `POST /v1/responses/input_tokens` that intake must understand."""

    conversation: StrictStr | ConversationReference | None = None
    parallel_tool_calls: StrictBool | None = None
    personality: StrictStr | None = Field(None, max_length=64)
    reasoning: Object | None = None
    text: Object | None = None
    tool_choice: StrictStr | Typed | None = None
    tools: list[Typed] | None = None
    truncation: StrictStr | None = Field(None, pattern="^(auto|disabled)$")


class CompactConversation(Operation):
    """The parameters of `POST /v1/responses/compact` that intake must understand."""

    image: Object | None = None
    prompt_cache_key: StrictStr | None = None
    prompt_cache_options: Object | None = None
    prompt_cache_retention: StrictStr | None = None
    service_tier: StrictStr | None = None


OperationType = TypeVar("OperationType", bound=Operation)


def parse_operation(body: object, model: type[OperationType]) -> OperationType:
    """Validate a body; raises `ApiError` (400) about the first wrong parameter."""
    if not isinstance(body, dict):
        raise invalid("The request body must be a JSON object.", param=None)
    if "model" not in body:
        raise missing("model")
    try:
        request = model.model_validate(body)
    except ValidationError as error:
        raise explain(error, body) from error
    if "\0" in request.model or "\0" in (request.previous_response_id or ""):
        raise invalid("Invalid value: NUL.", param="model", code="invalid_value")
    if isinstance(request, CountInputTokens):
        exclusive_context(request.previous_response_id, request.conversation)
    elif request.input is None and request.previous_response_id is None:
        raise missing("input")
    return request
