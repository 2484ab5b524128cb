"""The Chat Completions dialect: an answer as one completion and as chunks."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest

from tests.upstream.answers import (
    Answer,
    Call,
    Hosted,
    Json,
    Part,
    Refuse,
    Say,
    Think,
    chunks,
    count_tokens,
    pieces,
    spoken,
)
from tests.upstream.dialogue import Dialogue
from tests.upstream.items_text import logprobs
from tests.upstream.refusals import RefusalError, invalid, server_error


@dataclass
class Completion:
    """One answer in the making; `chunks()` and `document()` say the same in two ways."""

    answer: Answer
    dialogue: Dialogue
    completion_id: str
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        for part in self.answer.parts:
            if isinstance(part, Hosted) or (isinstance(part, Call) and part.custom):
                raise invalid("This script exists only for /v1/responses.", code="unknown_script")

    def document(self) -> Json:
        """The answer to a request that does not stream. Raises RefusalError for a failed one."""
        if self._failed:
            raise self._refusal()
        choice = {
            "index": 0,
            "message": self._message(),
            "logprobs": self._logprobs([part.text for part in self._says]),
            "finish_reason": self._finish_reason,
        }
        return self._envelope("chat.completion", [choice]) | {"usage": self.usage()}

    def chunks(self, *, include_usage: bool) -> Iterator[Json]:
        """The same as chunks; a failure ends in a chunk with only an `error`."""
        unknown: Json = {"usage": None} if include_usage else {}
        yield self._chunk({"role": "assistant", "content": ""}) | unknown
        for delta in self._deltas():
            known = self._logprobs([delta["content"]]) if delta.get("content") else None
            yield self._chunk(delta, known) | unknown
        if self._failed:
            yield self._refusal().body()
            return
        yield self._chunk({}, None, self._finish_reason) | unknown
        if include_usage:
            yield self._envelope("chat.completion.chunk", []) | {"usage": self.usage()}

    def usage(self) -> Json:
        """What the answer cost in tokens, under the names of this dialect."""
        texts, thoughts = spoken(self.answer)
        given = self.answer.usage
        prompt = given.get("input_tokens", self.dialogue.input_tokens)
        completion = given.get("output_tokens", count_tokens(texts))
        reasoning = given.get("reasoning_tokens", count_tokens(thoughts))
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {
                "cached_tokens": given.get("cached_tokens", 0),
                "audio_tokens": 0,
            },
            "completion_tokens_details": {
                "reasoning_tokens": reasoning,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    @property
    def _says(self) -> list[Say]:
        return [part for part in self.answer.parts if isinstance(part, Say)]

    @property
    def _calls(self) -> list[Call]:
        return [part for part in self.answer.parts if isinstance(part, Call)]

    @property
    def _failed(self) -> bool:
        return self.answer.finish in ("failed", "error")

    @property
    def _finish_reason(self) -> str:
        if self.answer.finish in ("length", "content_filter"):
            return self.answer.finish
        return "tool_calls" if self._calls else "stop"

    def _refusal(self) -> RefusalError:
        return server_error(self.answer.error_code, self.answer.error_message)

    def _envelope(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": self.completion_id,
            "object": kind,
            "created": self.created,
            "model": self.dialogue.model,
            "service_tier": "default",
            "system_fingerprint": "fp_scripted",
            "choices": choices,
        }

    def _chunk(
        self, delta: Json, known: Json | None = None, finish_reason: str | None = None
    ) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": known, "finish_reason": finish_reason}
        return self._envelope("chat.completion.chunk", [choice])

    def _logprobs(self, texts: list[str]) -> Json | None:
        asked = self.dialogue.top_logprobs
        if asked is None and not any(part.logprobs for part in self._says):
            return None
        words = [word for text in texts for word in pieces(text)]
        top = 1 if asked is None else asked
        return {"content": logprobs(words, top, with_bytes=True), "refusal": None}

    def _call_id(self, number: int) -> str:
        return f"call_{self.completion_id.partition('-')[2]}{number:02x}"

    def _message(self) -> Json:
        text = "".join(part.text for part in self._says)
        refusals = [part.text for part in self.answer.parts if isinstance(part, Refuse)]
        message: Json = {
            "role": "assistant",
            "content": None if not text and (self._calls or refusals) else text,
            "refusal": "".join(refusals) or None,
            "annotations": [cited for part in self._says for cited in _citations(part)],
        }
        for part in self.answer.parts:
            if isinstance(part, Think):
                message[part.chat_field] = part.text
        if self._calls:
            message["tool_calls"] = [
                self._function(number, call, call.arguments)
                for number, call in enumerate(self._calls)
            ]
        return message

    def _function(self, number: int, call: Call, arguments: str) -> Json:
        function = {"name": call.name, "arguments": arguments}
        return {"id": self._call_id(number), "type": "function", "function": function}

    def _deltas(self) -> Iterator[Json]:
        for part in self.answer.parts:
            if not isinstance(part, Call):
                yield from _text_deltas(part)
        calls = list(enumerate(self._calls))
        if self.answer.interleaved:
            for number, call in calls:
                yield self._opening(number, call)
            rows = zip_longest(*(chunks(call.arguments) for _, call in calls))
            for row in rows:
                for number, delta in enumerate(row):
                    if delta is not None:
                        yield _arguments(number, delta)
            return
        for number, call in calls:
            yield self._opening(number, call)
            for delta in chunks(call.arguments):
                yield _arguments(number, delta)

    def _opening(self, number: int, call: Call) -> Json:
        return {"tool_calls": [{"index": number, **self._function(number, call, "")}]}


def _arguments(number: int, delta: str) -> Json:
    return {"tool_calls": [{"index": number, "function": {"arguments": delta}}]}


def _text_deltas(part: Part) -> Iterator[Json]:
    match part:
        case Say(text=text):
            name = "content"
        case Refuse(text=text):
            name = "refusal"
        case Think(text=text, chat_field=name):
            pass
        case _:
            return
    for word in pieces(text):
        yield {name: word}
    if isinstance(part, Say) and (cited := _citations(part)):
        yield {"annotations": cited}


def _citations(part: Say) -> list[Json]:
    return [
        {"type": kind, kind: {key: value for key, value in rest.items() if key != "type"}}
        for rest in part.annotations
        if (kind := rest["type"]) == "url_citation"
    ]
