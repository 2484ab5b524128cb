"""Query parameters: what is understood, what is refused and how, and who may see what."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.costs.errors import ParameterError, ProjectHiddenError
from services.costs.parameters import lines_query, report_query
from services.kit.http import Caller

MEMBER = Caller(key_id="key_a", project="proj_a", scopes=frozenset({"api"}))
ADMIN = Caller(key_id="key_0", project="default", scopes=frozenset({"api", "admin"}))


def test_nothing_asked_means_the_own_project_by_model() -> None:
    query = report_query([], MEMBER)
    assert (query.group_by, query.project, query.limit) == (("model",), "proj_a", 100)
    assert (query.start, query.end, query.filters, query.offset) == (None, None, {}, 0)


def test_groups_may_be_listed_or_repeated() -> None:
    expected = ("day", "model")
    for parameters in (
        [("group_by", "day,model")],
        [("group_by", "day"), ("group_by", "model")],
        [("group_by[]", "day"), ("group_by[]", "model"), ("group_by[]", "day")],
    ):
        assert report_query(parameters, MEMBER).group_by == expected


@pytest.mark.parametrize(
    "value", ["2026-11-20", "2026-11-20T00:00:00Z", "2026-11-20T01:00:00+01:00", "1795132800"]
)
def test_times_may_be_dates_rfc_3339_or_seconds(value: str) -> None:
    query = report_query([("start", value)], MEMBER)
    assert query.start == datetime(2026, 11, 20, tzinfo=UTC)


def test_a_report_can_be_narrowed() -> None:
    query = report_query([("response_id", "resp_1"), ("chat", "c"), ("page", "200")], MEMBER)
    assert query.filters == {"response_id": "resp_1", "chat": "c"}
    assert query.offset == 200


def test_only_an_admin_sees_other_projects_or_all() -> None:
    assert report_query([], ADMIN).project is None
    assert report_query([("project", "proj_b")], ADMIN).project == "proj_b"
    assert report_query([("project", "proj_a")], MEMBER).project == "proj_a"
    for query in (report_query, lines_query):
        with pytest.raises(ProjectHiddenError):
            query([("response_id", "resp_1"), ("project", "proj_b")], MEMBER)


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ([("group_by", "colour")], "group_by"),
        ([("group_by", "model,")], "group_by"),
        ([("group_by", "")], "group_by"),
        ([("start", "yesterday")], "start"),
        ([("end", "99999999999999999999")], "end"),
        ([("start", "2026-11-20"), ("end", "2026-11-20")], "end"),
        ([("limit", "0")], "limit"),
        ([("limit", "1001")], "limit"),
        ([("limit", "²")], "limit"),
        ([("page", "-1")], "page"),
        ([("response_id", "a\0b")], "response_id"),
        ([("model", "m" * 513)], "model"),
        ([("colour", "red")], "colour"),
    ],
)
def test_a_wrong_parameter_is_named(parameters: list[tuple[str, str]], param: str) -> None:
    with pytest.raises(ParameterError) as caught:
        report_query(parameters, MEMBER)
    assert caught.value.param == param


def test_lines_are_asked_by_response() -> None:
    query = lines_query([("response_id", "resp_1"), ("after", "resp_1:a"), ("limit", "5")], MEMBER)
    assert (query.response_id, query.after, query.limit) == ("resp_1", "resp_1:a", 5)
    assert query.project == "proj_a"
    with pytest.raises(ParameterError, match="response_id is required"):
        lines_query([], MEMBER)


NAMES = st.sampled_from(["group_by", "start", "end", "limit", "page", "model", "project", "x"])


@given(st.lists(st.tuples(NAMES, st.text(max_size=30))))
def test_no_parameter_ends_in_anything_but_a_query_or_a_refusal(
    parameters: list[tuple[str, str]],
) -> None:
    with suppress(ParameterError):
        assert report_query(parameters, ADMIN).limit > 0
