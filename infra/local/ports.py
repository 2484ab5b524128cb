"""Ports on 127.0.0.1 that stay the same from run to run as long as nobody else takes them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

HOST = "127.0.0.1"


def is_free(port: int, host: str = HOST) -> bool:
    """Whether a server could listen on `port` now."""
    with closing(socket.socket()) as probe:
        # As servers do: a connection that is still fading away doesn't take the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Give a port that nobody listens on at this moment."""
    with closing(socket.socket()) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Ports:
    """Names to ports, remembered in `<home>/ports.json`; one process at a time may use it.

    A port in `reserved` is given to nobody.
    """

    def __init__(self, home: Path, *, reserved: Iterable[int] = ()) -> None:
        self._file = home / "ports.json"
        self._given: dict[str, int] = {}
        self._reserved = frozenset(reserved)

    def claim(self, name: str) -> int:
        """Give the port of `name`, the one of last time if it is free; stable for this object."""
        if name not in self._given:
            known = self._known()
            others = self._reserved | {port for other, port in known.items() if other != name}
            port = known.get(name)
            while port is None or port in others or not is_free(port):
                port = free_port()
            self._given[name] = port
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps({**known, name: port}, indent=2), encoding="utf-8")
        return self._given[name]

    def _known(self) -> dict[str, int]:
        if not self._file.is_file():
            return {}
        return {str(name): int(port) for name, port in json.loads(self._file.read_text()).items()}
