"""What the artifacts service is told by its environment: ARTIFACTS_... and the shared variables."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.artifacts.domain import Limits
from services.artifacts.files.domain import UploadLimits
from services.kit.settings import ServiceSettings

_MIB = 1024 * 1024
_LIFECYCLE_RETENTION_DAYS = 7


class ArtifactsSettings(ServiceSettings):
    """Settings with the prefix ARTIFACTS_.

    `max_files` and `max_file_bytes` bound what is kept of one response, `max_response_bytes` the
    Response object itself. A deleted response is remembered for `remember_deleted_days`, longer
    than Kafka keeps a fact that could bring it back; claim checks are kept for `keep_claims_days`,
    longer than Kafka keeps a message that speaks of them. The service is not alive when messages
    wait and none was handled for `stall_seconds`. The rest is about files that clients upload.
    """

    model_config = SettingsConfigDict(env_prefix="ARTIFACTS_", extra="ignore", frozen=True)

    max_files: int = Field(64, ge=1, le=1000)
    max_file_bytes: int = Field(32 * _MIB, ge=1)
    max_response_bytes: int = Field(128 * _MIB, ge=1)
    batch_records: int = Field(50, ge=1, le=500)
    remember_deleted_days: int = Field(2 * _LIFECYCLE_RETENTION_DAYS, ge=_LIFECYCLE_RETENTION_DAYS)
    keep_claims_days: int = Field(_LIFECYCLE_RETENTION_DAYS + 1, gt=_LIFECYCLE_RETENTION_DAYS)
    stall_seconds: float = Field(120.0, gt=0)
    max_upload_bytes: int = Field(512 * _MIB, ge=1)
    max_uploads: int = Field(16, ge=1, le=1000)
    upload_idle_seconds: float = Field(60.0, gt=0)
    batch_files_days: int = Field(30, ge=1)
    sweep_files_seconds: float = Field(60.0, gt=0)

    @property
    def limits(self) -> Limits:
        """The bounds on one response's files."""
        return Limits(max_files=self.max_files, max_bytes=self.max_file_bytes)

    @property
    def upload_limits(self) -> UploadLimits:
        """The bounds on files that clients upload."""
        return UploadLimits(
            max_bytes=self.max_upload_bytes,
            max_open=self.max_uploads,
            batch_files_expire=timedelta(days=self.batch_files_days),
        )
