"""The scripted upstream as a child process, controlled over HTTP; for tests that block a loop."""

import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from tests.upstream.answers import Json

_ROOT = Path(__file__).parents[2]
_STOP_S = 10.0
_REQUEST_S = 30.0
_POLL_S = 0.02


class UpstreamProcess:
    """Starts `python -m tests.upstream` and stops it again; use it as a context manager.

    Takes the options of the command line, such as `"--api-key", "secret"`. All methods block.
    """

    def __init__(self, *options: str) -> None:
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.base_url = ""

    def __enter__(self) -> "UpstreamProcess":
        command = [sys.executable, "-m", "tests.upstream", *self._options]
        self._process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the scripted upstream ended with {self._process.wait()}")
        ready = orjson.loads(line)
        self.url, self.base_url = ready["url"], ready["base_url"]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def enqueue(self, *entries: str | Json) -> None:
        """Queue answers: texts of the mini-language, or objects as in `POST /_script`."""
        self._control("POST", "/_script", list(entries))

    def release(self, key: str | None = None) -> None:
        """Let answers go on that `fault:hold#key` holds; all of them without a key."""
        query = "" if key is None else "?" + urllib.parse.urlencode({"key": key})
        self._control("POST", f"/_release{query}")

    def reset(self) -> None:
        """Forget requests, counts, queued answers, attempts, gates and stored responses."""
        self._control("POST", "/_reset")

    def requests(self, match: str = "") -> list[Json]:
        """Every request to the API since the last reset that mentions `match`, oldest first."""
        query = urllib.parse.urlencode({"match": match})
        return list(self._control("GET", f"/_requests?{query}"))

    def stats(self) -> Json:
        """Counts since the last reset; the field names are those of ledger.Stats."""
        return dict(self._control("GET", "/_stats"))

    def wait_until(self, condition: Callable[[Json], bool], timeout_s: float = 10.0) -> Json:
        """Return the counts once `condition(stats)` holds. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while not condition(stats := self.stats()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"still {stats} after {timeout_s} s")
            time.sleep(_POLL_S)
        return stats

    def _control(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else orjson.dumps(body)
        request = urllib.request.Request(self.url + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=_REQUEST_S) as answer:
            return orjson.loads(answer.read())
