"""One model server for the whole run: it loads in a second and holds half a gigabyte."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.integration.model.process import read_ready_url, stop


@pytest.fixture(scope="session")
def model_url() -> Iterator[str]:
    """Base URL, with `/v1`, of a server that is ready to answer."""
    process = subprocess.Popen(
        [sys.executable, "-m", "infra.local.model_server", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield read_ready_url(process)
    finally:
        assert stop(process) == 0


@pytest.fixture(scope="session")
def model(model_url: str) -> Iterator[OpenAI]:
    """The official client on the local model, without retries that would hide a failure."""
    with OpenAI(base_url=model_url, api_key="unused", max_retries=0, timeout=20) as client:
        yield client
