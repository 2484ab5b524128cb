"""Builders of the items a model writes itself: messages, reasoning and calls for the client."""

from collections.abc import Sequence
from itertools import zip_longest

from tests.upstream.answers import Call, Json, Refuse, Say, Think, chunks, pieces
from tests.upstream.turn import OpenItem, Turn


def logprobs(words: Sequence[str], top: int, *, with_bytes: bool) -> list[Json]:
    """Invented but stable log probabilities, with `top` alternatives each."""

    def entry(token: str, rank: int) -> Json:
        known: Json = {"token": token, "logprob": -0.1 * (1 + rank + len(token) % 5)}
        return known | ({"bytes": list(token.encode())} if with_bytes else {})

    return [
        entry(word, 0)
        | {"top_logprobs": [entry(word[: -rank or None], rank) for rank in range(top)]}
        for word in words
    ]


def message(turn: Turn, part: Say | Refuse, *, status: str = "completed", top: int = 1) -> None:
    """Emit a whole message; `status` is its final one, `top` the number of top logprobs."""
    phase = {"phase": part.phase} if isinstance(part, Say) and part.phase else {}
    opened: Json = {"type": "message", "status": "in_progress", "role": "assistant", "content": []}
    item = turn.add("msg", opened | phase)
    content = _text(item, part, top) if isinstance(part, Say) else _refusal(item, part)
    item.done(status=status, content=[content])


def _text(item: OpenItem, part: Say, top: int) -> Json:
    empty: Json = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
    item.event("response.content_part.added", content_index=0, part=empty)
    words = pieces(part.text)
    known = logprobs(words, top, with_bytes=False) if part.logprobs else []
    for number, word in enumerate(words):
        item.event(
            "response.output_text.delta",
            content_index=0,
            delta=word,
            logprobs=known[number : number + 1],
        )
    for number, annotation in enumerate(part.annotations):
        item.event(
            "response.output_text.annotation.added",
            content_index=0,
            annotation_index=number,
            annotation=annotation,
        )
    item.event("response.output_text.done", content_index=0, text=part.text, logprobs=known)
    full = empty | {
        "text": part.text,
        "annotations": list(part.annotations),
        "logprobs": logprobs(words, top, with_bytes=True) if part.logprobs else [],
    }
    item.event("response.content_part.done", content_index=0, part=full)
    return full


def _refusal(item: OpenItem, part: Refuse) -> Json:
    empty: Json = {"type": "refusal", "refusal": ""}
    item.event("response.content_part.added", content_index=0, part=empty)
    for word in pieces(part.text):
        item.event("response.refusal.delta", content_index=0, delta=word)
    item.event("response.refusal.done", content_index=0, refusal=part.text)
    full: Json = {"type": "refusal", "refusal": part.text}
    item.event("response.content_part.done", content_index=0, part=full)
    return full


def reasoning(turn: Turn, think: Think) -> None:
    """Emit a reasoning item: its summaries first, then its raw text."""
    item = turn.add("rs", {"type": "reasoning", "summary": []})
    for number, summary in enumerate(think.summaries):
        _summary(item, number, summary)
    final: Json = {"summary": [_summary_part(summary) for summary in think.summaries]}
    if think.text:
        final["content"] = [_reasoning_text(item, think.text)]
    if think.encrypted:
        final["encrypted_content"] = think.encrypted
    item.done(**final)


def _summary_part(text: str) -> Json:
    return {"type": "summary_text", "text": text}


def _summary(item: OpenItem, number: int, text: str) -> None:
    family = "response.reasoning_summary"
    item.event(f"{family}_part.added", summary_index=number, part=_summary_part(""))
    for word in pieces(text):
        item.event(f"{family}_text.delta", summary_index=number, delta=word)
    item.event(f"{family}_text.done", summary_index=number, text=text)
    item.event(f"{family}_part.done", summary_index=number, part=_summary_part(text))


def _reasoning_text(item: OpenItem, text: str) -> Json:
    part: Json = {"type": "reasoning_text", "text": ""}
    item.event("response.content_part.added", content_index=0, part=part)
    for word in pieces(text):
        item.event("response.reasoning_text.delta", content_index=0, delta=word)
    item.event("response.reasoning_text.done", content_index=0, text=text)
    item.event("response.content_part.done", content_index=0, part=part | {"text": text})
    return part | {"text": text}


def calls(turn: Turn, wanted: Sequence[Call]) -> None:
    """Emit function and custom tool calls; several at once are interleaved delta by delta."""
    opened = [(_open_call(turn, call), call) for call in wanted]
    for deltas in zip_longest(*(chunks(call.arguments) for call in wanted)):
        for (item, call), delta in zip(opened, deltas, strict=True):
            if delta is not None:
                item.event(f"{_family(call)}.delta", delta=delta)
    for item, call in opened:
        if call.custom:
            item.event(f"{_family(call)}.done", input=call.arguments)
            item.done(input=call.arguments)
        else:
            item.event(f"{_family(call)}.done", arguments=call.arguments)
            item.done(arguments=call.arguments, status="completed")


def _family(call: Call) -> str:
    return f"response.{'custom_tool_call_input' if call.custom else 'function_call_arguments'}"


def _open_call(turn: Turn, call: Call) -> OpenItem:
    named: Json = {"call_id": turn.call_id(), "name": call.name}
    if call.custom:
        return turn.add("ctc", {"type": "custom_tool_call", "input": "", **named})
    state: Json = {"type": "function_call", "status": "in_progress", "arguments": ""}
    return turn.add("fc", state | named)
