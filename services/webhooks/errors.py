"""Refusals that the webhooks service can express."""

from __future__ import annotations


class WebhooksError(Exception):
    """The base of all errors of this service."""


class ParameterError(WebhooksError):
    """A parameter has a value that it can't have, or is missing."""

    def __init__(self, param: str, message: str, *, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class NotAdminError(WebhooksError):
    """The caller's key may not manage webhooks."""


class EndpointNotFoundError(WebhooksError):
    """There is no such endpoint in the project that was asked for."""

    def __init__(self, endpoint_id: str) -> None:
        super().__init__(f"No webhook endpoint found with id '{endpoint_id}'.")


class DeliveryNotFoundError(WebhooksError):
    """The endpoint has no such delivery, or no longer."""

    def __init__(self, delivery_id: str) -> None:
        super().__init__(f"No delivery found with id '{delivery_id}'.")


class TooManyEndpointsError(WebhooksError):
    """The project has as many endpoints as it may have."""


class AddressRefusedError(WebhooksError):
    """A URL leads, or may lead, where webhooks are not allowed to go."""


class UndeliveredError(WebhooksError):
    """No answer came from an endpoint; the message says why, without what the endpoint said."""


class SecretLostError(WebhooksError):
    """The stored signing secret can't be opened with the secrets of the installation."""
