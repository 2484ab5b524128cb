"""Identity, names and kinds of artifacts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.artifacts.domain import (
    Kind,
    artifact_id,
    blob_key,
    clean_filename,
    default_filename,
    settled_kind,
)


def test_an_id_is_the_same_for_the_same_place_and_differs_for_every_other() -> None:
    places = [
        ("resp_1", "ig_1", 0),
        ("resp_1", "ig_1", 1),
        ("resp_1", "ig_2", 0),
        ("resp_2", "ig_1", 0),
    ]

    ids = [artifact_id(*place) for place in places]

    assert ids == [artifact_id(*place) for place in places]
    assert len(set(ids)) == len(places)
    assert all(len(one) == 36 and one.startswith("art_") for one in ids)


def test_equal_contents_have_one_place_in_the_store() -> None:
    assert blob_key("ab" + "0" * 62) == "artifacts/ab/ab" + "0" * 62


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("report.pdf", "report.pdf"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\a.txt", "a.txt"),
        ("../..", None),
        (" .hidden. ", "hidden"),
        ("a\r\nset-cookie: x", "aset-cookie: x"),
        ("a\u202egnp.exe", "agnp.exe"),
        ("grüße.png", "grüße.png"),
        ("", None),
        (None, None),
        ("x" * 500 + ".png", "x" * 196 + ".png"),
        ("x" * 500, "x" * 200),
    ],
)
def test_a_filename_is_made_safe(name: str | None, clean: str | None) -> None:
    assert clean_filename(name) == clean


@settings(deadline=None)
@given(st.text(max_size=2000))
def test_a_clean_filename_is_short_printable_and_has_no_path(name: str) -> None:
    clean = clean_filename(name)

    assert clean is None or (0 < len(clean) <= 200 and clean.isprintable())
    assert clean is None or not {"/", "\\", "\0"} & set(clean)


def test_a_file_without_a_name_is_named_after_its_item() -> None:
    assert default_filename("ig_1", 0, "png") == "ig_1-0.png"
    assert default_filename("../", 2, "bin") == "artifact-2.bin"


@pytest.mark.parametrize(
    ("suggested", "content_type", "kind"),
    [
        ("image", "image/png", "image"),
        ("file", "image/png", "image"),
        ("file", "audio/mpeg", "audio"),
        ("image", "text/plain", "file"),
        ("image", "application/octet-stream", "file"),
        ("audio", "application/octet-stream", "audio"),
        ("audio", "text/html", "file"),
        ("file", "application/pdf", "file"),
    ],
)
def test_the_bytes_decide_the_kind(suggested: Kind, content_type: str, kind: Kind) -> None:
    assert settled_kind(suggested, content_type) == kind
