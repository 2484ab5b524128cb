"""What bytes are taken for, and how they are shown."""

from __future__ import annotations

import io
import wave
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.artifacts.content_types import Sniffer, content_type_header, detect, disposition


def wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(800))
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "a")
    return file.getvalue()


SVG = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(20), ("image/png", "png")),
        (b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(20), ("image/jpeg", "jpg")),
        (b"GIF89a\1\0\1\0\0\0\0", ("image/gif", "gif")),
        (b"RIFF\x24\0\0\0WEBPVP8 " + bytes(20), ("image/webp", "webp")),
        (wav(), ("audio/x-wav", "wav")),
        (zipped(), ("application/zip", "zip")),
        (b"%PDF-1.7\n% all of it text", ("application/pdf", "pdf")),
        (b"plain text", ("text/plain", "txt")),
        ("grüße, 世界\n\t".encode(), ("text/plain", "txt")),
        (b"", ("text/plain", "txt")),
        (b"\0\1\2\3", ("application/octet-stream", "bin")),
        (b"caf\xe9 in latin-1", ("application/octet-stream", "bin")),
        # Two letters are the whole signature of these.
        (b"BM is how bitmaps begin", ("text/plain", "txt")),
        (b"MZ is how programs begin", ("text/plain", "txt")),
        (SVG.encode(), ("image/svg+xml", "svg")),
        (f'<?xml version="1.0"?>\n<!-- x -->\n{SVG}'.encode(), ("image/svg+xml", "svg")),
        (f"\ufeff  \n{SVG}".encode(), ("image/svg+xml", "svg")),
        (b"<!DOCTYPE html><title>x</title>", ("text/html", "html")),
        (b"  <HTML><body>", ("text/html", "html")),
        (b"<script>alert(1)</script>", ("text/html", "html")),
        (b"<note><to>me</to></note>", ("text/plain", "txt")),
    ],
)
def test_bytes_are_taken_for_what_they_are(content: bytes, expected: tuple[str, str]) -> None:
    assert detect(content) == expected


@settings(deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes_have_a_type(content: bytes) -> None:
    content_type, extension = detect(content)

    assert "/" in content_type
    assert extension


@settings(deadline=None)
@given(st.text())
def test_text_is_never_taken_for_a_picture_or_a_program(text: str) -> None:
    content_type, _ = detect(text.encode())

    assert content_type.startswith(("text/", "image/svg")) or not text.isprintable()


def test_a_long_row_of_comments_takes_no_longer_than_other_text() -> None:
    # With a pattern that backtracks this would not end in our lifetime.
    assert detect(b"<!---->" * 5000) == ("text/plain", "txt")
    assert detect(b"<?xml?>\n" * 50 + SVG.encode()) == ("image/svg+xml", "svg")


@pytest.mark.parametrize("content_type", ["image/svg+xml", "text/html", "application/zip", "a/b"])
def test_what_could_run_in_a_browser_or_means_nothing_to_it_is_an_attachment(
    content_type: str,
) -> None:
    assert disposition("a", content_type).startswith("attachment;")


@pytest.mark.parametrize(
    "content_type", ["image/png", "audio/mpeg", "video/mp4", "application/pdf", "text/plain"]
)
def test_what_a_browser_only_shows_is_inline(content_type: str) -> None:
    assert disposition("a.x", content_type) == 'inline; filename="a.x"'


def test_a_name_that_is_not_ascii_comes_in_both_forms() -> None:
    assert disposition('grüße "1".png', "image/png") == (
        "inline; filename=\"gr__e _1_.png\"; filename*=UTF-8''gr%C3%BC%C3%9Fe%20%221%22.png"
    )


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1))
def test_no_name_breaks_the_header(name: str) -> None:
    header = disposition(name, "image/png")

    assert header.isascii()
    assert header.isprintable()
    assert header.split("filename=")[1].split(";")[0].count('"') in (2, 1)


def test_text_says_its_encoding() -> None:
    assert content_type_header("text/plain") == "text/plain; charset=utf-8"
    assert content_type_header("image/png") == "image/png"


@given(
    content=st.one_of(st.binary(max_size=600), st.text(max_size=200).map(str.encode)),
    size=st.integers(1, 50),
)
def test_a_type_is_the_same_however_the_bytes_come(content: bytes, size: int) -> None:
    sniffer = Sniffer()
    for begin in range(0, len(content), size):
        sniffer.feed(content[begin : begin + size])

    assert sniffer.result() == detect(content)
