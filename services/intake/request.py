"""What a create request must look like; the body itself travels on as the client wrote it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, ValidationError
from pydantic_core import ErrorDetails

from services.intake.errors import ApiError, invalid

Object = dict[str, Any]
Number = Annotated[float, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=1)]
ServiceTier = Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"]
Metadata = Annotated[
    dict[Annotated[StrictStr, Field(max_length=64)], Annotated[StrictStr, Field(max_length=512)]],
    Field(max_length=16),
]

_STARTS = ("input", "prompt", "previous_response_id", "conversation")
_TYPE_NAMES = {
    "bool_type": "a boolean",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "string_type": "a string",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
}
_GOT = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


class Typed(BaseModel):
    """A tool, or the choice of one, as far as intake must understand it."""

    model_config = ConfigDict(extra="allow")

    type: StrictStr


class InputItem(BaseModel):
    """An item as clients send it, as far as intake must understand it."""

    model_config = ConfigDict(extra="allow")

    type: StrictStr | None = None
    role: StrictStr | None = None
    content: StrictStr | list[Object] | None = None


class ConversationReference(BaseModel):
    """A conversation named by an object."""

    model_config = ConfigDict(extra="allow")

    id: StrictStr


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="allow")

    include_obfuscation: StrictBool | None = None


class CreateResponse(BaseModel):
    """The parameters of `POST /v1/responses` that intake must understand or can judge.

    Types and ranges are those of the API's reference; parameters it does not know are left to the
    provider. The values are not changed by validation: the original body goes on.
    """

    model_config = ConfigDict(extra="allow")

    model: StrictStr = Field(min_length=1, max_length=256)
    input: StrictStr | list[InputItem] | None = None
    access_programs: Object | None = None
    background: StrictBool | None = None
    background_options: Object | None = None
    context_management: list[Object] | None = None
    conversation: StrictStr | ConversationReference | None = None
    image: Object | None = None
    include: list[StrictStr] | None = None
    instructions: StrictStr | None = None
    max_output_tokens: Count | None = None
    max_tool_calls: Count | None = None
    metadata: Metadata | None = None
    moderation: Object | None = None
    parallel_tool_calls: StrictBool | None = None
    previous_response_id: StrictStr | None = None
    prompt: Object | None = None
    prompt_cache_key: StrictStr | None = None
    prompt_cache_options: Object | None = None
    prompt_cache_retention: StrictStr | None = None
    reasoning: Object | None = None
    safety_identifier: StrictStr | None = None
    service_tier: ServiceTier | None = None
    store: StrictBool | None = None
    stream: StrictBool | None = None
    stream_options: _StreamOptions | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    text: Object | None = None
    tool_choice: StrictStr | Typed | None = None
    tools: list[Typed] | None = None
    top_logprobs: Annotated[int, Field(strict=True, ge=0, le=20)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    user: StrictStr | None = None


def parse_create(body: object) -> CreateResponse:
    """Validate a create request; raises `ApiError` (400) about the first wrong parameter."""
    if not isinstance(body, dict):
        raise invalid("The request body must be a JSON object.", param=None)
    if "model" not in body:
        raise missing("model")
    try:
        request = CreateResponse.model_validate(body)
    except ValidationError as error:
        raise explain(error, body) from error
    exclusive_context(request.previous_response_id, request.conversation)
    if all(getattr(request, name) is None for name in _STARTS):
        raise missing("input")
    _refuse_nul(request)
    _refuse_unserved(request)
    return request


def exclusive_context(previous_response_id: object, conversation: object) -> None:
    """Refuse a request that goes on from two places: `ApiError` (400)."""
    if previous_response_id is not None and conversation is not None:
        raise invalid(
            "Mutually exclusive parameters: 'previous_response_id' and 'conversation'. "
            "Ensure you are only providing one of them.",
            param="conversation",
            code="mutually_exclusive_parameters",
        )


def _refuse_nul(request: CreateResponse) -> None:
    """Refuse the character NUL where a value is also stored by itself: no database text has it."""
    for name in ("model", "previous_response_id", "safety_identifier", "user"):
        if "\0" in (getattr(request, name) or ""):
            raise invalid(f"Invalid value for '{name}': NUL.", param=name, code="invalid_value")
    for name, value in (request.metadata or {}).items():
        if "\0" in name + value:
            raise invalid(
                "Invalid value for 'metadata': NUL.", param="metadata", code="invalid_value"
            )


def _refuse_unserved(request: CreateResponse) -> None:
    """Refuse what this version can't do yet, rather than ignore it."""
    if request.background and request.store is False:
        raise invalid("A background response must be stored.", param="store", code="invalid_value")
    for option, value in (request.background_options or {}).items():
        if (option, value) != ("completion_window", "soonest") and value is not None:
            raise _unserved(f"background_options.{option}")
    if (request.prompt_cache_options or {}).get("comparison_response_id") is not None:
        raise _unserved("prompt_cache_options.comparison_response_id")
    if request.conversation is not None and isinstance(request.input, list):
        refuse_references(request.input, "input")
    for index, tool in enumerate(request.tools or []):
        extra = tool.model_extra or {}
        if tool.type == "mcp" and extra.get("require_approval") not in (None, "never"):
            raise invalid(
                "Approvals of MCP tools are not supported by this installation: "
                "leave 'require_approval' out or set it to 'never'.",
                param=f"tools[{index}].require_approval",
                code="unsupported_parameter",
            )


