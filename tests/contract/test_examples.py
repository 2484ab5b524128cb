"""Every committed example is a valid message, today and after every change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, FormatChecker

from contracts.event import Envelope, UnknownContractError, decode
from contracts.packs import Entry, Flag, decode_pack, encode_pack
from contracts.registry import CONTRACTS
from services.kit import codec

CONTRACTS_FOLDER = Path(__file__).parents[2] / "contracts"
EXAMPLES = CONTRACTS_FOLDER / "examples"
MESSAGES = sorted(path for path in EXAMPLES.glob("*/*.json") if path.parent.name != "packs")
PACKS = sorted((EXAMPLES / "packs").glob("*.hex"))


def validator(message_type: str) -> Draft7Validator:
    schema = json.loads((CONTRACTS_FOLDER / "schemas" / f"{message_type}.json").read_text("utf-8"))
    return Draft7Validator(schema, format_checker=FormatChecker())


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.fixture(params=MESSAGES, ids=name_of)
def example(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_an_example_lies_in_the_folder_of_its_type(example: Path) -> None:
    assert json.loads(example.read_text("utf-8"))["type"] == example.parent.name


def test_an_example_parses_with_its_contract(example: Path) -> None:
    envelope = decode(example.read_bytes(), CONTRACTS)
    assert type(envelope.data) is CONTRACTS[example.parent.name]


def test_an_example_is_valid_by_the_committed_schema(example: Path) -> None:
    validator(example.parent.name).validate(json.loads(example.read_text("utf-8")))


def test_an_example_survives_a_round_trip(example: Path) -> None:
    envelope = decode(example.read_bytes(), CONTRACTS)
    text = envelope.encode()
    assert decode(text, CONTRACTS) == envelope
    validator(example.parent.name).validate(json.loads(text))


def test_what_an_example_says_is_kept_by_a_round_trip(example: Path) -> None:
    said = json.loads(example.read_text("utf-8"))
    kept = json.loads(decode(example.read_bytes(), CONTRACTS).encode())
    assert _missing(said["data"], kept["data"]) == []


def test_the_fast_codec_of_the_services_agrees(example: Path) -> None:
    envelope = codec.decode(example.read_bytes())
    assert envelope == decode(example.read_bytes(), CONTRACTS)
    stamp = codec.Stamp(
        event_id=envelope.id,
        source=envelope.source,
        subject=envelope.subject,
        time=envelope.time,
        traceparent=envelope.traceparent,
    )
    text = codec.encode(envelope.data, stamp)
    validator(example.parent.name).validate(json.loads(text))
    assert decode(text, CONTRACTS) == envelope


def test_a_reader_ignores_fields_it_does_not_know(example: Path) -> None:
    message = json.loads(example.read_text("utf-8"))
    message["added_later"] = message["data"]["added_later"] = {"by": ["a", "newer", "writer"]}
    validator(example.parent.name).validate(message)
    known = decode(example.read_bytes(), CONTRACTS)
    assert decode(json.dumps(message).encode(), CONTRACTS) == known


def test_a_required_field_that_is_missing_is_noticed_by_both(example: Path) -> None:
    contract = CONTRACTS[example.parent.name]
    for field, info in contract.model_fields.items():
        if info.is_required():
            message = json.loads(example.read_text("utf-8"))
            del message["data"][field]
            assert not validator(example.parent.name).is_valid(message)
            with pytest.raises(ValueError, match=field):
                decode(json.dumps(message).encode(), CONTRACTS)


@pytest.mark.parametrize("path", PACKS, ids=name_of)
def test_a_pack_decodes_to_its_json_form_and_back(path: Path) -> None:
    pack = bytes.fromhex(path.read_text("ascii"))
    wanted = [_entry(fields) for fields in json.loads(path.with_suffix(".json").read_text("utf-8"))]
    assert list(decode_pack(pack)) == wanted
    assert encode_pack(wanted) == pack


def test_every_contract_has_an_example() -> None:
    assert {path.parent.name for path in MESSAGES} == set(CONTRACTS)


def test_packs_have_examples_of_every_flag() -> None:
    flags = {
        flag
        for path in PACKS
        for entry in decode_pack(bytes.fromhex(path.read_text("ascii")))
        for flag in (Flag.LAST, Flag.JSON, Flag.CLAIM)
        if entry.flags & flag
    }
    assert flags == {Flag.LAST, Flag.JSON, Flag.CLAIM}


def test_examples_show_every_value_of_the_closed_lists() -> None:
    """An enumeration that no example shows would not be noticed when a value of it got lost."""
    for name in CONTRACTS:
        shown = [
            json.loads(path.read_text("utf-8"))["data"]
            for path in MESSAGES
            if path.parent.name == name
        ]
        for field in ("status", "error", "reason"):
            values = _enumeration(name, field)
            assert values <= {message.get(field) for message in shown}, (name, field)


@pytest.mark.parametrize(
    "text",
    [b"", b"null", b"[]", b'"text"', b"{", b"\xff\xfe", b"{}", b'{"type": null}', b"[" * 100_000],
)
def test_what_is_no_message_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode(text, CONTRACTS)


def test_an_unknown_type_has_an_error_of_its_own() -> None:
    message = MESSAGES[0].read_bytes().replace(b".v1", b".v99")
    with pytest.raises(UnknownContractError, match="v99"):
        decode(message, CONTRACTS)


def test_data_of_another_contract_is_refused() -> None:
    message = json.loads(MESSAGES[0].read_text("utf-8"))
    message["data"] = {"response_id": 7}
    with pytest.raises(ValueError, match="response_id"):
        decode(json.dumps(message).encode(), CONTRACTS)


def test_an_envelope_of_a_contract_names_its_type() -> None:
    first = decode(MESSAGES[0].read_bytes(), CONTRACTS)
    again = Envelope.of(
        first.data, event_id=first.id, source=first.source, subject=first.subject, time=first.time
    )
    assert again.type == first.type


def _entry(fields: dict[str, Any]) -> Entry:
    flags = 0
    for name in fields.pop("flags"):
        flags |= getattr(Flag, name)
    return Entry(
        **{
            **fields,
            "response_id": fields["response_id"].encode(),
            "payload": fields["payload"].encode(),
            "flags": flags,
        }
    )


def _missing(said: object, kept: object, path: str = "") -> list[str]:
    """Return the fields of `said` that `kept` lost; nulls of contracts may be left out."""
    if isinstance(said, dict) and isinstance(kept, dict):
        return [
            finding
            for key, value in said.items()
            if key in kept or value is not None
            for finding in (
                _missing(value, kept[key], f"{path}.{key}") if key in kept else [f"{path}.{key}"]
            )
        ]
    if isinstance(said, list) and isinstance(kept, list) and len(said) == len(kept):
        return [
            finding
            for number, pair in enumerate(zip(said, kept, strict=True))
            for finding in _missing(*pair, f"{path}[{number}]")
        ]
    return [] if said == kept or (isinstance(said, str) and isinstance(kept, str)) else [path]


def _enumeration(message_type: str, field: str) -> set[str]:
    """Return the strings that a field of the data may be, none when it may be any."""
    schema = validator(message_type).schema
    assert isinstance(schema, dict)
    definition = schema["properties"]["data"]["$ref"].rpartition("/")[2]
    entry = schema["definitions"][definition]["properties"].get(field, {})
    choices = entry.get("anyOf", [entry])
    return {value for choice in choices for value in choice.get("enum", ())}
