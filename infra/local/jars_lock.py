"""Resolve Maven coordinates to the committed lists of jars; `make requirements` runs it."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from jgo.maven import MavenContext, PythonResolver
from jgo.parse import Endpoint

from infra.local.jars import LOCKS, Jar, sha256

ROOTS = {
    # Kafka logs through slf4j 1.7, whose binding to log4j is no dependency of the library.
    "kafka": (
        "org.apache.kafka:kafka_2.13:4.3.1",
        "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4",
    ),
    "s3proxy": ("org.gaul:s3proxy:4.1.0",),
}


def resolve(endpoint: str, repository: Path) -> list[Jar]:
    """Download what `endpoint` needs at run time into `repository`; blocking, a minute long."""
    context = MavenContext(resolver=PythonResolver(), repo_cache=repository, timeout=60)
    wanted = [
        context.create_dependency(replace(coordinate, scope="compile"))
        for coordinate in Endpoint.parse(endpoint).coordinates
    ]
    inputs, transitive = context.resolver.resolve(wanted)
    jars = []
    for dependency in (*inputs, *transitive):
        if dependency.type != "jar" or dependency.scope not in ("compile", "runtime"):
            continue
        artifact = dependency.artifact
        file = artifact.resolve()
        coordinates = (artifact.groupId, artifact.artifactId, artifact.version)
        jars.append(Jar(*coordinates, artifact.classifier, sha256(file), file.stat().st_size))
    return jars


def merged(endpoints: tuple[str, ...], repository: Path) -> list[Jar]:
    """Resolve each endpoint by itself, so that none manages another's versions; first wins."""
    by_name: dict[tuple[str, str, str], Jar] = {}
    for endpoint in endpoints:
        for jar in resolve(endpoint, repository):
            by_name.setdefault((jar.group, jar.artifact, jar.classifier), jar)
    return list(by_name.values())


def main() -> int:
    """Write every lock anew."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, endpoints in ROOTS.items():
            jars = merged(endpoints, Path(scratch))
            lines = [f"# {' + '.join(endpoints)}", *(str(jar) for jar in jars)]
            (LOCKS / f"{name}.lock").write_text("\n".join(lines) + "\n", encoding="utf-8")
            print(f"{name}: {len(jars)} jars, {sum(j.size_bytes for j in jars) / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
