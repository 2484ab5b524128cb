"""What the environment and the command line make of a local stack."""

from pathlib import Path

import pytest

from infra.cli.up import replica_settings
from infra.local.credentials import admin_key
from infra.local.errors import StackError
from infra.local.settings import LocalSettings
from infra.local.upstream import LOCAL_MODEL, OPENAI_MODEL, OPENAI_PROVIDERS, choose

VARIABLES = [name.upper() for name in LocalSettings.model_fields]


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_without_any_key_the_model_on_this_machine_answers() -> None:
    upstream = choose(LocalSettings.load())
    assert (upstream.is_local, upstream.model) == (True, LOCAL_MODEL)


def test_a_key_of_openai_makes_openai_the_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-some")
    upstream = choose(LocalSettings.load())
    assert (upstream.is_local, upstream.model) == (False, OPENAI_MODEL)
    assert upstream.providers == OPENAI_PROVIDERS


def test_an_empty_key_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "")
    assert choose(LocalSettings.load()).is_local


@pytest.mark.parametrize("name", ["UPSTREAM_BASE_URL", "ANTIPHON_PROVIDERS"])
def test_an_upstream_that_was_named_wins_over_openai(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-some")
    monkeypatch.setenv(name, "http://127.0.0.1:1/v1")
    upstream = choose(LocalSettings.load())
    assert upstream.providers != OPENAI_PROVIDERS
    assert (upstream.is_local, upstream.model) == (False, None)


def test_the_demo_asks_the_model_that_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMO_MODEL", "some-model")
    monkeypatch.setenv("UPSTREAM_BASE_URL", "http://127.0.0.1:1/v1")
    assert choose(LocalSettings.load()).model == "some-model"


def test_a_bad_port_is_named_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTIPHON_PORT", "eighty")
    with pytest.raises(StackError, match=r"ANTIPHON_PORT is 'eighty'.*Correct the environment"):
        LocalSettings.load()


def test_downloads_lie_in_the_home_unless_they_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTIPHON_HOME", "/some/home")
    assert LocalSettings.load().downloads == Path("/some/home/downloads")
    monkeypatch.setenv("ANTIPHON_DOWNLOADS", "/shared")
    assert LocalSettings.load().downloads == Path("/shared")


def test_an_intake_on_all_interfaces_is_reached_through_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTIPHON_HOST", "0.0.0.0")
    assert LocalSettings.load().url == "http://127.0.0.1:8080"


def test_replicas_of_services_become_settings() -> None:
    assert replica_settings(["worker=3", "intake=2"]) == {
        "worker_replicas": "3",
        "intake_replicas": "2",
    }


@pytest.mark.parametrize("word", ["worker", "costs=2", "=2"])
def test_replicas_of_what_has_none_are_refused(word: str) -> None:
    with pytest.raises(StackError, match="Write for example --replicas worker=2"):
        replica_settings([word])


def test_an_admin_key_says_whose_it_is_and_has_256_random_bits() -> None:
    key = admin_key()
    assert key.startswith("sk-antiphon-")
    assert len(key.removeprefix("sk-antiphon-")) == 43
    assert key != admin_key()
