"""Plain answers of the real model, whole and streamed."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import BadRequestError, OpenAI
from openai.types.chat import ChatCompletionMessageParam

MODEL = "smollm2-135m"
CAPITAL: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of France?"}
]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def test_the_model_knows_the_capital_of_france(model: OpenAI) -> None:
    answer = model.chat.completions.create(model=MODEL, messages=CAPITAL, temperature=0)
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_follow_up_question_is_answered_from_the_conversation(model: OpenAI) -> None:
    follow_up: list[ChatCompletionMessageParam] = [
        *CAPITAL,
        {"role": "assistant", "content": "The capital of France is Paris."},
        {"role": "user", "content": "And what is the capital of Germany?"},
    ]
    answer = model.chat.completions.create(model=MODEL, messages=follow_up, temperature=0)
    assert "Berlin" in (answer.choices[0].message.content or "")


def test_a_stream_gives_the_same_text_in_pieces_and_the_usage_last(model: OpenAI) -> None:
    whole = model.chat.completions.create(model=MODEL, messages=CAPITAL, temperature=0)
    chunks = list(
        model.chat.completions.create(
            model=MODEL,
            messages=CAPITAL,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    pieces = [
        c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content
    ]
    assert len(pieces) > 3
    assert "".join(pieces) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens >= len(pieces)


def test_the_same_seed_gives_the_same_text_and_another_seed_another(model: OpenAI) -> None:
    def write(seed: int) -> str | None:
        poem = model.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Write a poem about the sea."}],
            temperature=1,
            seed=seed,
            max_completion_tokens=24,
        )
        return poem.choices[0].message.content

    assert write(1) == write(1) != write(2)


def test_parallel_requests_get_their_own_answers(model: OpenAI) -> None:
    def ask(word: str) -> str:
        answer = model.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Say a word."}],
            max_completion_tokens=32,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "word", "schema": {"enum": [word]}},
            },
        )
        return answer.choices[0].message.content or ""

    words = ["red", "green", "blue", "white", "black", "pink", "gold", "grey"]
    with ThreadPoolExecutor(max_workers=len(words)) as pool:
        assert [json.loads(answer) for answer in pool.map(ask, words)] == words


def test_a_json_schema_binds_the_answer(model: OpenAI) -> None:
    answer = model.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Invent a person."}],
        temperature=0,
        max_completion_tokens=64,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "person", "strict": True, "schema": PERSON},
        },
    )
    person = json.loads(answer.choices[0].message.content or "")
    assert isinstance(person.pop("name"), str)
    assert isinstance(person.pop("age"), int)
    assert person == {}


def test_the_model_list_holds_the_one_model(model: OpenAI) -> None:
    assert [m.id for m in model.models.list()] == [MODEL]


def test_a_prompt_beyond_the_context_is_refused(model: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="context"):
        model.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "word " * 9000}]
        )