def _unserved(param: str) -> ApiError:
    return invalid(
        f"Unsupported parameter: '{param}' is not supported by this installation.",
        param=param,
        code="unsupported_parameter",
    )


def refuse_references(items: list[InputItem], param: str) -> None:
    """Refuse references to items where items are kept: `ApiError` (400)."""
    for index, item in enumerate(items):
        if item.type == "item_reference":
            raise invalid(
                "A conversation keeps items, not references to items: leave this one out.",
                param=f"{param}[{index}]",
                code="unsupported_value",
            )


def missing(name: str) -> ApiError:
    """Return the 400 for a parameter that must be there."""
    return invalid(
        f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
    )


def explain(error: ValidationError, body: Object) -> ApiError:
    """Return the 400 for the first thing that pydantic found wrong in a body."""
    mistakes = error.errors(include_url=False, include_context=False)
    # A value that may be of several types has mistakes in each: those further in fit it better.
    same = [one for one in mistakes if one["loc"][:1] == mistakes[0]["loc"][:1]]
    deepest = max((_path(one, body) for one in same), key=_depth)
    same = [one for one in same if _path(one, body) == deepest]
    kind = same[0]["type"]
    if kind == "missing":
        return missing(deepest)
    if kind in _TYPE_NAMES:
        wanted = " or ".join(
            dict.fromkeys(_TYPE_NAMES[one["type"]] for one in same if one["type"] in _TYPE_NAMES)
        )
        got = _GOT.get(type(same[0]["input"]), "another type")
        return invalid(
            f"Invalid type for '{deepest}': expected {wanted}, but got {got} instead.",
            param=deepest,
            code="invalid_type",
        )
    return invalid(
        f"Invalid value for '{deepest}': {same[0]['msg']}.", param=deepest, code="invalid_value"
    )


def _depth(path: str) -> int:
    return path.count(".") + path.count("[")


def _path(mistake: ErrorDetails, body: object) -> str:
    """Return where a mistake is in the body, without the names of pydantic's union branches."""
    path = ""
    at = body
    *_, last = mistake["loc"]
    for part in mistake["loc"]:
        if isinstance(part, int) and isinstance(at, list) and part < len(at):
            path, at = f"{path}[{part}]", at[part]
        elif isinstance(part, str) and isinstance(at, dict) and part in at:
            path, at = (f"{path}.{part}" if path else part), at[part]
        elif part is last and mistake["type"] == "missing":
            path = f"{path}.{part}" if path else str(part)
    return path
