"""Files that items name, put in their place as data. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.file_parts import file_parts, mask_parts
from contracts.responses import AttachedFile
from services.worker.errors import RequestRefusedError

Files = Mapping[str, tuple[AttachedFile, str | None]]
"""By file id: the file, and its content as a data URL; None when it was deleted meanwhile."""


def with_files(items: list[dict[str, Any]], files: Files) -> list[dict[str, Any]]:
    """Return items that name no file of ours any more: each is there as data.

    The given items are not changed. Raises `RequestRefusedError` about a file that was deleted.
    """
    replacements = {
        id(part): _with_data(part, files)
        for _, part in file_parts(items)
        if part["file_id"] in files
    }
    return [_rebuilt(item, replacements) for item in items] if replacements else items


def with_masks(tools: list[Any], files: Files) -> list[Any]:
    """Return tools whose masks are there as data; otherwise as `with_files`."""
    masks = {
        id(mask): _with_data(mask, files)
        for _, mask in mask_parts(tools)
        if mask["file_id"] in files
    }
    return [
        {**tool, "input_image_mask": masks[id(tool["input_image_mask"])]}
        if isinstance(tool, dict) and id(tool.get("input_image_mask")) in masks
        else tool
        for tool in tools
    ]


def refuse_lost(files: Files) -> None:
    """Raise `RequestRefusedError` when a file was deleted after the request was accepted."""
    for file, url in files.values():
        if url is None:
            raise _lost(file)


def _lost(file: AttachedFile) -> RequestRefusedError:
    message = f"The file '{file.file_id}' was deleted before it could be given to the model."
    return RequestRefusedError(message, param="input", code="file_not_found")


def _rebuilt(item: dict[str, Any], replacements: dict[int, dict[str, Any]]) -> dict[str, Any]:
    rebuilt = item
    for holder in ("content", "output"):
        held = item.get(holder)
        if isinstance(held, dict) and id(held) in replacements:
            rebuilt = {**rebuilt, holder: replacements[id(held)]}
        elif isinstance(held, list) and any(id(part) in replacements for part in held):
            parts = [replacements.get(id(part), part) for part in held]
            rebuilt = {**rebuilt, holder: parts}
    return rebuilt


def _with_data(part: dict[str, Any], files: Files) -> dict[str, Any]:
    file, url = files[part["file_id"]]
    if url is None:
        raise _lost(file)
    rest = {name: value for name, value in part.items() if name != "file_id"}
    if part.get("type") == "input_file":
        rest.pop("file_url", None)
        return {**rest, "filename": part.get("filename") or file.filename, "file_data": url}
    return {**rest, "image_url": url}
