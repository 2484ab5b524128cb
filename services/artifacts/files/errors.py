"""Refusals of the Files API, each as the API words it."""

from __future__ import annotations

from services.artifacts.errors import ArtifactsError


class FilesError(ArtifactsError):
    """A request about files that is refused with `status`."""

    def __init__(
        self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


class BusyError(FilesError):
    """As many uploads are open as may be at once."""

    def __init__(self) -> None:
        super().__init__("Too many uploads are open, try again.", status=503, code="unavailable")


def no_such_file(file_id: str) -> FilesError:
    """Return the 404 for a file that does not exist, has expired, or is not the caller's."""
    return FilesError(f"No such File object: {file_id}", status=404, param="id")


def too_large(limit_bytes: int) -> FilesError:
    """Return the 413 for a file above the limit."""
    return FilesError(
        f"The file is larger than {limit_bytes} bytes.",
        status=413,
        param="file",
        code="file_too_large",
    )


def missing(param: str) -> FilesError:
    """Return the 400 for a form without a field that it needs."""
    return FilesError(
        f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
    )


def wrong(param: str, message: str) -> FilesError:
    """Return the 400 for a value that a parameter can't have."""
    return FilesError(f"Invalid value for '{param}': {message}", param=param, code="invalid_value")


def malformed_form(reason: str) -> FilesError:
    """Return the 400 for a body that is no form."""
    return FilesError(f"The body is no multipart/form-data: {reason}.", code="invalid_form")
