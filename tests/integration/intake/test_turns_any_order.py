"""What is said in a conversation is added once, whatever the order and number of the facts."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.event import Contract
from contracts.responses import TerminalStatus
from services.kit.blobs.disk import DiskBlobs
from tests.integration.intake.talks import message, talk

SAID: tuple[TerminalStatus, ...] = ("completed", "incomplete")
UNSAID: tuple[TerminalStatus, ...] = ("failed", "cancelled")
MOST_RESPONSES = 4


@dataclass(frozen=True)
class Speech:
    """How one response ends, and whether anything but its figures is stored."""

    status: TerminalStatus
    words: tuple[str, ...]
    store: bool


SPEECHES = st.builds(
    Speech,
    status=st.sampled_from((*SAID, *UNSAID)),
    words=st.lists(st.sampled_from(("yes", "no", "\0")), max_size=2).map(tuple),
    store=st.booleans(),
)


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[Speech], list[list[tuple[int, bool]]]]:
    """Draw speeches, and batches of (speech, is it the end?), each at least once, in any order."""
    speeches = draw(st.lists(SPEECHES, min_size=1, max_size=MOST_RESPONSES))
    facts = [(number, end) for number in range(len(speeches)) for end in (False, True)]
    repeated = draw(st.lists(st.sampled_from(facts), max_size=8))
    order = draw(st.permutations([*facts, *repeated]))
    batches: list[list[tuple[int, bool]]] = [[]]
    for fact in order:
        ends_batch = draw(st.booleans())
        if ends_batch:
            batches.append([])
        batches[-1].append(fact)
    return speeches, batches


@given(drawn=deliveries())
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_each_response_adds_its_items_once_in_the_order_of_responses(
    engine: AsyncEngine,
    blobs: DiskBlobs,
    drawn: tuple[list[Speech], list[list[tuple[int, bool]]]],
) -> None:
    speeches, batches = drawn
    # Turns that nobody waits for let several responses be open at once, as after an outage.
    one = await talk(engine, blobs, message("begin"), reserved_seconds=1e-6, run_seconds=1e-6)
    ids = []
    for number in range(len(speeches)):
        response_id, history = await one.begin(message(f"question {number}"))
        assert [item["content"] for item in history] == ["begin"]
        ids.append(response_id)

    def fact(number: int, *, end: bool) -> Contract:
        speech = speeches[number]
        if not end:
            return one.command(ids[number], store=speech.store)
        output = [message(word, "assistant") for word in speech.words]
        return one.end(ids[number], *output, status=speech.status, store=speech.store)

    for batch in batches:
        await one.project(*(fact(number, end=end) for number, end in batch))

    expected = ["begin"]
    for number, speech in enumerate(speeches):
        if speech.status in SAID:
            expected += [f"question {number}", *speech.words]
    assert await one.said() == expected
    ids_of_items = [item["id"] for item in await one.items()]
    assert len(set(ids_of_items)) == len(ids_of_items)
