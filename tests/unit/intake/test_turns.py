"""Who waits for whom in a conversation, with turns that are kept in memory."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.intake.admission.keys import ApiKey
from services.intake.conversations.turns import TurnTaker
from services.intake.domain import NewTurn, StoredResponse
from services.intake.errors import ApiError
from services.intake.items.item import Identified

KEY = ApiKey("key_a", "proj", None, ("api",))
CONVERSATION = "conv_" + "a" * 32


class FakeTurns:
    """A conversation whose turn is free at the n-th time of asking."""

    def __init__(self, *, free_at: int = 1) -> None:
        self.free_at = free_at
        self.asked: list[NewTurn] = []
        self.given_back: list[str] = []
        self.looked = 0

    async def reserve(self, turn: NewTurn, *, now: datetime) -> bytes | None:
        self.asked.append(turn)
        return b"[]" if len(self.asked) >= self.free_at else None

    async def abandon(self, response_id: str) -> None:
        self.given_back.append(response_id)

    async def before(self, response_id: str) -> list[Identified]:
        return [Identified("msg_1", {"role": "user", "content": response_id})]

    async def open(self, conversation_id: str) -> list[str]:
        self.looked += 1
        return ["resp_1", "resp_2"] if self.looked < self.free_at else ["resp_2"]


class FakeClock:
    """Goes on by a second each time it is read."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        self.seconds += 1
        return self.seconds


def taker(turns: FakeTurns, wait_seconds: float = 5) -> TurnTaker:
    return TurnTaker(turns, FakeClock(), wait_seconds=wait_seconds)


async def test_a_request_without_a_conversation_takes_no_turn() -> None:
    turns = FakeTurns()
    assert await taker(turns).begin({"input": "x"}, "resp_1", KEY) is None
    await taker(turns).abandon({"input": "x"}, "resp_1")
    assert (turns.asked, turns.given_back) == ([], [])


async def test_a_turn_that_another_has_is_waited_for() -> None:
    turns = FakeTurns(free_at=3)
    request = {"conversation": CONVERSATION, "input": "hi"}
    assert await taker(turns).begin(request, "resp_1", KEY) == b"[]"
    assert len(turns.asked) == 3
    turn = turns.asked[-1]
    assert (turn.conversation_id, turn.project) == (CONVERSATION, "proj")
    assert turn.input == '[{"type":"message","role":"user","content":"hi"}]'


async def test_the_wait_for_a_turn_has_a_bound() -> None:
    turns = FakeTurns(free_at=100)
    with pytest.raises(ApiError) as refused:
        await taker(turns).begin({"conversation": CONVERSATION}, "resp_1", KEY)
    assert (refused.value.status, refused.value.code) == (400, "conversation_locked")
    assert len(turns.asked) < 10


@pytest.mark.parametrize("name", ["", "conv_1", "conv_\0", CONVERSATION + "0", "resp_" + "a" * 32])
async def test_an_id_that_can_be_no_conversation_is_not_asked_for(name: str) -> None:
    turns = FakeTurns()
    with pytest.raises(ApiError) as refused:
        await taker(turns).begin({"conversation": name}, "resp_1", KEY)
    assert (refused.value.status, turns.asked) == (404, [])


async def test_an_input_with_two_items_of_one_id_takes_no_turn() -> None:
    turns = FakeTurns()
    twice = [{"id": "msg_1", "role": "user", "content": "x"}] * 2
    with pytest.raises(ApiError) as refused:
        await taker(turns).begin({"conversation": CONVERSATION, "input": twice}, "resp_1", KEY)
    assert (refused.value.status, refused.value.param, turns.asked) == (400, "input", [])


async def test_a_reader_waits_for_what_was_told_and_for_nothing_else() -> None:
    turns = FakeTurns(free_at=3)
    await taker(turns).caught_up(CONVERSATION, lambda response_id: response_id == "resp_1")
    assert turns.looked == 3
    await taker(turns).caught_up(CONVERSATION, lambda _: False)
    assert turns.looked == 4
    await taker(turns).caught_up(CONVERSATION, lambda _: True)
    assert turns.looked < 15


def stored(request: str | None) -> StoredResponse:
    return StoredResponse(
        response_id="resp_1",
        project="proj",
        status="completed",
        background=False,
        stream=False,
        events_partition=0,
        previous_response_id=None,
        last_sequence_number=1,
        request=request,
        response="{}",
    )


async def test_only_a_response_of_a_conversation_has_something_before_it() -> None:
    turns = taker(FakeTurns())
    assert await turns.before(stored('{"input":"the \\"conversation\\""}')) == []
    assert await turns.before(stored('{"conversation":null,"input":"x"}')) == []
    assert len(await turns.before(stored('{"conversation":"conv_1"}'))) == 1
    # Of one that was deleted nobody knows but the turns.
    assert len(await turns.before(stored(None))) == 1
