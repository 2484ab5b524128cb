"""The form of an upload: read in any pieces, in any order of its fields, refused by name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.artifacts.files.domain import FileBegins, FormField, FormPart, Terms
from services.artifacts.files.errors import FilesError
from services.artifacts.files.multipart import FormReader

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
MONTH = timedelta(days=30)
HEADER = "multipart/form-data; boundary=edge"


def form(*parts: tuple[str, bytes], end: bytes = b"--edge--\r\n") -> bytes:
    """Return a form; a name such as `file; filename="a"` is written as it stands."""
    written = b""
    for name, content in parts:
        label = name if "=" in name else f'"{name}"'
        head = f"--edge\r\nContent-Disposition: form-data; name={label}\r\n\r\n".encode()
        written += head + content + b"\r\n"
    return written + end


def read(body: bytes, *cuts: int) -> list[FormPart]:
    """Return what a form holds when it comes cut in pieces; bytes of the file are joined."""
    reader = FormReader(HEADER)
    found: list[FormPart] = []
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for begin, end in pairwise(edges):
        for part in reader.feed(body[begin:end]):
            if isinstance(part, bytes) and found and isinstance(found[-1], bytes):
                found[-1] += part
            else:
                found.append(part)
    reader.finish()
    return found


@given(content=st.binary(max_size=300), cuts=st.lists(st.integers(0, 5000), max_size=20))
def test_a_form_is_the_same_however_it_is_cut(content: bytes, cuts: list[int]) -> None:
    body = form(
        ("purpose", b"user_data"),
        ('"file"; filename="a.bin"', content.replace(b"--edge", b"")),
        ("expires_after[seconds]", b"3600"),
    )
    whole = read(body)

    assert read(body, *cuts) == whole
    assert whole[0] == FormField("purpose", "user_data")
    assert whole[-1] == FormField("expires_after[seconds]", "3600")


def test_bytes_that_look_like_an_edge_are_the_files_own() -> None:
    content = b"\r\n--edg\r\n--edge\r--edge-\r\n\r\n"

    assert read(form(('"file"; filename="a"', content))) == [FileBegins("a"), content]


@pytest.mark.parametrize(
    ("label", "filename"),
    [
        ('"file"; filename="grüße.txt"', "grüße.txt"),
        ('"file"; filename="a \\"b\\".txt"', 'a "b".txt'),
        ("file; filename=plain.txt", "plain.txt"),
        ('"file"; filename=""', ""),
    ],
)
def test_the_name_of_a_file_is_read_as_clients_write_it(label: str, filename: str) -> None:
    assert read(form((label, b"x")))[0] == FileBegins(filename)


@pytest.mark.parametrize(
    "content_type",
    ["", "application/json", "multipart/form-data", "multipart/form-data; boundary=" + "x" * 300],
)
def test_another_content_type_is_no_form(content_type: str) -> None:
    with pytest.raises(FilesError) as caught:
        FormReader(content_type)
    assert caught.value.code == "invalid_form"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        form(("purpose", b"user_data"), end=b""),
        form(('"file"; filename="a"', b"cut off"))[:-12],
        form(("purpose", b"x" * 5000)),
        form(*((f"f{number}", b"x") for number in range(17))),
        form(('"other"; filename="a"', b"x")),
        b"--edge\r\n\r\nno name\r\n--edge--\r\n",
        b"--edge\r\n" + b"X: y\r\n" * 1000 + b"\r\nx\r\n--edge--\r\n",
        b"--edge\r\nX: " + b"y" * 100_000 + b"\r\n\r\nx\r\n--edge--\r\n",
    ],
    ids=range(10),
)
def test_what_is_no_form_is_refused(body: bytes) -> None:
    with pytest.raises(FilesError) as caught:
        read(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_form")


def settled(*parts: FormPart) -> tuple[str, str, datetime | None]:
    terms = Terms()
    for part in parts:
        if isinstance(part, FormField):
            terms.take(part)
        elif isinstance(part, FileBegins):
            terms.begin(part)
    return terms.settled(NOW, batch_files_expire=MONTH)


FILE, PURPOSE = FileBegins("a.txt"), FormField("purpose", "user_data")
ANCHOR = FormField("expires_after[anchor]", "created_at")


def seconds(value: str) -> FormField:
    return FormField("expires_after[seconds]", value)


def test_a_file_stays_until_it_is_deleted_unless_told_otherwise() -> None:
    assert settled(FILE, PURPOSE) == ("a.txt", "user_data", None)
    assert settled(PURPOSE, FILE, ANCHOR, seconds("3600"))[2] == NOW + timedelta(hours=1)
    assert settled(FormField("purpose", "batch"), FILE)[2] == NOW + MONTH
    assert settled(FormField("purpose", "batch"), FILE, seconds("2592000"), ANCHOR)[2] == (
        NOW + timedelta(days=30)
    )


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("/etc/passwd", "passwd"),
        ("C:\\notes\\a.txt", "a.txt"),
        ("a\x00\x1b.txt", "a.txt"),
        ("say %22hi%22%0D%0A.txt", 'say "hi".txt'),
        ("", "upload"),
        (None, "upload"),
        ("..", "upload"),
    ],
)
def test_a_name_is_made_safe(given_name: str | None, kept: str) -> None:
    assert settled(FileBegins(given_name), PURPOSE)[0] == kept


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([FILE], "purpose"),
        ([PURPOSE], "file"),
        ([FILE, PURPOSE, ANCHOR], "expires_after.seconds"),
        ([FILE, PURPOSE, seconds("3600")], "expires_after.anchor"),
        ([FormField("purpose", "assistants_output")], "purpose"),
        ([PURPOSE, PURPOSE], "purpose"),
        ([FILE, FILE], "file"),
        ([FormField("file", "text")], "file"),
        ([FormField("model", "gpt")], "model"),
        ([FormField("expires_after[anchor]", "now")], "expires_after.anchor"),
        *(([seconds(value)], "expires_after.seconds") for value in ("3599", "2592001", "", "-1")),
        ([seconds("3600.0")], "expires_after.seconds"),
        ([seconds("٣٦٠٠")], "expires_after.seconds"),
        ([seconds("9" * 5000)], "expires_after.seconds"),
        ([seconds("00000360000000")], "expires_after.seconds"),
    ],
)
def test_a_wrong_field_is_named(parts: list[FormPart], param: str) -> None:
    with pytest.raises(FilesError) as caught:
        settled(*parts)
    assert (caught.value.status, caught.value.param) == (400, param)
