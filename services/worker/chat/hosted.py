"""Calls of tools that other providers ran, or that clients run by the API's own types, as calls."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from services.worker.chat.content import Part
from services.worker.chat.errors import UnsupportedParameterError

Item = dict[str, Any]
_NOT_KEPT = "(The result was not kept.)"
_NOTHING = "(Nothing was returned.)"


class Told(NamedTuple):
    """A call as a model of Chat Completions is told of it: `media` are parts beside the text."""

    name: str
    arguments: dict[str, Any]
    text: str = ""
    media: tuple[Part, ...] = ()


def whole_call(item: Item) -> Told | None:
    """Return a call that has its result in itself; None for an item that is no such call."""
    match item.get("type"):
        case "code_interpreter_call":
            text, media = _code_outputs(item.get("outputs"))
            return Told("code_interpreter", {"code": item.get("code") or ""}, text, media)
        case "file_search_call":
            results = item.get("results")
            text = _NOT_KEPT if results is None else _json(results)
            return Told("file_search", {"queries": item.get("queries") or []}, text)
        case "web_search_call":
            action = dict(item.get("action") or {})
            sources = item.get("results") or action.pop("sources", None)
            text = _NOT_KEPT if sources is None else _json(sources)
            return Told("web_search", action, text)
        case "image_generation_call":
            return _image(item)
        case _:
            return None


CALLS = {
    "apply_patch_call": ("apply_patch", "operation"),
    "computer_call": ("computer", "action"),
    "local_shell_call": ("local_shell", "action"),
    "shell_call": ("shell", "action"),
}
"""Calls whose results are items of their own: what they are called, and where they say what to do.

A computer call may name several `actions` in place of one.
"""

OUTPUTS = frozenset(
    {
        "apply_patch_call_output",
        "computer_call_output",
        "local_shell_call_output",
        "shell_call_output",
    }
)


def open_call(item: Item) -> Told:
    """Return a call whose kind is in `CALLS`."""
    name, field = CALLS[item["type"]]
    done = item.get(field)
    if done is None:
        return Told(name, {"actions": item.get("actions") or []})
    return Told(name, dict(done))


def call_id_of(item: Item) -> object:
    """Return the id that a call and its output share; old local shell outputs have it as `id`."""
    return item.get("call_id") or item.get("id")


def output_of(item: Item, where: str) -> tuple[str, list[Part]]:
    """Return what an output whose kind is in `OUTPUTS` says, as text and parts beside it."""
    output = item.get("output")
    if item["type"] == "apply_patch_call_output":
        return f"{item.get('status')}: {output or ''}".rstrip(": "), []
    if item["type"] == "computer_call_output":
        shot = output if isinstance(output, dict) else {}
        if not isinstance(shot.get("image_url"), str):
            message = f"'{where}.output.image_url' must be there for providers of dialect 'chat'."
            raise UnsupportedParameterError(f"{where}.output.image_url", message)
        return "", [{"type": "image_url", "image_url": {"url": shot["image_url"]}}]
    return output if isinstance(output, str) else _json(output), []


def _code_outputs(outputs: object) -> tuple[str, tuple[Part, ...]]:
    if not isinstance(outputs, list):
        return _NOT_KEPT, ()
    logs = [str(one.get("logs") or "") for one in outputs if one.get("type") == "logs"]
    images = tuple(
        {"type": "image_url", "image_url": {"url": one["url"]}}
        for one in outputs
        if one.get("type") == "image" and str(one.get("url")).startswith("data:")
    )
    return "\n".join(logs) or ("" if images else _NOTHING), images


def _image(item: Item) -> Told:
    asked = {"prompt": item.get("revised_prompt") or ""}
    result = item.get("result")
    if not result or item.get("output_format") == "svg":
        reason = (item.get("error") or {}).get("message")
        return Told("image_generation", asked, f"Error: {reason}" if reason else _NOT_KEPT)
    url = f"data:image/{item.get('output_format') or 'png'};base64,{result}"
    return Told("image_generation", asked, "", ({"type": "image_url", "image_url": {"url": url}},))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
