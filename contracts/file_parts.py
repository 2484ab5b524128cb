"""Where items name files: the parts of input items that may carry a `file_id`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

FILE_PARTS = frozenset({"input_file", "input_image", "computer_screenshot"})
_HOLDERS = ("content", "output")


def file_parts(items: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the parts with a `file_id` and their place in the items, such as `[0].content[1]`.

    `items` is whatever came as a list of items; what has another shape holds no parts. Files that
    an output text cites are not among them: those name what a tool found, not what a model is
    given.
    """
    if not isinstance(items, list):
        return
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            continue
        for holder in _HOLDERS:
            held = item.get(holder)
            place = f"[{number}].{holder}"
            if isinstance(held, dict) and _names_file(held):
                yield place, held
            elif isinstance(held, list):
                for index, part in enumerate(held):
                    if isinstance(part, dict) and _names_file(part):
                        yield f"{place}[{index}]", part


def _names_file(part: dict[str, Any]) -> bool:
    file_id = part.get("file_id")
    return isinstance(file_id, str) and bool(file_id) and part.get("type") in FILE_PARTS


def mask_parts(tools: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the masks of image tools that have a `file_id`, with their place in the tools."""
    if not isinstance(tools, list):
        return
    for number, tool in enumerate(tools):
        mask = tool.get("input_image_mask") if isinstance(tool, dict) else None
        if isinstance(mask, dict) and isinstance(mask.get("file_id"), str):
            yield f"[{number}].input_image_mask", mask
