"""What clients keep for us comes back as it was, or is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from contracts.principal import Principal
from services.kit.seal import PREFIX, Sealer, SealError
from services.worker.domain import Item, Job
from services.worker.errors import RequestRefusedError
from services.worker.seals import ItemSeals
from tests.unit.worker.runs import job

SEALS = ItemSeals(Sealer(["secret"]))
ASKED: dict[str, Any] = {"include": ["reasoning.encrypted_content"]}


def reasoning(text: str = "Hm.") -> Item:
    content = [{"type": "reasoning_text", "text": text}]
    return {"type": "reasoning", "id": "rs_1", "summary": [], "content": content}


def sealed_reasoning(seals: ItemSeals = SEALS) -> Item:
    item = reasoning()
    seal = seals.for_output(job(**ASKED))
    assert seal is not None
    seal(item)
    return {**item, "content": []}


def of_project(project: str, *items: Item) -> Job:
    given = job(input=list(items))
    owner = Principal(project=project, key_id="key_b")
    return replace(given, command=given.command.model_copy(update={"principal": owner}))


def test_reasoning_that_was_sealed_comes_back_in_words() -> None:
    item = sealed_reasoning()
    assert item["encrypted_content"].startswith(PREFIX)
    assert "Hm." not in item["encrypted_content"]

    opened = SEALS.opened(job(input=[item]))
    assert opened.request["input"] == [reasoning()]
    in_history = SEALS.opened(job(history=[item], input=[{"role": "user", "content": "Hi"}]))
    assert in_history.history == [reasoning()]


def test_a_compaction_comes_back_as_what_the_assistant_knows() -> None:
    item = SEALS.compaction("They like cats.", project="proj_a", item_id="cmp_1")

    (told,) = SEALS.opened(job(input=[item])).input_items()

    assert told["role"] == "assistant"
    assert told["content"].endswith("They like cats.")


def test_a_new_secret_in_front_of_the_old_opens_what_the_old_sealed() -> None:
    rotated = ItemSeals(Sealer(["new", "secret"]))
    assert rotated.opened(job(input=[sealed_reasoning()])).request["input"] == [reasoning()]


def _changed(item: Item) -> Item:
    sealed = item["encrypted_content"]
    other = "A" if sealed[-6] != "A" else "B"
    return {**item, "encrypted_content": sealed[:-6] + other + sealed[-5:]}


FORGED: dict[str, Job] = {
    "changed": job(input=[_changed(sealed_reasoning())]),
    "of another project": of_project("proj_b", sealed_reasoning()),
    "of another secret": job(input=[sealed_reasoning(ItemSeals(Sealer(["other"])))]),
    "of another kind": job(input=[{**sealed_reasoning(), "type": "compaction"}]),
    "made up": job(input=[{**reasoning(), "encrypted_content": PREFIX + "bm90IHNlYWxlZA=="}]),
    "no base64": job(input=[{**reasoning(), "encrypted_content": PREFIX + "€"}]),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
def test_content_that_is_not_ours_as_it_claims_is_refused(forged: Job) -> None:
    with pytest.raises(RequestRefusedError) as refusal:
        SEALS.opened(forged)
    assert refusal.value.param == "input[0].encrypted_content"
    assert refusal.value.code == "invalid_encrypted_content"


def test_what_another_provider_encrypted_stays_as_it_is() -> None:
    foreign = job(input=[{**reasoning(), "encrypted_content": "gAAAAAB"}])
    assert SEALS.opened(foreign) is foreign


@pytest.mark.parametrize("request_fields", [{}, {"include": ["file_search_call.results"]}])
def test_nothing_is_sealed_that_nobody_asked_for(request_fields: dict[str, Any]) -> None:
    assert SEALS.for_output(job(**request_fields)) is None
    assert ItemSeals().for_output(job(**ASKED)) is None


def test_without_a_secret_nothing_is_sealed() -> None:
    with pytest.raises(SealError):
        Sealer([""]).seal("x", owner="p", kind="k")
