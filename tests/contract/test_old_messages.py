"""Messages of every version that was ever committed are still understood, by readers of today."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from contracts.packs import decode_pack, encode_pack
from services.kit.codec import decode

ROOT = Path(__file__).parents[2]
EXAMPLES = "contracts/examples"


def git(*arguments: str) -> bytes:
    return subprocess.run(
        ("git", "-C", str(ROOT), *arguments), check=True, capture_output=True
    ).stdout


def ever_committed() -> dict[str, bytes]:
    """Every content that an example has had, by its path and blob; without a history, today's."""
    if not (ROOT / ".git").exists():
        return {
            str(path.relative_to(ROOT)): path.read_bytes()
            for path in sorted((ROOT / EXAMPLES).glob("*/*"))
        }
    log = git("log", "--format=", "--raw", "--no-abbrev", "--no-renames", "--", EXAMPLES).decode()
    names: dict[str, str] = {}
    for line in log.splitlines():
        # :old-mode new-mode old-blob new-blob status<TAB>path
        head, _, path = line.partition("\t")
        blob = head.split()[3]
        if blob.strip("0") and Path(path).suffix in (".json", ".hex"):
            names[blob] = path
    contents = subprocess.run(
        ("git", "-C", str(ROOT), "cat-file", "--batch"),
        input="\n".join(names).encode(),
        check=True,
        capture_output=True,
    ).stdout
    return dict(_objects(contents, names))


def _objects(batch: bytes, names: dict[str, str]) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    while batch:
        head, _, rest = batch.partition(b"\n")
        blob, _, size = head.decode().split()
        found.append((f"{names[blob]}@{blob[:8]}", rest[: int(size)]))
        batch = rest[int(size) + 1 :]
    return found


HISTORY = ever_committed()


def is_pack(name: str) -> bool:
    return f"{EXAMPLES}/packs/" in name


@pytest.mark.parametrize("name", [name for name in HISTORY if not is_pack(name)])
def test_an_old_message_is_still_read(name: str) -> None:
    envelope = decode(HISTORY[name])
    assert envelope.type == Path(name).parent.name


@pytest.mark.parametrize("name", [name for name in HISTORY if ".hex" in name and is_pack(name)])
def test_an_old_pack_is_still_read(name: str) -> None:
    pack = bytes.fromhex(HISTORY[name].decode("ascii"))
    assert encode_pack(decode_pack(pack)) == pack
