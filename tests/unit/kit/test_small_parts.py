"""Ids, retries, health and settings."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_settings import SettingsConfigDict

from services.kit.health import Health
from services.kit.ids import created_ms, new_id, uuid7_hex
from services.kit.retry import Backoff, retry
from services.kit.settings import ServiceSettings


class SampleSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="SAMPLE_", extra="ignore", frozen=True)


class HandClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


def test_an_id_is_a_uuid_of_version_7_that_carries_its_time() -> None:
    before = time.time_ns() // 1_000_000
    made = [uuid7_hex() for _ in range(200)]
    after = time.time_ns() // 1_000_000
    for digits in made:
        parsed = uuid.UUID(digits)
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
        assert before <= (created_ms(f"resp_{digits}") or 0) <= after
    assert len(set(made)) == len(made)


def test_ids_of_one_prefix_sort_by_time() -> None:
    first = new_id("resp")
    begun = time.time_ns()
    while time.time_ns() - begun < 2_000_000:
        pass
    assert first < new_id("resp")


@given(st.text(max_size=60))
def test_any_text_has_a_time_or_none(text: str) -> None:
    created = created_ms(text)
    assert created is None or isinstance(created, int)


def test_ids_of_others_carry_no_time() -> None:
    assert created_ms("resp_" + "a" * 48) is None
    assert created_ms("resp_" + uuid.uuid4().hex) is None
    assert created_ms("") is None


async def test_a_retry_ends_with_the_last_error_when_the_attempts_are_used_up() -> None:
    calls = 0

    async def fail() -> None:
        nonlocal calls
        calls += 1
        raise OSError(calls)

    with pytest.raises(OSError, match="3"):
        await retry(fail, on=(OSError,), backoff=Backoff(attempts=3, first_seconds=0.0))
    assert calls == 3


async def test_a_retry_cuts_what_hangs_when_its_time_is_over_and_tells_the_last_error() -> None:
    cut = 0

    async def fail_then_hang() -> None:
        nonlocal cut
        if not cut:
            cut = 1
            raise OSError("refused")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cut += 1
            raise

    backoff = Backoff(attempts=1_000, first_seconds=0.0, within_seconds=0.1)
    for on in ((OSError,), (ConnectionError, OSError), (OSError, TimeoutError)):
        cut = 0
        with pytest.raises(OSError, match="refused"):
            async with asyncio.timeout(5):
                await retry(fail_then_hang, on=on, backoff=backoff)
        assert cut == 2


async def test_no_try_begins_when_the_time_is_over() -> None:
    calls = 0

    async def fail() -> None:
        nonlocal calls
        calls += 1
        raise KeyError(calls)

    with pytest.raises(KeyError, match="1"):
        await retry(
            fail,
            on=(KeyError,),
            backoff=Backoff(first_seconds=60.0, longest_seconds=60.0, within_seconds=1.0),
        )
    assert calls == 1


async def test_a_timeout_of_the_action_itself_is_not_that_of_the_retry() -> None:
    calls = 0

    async def time_out() -> None:
        nonlocal calls
        calls += 1
        raise KeyError if calls == 1 else TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await retry(
            time_out, on=(KeyError,), backoff=Backoff(first_seconds=0.0, within_seconds=60.0)
        )


async def test_who_cancels_a_retry_cancels_the_try_under_way() -> None:
    tried = asyncio.Event()

    async def fail_then_hang() -> None:
        if not tried.is_set():
            tried.set()
            raise KeyError
        await asyncio.Event().wait()

    backoff = Backoff(first_seconds=0.0, within_seconds=60.0)
    task = asyncio.create_task(retry(fail_then_hang, on=(KeyError,), backoff=backoff))
    await tried.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_other_errors_are_not_tried_again() -> None:
    calls = 0

    async def fail() -> None:
        nonlocal calls
        calls += 1
        raise KeyError

    with pytest.raises(KeyError):
        await retry(fail, on=(OSError,), backoff=Backoff())
    assert calls == 1


@given(st.integers(1, 200) | st.integers(200, 10**9))
def test_pauses_grow_up_to_their_bound(failures: int) -> None:
    backoff = Backoff(attempts=10**9, first_seconds=0.1, longest_seconds=5.0)
    ceiling = min(5.0, 0.1 * 2 ** min(failures - 1, 100))
    assert ceiling / 2 <= backoff.pause(failures) <= ceiling


async def test_health_names_what_fails_and_why() -> None:
    async def fine() -> bool:
        return True

    async def not_yet() -> bool:
        return False

    async def broken() -> bool:
        raise OSError("no route")

    health = Health(readiness={"a": fine, "b": not_yet}, liveness={"c": broken})
    assert await health.ready() == {"c": "OSError: no route", "a": "ok", "b": "not ready"}
    assert await health.alive() == {"c": "OSError: no route"}


async def test_a_probe_that_hangs_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.kit.health._PROBE_SECONDS", 0.01)

    async def hang() -> bool:
        await asyncio.Event().wait()
        return True

    assert (await Health(liveness={"a": hang}).alive())["a"].startswith("TimeoutError")


def variables(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def put(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


def test_a_variable_of_the_service_goes_before_the_shared_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put = variables(monkeypatch)
    put(KAFKA_BOOTSTRAP="shared:1", DATABASE_URL="postgresql://shared", PORT="7", HOST="nowhere")
    put(SAMPLE_KAFKA_BOOTSTRAP="own:2")
    loaded = SampleSettings.load()
    assert loaded.kafka_bootstrap == "own:2"
    assert loaded.database_url == "postgresql://shared"
    # Names that are not declared as shared must have the prefix.
    assert (loaded.port, loaded.host) == (0, "127.0.0.1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SAMPLE_PORT", "70000"),
        ("SAMPLE_DATABASE_POOL", "many"),
        ("SAMPLE_LOG_FORMAT", "xml"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "LOUD"),
    ],
)
def test_a_bad_value_is_told_by_the_name_it_came_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        SampleSettings.load()
    assert ended.value.code == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith(f"{name}: ")
    assert value in told[0]


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTIPHON_INTERNAL_TOKEN", "hush")
    assert "hush" not in repr(SampleSettings.load())
