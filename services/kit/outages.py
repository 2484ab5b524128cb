"""Which errors are outages, that heal by waiting: neither refusals nor bugs."""

from __future__ import annotations

from aiokafka.errors import KafkaError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

DATABASE_OUTAGES = (OSError, TimeoutError, DBAPIError, PoolTimeoutError)
"""What a database that is away for a while makes of our calls."""
OUTAGES = (*DATABASE_OUTAGES, KafkaError)
"""What any part that is away for a while makes of them."""
