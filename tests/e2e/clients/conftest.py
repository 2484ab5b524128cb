"""What runs the programs of the clients against the end-to-end stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.clients.running import Launcher
from tests.e2e.stack import Stack


@pytest.fixture(scope="session")
def launcher(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    """Runs programs with the stack's address and the administrator's key."""
    home: Path = tmp_path_factory.mktemp("clients")
    return Launcher(home, url=stack.url, key=stack.admin_key)
