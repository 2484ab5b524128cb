"""The committed lists of Java archives: which ones a part needs, their sizes and checksums."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

LOCKS = Path(__file__).parent / "jars"


@dataclass(frozen=True, slots=True)
class Jar:
    """One archive by its Maven coordinates."""

    group: str
    artifact: str
    version: str
    classifier: str
    sha256: str
    size_bytes: int

    @property
    def path(self) -> Path:
        """Where Maven keeps it, relative to the root of a repository."""
        suffix = f"-{self.classifier}" if self.classifier else ""
        name = f"{self.artifact}-{self.version}{suffix}.jar"
        return Path(*self.group.split("."), self.artifact, self.version, name)

    def is_intact(self, repository: Path) -> bool:
        """Whether the file in `repository` is whole and the one that was locked."""
        file = repository / self.path
        if not file.is_file() or file.stat().st_size != self.size_bytes:
            return False
        return sha256(file) == self.sha256

    def __str__(self) -> str:
        coordinates = [self.group, self.artifact, self.version]
        if self.classifier:
            coordinates.append(self.classifier)
        return f"{':'.join(coordinates)} {self.sha256} {self.size_bytes}"


def sha256(file: Path) -> str:
    """Hex digest of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def parse(text: str) -> tuple[Jar, ...]:
    """Read a lock: one jar a line, in class path order; `#` starts a comment line."""
    jars = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        coordinates, digest, size = line.split()
        group, artifact, version, *classifier = coordinates.split(":")
        jars.append(
            Jar(group, artifact, version, classifier[0] if classifier else "", digest, int(size))
        )
    return tuple(jars)


def locked(name: str) -> tuple[Jar, ...]:
    """Read the committed lock of a part, `kafka` or `s3proxy`."""
    return parse((LOCKS / f"{name}.lock").read_text(encoding="utf-8"))
