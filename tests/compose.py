"""Builds the images, brings the compose file up, runs the core through it: `make test-compose`."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openai import HttpxBinaryResponseContent, OpenAI
from openai.types.responses import Response

from infra.local.ports import free_port
from tests.upstream import UpstreamProcess

ROOT = Path(__file__).parents[1]
FILES = ("docker-compose.yml", "infra/compose/scripted-upstream.yml")
ON_HOST_NETWORK = "infra/compose/build-on-host-network.yml"
SERVICES = ("intake", "worker", "mcp_broker", "artifacts", "costs", "webhooks")
TAG = "test"
BASE = "python:3.13-slim-bookworm"
MB = 1_000_000
MAX_IMAGE_MB = 350
OFFICIAL_BASE_MB = 130
"""What the official base takes, rounded up; a larger stand-in of it is not held against us."""

MODEL = "gpt-5.4-nano"
HELD = 12
TIMEOUT_S = 90.0
POLL_S = 0.2
UP_TIMEOUT_S = 300


class ComposeError(Exception):
    """The test can't go on; the message is for a person."""


class Compose:
    """One project of the compose file, with a name, secrets and a port of its own."""

    def __init__(self, env_file: Path) -> None:
        self.port = free_port()
        self.admin_key = f"sk-antiphon-{secrets.token_hex(16)}"
        self.project = f"antiphon-test-{os.getpid()}"
        self._env_file = env_file
        files = [*FILES, *([ON_HOST_NETWORK] if os.environ.get("BUILD_NETWORK") == "host" else [])]
        self._files = [word for file in files for word in ("--file", file)]
        names = ("ANTIPHON_INTERNAL_TOKEN", "POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY")
        values = {name: secrets.token_hex(16) for name in names} | {
            "ANTIPHON_ADMIN_KEY": self.admin_key,
            "ANTIPHON_PORT": str(self.port),
            "ANTIPHON_TAG": TAG,
            "UPSTREAM_BASE_URL": "http://upstream:8000/v1",
            "UPSTREAM_API_KEY": "scripted",
            "MCP_BROKER_SERVERS": "./infra/local/mcp_servers.toml",
            "MCP_BROKER_WITH_NODE": "1",
            **_registries(),
        }
        lines = (f"{name}={value}\n" for name, value in values.items())
        env_file.write_text("".join(lines), encoding="utf-8")

    def __call__(self, *words: str, **variables: str) -> str:
        """Run `docker compose`; the environment of this shell must not reach the containers."""
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME") or "DOCKER" in k}
        options = ("--project-name", self.project, "--env-file", str(self._env_file))
        return docker("compose", *options, *self._files, *words, env=kept | variables)

    def containers(self, service: str) -> list[str]:
        """The ids of a service's running containers."""
        return self("ps", "--quiet", service).split()


def _registries() -> dict[str, str]:
    """What this machine says of package indexes and authorities, for the build."""
    authorities = ("BUILD_CA_BUNDLE", "PIP_CERT", "SSL_CERT_FILE")
    found = next((os.environ[name] for name in authorities if os.environ.get(name)), None)
    names = ("PIP_INDEX_URL", "NPM_CONFIG_REGISTRY")
    given = {name: os.environ[name] for name in names if os.environ.get(name)}
    return given | ({"BUILD_CA_BUNDLE": found} if found else {})


