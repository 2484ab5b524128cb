"""What the generator demands of a stream: its own deltas, each once and in order, then an end."""

from __future__ import annotations

import re

from tests.load.templates import delta_text

END = b"\n\n"
_EVENT = b"data: {"
_DELTA = re.compile(rb'"delta":\s*"(\d{10}) (\d+) (\d+) "')
_TEXT = re.compile(rb'"delta":\s*"([^"]*)"')
_COMPLETED = re.compile(rb'"type":\s*"response\.completed"')


def whole_events(data: bytes) -> int:
    """Count the events that have ended; what comes after an end, like [DONE], is none."""
    return data.count(_EVENT, 0, data.rfind(END) + 1)


def whole_deltas(data: bytes) -> int:
    """Count the deltas among the events that have ended."""
    return len(_DELTA.findall(data, 0, data.rfind(END) + 1))


class StreamCheck:
    """Follows one stream: each delta once, in order, of this request, then completed."""

    def __init__(self, token: int, deltas: int) -> None:
        self._token = b"%010d" % token
        self._expected = deltas
        self._rest = b""
        self._seen = 0
        self._completed = False
        self._error: str | None = None

    def feed(self, data: bytes) -> tuple[int, list[int]]:
        """Take bytes; return the number of whole events and the send times (ns) of their deltas."""
        whole, end, self._rest = (self._rest + data).rpartition(END)
        if not end:
            return 0, []
        sent = []
        completed = _COMPLETED.search(whole)
        ended_at = completed.start() if completed else len(whole)
        for delta in _DELTA.finditer(whole):
            token, number, sent_ns = delta.groups()
            if token != self._token:
                self._error = "foreign_delta"
            elif int(number) != self._seen or self._completed or delta.start() > ended_at:
                self._error = "delta_order"
            self._seen += 1
            sent.append(int(sent_ns))
        self._completed = self._completed or completed is not None
        return whole.count(_EVENT), sent

    def verdict(self) -> str | None:
        """Name what is wrong with the stream that has ended; None if nothing is."""
        if self._error is None and not self._completed:
            return "not_completed"
        if self._error is None and self._seen != self._expected:
            return "delta_count"
        return self._error


class WholeCheck:
    """Judges streams of unpaced deltas at their ends, each in one pass.

    Deltas that are byte for byte as expected pass; all else is judged by a `StreamCheck`, so that
    both say the same of any stream.
    """

    def __init__(self, deltas: int) -> None:
        self._deltas = deltas
        self._zero = b"%010d" % 0
        # Numbers and times have no ten digits, so that only tokens are replaced.
        self._texts = b'"'.join(delta_text(self._zero, number, 0) for number in range(deltas))

    def verdict(self, token: int, body: bytes) -> str | None:
        """Name what is wrong with a whole body; None if nothing is."""
        if self._is_as_expected(token, body):
            return None
        check = StreamCheck(token, self._deltas)
        check.feed(body)
        return check.verdict()

    def _is_as_expected(self, token: int, body: bytes) -> bool:
        texts = _TEXT.findall(body)
        if len(texts) != self._deltas:
            return False
        if b'"'.join(texts) != self._texts.replace(self._zero, b"%010d" % token):
            return False
        # The end is looked for after the last delta, and must not be named before.
        last = body.rfind(b'"delta":')
        completed = _COMPLETED.search(body, max(0, last))
        return (
            completed is not None
            and completed.end() < body.rfind(END)
            and body.find(b"response.completed") > last
        )
