"""The mini-language, the view of a request and the choice of an answer, without a server."""

import io
import zlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import validate

from tests.upstream import samples
from tests.upstream.answers import Call, Json, Say, chunks, pieces, say, truncated
from tests.upstream.control import directives_for
from tests.upstream.dialogue import Dialogue, Message, from_chat, from_responses
from tests.upstream.language import CallSpec, Directives, Fault, parse, parse_fault
from tests.upstream.refusals import RefusalError
from tests.upstream.scripts import answer_for
from tests.upstream.sse import Wire

ECHO_TOOL: Json = {"type": "function", "name": "srv__echo", "parameters": {}}


def user(text: str, model: str = "gpt-5.1") -> Dialogue:
    return Dialogue(model, (Message("user", text),))


def answer_text(body: Json) -> str:
    dialogue = from_responses({"model": "gpt-5.1", **body})
    (part,) = answer_for(dialogue, directives_for(dialogue)).parts
    assert isinstance(part, Say)
    return part.text


def test_plain_text_is_no_script() -> None:
    assert parse("Please say something about: foxes").empty


def test_directives_end_where_the_next_one_starts() -> None:
    found = parse("say: one ; two\nthree ; fault:503x2 ; delay: 0.5\nfault:crlf")
    assert found.say == "one ; two\nthree"
    assert found.faults == (Fault("503", (), 2), Fault("crlf"))
    assert found.delay_s == 0.5


def test_calls_of_one_round_run_in_parallel_and_then_starts_a_new_round() -> None:
    found = parse('call: a {"x": 1} ; call!: b ; then: c {"y": ";"}')
    assert found.rounds == (
        (CallSpec("a", '{"x": 1}', forced=False), CallSpec("b", "{}", forced=True)),
        (CallSpec("c", '{"y": ";"}', forced=False),),
    )


def test_a_fault_has_arguments_a_number_of_times_and_a_key() -> None:
    assert parse_fault("stall@3,0.5x2#k1 rest") == Fault("stall", (3.0, 0.5), 2, "k1")
    assert parse_fault("malformed_json@2") == Fault("malformed_json", (2.0,))


@pytest.mark.parametrize("text", ["fault:", "tokens: many", "usage: [", "delay: x"])
def test_a_directive_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(RefusalError) as refused:
        parse(text)
    assert refused.value.status == 400


def test_metadata_beats_the_text_and_the_text_beats_the_model() -> None:
    dialogue = user("say: text", "scripted-recall")
    assert directives_for(dialogue) == Directives(say="text")
    from_model = directives_for(user("plain", "scripted-fault-503x2"))
    assert from_model == Directives(faults=(Fault("503", (), 2),))
    assert directives_for(user("plain", "scripted-recall")) == Directives(script="recall")
    metadata = {"script": "say: metadata"}
    with_metadata = Dialogue("m", dialogue.messages, metadata=metadata)
    assert directives_for(with_metadata) == Directives(say="metadata")


def test_the_default_answer_echoes_the_last_user_text_and_counts_attachments() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
    content = [{"type": "input_text", "text": "look"}, image]
    assert answer_text({"input": "hello"}) == "echo: hello"
    assert answer_text({"input": [{"role": "user", "content": content}]}) == "echo: look [+1]"


def test_recall_joins_the_texts_before_the_last_user_message() -> None:
    items = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "two"}]},
        {"role": "user", "content": "script:recall"},
    ]
    assert answer_text({"input": items}) == "one|two"


def test_calls_are_answered_by_tool_and_then_by_text() -> None:
    items: list[Json] = [{"role": "user", "content": 'call: echo {"a": 1} ; then: echo {"a": 2}'}]
    for number in (1, 2):
        dialogue = from_responses({"model": "m", "input": items, "tools": [ECHO_TOOL]})
        answer = answer_for(dialogue, directives_for(dialogue))
        assert answer.parts == (Call("srv__echo", f'{{"a": {number}}}'),)
        call = {"call_id": f"c{number}", "name": "srv__echo", "arguments": "{}"}
        items.append({"type": "function_call", **call})
        output = {"type": "function_call_output", "call_id": f"c{number}"}
        items.append({**output, "output": f"out {number}"})
    assert answer_text({"input": items}) == "srv__echo -> out 1\nsrv__echo -> out 2"


