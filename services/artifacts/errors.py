"""Refusals that the artifacts service can express."""

from __future__ import annotations


class ArtifactsError(Exception):
    """The base of all errors of this service."""


class ArtifactNotFoundError(ArtifactsError):
    """There is no such artifact, or it is not the caller's to see."""

    def __init__(self, artifact_id: str) -> None:
        super().__init__(f"No artifact found with id '{artifact_id}'.")
        self.artifact_id = artifact_id


class ContentLostError(ArtifactsError):
    """The artifact is on record but its bytes are not in the store."""

    def __init__(self, artifact_id: str) -> None:
        super().__init__(f"The content of artifact '{artifact_id}' is not available.")
        self.artifact_id = artifact_id


class BadParameterError(ArtifactsError):
    """A query parameter has a value that it can't have."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class UnsatisfiableRangeError(ArtifactsError):
    """The range asked for lies outside the content, which has `size_bytes`."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"The range does not overlap the content of {size_bytes} bytes.")
        self.size_bytes = size_bytes


class UnreadableResponseError(ArtifactsError):
    """A fact speaks of a Response object that can't be read."""
