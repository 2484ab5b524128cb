"""The two tables: endpoints, and deliveries, which are the queue and its history."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from services.kit.database import metadata

TABLES = metadata("webhooks")
TIME = sa.TIMESTAMP(timezone=True)

ENDPOINTS = sa.Table(
    "endpoints",
    TABLES,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("event_types", ARRAY(sa.Text), nullable=False),
    sa.Column("responses", sa.Text, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("disabled_reason", sa.Text),
    # Sealed, as the other one is.
    sa.Column("secret", sa.Text, nullable=False),
    sa.Column("secret_hint", sa.Text, nullable=False),
    sa.Column("old_secret", sa.Text),
    sa.Column("old_secret_until", TIME),
    # Attempts in a row that failed, and until when nothing is sent because of them.
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("paused_until", TIME),
    # When something was last claimed for it: the others come first then.
    sa.Column("claimed_at", TIME),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("updated_at", TIME, nullable=False),
)
DELIVERIES = sa.Table(
    "deliveries",
    TABLES,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column(
        "endpoint_id",
        sa.Text,
        sa.ForeignKey(ENDPOINTS.c.id, ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("event_id", sa.Text, nullable=False),
    sa.Column("event_type", sa.Text, nullable=False),
    sa.Column("response_id", sa.Text, nullable=False),
    sa.Column("occurred_at", TIME, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    # From when on its age counts: its creation, or when it was last sent again by hand.
    sa.Column("first_due_at", TIME, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    # While it is leased, the end of the lease: whoever holds it then is taken for dead.
    sa.Column("due_at", TIME, nullable=False),
    sa.Column("leased", sa.Boolean, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("last_attempts", JSONB, nullable=False),
    sa.Column("finished_at", TIME),
)
