"""What a local stack keeps in its home."""

import os
import socket
import stat
from pathlib import Path

import psutil

from infra.local.credentials import Credentials
from infra.local.ports import Ports, is_free
from infra.local.process import tail
from infra.local.state import PartStatus, StackStatus, State, read, running


def _status(pid: int, started_at: float) -> StackStatus:
    part = PartStatus("kafka", State.READY, pid=7, port=9092, restarts=1, log="kafka.log")
    return StackStatus(State.READY, pid, started_at, "http://127.0.0.1:1", parts=[part])


def test_credentials_are_made_once_and_for_their_owner_only(tmp_path: Path) -> None:
    made = Credentials.of(tmp_path)
    assert Credentials.of(tmp_path) == made
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_credentials_are_not_shown_when_printed(tmp_path: Path) -> None:
    made = Credentials.of(tmp_path)
    assert made.admin_key not in repr(made)


def test_a_port_stays_the_same_from_run_to_run(tmp_path: Path) -> None:
    assert Ports(tmp_path).claim("kafka") == Ports(tmp_path).claim("kafka")


def test_a_port_that_somebody_took_is_replaced(tmp_path: Path) -> None:
    port = Ports(tmp_path).claim("kafka")
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        server.listen()
        assert not is_free(port)
        assert Ports(tmp_path).claim("kafka") != port


def test_two_names_never_share_a_port(tmp_path: Path) -> None:
    ports = Ports(tmp_path)
    assert len({ports.claim(str(n)) for n in range(50)}) == 50


def test_a_status_is_read_as_it_was_written(tmp_path: Path) -> None:
    status = _status(os.getpid(), psutil.Process().create_time())
    status.write(tmp_path)
    assert read(tmp_path) == status
    assert running(tmp_path) == status


def test_a_stack_whose_supervisor_is_gone_does_not_run(tmp_path: Path) -> None:
    # The same pid, but of a process that began at another time.
    _status(os.getpid(), psutil.Process().create_time() - 1000).write(tmp_path)
    assert read(tmp_path) is not None
    assert running(tmp_path) is None


def test_a_home_without_a_stack_has_no_status(tmp_path: Path) -> None:
    assert read(tmp_path) is None


def test_the_tail_of_a_log_begins_where_the_run_began(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("old\n", encoding="utf-8")
    start = log.stat().st_size
    log.write_text("old\nnew 1\nnew 2\n", encoding="utf-8")
    assert tail(log, start=start) == "new 1\nnew 2"
    assert tail(log, 1) == "new 2"
    assert tail(tmp_path / "missing.log") == ""
