"""What the costs service can be told: COSTS_*, and the variables all services share."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from services.costs.clients.price_file import FilePrices
from services.costs.errors import PriceFileError
from services.kit.settings import ServiceSettings


class CostsSettings(ServiceSettings):
    """Settings of the costs service.

    `prices` is a file with prices of the operator's own (see prices.toml), which count before the
    published ones. `batch_records` bounds what is charged in one transaction. A consumer that has
    messages waiting and does not move for `stall_seconds` makes the process not alive. Another
    `consumer_group` reads everything that Kafka still has, to build a ledger in a new database.
    """

    model_config = SettingsConfigDict(env_prefix="COSTS_", extra="ignore", frozen=True)

    prices: Path | None = None
    consumer_group: str = Field("costs", min_length=1)
    batch_records: int = Field(200, ge=1, le=2_000)
    stall_seconds: float = Field(120.0, gt=0)

    @field_validator("prices", mode="before")
    @classmethod
    def _unset(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("prices")
    @classmethod
    def _usable(cls, path: Path | None) -> Path | None:
        if path is not None:
            try:
                FilePrices.load(path)
            except PriceFileError as error:
                raise ValueError(str(error)) from error
        return path