def test_a_tool_that_is_not_offered_is_not_called_unless_forced() -> None:
    assert answer_text({"input": "call: nope", "tools": [ECHO_TOOL]}).startswith("cannot call nope")
    dialogue = from_responses({"model": "m", "input": "call!: nope"})
    assert answer_for(dialogue, directives_for(dialogue)).parts == (Call("nope", "{}"),)


@pytest.mark.parametrize(
    "items",
    [
        [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}],
        [{"type": "function_call_output", "call_id": "c", "output": "x"}],
        [{"role": "user"}],
        ["text"],
    ],
)
def test_input_that_the_api_would_refuse_is_refused(items: list[Json]) -> None:
    with pytest.raises(RefusalError) as refused:
        from_responses({"model": "m", "input": items})
    assert (refused.value.status, refused.value.param) == (400, "input")


def test_both_dialects_give_the_same_view_of_a_tool_loop() -> None:
    function = {"name": "f", "parameters": {"type": "object"}}
    chat = from_chat(
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": [{"type": "text", "text": "go"}]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "c",
                            "type": "function",
                            "function": {"name": "f", "arguments": "{}"},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "c", "content": "done"},
            ],
            "tools": [{"type": "function", "function": function}],
        }
    )
    native = from_responses(
        {
            "model": "m",
            "instructions": "be brief",
            "input": [
                {"role": "user", "content": "go"},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "done"},
            ],
            "tools": [{"type": "function", **function}],
        }
    )
    assert chat == native


def test_a_token_limit_cuts_the_text() -> None:
    cut = truncated(say("one two three"), 2)
    assert (cut.parts, cut.finish) == ((Say("one two"),), "length")
    assert truncated(say("one two"), 2).finish == "stop"


@given(st.text())
def test_pieces_and_chunks_join_to_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text
    assert "".join(chunks(text)) == text


def test_a_sample_is_an_instance_of_its_schema() -> None:
    schema: Json = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 9},
            "kind": {"enum": ["a", "b"]},
            "nested": {"$ref": "#/$defs/point"},
            "list": {"type": "array", "items": {"type": "integer", "minimum": 3}, "minItems": 2},
            "either": {"anyOf": [{"type": "null"}, {"type": "string"}]},
            "maybe": {"type": ["number", "null"]},
        },
        "required": ["name", "kind", "nested", "list", "either", "maybe"],
        "additionalProperties": False,
        "$defs": {"point": {"type": "object", "properties": {"x": {"type": "boolean"}}}},
    }
    validate(samples.instance(schema), schema)
    text_format = {"type": "json_schema", "name": "s", "schema": schema}
    answered = answer_text({"input": "give me json", "text": {"format": text_format}})
    validate(orjson.loads(answered), schema)


def test_an_image_is_a_png_that_depends_on_its_prompt_alone() -> None:
    image = samples.png("red", side=4)
    assert image == samples.png("red", side=4) != samples.png("blue", side=4)
    stream = io.BytesIO(image)
    assert stream.read(8) == b"\x89PNG\r\n\x1a\n"
    kinds = []
    while head := stream.read(8):
        size, kind = int.from_bytes(head[:4], "big"), head[4:]
        data = stream.read(size)
        assert int.from_bytes(stream.read(4), "big") == zlib.crc32(kind + data)
        kinds.append(kind)
        if kind == b"IDAT":
            assert len(zlib.decompress(data)) == 4 * (1 + 3 * 4)
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]
    assert len(samples.png("red", side=640, noisy=True)) > 1_000_000


@pytest.mark.parametrize(
    "wire", [Wire(split=1), Wire(split=7), Wire(awkward=True), Wire(awkward=True, eol=b"\r\n")]
)
def test_split_writes_join_to_the_frame(wire: Wire) -> None:
    frame = wire.event({"type": "x", "delta": "é日👩"})
    pieces_of_frame = wire.pieces(frame)
    assert b"".join(pieces_of_frame) == frame
    assert any(piece[0] & 0xC0 == 0x80 for piece in pieces_of_frame)


def test_the_wire_settings_shape_the_frame() -> None:
    event = {"type": "x"}
    assert Wire().event(event) == b'event: x\ndata: {"type":"x"}\n\n'
    bare = Wire(names=False, space=False, eol=b"\r\n", comments=True)
    assert bare.event(event) == b': keepalive\r\n\r\ndata:{"type":"x"}\r\n\r\n'
    assert Wire(multiline=True).event(event).count(b"data: ") == 3
    assert Wire(bom=True).event(event, first=True).startswith(b"\xef\xbb\xbfevent")
    assert Wire(done=False).end() == b""
