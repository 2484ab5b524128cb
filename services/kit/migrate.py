"""Alembic for every service: `python -m services.kit.migrate upgrade|downgrade [service ...]`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.database import create_engine
from services.kit.settings import ServiceSettings

SERVICES = Path(__file__).resolve().parent.parent
_LOCK = 0x616E7469


def services_with_migrations() -> list[str]:
    """Return the names of the services that own a schema, sorted."""
    return sorted(folder.parent.name for folder in SERVICES.glob("*/migrations"))


def _run(connection: Connection, *, service: str, target: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(SERVICES / service / "migrations"))
    scripts = ScriptDirectory.from_config(config)
    up = target != "base"

    def steps(revision: object, _context: object) -> object:
        current = revision[0] if isinstance(revision, tuple) and revision else revision or "base"
        move = scripts._upgrade_revs if up else scripts._downgrade_revs  # noqa: SLF001
        return move(target, current)  # type: ignore[arg-type]

    with EnvironmentContext(config, scripts, fn=steps) as context:
        context.configure(
            connection=connection,
            version_table_schema=service,
            include_schemas=True,
            transactional_ddl=True,
        )
        context.run_migrations()


async def migrate(engine: AsyncEngine, *, service: str, target: str = "head") -> None:
    """Bring one service's schema to `target` (`head`, `base` or a revision) in one transaction.

    Replicas may call it at once: an advisory lock lets one work and the others wait.
    """
    async with engine.begin() as connection:
        await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        await connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{service}"'))
        await connection.run_sync(_run, service=service, target=target)


async def migrate_all(database_url: str, services: Sequence[str], *, target: str = "head") -> None:
    """Bring the schemas of all named services to `target`, one after the other."""
    engine = create_engine(database_url, pool_size=1, name="migrate")
    try:
        for service in services:
            await migrate(engine, service=service, target=target)
    finally:
        await engine.dispose()


def main() -> None:
    """Parse the command line and migrate the database that DATABASE_URL names."""
    known = services_with_migrations()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("direction", choices=["upgrade", "downgrade"])
    parser.add_argument(
        "services", nargs="*", help=f"of {', '.join(known)}; all when none is named"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.services) - set(known):
        parser.error(f"no migrations for {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    target = "head" if arguments.direction == "upgrade" else "base"
    services = arguments.services or known
    asyncio.run(migrate_all(ServiceSettings.load().database_url, services, target=target))
    sys.stdout.write(f"{arguments.direction}d {', '.join(services)}\n")


if __name__ == "__main__":
    main()
