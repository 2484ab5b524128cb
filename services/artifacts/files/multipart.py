"""An upload's form as it comes in: bytes in, fields and pieces of the file out."""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from services.artifacts.files.domain import FileBegins, FormField, FormPart
from services.artifacts.files.errors import malformed_form

_MAX_FIELDS = 16
_MAX_VALUE_BYTES = 4096


class FormReader:
    """Reads one form of `multipart/form-data` (RFC 7578); keeps no byte of the file."""

    def __init__(self, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise malformed_form("its content-type must be that, and name the boundary")
        try:
            self._parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._on_part_begin,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise malformed_form(str(error)) from error
        self._found: list[FormPart] = []
        self._fields = 0
        self._name = ""
        self._is_file = False
        self._value = b""
        self._header_field = b""
        self._header_value = b""
        self._disposition = b""
        self._ended = False

    def feed(self, chunk: bytes) -> list[FormPart]:
        """Return what the next bytes hold; raises `FilesError` (400)."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise malformed_form(str(error)) from error
        found, self._found = self._found, []
        return found

    def finish(self) -> None:
        """Raise `FilesError` (400) when the form has not come to its end."""
        if not self._ended:
            raise malformed_form("it ends before its last boundary")

    def _on_part_begin(self) -> None:
        self._fields += 1
        if self._fields > _MAX_FIELDS:
            raise malformed_form(f"it has more than {_MAX_FIELDS} fields")
        self._value = self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_field += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_field.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_field = self._header_value = b""

    def _on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._disposition.decode("latin-1"))
        if kind != b"form-data" or b"name" not in options:
            raise malformed_form("a part has no name")
        self._name = options[b"name"].decode(errors="replace")
        filename = options.get(b"filename")
        self._is_file = self._name == "file" and filename is not None
        if filename is not None and not self._is_file:
            raise malformed_form(f"there is a file in '{self._name}', not in 'file'")
        if filename is not None:
            self._found.append(FileBegins(filename.decode(errors="replace")))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._found.append(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > _MAX_VALUE_BYTES:
            raise malformed_form(f"the value of '{self._name}' is too long")

    def _on_part_end(self) -> None:
        if not self._is_file:
            self._found.append(FormField(self._name, self._value.decode(errors="replace")))

    def _on_end(self) -> None:
        self._ended = True
