"""The compose file starts the same system as the local stack, and every image is hardened."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.local.jars import LOCKS
from infra.local.parts.kafka import KafkaServer
from infra.local.parts.postgres import SETTINGS as POSTGRES_SETTINGS
from infra.local.parts.service import ServicePart
from infra.local.plan import JOBS, Plan
from infra.local.settings import LocalSettings
from infra.local.supervisor import Step
from infra.local.upstream import OPENAI_PROVIDERS, Upstream
from tests.compose import SERVICES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "infra/Dockerfile").read_text(encoding="utf-8")
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
PROGRAMS = {path.parent.name for path in (ROOT / "services").glob("*/main.py")}
JOB_CONTAINERS = {"migrations": "migrate", "topics": "topics"}
OURS = PROGRAMS | set(JOB_CONTAINERS.values())
SERVERS = set(CONTAINERS) - OURS
PORT = 8080

NOT_NEEDED = {
    "BLOB_DIR",  # blobs are in S3
    "WORKER_NAME",  # a replica is named by its container
    "WORKER_RESULTS_PARTITION",  # and finds its partition by that name
}
"""What the local stack tells a service and a container need not be told."""

each_service = pytest.mark.parametrize("service", sorted(PROGRAMS))
each_container = pytest.mark.parametrize("name", sorted(CONTAINERS))


@pytest.fixture
def local_stack(tmp_path: Path) -> Plan:
    """A stack with every server embedded, whose upstream is a providers file."""
    values = {"antiphon_home": tmp_path, "antiphon_providers": OPENAI_PROVIDERS}
    replaced = ("kafka_bootstrap", "database_url", "s3_endpoint", "upstream_base_url")
    settings = LocalSettings.load(**values, **dict.fromkeys(replaced))
    return Plan(settings, Upstream(model=None, providers=OPENAI_PROVIDERS))


async def environments(steps: list[Step]) -> dict[str, set[str]]:
    """Which variables the local stack sets, by service."""
    parts = [step.part for step in steps if isinstance(step.part, ServicePart)]
    return {part.service: set((await part.prepare(print)).env) for part in parts}


def test_every_service_has_a_container_built_of_its_own_code() -> None:
    built = {
        name: container["build"]["args"]["SERVICE"]
        for name, container in CONTAINERS.items()
        if "SERVICE" in container.get("build", {}).get("args", {})
    }
    assert built == {name: name for name in PROGRAMS}
    assert set(SERVICES) == PROGRAMS
    for name in PROGRAMS:
        assert (ROOT / "requirements" / f"{name.replace('_', '-')}.txt").is_file()


def test_every_server_and_job_of_the_local_stack_is_a_container(local_stack: Plan) -> None:
    steps = {JOB_CONTAINERS.get(step.name, step.name) for step in local_stack.steps()}
    assert steps == set(CONTAINERS)
    assert set(JOB_CONTAINERS) == set(JOBS)


async def test_every_setting_of_the_local_stack_is_in_the_compose_file(local_stack: Plan) -> None:
    told = await environments(local_stack.steps())
    assert set(told) == PROGRAMS
    missing = {
        service: names - set(CONTAINERS[service]["environment"]) - NOT_NEEDED
        for service, names in told.items()
    }
    assert missing == {service: set() for service in PROGRAMS}


def test_kafka_is_configured_as_in_the_local_stack(tmp_path: Path) -> None:
    server = KafkaServer(tmp_path, tmp_path)
    text = server.write_configuration().read_text(encoding="utf-8")
    local = dict(line.split("=", 1) for line in text.splitlines())
    given = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): str(value)
        for name, value in CONTAINERS["kafka"]["environment"].items()
        if name != "KAFKA_HEAP_OPTS"
    }
    assert set(given) == set(local)
    addresses = {"controller.quorum.voters", "listeners", "advertised.listeners", "log.dirs"}
    for name in set(local) - addresses:
        assert given[name] == local[name], name


def test_postgres_is_configured_as_in_the_local_stack() -> None:
    flags = [word.removeprefix("-c") for word in CONTAINERS["postgres"]["command"][1:]]
    given = dict(flag.split("=", 1) for flag in flags)
    addresses = {"listen_addresses", "unix_socket_directories"}
    assert given == {k: v for k, v in POSTGRES_SETTINGS.items() if k not in addresses}


def test_kafka_has_the_version_of_the_local_stack() -> None:
    lock = (LOCKS / "kafka.lock").read_text(encoding="utf-8")
    version = re.search(r"org\.apache\.kafka:kafka_2\.13:(\S+)", lock)
    assert version
    assert CONTAINERS["kafka"]["image"] == f"apache/kafka:{version[1]}"


def test_the_jobs_are_those_of_the_local_stack_and_all_services_wait_for_them() -> None:
    assert CONTAINERS["migrate"]["command"] == ["services.kit.migrate", "upgrade"]
    assert CONTAINERS["topics"]["command"][:2] == ["infra.topics", "apply"]
    for service in PROGRAMS:
        needs = CONTAINERS[service]["depends_on"]
        for job in JOB_CONTAINERS.values():
            assert needs[job]["condition"] == "service_completed_successfully"


@each_service
def test_a_service_listens_where_its_health_check_and_intake_look(service: str) -> None:
    environment = CONTAINERS[service]["environment"]
    prefix = service.upper()
    assert environment[f"{prefix}_HOST"] == "0.0.0.0"
    assert environment[f"{prefix}_PORT"] == PORT
    check = CONTAINERS[service]["healthcheck"]["test"]
    assert check == ["CMD", "python", "-I", "-S", "health.py", "/readyz"]
    url = CONTAINERS["intake"]["environment"].get(f"INTAKE_{prefix}_URL")
    assert url in (None, f"http://{service}:{PORT}")


def test_only_intake_can_be_reached_from_outside_and_only_from_this_machine() -> None:
    assert {name for name, container in CONTAINERS.items() if container.get("ports")} == {"intake"}
    assert CONTAINERS["intake"]["ports"] == [
        f"${{ANTIPHON_HOST:-127.0.0.1}}:${{ANTIPHON_PORT:-8080}}:{PORT}"
    ]
    assert COMPOSE["networks"]["internal"] == {"internal": True}
    for server in SERVERS:
        assert CONTAINERS[server]["networks"] == ["internal"]


@each_container
def test_a_container_has_no_privileges_and_bounds(name: str) -> None:
    container = CONTAINERS[name]
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert container["mem_limit"]
    assert container["restart"]
    assert container["logging"]["options"]["max-size"]
    # Kafka's entry point writes its configuration into the image's own folders.
    assert container.get("read_only") or name == "kafka"
    assert "healthcheck" in container or name in JOB_CONTAINERS.values()


@each_container
def test_an_image_is_pinned_or_built_here(name: str) -> None:
    container = CONTAINERS[name]
    if name in OURS:
        assert container["build"]["dockerfile"] == "infra/Dockerfile"
        assert container["image"].endswith(":${ANTIPHON_TAG:-local}")
    else:
        assert re.search(r":(v?\d+\.\d+\.\d+|pg\d+)$", container["image"])


def test_data_is_kept_in_named_volumes() -> None:
    mounted = [volume for c in CONTAINERS.values() for volume in c.get("volumes", [])]
    assert {volume.split(":")[0] for volume in mounted} == set(COMPOSE["volumes"])


def test_the_build_on_the_hosts_network_is_of_every_image() -> None:
    text = (ROOT / "infra/compose/build-on-host-network.yml").read_text(encoding="utf-8")
    override = yaml.safe_load(text)["services"]
    assert override == {name: {"build": {"network": "host"}} for name in OURS}


def test_every_variable_of_the_compose_file_is_explained_in_the_example() -> None:
    used = set(re.findall(r"\$\{([A-Z0-9_]+)", TEXT)) - {"ANTIPHON_TAG"}
    files = {"PROVIDERS_ENV_FILE", "MCP_BROKER_ENV_FILE"}
    explained = set(re.findall(r"^#? ?([A-Z0-9_]+)=", EXAMPLE, flags=re.MULTILINE))
    assert used - files == explained


def test_a_copy_of_the_example_is_enough_to_start() -> None:
    required = set(re.findall(r"\$\{([A-Z0-9_]+):\?", TEXT))
    given = set(re.findall(r"^([A-Z0-9_]+)=\S", EXAMPLE, flags=re.MULTILINE))
    assert required
    assert required <= given


def test_the_secrets_files_that_compose_reads_are_kept_out_of_git() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    for name in (".env", ".env.providers", ".env.mcp_broker"):
        assert any(fnmatch.fnmatch(name, pattern) for pattern in ignored), name
    assert "!.env.example" in ignored


def test_the_dockerfile_makes_an_image_of_any_service_that_runs_without_rights() -> None:
    assert "COPY services/${SERVICE} /app/services/${SERVICE}" in DOCKERFILE
    assert re.search(r"^USER \d+:\d+$", DOCKERFILE, flags=re.MULTILINE)
    assert "PIP_REQUIRE_HASHES=1" in DOCKERFILE
    assert "PYTHONDONTWRITEBYTECODE=1" in DOCKERFILE
    assert re.search(r"^STOPSIGNAL SIGTERM$", DOCKERFILE, flags=re.MULTILINE)
    assert 'CMD ["python", "-I", "-S", "health.py", "/healthz"]' in DOCKERFILE
    assert re.findall(r"^ENTRYPOINT (.)", DOCKERFILE, flags=re.MULTILINE) == ["[", "["]
    base = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", DOCKERFILE, flags=re.MULTILINE)
    assert base
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", base[1])


def test_what_the_dockerfile_copies_is_not_kept_from_the_engine() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = [line.removeprefix("!") for line in lines if line.startswith("!")]
    copied = re.findall(r"^COPY (?!--from|\. )(.+) \S+$", DOCKERFILE, flags=re.MULTILINE)
    assert copied
    for source in copied:
        path = source.replace("${SERVICE}", "worker").rstrip("/")
        assert (ROOT / path).exists(), source
        assert any(path == name or path.startswith(f"{name}/") for name in allowed), source
    assert all((ROOT / name).exists() for name in allowed)


def test_no_file_names_this_machine_or_a_package_registry() -> None:
    files = [ROOT / "docker-compose.yml", ROOT / "infra/Dockerfile", ROOT / ".env.example"]
    for file in [*files, *(f for f in (ROOT / "infra/compose").iterdir() if f.is_file())]:
        text = file.read_text(encoding="utf-8")
        assert str(ROOT) not in text, file
        assert str(Path.home()) + "/" not in text, file
        hosts = set(re.findall(r"https?://([\w.$-]+)", text))
        assert hosts <= {*CONTAINERS, "127.0.0.1", "host.docker.internal", "mcp.example.com"}, file
