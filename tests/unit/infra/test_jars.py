"""The committed lists of Java archives."""

from pathlib import Path

import pytest

from infra.local.jars import Jar, locked, parse


def test_a_jar_lies_where_maven_keeps_it() -> None:
    jar = Jar("org.example.deep", "thing", "1.2", "", "0" * 64, 10)
    assert jar.path == Path("org/example/deep/thing/1.2/thing-1.2.jar")


def test_a_classifier_is_part_of_the_file_name() -> None:
    jar = Jar("org.example", "thing", "1.2", "linux", "0" * 64, 10)
    assert jar.path.name == "thing-1.2-linux.jar"


def test_a_lock_gives_back_what_was_written() -> None:
    jars = (
        Jar("a.b", "c", "1", "", "1" * 64, 5),
        Jar("a.b", "d", "2", "natives", "2" * 64, 6),
    )
    assert parse("# how it was made\n" + "\n".join(str(jar) for jar in jars)) == jars


@pytest.mark.parametrize("name", ["kafka", "s3proxy"])
def test_no_archive_is_locked_twice(name: str) -> None:
    names = [(jar.group, jar.artifact, jar.classifier) for jar in locked(name)]
    assert len(names) == len(set(names)) > 40
