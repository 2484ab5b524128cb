"""What a client is told of errors that no use case expected."""

from __future__ import annotations

import logging

from sqlalchemy.exc import DBAPIError

from services.intake.errors import ApiError, invalid, unavailable
from services.kit.database import refuses_values
from services.kit.outages import OUTAGES

logger = logging.getLogger(__name__)


def refusal_of(error: Exception) -> ApiError:
    """Return what a client is told of an error that no use case expected, and log it."""
    if isinstance(error, DBAPIError) and refuses_values(error):
        return invalid("A value holds a character that can't be stored.", param=None)
    if isinstance(error, OUTAGES):
        logger.warning("a request failed for an outage: %r", error)
        return unavailable("A part of this server is not available, try again.")
    logger.error("a bug in a request", exc_info=error)
    return ApiError(
        500,
        "The server had an error while processing your request. Sorry about that!",
        kind="server_error",
    )
