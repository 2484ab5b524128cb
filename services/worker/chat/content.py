"""Content of Responses items as content of chat messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.worker.chat.errors import UnsupportedParameterError
from services.worker.chat.files import file_part

Part = dict[str, Any]
_TEXT_FIELDS = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "summary_text": "text",
    "reasoning_text": "text",
    "refusal": "refusal",
}


def required(source: dict[str, Any], name: str, where: str) -> str:
    """Return the string `name` of an item or part at `where`; refuse one that lacks it."""
    value = source.get(name)
    if not isinstance(value, str):
        raise UnsupportedParameterError(f"{where}.{name}", f"'{where}.{name}' must be a string.")
    return value


def text_of(content: object, where: str) -> str:
    """Return content that may only be text, as system, assistant and tool messages want it.

    Parts are joined as they stand; a refusal counts as what the assistant said.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    texts = []
    for place, part in _parts(content, where):
        field = _TEXT_FIELDS.get(part.get("type", ""))
        if field is None:
            raise _unsupported(place, part, "here, where a chat message holds only text")
        texts.append(required(part, field, place))
    return "".join(texts)


def user_content(content: object, where: str) -> str | list[Part]:
    """Return the content of a user message: a string where one is enough, else chat parts."""
    if isinstance(content, str):
        return content
    parts = [_part(part, place) for place, part in _parts(content, where)]
    if len(parts) == 1 and set(parts[0]) == {"type", "text"}:
        text: str = parts[0]["text"]
        return text
    return parts


def tool_content(output: object, where: str) -> tuple[str, list[Part]]:
    """Split the output of a tool into its text and the parts a tool message can't hold."""
    if isinstance(output, str) or output is None:
        return output or "", []
    parts = [_part(part, place) for place, part in _parts(output, where)]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    return "\n".join(texts), [part for part in parts if part["type"] != "text"]


def _parts(content: object, where: str) -> list[tuple[str, Part]]:
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise UnsupportedParameterError(where, f"'{where}' must be a string or a list of parts.")
    return [(f"{where}[{number}]", part) for number, part in enumerate(content)]


def _part(part: Part, where: str) -> Part:
    kind = part.get("type", "")
    translate = _USER_PARTS.get(kind)
    if translate is not None:
        translated = translate(part, where)
    elif kind in _TEXT_FIELDS:
        translated = {"type": "text", "text": required(part, _TEXT_FIELDS[kind], where)}
    else:
        raise _unsupported(where, part, "by providers of dialect 'chat'")
    if part.get("prompt_cache_breakpoint") is not None:
        translated["prompt_cache_breakpoint"] = part["prompt_cache_breakpoint"]
    return translated


def _image(part: Part, where: str) -> Part:
    _refuse_references(part, where, ("file_id",))
    image: Part = {"url": required(part, "image_url", where)}
    if part.get("detail") is not None:
        image["detail"] = part["detail"]
    return {"type": "image_url", "image_url": image}


def _file(part: Part, where: str) -> Part:
    _refuse_references(part, where, ("file_id", "file_url"))
    return file_part(part, required(part, "file_data", where), where)


def _audio(part: Part, where: str) -> Part:
    audio = part.get("input_audio")
    if not isinstance(audio, dict):
        place = f"{where}.input_audio"
        raise UnsupportedParameterError(place, f"'{place}' must be an object.")
    return {"type": "input_audio", "input_audio": dict(audio)}


def _refuse_references(part: Part, where: str, names: tuple[str, ...]) -> None:
    for name in names:
        if part.get(name) is not None:
            message = f"'{where}.{name}' is not supported by providers of dialect 'chat': "
            raise UnsupportedParameterError(f"{where}.{name}", message + "send the data itself.")


def _unsupported(where: str, part: Part, reason: str) -> UnsupportedParameterError:
    kind = part.get("type")
    return UnsupportedParameterError(where, f"Content of type {kind!r} is not supported {reason}.")


_USER_PARTS: dict[str, Callable[[Part, str], Part]] = {
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
}
