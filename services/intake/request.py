"""What a create request must look like; the body itself travels on as the client wrote it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, ValidationError
from pydantic_core import ErrorDetails

from services.intake.errors import ApiError, invalid

Object = dict[str, Any]
Number = Annotated[float, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=1)]
Metadata = Annotated[
    dict[Annotated[StrictStr, Field(max_length=64)], Annotated[StrictStr, Field(max_length=512)]],
    Field(max_length=16),
]

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


class _Typed(BaseModel):
    model_config = ConfigDict(extra="allow")

    type: StrictStr


class _Item(BaseModel):
    model_config = ConfigDict(extra="allow")

    type: StrictStr | None = None
    role: StrictStr | None = None
    content: StrictStr | list[Object] | None = None


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
    input: StrictStr | list[_Item] | None = None
    background: StrictBool | None = None
    conversation: StrictStr | Object | None = None
    include: list[StrictStr] | None = None
    instructions: StrictStr | None = None
    max_output_tokens: Count | None = None
    max_tool_calls: Count | None = None
    metadata: Metadata | None = None
    parallel_tool_calls: StrictBool | None = None
    previous_response_id: StrictStr | None = None
    prompt: Object | None = None
    prompt_cache_key: StrictStr | None = None
    reasoning: Object | None = None
    safety_identifier: StrictStr | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    store: StrictBool | None = None
    stream: StrictBool | None = None
    stream_options: _StreamOptions | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    text: Object | None = None
    tool_choice: StrictStr | _Typed | None = None
    tools: list[_Typed] | None = None
    top_logprobs: Annotated[int, Field(strict=True, ge=0, le=20)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    user: StrictStr | None = None


def parse_create(body: object) -> CreateResponse:
    """Validate a create request; raises `ApiError` (400) about the first wrong parameter."""
    if not isinstance(body, dict):
        raise invalid("The request body must be a JSON object.", param=None)
    if "model" not in body:
        raise _missing("model")
    try:
        request = CreateResponse.model_validate(body)
    except ValidationError as error:
        raise _explain(error.errors()[0], body) from error
    if request.input is None and request.prompt is None and request.previous_response_id is None:
        raise _missing("input")
    _refuse_unserved(request)
    return request


def _refuse_unserved(request: CreateResponse) -> None:
    """Refuse what this version can't do yet, rather than ignore it."""
    if request.background and request.store is False:
        raise invalid("A background response must be stored.", param="store", code="invalid_value")
    for name in ("conversation", "prompt"):
        if getattr(request, name) is not None:
            raise invalid(
                f"Unsupported parameter: '{name}' is not supported by this installation.",
                param=name,
                code="unsupported_parameter",
            )
    for index, tool in enumerate(request.tools or []):
        extra = tool.model_extra or {}
        if tool.type == "mcp" and extra.get("require_approval") not in (None, "never"):
            raise invalid(
                "Approvals of MCP tools are not supported by this installation: "
                "leave 'require_approval' out or set it to 'never'.",
                param=f"tools[{index}].require_approval",
                code="unsupported_parameter",
            )


def _missing(name: str) -> ApiError:
    return invalid(
        f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
    )


def _explain(error: ErrorDetails, body: Object) -> ApiError:
    param = _path(error["loc"], body)
    kind = error["type"]
    if kind == "missing":
        return _missing(param)
    if kind in _TYPE_NAMES:
        got = _GOT.get(type(error["input"]), "another type")
        return invalid(
            f"Invalid type for '{param}': expected {_TYPE_NAMES[kind]}, but got {got} instead.",
            param=param,
            code="invalid_type",
        )
    return invalid(
        f"Invalid value for '{param}': {error['msg']}.", param=param, code="invalid_value"
    )


def _path(location: tuple[int | str, ...], body: object) -> str:
    """Return the path of a mistake in the body, without the names of pydantic's union branches."""
    path = ""
    at = body
    for part in location:
        if isinstance(part, int) and isinstance(at, list) and part < len(at):
            path, at = f"{path}[{part}]", at[part]
        elif isinstance(part, str) and isinstance(at, dict) and part in at:
            path, at = (f"{path}.{part}" if path else part), at[part]
        elif isinstance(part, str) and isinstance(at, dict) and part == location[-1]:
            path = f"{path}.{part}" if path else part
    return path
