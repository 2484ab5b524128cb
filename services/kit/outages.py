"""Which errors are outages, that heal by waiting: neither refusals nor bugs."""

from __future__ import annotations

from aiokafka.errors import KafkaError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

OUTAGES = (OSError, TimeoutError, KafkaError, DBAPIError, PoolTimeoutError)
"""What a part that is away for a while makes of our calls."""
