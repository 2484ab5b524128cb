"""Endpoints of webhooks and deliveries to them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "webhooks"
TIME = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.create_table(
        "endpoints",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("event_types", ARRAY(sa.Text), nullable=False),
        sa.Column("responses", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("disabled_reason", sa.Text),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("secret_hint", sa.Text, nullable=False),
        sa.Column("old_secret", sa.Text),
        sa.Column("old_secret_until", TIME),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("paused_until", TIME),
        sa.Column("claimed_at", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.CheckConstraint("responses IN ('background', 'all')", name="endpoints_responses_check"),
        schema=SCHEMA,
    )
    op.create_index(
        "endpoints_project_idx", "endpoints", ["project", "created_at", "id"], schema=SCHEMA
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("endpoint_id", sa.Text, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("response_id", sa.Text, nullable=False),
        sa.Column("occurred_at", TIME, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("first_due_at", TIME, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("leased", sa.Boolean, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("last_attempts", JSONB, nullable=False),
        sa.Column("finished_at", TIME),
        sa.ForeignKeyConstraint(
            ["endpoint_id"],
            [f"{SCHEMA}.endpoints.id"],
            name="deliveries_endpoint_id_fkey",
            ondelete="CASCADE",
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'delivered', 'failed')", name="deliveries_state_check"
        ),
        schema=SCHEMA,
    )
    # What is due and what is sent at an endpoint; its history, the newest first; what is too old.
    op.create_index(
        "deliveries_due_idx",
        "deliveries",
        ["endpoint_id", "due_at"],
        schema=SCHEMA,
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "deliveries_leased_idx",
        "deliveries",
        ["endpoint_id"],
        schema=SCHEMA,
        postgresql_where=sa.text("state = 'pending' AND leased"),
    )
    op.create_index(
        "deliveries_endpoint_id_idx",
        "deliveries",
        ["endpoint_id", "created_at", "id"],
        schema=SCHEMA,
    )
    op.create_index("deliveries_response_id_idx", "deliveries", ["response_id"], schema=SCHEMA)
    op.create_index(
        "deliveries_pending_idx",
        "deliveries",
        ["first_due_at"],
        schema=SCHEMA,
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "deliveries_finished_idx",
        "deliveries",
        ["finished_at"],
        schema=SCHEMA,
        postgresql_where=sa.text("state <> 'pending'"),
    )


def downgrade() -> None:
    for table in ("deliveries", "endpoints"):
        op.drop_table(table, schema=SCHEMA)
