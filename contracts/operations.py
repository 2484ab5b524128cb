"""Commands that ask a model for something else than a response; their answers are JSON alone."""

from __future__ import annotations

from typing import ClassVar

from contracts.responses import RunResponseV1


class CountInputTokensV1(RunResponseV1):
    """Count the tokens of a request's input. Topic `responses.commands`, keyed by `response_id`.

    Its fields are those of a response that is run, and so are its claim and its way back: one entry
    of JSON on `events_partition`. Nothing is stored under the id.
    """

    TYPE: ClassVar[str] = "antiphon.response.count_input_tokens.v1"


class CompactConversationV1(RunResponseV1):
    """Make a conversation shorter. Topic `responses.commands`, keyed by `response_id`.

    Carried and answered as `CountInputTokensV1`. What it used is stated as a finished response with
    `store: false` whose object is a `response.compaction`.
    """

    TYPE: ClassVar[str] = "antiphon.response.compact.v1"
