"""The file of MCP servers: what it may say, and how its mistakes are reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from services.mcp_broker.errors import ServersFileError
from services.mcp_broker.servers_file import ServerConfig, read_servers
from services.mcp_broker.settings import McpBrokerSettings

STDIO = '[[servers]]\nlabel = "one"\ntransport = "stdio"\ncommand = "run-it"\n'
HTTP = (
    '[[servers]]\nlabel = "two"\ntransport = "streamable_http"\nurl = "https://example.com/mcp"\n'
)


def read(folder: Path, text: str, **environment: str) -> tuple[ServerConfig, ...]:
    path = folder / "servers.toml"
    path.write_text(text, encoding="utf-8")
    return read_servers(path, environment)


def test_servers_of_every_transport_are_read_in_order(tmp_path: Path) -> None:
    sse = '[[servers]]\nlabel = "three"\ntransport = "sse"\nurl = "http://localhost:1/sse"\n'
    servers = read(tmp_path, STDIO + HTTP + sse)
    assert [(server.label, server.transport) for server in servers] == [
        ("one", "stdio"),
        ("two", "streamable_http"),
        ("three", "sse"),
    ]
    assert servers[0].allowed_tools is None


def test_a_file_without_servers_is_fine(tmp_path: Path) -> None:
    assert read(tmp_path, "") == ()


def test_variables_are_expanded_wherever_a_secret_or_a_place_may_stand(tmp_path: Path) -> None:
    text = (
        '[[servers]]\nlabel = "one"\ntransport = "stdio"\ncommand = "${BIN}/run"\n'
        'args = ["--home", "${HOME_DIR:-/srv}"]\nenv = { TOKEN = "x${TOKEN}y", PRICE = "$$5" }\n'
        '[[servers]]\nlabel = "two"\ntransport = "sse"\nurl = "https://${HOST}/mcp"\n'
        'headers = { Authorization = "Bearer ${TOKEN}" }\n'
    )
    child, remote = read(tmp_path, text, BIN="/opt", TOKEN="secret", HOST="example.com")
    assert child.command == "/opt/run"
    assert child.args == ("--home", "/srv")
    assert child.env == {"TOKEN": "xsecrety", "PRICE": "$5"}
    assert remote.url == "https://example.com/mcp"
    assert remote.headers == {"Authorization": "Bearer secret"}


def test_a_label_is_never_expanded(tmp_path: Path) -> None:
    with pytest.raises(ServersFileError, match=r"servers\[0\]\.label"):
        read(tmp_path, STDIO.replace('"one"', '"${NAME}"'), NAME="one")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[servers]\n", "servers.toml: "),
        ('[server]\nlabel = "x"\n', "servers.toml: server: unknown key"),
        ("servers = 3\n", "servers.toml: servers: not a list"),
        ("servers = [3]\n", "servers[0]: not a table"),
        ('[[servers]]\ntransport = "stdio"\ncommand = "x"\n', "servers[0].label: Field required"),
        (STDIO.replace('"stdio"', '"pipe"'), "servers[0].transport: Input should be"),
        (STDIO.replace("command", "comand"), "servers[0].comand: Extra inputs are not permitted"),
        (STDIO.replace('command = "run-it"', ""), "servers[0]: transport 'stdio' needs 'command'"),
        (STDIO + 'url = "https://x"\n', "servers[0]: transport 'stdio' has no 'url'"),
        (HTTP + 'args = ["x"]\n', "servers[0]: transport 'streamable_http' has no 'args'"),
        (HTTP.replace("https", "ftp"), "servers[0].url: String should match"),
        (STDIO + 'args = "x"\n', "servers[0].args: Input should be a valid tuple"),
        (STDIO + "connect_timeout_seconds = 0\n", "servers[0].connect_timeout_seconds: Input"),
        (STDIO + STDIO, "servers[1].label: 'one' is taken"),
        (STDIO + 'args = ["a", "${MISSING}"]\n', "servers[0].args[1]: the environment var"),
        (STDIO + 'env = { A = "${MISSING}" }\n', "servers[0].env.A: the environment var"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_the_file_and_the_key(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(ServersFileError) as caught:
        read(tmp_path, text)
    said = str(caught.value)
    assert complaint in said
    assert said.startswith(str(tmp_path / "servers.toml"))
    assert "\n" not in said


def test_a_mistake_never_repeats_a_secret(tmp_path: Path) -> None:
    text = HTTP.replace("https://example.com/mcp", "${TOKEN}")
    with pytest.raises(ServersFileError) as caught:
        read(tmp_path, text, TOKEN="hunter2hunter2")
    assert "hunter2" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServersFileError, match=r"absent\.toml: No such file or directory"):
        read_servers(tmp_path / "absent.toml", {})


def test_the_settings_validate_the_file_too(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="No such file"):
        McpBrokerSettings(servers=tmp_path / "absent.toml")


def test_values_of_environment_headers_and_query_are_redacted() -> None:
    server = ServerConfig(
        label="x",
        transport="sse",
        url="https://example.com/mcp?key=abcdef",
        headers={"Authorization": "Bearer abc", "X-Short": "1"},
    )
    said = server.redact("Bearer abc was refused at https://example.com/mcp?key=abcdef, 1 time")
    assert said == "*** was refused at https://example.com/mcp?***, 1 time"
