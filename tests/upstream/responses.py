"""The Responses dialect: an answer as events and as the response they build."""

from dataclasses import replace

from tests.upstream import items_hosted, items_text
from tests.upstream.answers import (
    Answer,
    Call,
    Hosted,
    Json,
    Part,
    Refuse,
    Say,
    Think,
    count_tokens,
    spoken,
)
from tests.upstream.dialogue import Dialogue
from tests.upstream.turn import Turn

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def render(answer: Answer, dialogue: Dialogue, body: Json, response_id: str) -> Turn:
    """Build every event of the answer; the last one carries the final response.

    An answer that finishes with `error` ends in an `error` event and has no final response.
    """
    turn = Turn(response_id, body)
    turn.begin(queued=answer.queued or bool(body.get("background")))
    if answer.interleaved:
        items_text.calls(turn, [part for part in answer.parts if isinstance(part, Call)])
    else:
        for part in answer.parts:
            _part(turn, part, answer, dialogue)
    _end(turn, answer, usage(answer, dialogue))
    return turn


def usage(answer: Answer, dialogue: Dialogue) -> Json:
    """What the answer cost in tokens; `answer.usage` overrides single numbers.

    Its keys: input_tokens, cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens.
    """
    texts, thoughts = spoken(answer)
    counted = {
        "input_tokens": dialogue.input_tokens,
        "cached_tokens": 0,
        "cache_write_tokens": 0,
        "output_tokens": count_tokens(texts),
        "reasoning_tokens": count_tokens(thoughts),
    } | answer.usage
    return {
        "input_tokens": counted["input_tokens"],
        "input_tokens_details": {
            "cached_tokens": counted["cached_tokens"],
            "cache_write_tokens": counted["cache_write_tokens"],
        },
        "output_tokens": counted["output_tokens"],
        "output_tokens_details": {"reasoning_tokens": counted["reasoning_tokens"]},
        "total_tokens": counted["input_tokens"] + counted["output_tokens"],
    }


def _part(turn: Turn, part: Part, answer: Answer, dialogue: Dialogue) -> None:
    match part:
        case Say() | Refuse():
            cut = answer.finish in _INCOMPLETE and part is answer.parts[-1]
            if isinstance(part, Say) and dialogue.top_logprobs is not None:
                part = replace(part, logprobs=True)
            top = 1 if dialogue.top_logprobs is None else dialogue.top_logprobs
            items_text.message(turn, part, status="incomplete" if cut else "completed", top=top)
        case Think():
            items_text.reasoning(turn, part)
        case Call():
            items_text.calls(turn, [part])
        case Hosted():
            items_hosted.BUILDERS[part.kind](turn, part.argument)


def _end(turn: Turn, answer: Answer, spent: Json) -> None:
    match answer.finish:
        case "stop":
            final = turn.snapshot("completed", usage=spent)
            turn.emit("response.completed", response=final)
        case "length" | "content_filter":
            details = {"reason": _INCOMPLETE[answer.finish]}
            final = turn.snapshot("incomplete", usage=spent, incomplete_details=details)
            turn.emit("response.incomplete", response=final)
        case "failed":
            error = {"code": answer.error_code, "message": answer.error_message}
            turn.emit("response.failed", response=turn.snapshot("failed", error=error))
        case "error":
            turn.emit("error", code=answer.error_code, message=answer.error_message, param=None)
