"""What the tests of the kit share."""

from __future__ import annotations

from tests.integration.kit.topics import dead_letters, make_topic, producer

__all__ = ["dead_letters", "make_topic", "producer"]
