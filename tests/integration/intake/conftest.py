"""A migrated database with intake's tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.blobs.disk import DiskBlobs
from services.kit.database import create_engine
from services.kit.migrate import migrate


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url, pool_size=6, name="intake-tests")
    await migrate(engine, service="intake")
    yield engine
    await engine.dispose()


@pytest.fixture
def blobs(tmp_path: Path) -> DiskBlobs:
    return DiskBlobs(tmp_path)
