"""What requests may say about conversations."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response

from services.intake.conversations.request import (
    ConversationUpdate,
    NewConversation,
    NewItems,
    parse,
)
from services.intake.domain import conversation_of, output_items, queued_response
from services.intake.errors import ApiError
from services.intake.items.item import identified, listed
from services.intake.items.listing import list_object
from services.intake.request import parse_create

HELLO = {"role": "user", "content": "hello"}


def refusal(model: type[Any], body: object) -> ApiError:
    with pytest.raises(ApiError) as refused:
        parse(model, body)
    assert refused.value.status == 400
    return refused.value


@pytest.mark.parametrize("given", ["conv_1", {"id": "conv_1"}])
def test_a_conversation_is_named_by_its_id_or_as_an_object(given: object) -> None:
    body = {"model": "m", "conversation": given}
    parse_create(body)
    assert conversation_of(body) == "conv_1"
    queued = queued_response("resp_1", {**body, "input": "x"}, 1)
    assert Response.model_validate(queued, strict=True).conversation is not None
    assert queued["conversation"] == {"id": "conv_1"}


def test_a_request_without_a_conversation_names_none() -> None:
    assert conversation_of({"model": "m"}) is None
    assert conversation_of({"model": "m", "conversation": None}) is None
    assert queued_response("resp_1", {"model": "m"}, 1)["conversation"] is None


@pytest.mark.parametrize("given", [5, {}, {"id": 5}, [], True])
def test_a_conversation_of_another_form_is_refused(given: object) -> None:
    with pytest.raises(ApiError) as refused:
        parse_create({"model": "m", "input": "x", "conversation": given})
    assert refused.value.status == 400
    assert (refused.value.param or "").startswith("conversation")


def test_a_conversation_and_a_previous_response_exclude_each_other() -> None:
    body = {"model": "m", "input": "x", "conversation": "conv_1", "previous_response_id": "resp_1"}
    with pytest.raises(ApiError) as refused:
        parse_create(body)
    assert (refused.value.status, refused.value.code) == (400, "mutually_exclusive_parameters")
    assert "Mutually exclusive parameters" in refused.value.message


def test_a_conversation_keeps_items_not_references() -> None:
    reference = {"type": "item_reference", "id": "msg_1"}
    with pytest.raises(ApiError) as refused:
        parse_create({"model": "m", "input": [HELLO, reference], "conversation": "conv_1"})
    assert refused.value.param == "input[1]"
    assert refusal(NewItems, {"items": [reference]}).param == "items[0]"
    # Without a conversation a provider that knows the item may resolve it.
    parse_create({"model": "m", "input": [HELLO, reference]})


def test_bodies_of_conversations_are_understood() -> None:
    assert parse(NewConversation, {}).metadata is None
    assert parse(NewConversation, {"items": [HELLO] * 20, "metadata": {"a": "b"}}).metadata == {
        "a": "b"
    }
    assert parse(ConversationUpdate, {"metadata": None}).metadata is None


@pytest.mark.parametrize(
    ("model", "body", "param"),
    [
        (NewConversation, {"items": [HELLO] * 21}, "items"),
        (NewConversation, {"items": "hello"}, "items"),
        (NewConversation, {"items": [5]}, "items[0]"),
        (NewConversation, {"metadata": {"a": 5}}, "metadata.a"),
        (NewConversation, {"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
        (NewConversation, {"items": [{"role": "user"}]}, "items[0].content"),
        (NewConversation, {"items": [{"content": "x"}]}, "items[0].role"),
        (NewConversation, {"items": [{"role": "king", "content": "x"}]}, "items[0].role"),
        (NewConversation, {"items": [{"type": "song"}]}, "items[0].type"),
        (NewItems, {"items": [{"type": "function_call", "name": "f"}]}, "items[0].call_id"),
        (NewItems, {"items": []}, "items"),
        (NewItems, {}, "items"),
        (ConversationUpdate, {}, "metadata"),
        (ConversationUpdate, {"metadata": "x"}, "metadata"),
        (ConversationUpdate, [], None),
    ],
)
def test_a_wrong_body_is_refused_by_the_name_of_its_parameter(
    model: type[Any], body: object, param: str | None
) -> None:
    assert refusal(model, body).param == param


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "detail", "image_url"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
KINDS = ["message", "reasoning", "function_call", "function_call_output", "web_search_call"]
ITEMS = st.fixed_dictionaries(
    {},
    optional={
        "id": VALUES,
        "type": st.sampled_from(KINDS) | VALUES,
        "role": st.sampled_from(["user", "assistant"]) | VALUES,
        "content": st.just([{"type": "output_text"}]) | VALUES,
        "status": VALUES,
        **dict.fromkeys(("call_id", "name", "arguments", "output", "action"), VALUES),
        "summary": VALUES,
    },
)


@given(items=st.lists(ITEMS, min_size=1, max_size=3) | VALUES)
@settings(max_examples=300, deadline=None)
def test_whatever_items_are_sent_they_are_refused_or_can_be_listed(items: Any) -> None:
    try:
        parse(NewItems, {"items": items})
    except ApiError:
        return
    answer = list_object(identified(items, "add_1"), frozenset(), has_more=False)
    for shown in answer["data"]:
        assert isinstance(shown["id"], str)
        assert isinstance(shown["type"], str)


@given(item=ITEMS)
@settings(max_examples=200, deadline=None)
def test_whatever_a_provider_puts_out_can_be_listed(item: dict[str, Any]) -> None:
    response = {"output": [item, 5, None]}
    (entry,) = identified(output_items(response), "resp_1")
    assert listed(entry, frozenset())["id"] == entry.item_id
    assert output_items({"output": item}) == output_items({}) == []
