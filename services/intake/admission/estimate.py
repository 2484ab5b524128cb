"""How many tokens a request will use, guessed from its body before anybody has counted. No I/O."""

from __future__ import annotations

from typing import Any

_BYTES_PER_TOKEN = 4
_MEDIA_TOKENS = 1_000
_LEAST_MEDIA_CHARACTERS = 256
# Not what a model reads: whom it is for, how it is to be kept.
_UNREAD = frozenset({"metadata", "model", "safety_identifier", "user", "prompt_cache_key"})


def estimate_tokens(request: dict[str, Any], *, most_output: int) -> int:
    """Return about how many tokens a create request uses, at least 1.

    The text of its input, instructions and tools, four characters a token; images and files as data
    count the same each, whatever their size. Of the output it counts `max_output_tokens`, but not
    more than `most_output`: clients set it as a bound, few answers get near it. The history is not
    counted, it is not read yet; the real figures come when the response ends.
    """
    characters, media = 0, 0
    waiting: list[Any] = [value for name, value in request.items() if name not in _UNREAD]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if len(value) > _LEAST_MEDIA_CHARACTERS and value.startswith("data:"):
                media += 1
            else:
                characters += len(value)
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    asked = request.get("max_output_tokens")
    output = min(asked, most_output) if isinstance(asked, int) else most_output
    return max(1, characters // _BYTES_PER_TOKEN + media * _MEDIA_TOKENS + output)
