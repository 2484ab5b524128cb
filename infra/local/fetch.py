"""Fetch the locked Java archives of one part; run as a process by `downloads`."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
from jgo.config import GlobalSettings
from jgo.constants import MAVEN_CENTRAL_URL

from infra.local.downloads import repository, stamp, stamp_text
from infra.local.jars import Jar, locked

PARALLEL = 8
ATTEMPTS = 3
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
SPARE_BYTES = 512 * 1024 * 1024
"""What must stay free on the disk after a download: room for data and logs of a first run."""


class FetchError(Exception):
    """A fetch can't go on; the message is one sentence for a person."""


def check_room(folder: Path, needed_bytes: int) -> None:
    """Raise FetchError unless the disk of `folder` holds `needed_bytes` and some to spare."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes + SPARE_BYTES:
        raise FetchError(
            f"The disk of {folder} has {free_bytes // 1_000_000} MB free and "
            f"{(needed_bytes + SPARE_BYTES) // 1_000_000} MB are needed: free some space, or set "
            "ANTIPHON_HOME to a folder on a larger disk"
        )


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold `lock` against other processes; blocks until it is free."""
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


class Fetch:
    """Downloads jars side by side over kept connections and says how far it is."""

    def __init__(self, name: str, jars: list[Jar], target: Path) -> None:
        self.name = name
        self.jars = jars
        self.target = target
        self.total_bytes = sum(jar.size_bytes for jar in jars)
        self.done_bytes = 0
        self.shown_percent = 0
        self.remotes = [*GlobalSettings.load().repositories.values(), MAVEN_CENTRAL_URL]

    async def run(self) -> None:
        """Download every jar or raise FetchError."""
        self._say(f"fetching {len(self.jars)} files, {self._mb(self.total_bytes)}, once")
        connector = aiohttp.TCPConnector(limit=PARALLEL)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=TIMEOUT, trust_env=True) as session,
            asyncio.TaskGroup() as group,
        ):
            for jar in self.jars:
                group.create_task(self._jar(session, jar))

    async def _jar(self, session: aiohttp.ClientSession, jar: Jar) -> None:
        cause = "no repository has it"
        for _ in range(ATTEMPTS):
            for remote in self.remotes:
                try:
                    cause = await self._attempt(session, f"{remote}/{jar.path.as_posix()}", jar)
                except (aiohttp.ClientError, TimeoutError) as error:
                    cause = str(error) or type(error).__name__
                if not cause:
                    return
        raise FetchError(
            f"{jar.path.name} could not be fetched from Maven Central ({cause}): check the "
            "network, or name a mirror under [repositories] in ~/.config/jgo.conf"
        )

    async def _attempt(self, session: aiohttp.ClientSession, url: str, jar: Jar) -> str:
        """Give "" when the jar is in place, else what is wrong with it."""
        async with session.get(url) as answer:
            if answer.status != 200:
                return f"HTTP {answer.status}"
            content = await answer.read()
        if hashlib.sha256(content).hexdigest() != jar.sha256:
            return "its checksum is not the locked one"
        file = self.target / jar.path
        file.parent.mkdir(parents=True, exist_ok=True)
        # Two parts may fetch the same jar side by side.
        part = file.with_suffix(f".{self.name}.part")
        part.write_bytes(content)
        part.replace(file)
        self._progress(jar.size_bytes)
        return ""

    def _progress(self, size_bytes: int) -> None:
        self.done_bytes += size_bytes
        percent = 100 * self.done_bytes // self.total_bytes
        if percent >= self.shown_percent + 20 or percent == 100:
            self.shown_percent = percent
            self._say(f"{self._mb(self.done_bytes)} of {self._mb(self.total_bytes)}")

    def _say(self, text: str) -> None:
        print(f"{self.name}: {text}", flush=True)

    @staticmethod
    def _mb(size_bytes: int) -> str:
        return f"{size_bytes / 1e6:.0f} MB"


def fetch(name: str, downloads: Path) -> None:
    """Make every jar of `name` present and verified under `downloads`, and stamp it; blocking."""
    jars = locked(name)
    target = repository(downloads)
    target.mkdir(parents=True, exist_ok=True)
    with exclusive(downloads / f"{name}.lock"):
        missing = [jar for jar in jars if not jar.is_intact(target)]
        if missing:
            check_room(target, sum(jar.size_bytes for jar in missing))
            asyncio.run(Fetch(name, missing, target).run())
        stamp(name, downloads).write_text(stamp_text(jars), encoding="utf-8")


def main() -> int:
    """Fetch the part named by the first argument into the folder named by the second."""
    name, downloads = sys.argv[1:]
    problems: list[BaseException] = []
    try:
        fetch(name, Path(downloads))
    except* FetchError as group:
        problems.extend(group.exceptions)
    except* OSError as group:
        problems.extend(FetchError(f"{name} could not be stored: {e}") for e in group.exceptions)
    if problems:
        print(problems[0], file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
