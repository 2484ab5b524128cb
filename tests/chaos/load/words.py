"""What clients say, and what they expect to hear."""

from __future__ import annotations

import random

from tests.chaos.load.log import Asked, Json, text_of

MODEL = "gpt-4o-mini"


def say(text: str, **more: object) -> Json:
    """Return a request."""
    return {"model": MODEL, "input": text, **more}


def words(rng: random.Random) -> tuple[str, str]:
    """Return the script of a stream, mostly short, sometimes slow, and the text of its end."""
    slow = rng.random() < 0.4
    count = rng.randint(50, 160) if slow else rng.randint(5, 60)
    delay = rng.choice((0.02, 0.03, 0.05)) if slow else 0.005
    text = " ".join(f"w{number}" for number in range(count))
    return f"tokens: {count} ; delay: {delay}", text


def completed(asked: Asked) -> bool:
    """Whether the request was answered as it should."""
    return asked.answer is not None and asked.answer["status"] == "completed"


def expect(asked: Asked, text: str) -> None:
    """Complain when a completed answer has another text."""
    if asked.answer is not None and completed(asked):
        found = text_of(asked.answer)
        wanted = text.replace("{mark}", asked.mark)
        if found != wanted:
            asked.complain(f"expected the text {wanted[:200]!r}, found {found[:200]!r}")


def remembered(asked: Asked) -> list[str]:
    """Return what a later request should remember of this one."""
    assert asked.answer is not None
    return [str(asked.body["input"]), text_of(asked.answer)]


def expect_memory(asked: Asked, known: list[str]) -> None:
    """Complain when a `script:recall` has not all of these texts in this order.

    What was said between them may be there as well: a request of which nothing came back.
    """
    if not completed(asked) or asked.answer is None:
        return
    found = text_of(asked.answer)
    place = 0
    for text in known:
        if (place := found.find(text, place)) < 0:
            asked.complain(f"the model does not know that {text[:100]!r} was said: {found[:300]!r}")
            return
        place += len(text)
