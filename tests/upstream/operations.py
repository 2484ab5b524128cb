"""Operations of the Responses API that make no response: counted tokens, compacted input."""

import time

from openai.types.responses.input_token_count_params import InputTokenCountParams
from openai.types.responses.response_compact_params import ResponseCompactParams

from tests.upstream.answers import Json
from tests.upstream.dialogue import Dialogue, input_items

COUNT_PARAMS = frozenset(InputTokenCountParams.__annotations__)
COMPACT_PARAMS = frozenset(ResponseCompactParams.__annotations__)


def counted(dialogue: Dialogue) -> Json:
    """The answer of `/v1/responses/input_tokens`: a token per word."""
    return {"object": "response.input_tokens", "input_tokens": dialogue.input_tokens}


def compacted(body: Json, dialogue: Dialogue, tag: str) -> Json:
    """The answer of `/v1/responses/compact`: the user's messages and one opaque item."""
    users = [item for item in input_items(body) if item.get("role") == "user"]
    messages = [_message(item, f"msg_{tag}{number:02x}") for number, item in enumerate(users)]
    item = {"id": f"cmp_{tag}", "type": "compaction", "encrypted_content": "gAAAAAB-compacted"}
    return {
        "id": f"resp_{tag}",
        "object": "response.compaction",
        "created_at": int(time.time()),
        "output": [*messages, item],
        "usage": {
            "input_tokens": dialogue.input_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": dialogue.input_tokens + 7,
        },
    }


def _message(item: Json, item_id: str) -> Json:
    content = item["content"]
    if isinstance(content, str):
        content = [{"type": "input_text", "text": content}]
    return {
        "id": item.get("id") or item_id,
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": content,
    }
