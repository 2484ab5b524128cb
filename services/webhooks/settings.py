"""What the webhooks service can be told: WEBHOOKS_*, and the variables all services share."""

from __future__ import annotations

from datetime import timedelta
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from services.kit.settings import ServiceSettings, shared
from services.webhooks.domain.addresses import AddressRules, parse_networks
from services.webhooks.domain.endpoints import RetryRule


class WebhooksSettings(ServiceSettings):
    """Settings of the webhooks service.

    A delivery that fails is tried `max_attempts` times in all, for `give_up_hours` at most, with
    pauses that double from `first_retry_seconds` to `longest_retry_seconds`. `lease_seconds` is how
    long a delivery waits for an instance that died with it.
    """

    model_config = SettingsConfigDict(env_prefix="WEBHOOKS_", extra="ignore", frozen=True)

    antiphon_seal_secret: SecretStr = shared(SecretStr(""))
    allow_http: bool = False
    allow_private: bool = False
    allow_networks: str = ""
    max_endpoints: int = Field(20, ge=1, le=1_000)
    concurrency: int = Field(64, ge=1, le=1_000)
    endpoint_concurrency: int = Field(16, ge=1, le=100)
    connect_seconds: float = Field(5.0, gt=0, le=60)
    timeout_seconds: float = Field(15.0, gt=0, le=120)
    lease_seconds: float = Field(45.0, gt=0, le=600)
    poll_seconds: float = Field(1.0, gt=0, le=60)
    max_attempts: int = Field(40, ge=1, le=1_000)
    first_retry_seconds: float = Field(5.0, gt=0, le=3_600)
    longest_retry_seconds: float = Field(14_400.0, gt=0, le=86_400)
    give_up_hours: float = Field(72.0, gt=0, le=720)
    trip_failures: int = Field(5, ge=1, le=1_000)
    longest_probe_seconds: float = Field(300.0, gt=0, le=86_400)
    keep_days: int = Field(14, ge=8, le=365)
    sweep_seconds: float = Field(600.0, gt=0)
    batch_records: int = Field(500, ge=1, le=2_000)
    stall_seconds: float = Field(120.0, gt=0)

    @field_validator("allow_networks")
    @classmethod
    def _networks(cls, value: str) -> str:
        parse_networks(value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lease_seconds <= self.timeout_seconds:
            raise ValueError("lease_seconds must be more than timeout_seconds")
        return self

    @property
    def seal_secrets(self) -> list[str]:
        """What signing secrets are sealed with: the first seals, all open."""
        own = self.antiphon_seal_secret.get_secret_value().split(",")
        return [*(part.strip() for part in own), self.antiphon_internal_token.get_secret_value()]

    @property
    def address_rules(self) -> AddressRules:
        """Where webhooks may go."""
        return AddressRules(
            private=self.allow_private,
            http=self.allow_http,
            networks=parse_networks(self.allow_networks),
        )

    @property
    def retry_rule(self) -> RetryRule:
        """When a delivery is tried again."""
        return RetryRule(
            attempts=self.max_attempts,
            first=timedelta(seconds=self.first_retry_seconds),
            longest=timedelta(seconds=self.longest_retry_seconds),
            give_up=timedelta(hours=self.give_up_hours),
            trip=self.trip_failures,
            probe=timedelta(seconds=self.longest_probe_seconds),
        )