def docker(*words: str, env: dict[str, str] | None = None) -> str:
    """Run `docker` and return what it printed; raises ComposeError with the end of it."""
    done = subprocess.run(
        ["docker", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise ComposeError(f"`docker {' '.join(words)}` ended with {done.returncode}:\n{tail}")
    return done.stdout.strip()


def check_engine() -> None:
    """Raise ComposeError with what to do when no engine with compose answers."""
    try:
        if shutil.which("docker") is None:
            raise ComposeError("no docker command")
        docker("info")
        docker("compose", "version")
    except ComposeError as error:
        raise ComposeError(
            "it needs a Docker engine with the compose plugin and none answers: install one as "
            "https://docs.docker.com/engine/install says, or start it, and run this again"
        ) from error


def _say(text: str, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print what was done and how long it took."""
    _say(f"{name} ...", end="")
    began_s = time.monotonic()
    yield
    _say(f" {time.monotonic() - began_s:.1f} s")


@contextmanager
def taken_down(compose: Compose) -> Iterator[None]:
    """Remove the project afterwards, whatever happens; its last log lines tell of an error."""
    try:
        yield
    except BaseException:
        sys.stderr.write(f"\n{compose('logs', '--tail', '40', '--no-color')}\n")
        raise
    finally:
        with step("down"):
            compose("down", "--volumes", "--remove-orphans")


def wait_for(what: str, found: Callable[[], Any]) -> Any:
    """Return the first true result; raises ComposeError when there is none in time."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (result := found()):
        if time.monotonic() > deadline:
            raise ComposeError(f"{what}: still not after {TIMEOUT_S:.0f} s")
        time.sleep(POLL_S)
    return result


def expect(condition: object, what: str, seen: object) -> None:
    """Raise ComposeError that shows what was seen instead."""
    if not condition:
        raise ComposeError(f"{what}; seen: {seen}")


def _size_mb(image: str) -> float:
    return int(docker("image", "inspect", "--format", "{{.Size}}", image)) / MB


def _surplus_mb() -> float:
    try:
        return max(0.0, _size_mb(BASE) - OFFICIAL_BASE_MB)
    except ComposeError:  # builders other than the engine's own don't leave it on the machine
        return 0.0


def check_sizes(compose: Compose) -> None:
    """Print the size of every image; all but the broker with Node must be small."""
    # What one gets who asks for nothing: a broker without Node, all its layers already built.
    compose("build", "mcp_broker", ANTIPHON_TAG=f"{TAG}-plain", MCP_BROKER_WITH_NODE="0")
    surplus = _surplus_mb()
    if surplus:
        _say(f"  the base image here is {surplus:.0f} MB larger than the official one: taken off")
    images = {name: f"antiphon-{name.replace('_', '-')}:{TAG}" for name in ("jobs", *SERVICES)}
    images["mcp_broker"] += "-plain"
    for name, image in images.items():
        size = _size_mb(image) - surplus
        _say(f"  {name:<20} {size:>5.0f} MB")
        expect(size <= MAX_IMAGE_MB, f"{name} has at most {MAX_IMAGE_MB} MB", f"{size:.0f} MB")
    with_node = _size_mb(f"antiphon-mcp-broker:{TAG}") - surplus
    _say(f"  {'mcp_broker with Node':<20} {with_node:>5.0f} MB")


def creates_and_retrieves(client: OpenAI) -> Response:
    """A plain request; what is read again is what was answered."""
    answer = client.responses.create(model=MODEL, input="say: hello from the containers")
    expect(answer.output_text == "hello from the containers", "the answer", answer)
    again = client.responses.retrieve(answer.id)
    expect(again.output == answer.output, "the same output when retrieved", again)
    return answer


def streams_and_resumes(client: OpenAI) -> None:
    """A stream in order, and the rest of it again from the middle."""
    events = list(client.responses.create(model=MODEL, input="tokens: 50", stream=True))
    numbers = [event.sequence_number for event in events]
    expect(numbers == list(range(len(events))), "sequence numbers without a gap", numbers)
    final = events[-1]
    if final.type != "response.completed":
        raise ComposeError(f"the stream ended with {final}")
    rest = list(client.responses.retrieve(final.response.id, stream=True, starting_after=10))
    expect(rest == events[11:], "the events after number 10", rest)


def chains(client: OpenAI, first: Response) -> None:
    """The upstream sees what was said before."""
    answer = client.responses.create(
        model=MODEL, input="script:recall", previous_response_id=first.id
    )
    expect("hello from the containers" in answer.output_text, "the first answer", answer)


def calls_mcp_tools(client: OpenAI) -> None:
    """A call through Kafka and the broker to a server from npm over stdio."""
    answer = client.responses.create(
        model=MODEL,
        input='call: echo {"message": "over stdio"}',
        tools=[{"type": "mcp", "server_label": "everything", "require_approval": "never"}],
    )
    calls = [item for item in answer.output if item.type == "mcp_call"]
    expect([call.output for call in calls] == ["Echo: over stdio"], "one call", answer)


def keeps_artifacts(client: OpenAI) -> None:
    """An image becomes an artifact whose bytes come back from S3."""
    answer = client.responses.create(model=MODEL, input="script:image a lighthouse")
    found = wait_for(
        "an artifact",
        lambda: _get(client, f"/artifacts?response_id={answer.id}")["data"],
    )
    identifier = found[0]["id"]
    path = f"/artifacts/{identifier}/content"
    content = client.get(path, cast_to=HttpxBinaryResponseContent)
    expect(content.content.startswith(b"\x89PNG"), "a PNG", content.content[:16])


def tells_costs(client: OpenAI) -> None:
    """The ledger has priced what was answered."""
    total = wait_for(
        "a cost above zero",
        lambda: float(_get(client, "/costs?group_by=model")["total"]["cost_usd"] or 0),
    )
    _say(f" [{total:.6f} USD]", end="")


def _get(client: OpenAI, path: str) -> Any:
    return client.get(path, cast_to=object)


def survives_a_killed_worker(compose: Compose, client: OpenAI, upstream: UpstreamProcess) -> None:
    """Of two workers, the one with more open requests is killed: the other one answers them all."""
    compose("up", "--no-build", "--no-recreate", "--wait", "--scale", "worker=2")
    upstream.reset()
    with ThreadPoolExecutor(HELD) as pool:
        asked = [pool.submit(_ask_held, client, number) for number in range(HELD)]
        try:
            upstream.wait_until(lambda stats: stats["held"] == HELD, TIMEOUT_S)
            owner, leases = _busiest(compose)
            docker("kill", "--signal", "KILL", owner)
            killed_s = time.monotonic()
        finally:
            upstream.release("kill")
        answers = [question.result(TIMEOUT_S) for question in asked]
    all_s = time.monotonic() - killed_s
    expected = [f"answer {number}" for number in range(HELD)]
    expect([answer.output_text for answer in answers] == expected, "every answer", answers)
    repeated = len(upstream.requests("fault:hold")) - HELD
    expect(repeated == leases, f"{leases} questions asked again", f"{repeated} were")
    _say(f" [{leases} of {HELD} moved, all answered {all_s:.1f} s later]", end="")
    docker("start", owner)
    compose("up", "--no-build", "--no-recreate", "--wait", "--scale", "worker=2")


def _ask_held(client: OpenAI, number: int) -> Response:
    return client.responses.create(model=MODEL, input=f"say: answer {number} ; fault:hold#kill")


def _busiest(compose: Compose) -> tuple[str, int]:
    # A worker is named by its host, and a container's host name is the beginning of its id.
    query = (
        "SELECT owner, count(*) FROM worker.leases WHERE state = 'running' "
        "GROUP BY owner ORDER BY count(*) DESC LIMIT 1"
    )
    psql = ("psql", "--username=antiphon", "--tuples-only", "--no-align", f"--command={query}")
    owner, count = compose("exec", "--no-TTY", "postgres", *psql).split("|")
    expect(
        any(container.startswith(owner) for container in compose.containers("worker")),
        "an owner of leases that is a container",
        owner,
    )
    return owner, int(count)


def stops_cleanly(compose: Compose) -> None:
    """Every service ends by itself when it is told to."""
    found = {name: compose.containers(name) for name in SERVICES}
    compose("stop", *SERVICES)
    codes = {
        name: docker("inspect", "--format", "{{.State.ExitCode}}", *containers).split()
        for name, containers in found.items()
    }
    expect(all(set(each) == {"0"} for each in codes.values()), "exit code 0 of all", codes)


def exercise(compose: Compose) -> None:
    """Run everything against a system that is up."""
    control = UpstreamProcess()
    control.url = f"http://{compose('port', 'upstream', '8000')}"
    url = f"http://127.0.0.1:{compose.port}/v1"
    with OpenAI(
        base_url=url,
        api_key=compose.admin_key,
        max_retries=0,
        timeout=TIMEOUT_S,
        _strict_response_validation=True,
    ) as client:
        with step("create, retrieve"):
            first = creates_and_retrieves(client)
        with step("stream, resume"):
            streams_and_resumes(client)
        with step("chain"):
            chains(client, first)
        with step("MCP tool"):
            calls_mcp_tools(client)
        with step("artifact"):
            keeps_artifacts(client)
        with step("cost"):
            tells_costs(client)
        with step("kill -9 of a worker"):
            survives_a_killed_worker(compose, client, control)
    with step("stop"):
        stops_cleanly(compose)


def main() -> int:
    """Return 0 when all went well; whatever happens, nothing is left running."""
    try:
        check_engine()
        with tempfile.TemporaryDirectory() as folder:
            compose = Compose(Path(folder) / "env")
            with step("build"):
                compose("build")
            check_sizes(compose)
            with taken_down(compose):
                with step("up"):
                    compose("up", "--no-build", "--wait", "--wait-timeout", str(UP_TIMEOUT_S))
                exercise(compose)
    except ComposeError as error:
        sys.stderr.write(f"\ntest-compose: {error}\n")
        return 1
    _say("test-compose: the containers do what the local stack does")
    return 0


if __name__ == "__main__":
    sys.exit(main())
