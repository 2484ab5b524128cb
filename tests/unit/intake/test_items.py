"""Items as the API shows them, checked by the official client's own models."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.conversations.conversation_item import ConversationItem
from openai.types.conversations.conversation_item_list import ConversationItemList
from openai.types.responses import ResponseItemList
from pydantic import TypeAdapter

from services.intake.errors import ApiError
from services.intake.items.item import Identified, identified, listed
from services.intake.items.listing import INCLUDABLE, ListQuery, list_object, list_query, page

PICTURE = "data:image/png;base64,AAAA"
CLIENT_ITEMS: list[dict[str, Any]] = [
    {"role": "user", "content": "hi"},
    {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "be"}]},
    {"role": "user", "content": [{"type": "input_image", "image_url": PICTURE}]},
    {"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]},
    {"role": "assistant", "content": "ho"},
    {"role": "assistant", "content": [{"type": "output_text", "text": "ho"}]},
    {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "1"},
    {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"},
    {"type": "custom_tool_call_output", "call_id": "c", "output": "1"},
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "so"}]},
    {"type": "reasoning", "summary": [], "encrypted_content": "secret", "status": None},
    {"type": "file_search_call", "queries": ["q"], "results": [{"text": "t"}]},
    {"type": "code_interpreter_call", "container_id": "c", "code": "1", "outputs": []},
    {"type": "web_search_call", "action": {"type": "search", "query": "q", "sources": []}},
    {"type": "mcp_call", "arguments": "{}", "name": "f", "server_label": "s", "output": "1"},
    {"type": "mcp_list_tools", "server_label": "s", "tools": []},
    {"type": "mcp_approval_request", "arguments": "{}", "name": "f", "server_label": "s"},
    {"type": "mcp_approval_response", "approval_request_id": "m", "approve": True},
    {
        "type": "computer_call_output",
        "call_id": "c",
        "output": {"type": "computer_screenshot", "image_url": PICTURE},
    },
]


@pytest.mark.parametrize("include", [frozenset(), INCLUDABLE], ids=["bare", "everything"])
def test_every_item_a_client_may_send_is_listed_as_one_of_the_api(include: frozenset[str]) -> None:
    entries = identified(CLIENT_ITEMS, "resp_1")
    answer = list_object(entries, include, has_more=False)
    ResponseItemList.model_validate(answer, strict=True)
    ConversationItemList.model_validate(answer, strict=True)
    item: TypeAdapter[ConversationItem] = TypeAdapter(ConversationItem)
    for shown in answer["data"]:
        parsed = item.validate_python(shown, strict=True)
        assert parsed.type == shown["type"]
        assert parsed.id == shown["id"]


def test_ids_are_kept_or_follow_from_owner_and_position() -> None:
    items = [{"role": "user", "content": "a", "id": "msg_mine"}, {"role": "user", "content": "a"}]
    first, again, other = (identified(items, owner) for owner in ("r1", "r1", "r2"))
    assert first == again
    assert first[0].item_id == "msg_mine"
    assert first[1].item_id.startswith("msg_")
    assert len(first[1].item_id) == len("msg_") + 32
    assert first[1].item_id != other[1].item_id


@pytest.mark.parametrize("odd", ["", None, 7, "a\0b", "x" * 257])
def test_an_id_that_can_not_name_an_item_is_replaced(odd: object) -> None:
    (entry,) = identified([{"type": "function_call", "id": odd}], "resp_1")
    assert entry.item_id.startswith("fc_")


def test_what_has_to_be_asked_for_is_left_out_until_it_is() -> None:
    item: dict[str, Any] = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_image", "image_url": PICTURE, "detail": "low"}],
    }
    entry = Identified("msg_1", item)
    assert listed(entry, frozenset())["content"] == [{"type": "input_image", "detail": "low"}]
    assert listed(entry, frozenset({"message.input_image.image_url"}))["content"] == item["content"]
    assert item["content"][0]["image_url"] == PICTURE
    secret = Identified("rs_1", {"type": "reasoning", "summary": [], "encrypted_content": "s"})
    assert "encrypted_content" not in listed(secret, frozenset())
    assert listed(secret, frozenset({"reasoning.encrypted_content"}))["encrypted_content"] == "s"


def numbered(count: int) -> list[Identified]:
    items = [{"role": "user", "content": str(n), "id": f"msg_{n}"} for n in range(count)]
    return identified(items, "resp_1")


@given(count=st.integers(0, 30), limit=st.integers(1, 12), descending=st.booleans())
def test_following_the_pages_shows_every_item_once_in_order(
    count: int, limit: int, descending: bool
) -> None:
    entries = numbered(count)
    seen: list[str] = []
    after = None
    while True:
        query = ListQuery(descending=descending, after=after, limit=limit)
        answer = page(entries, query)
        ids = [item["id"] for item in answer["data"]]
        seen += ids
        assert (answer["first_id"], answer["last_id"]) == ((ids[0], ids[-1]) if ids else ("", ""))
        if not answer["has_more"]:
            break
        assert len(ids) == limit
        after = answer["last_id"]
    expected = [entry.item_id for entry in entries]
    assert seen == (expected[::-1] if descending else expected)


def test_a_page_ends_before_the_item_that_is_named() -> None:
    query = ListQuery(descending=False, after="msg_1", before="msg_4")
    assert [item["id"] for item in page(numbered(9), query)["data"]] == ["msg_2", "msg_3"]


def test_parameters_are_read_as_clients_write_them() -> None:
    read = list_query(
        [
            ("order", "asc"),
            ("after", "msg_1"),
            ("limit", "100"),
            ("include[]", "reasoning.encrypted_content"),
            ("include", "code_interpreter_call.outputs"),
        ]
    )
    assert read == ListQuery(
        descending=False,
        after="msg_1",
        limit=100,
        include=frozenset({"reasoning.encrypted_content", "code_interpreter_call.outputs"}),
    )
    assert list_query([]) == ListQuery(descending=True, limit=20)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("order", "up"),
        ("limit", "0"),
        ("limit", "101"),
        ("limit", "-1"),
        ("limit", "ten"),
        ("limit", "²"),
        ("limit", "9" * 5000),
        ("include", "everything"),
    ],
)
def test_a_wrong_parameter_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(ApiError) as refused:
        list_query([(name, value)])
    assert (refused.value.status, refused.value.param) == (400, name)


def test_a_place_that_is_not_in_the_list_is_refused() -> None:
    with pytest.raises(ApiError) as refused:
        page(numbered(3), ListQuery(after="msg_9"))
    assert (refused.value.status, refused.value.param) == (400, "after")
