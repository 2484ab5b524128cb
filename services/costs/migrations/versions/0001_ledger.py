"""The ledger: one row per line, never changed once it is written."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "costs"


def upgrade() -> None:
    op.create_table(
        "ledger",
        sa.Column("line_id", sa.Text, primary_key=True),
        sa.Column("response_id", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("user", sa.Text),
        sa.Column("chat", sa.Text),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("tool", sa.Text),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("quantity", sa.BigInteger, nullable=False),
        sa.Column("unit_price_usd", sa.Numeric),
        sa.Column("cost_usd", sa.Numeric(20, 12)),
        sa.Column("unpriced_reason", sa.Text),
        sa.Column("price_source", sa.Text),
        sa.Column("service_tier", sa.Text),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("occurred_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint("quantity >= 0", name="ledger_quantity_check"),
        sa.CheckConstraint(
            "(cost_usd IS NULL) = (unpriced_reason IS NOT NULL)",
            name="ledger_priced_or_why_not_check",
        ),
        schema=SCHEMA,
    )
    # Lines of one response, in the order of pages; reports of one project, of one key, of all.
    op.create_index("ledger_response_id_idx", "ledger", ["response_id", "line_id"], schema=SCHEMA)
    op.create_index("ledger_project_idx", "ledger", ["project", "occurred_at"], schema=SCHEMA)
    op.create_index("ledger_key_id_idx", "ledger", ["key_id", "occurred_at"], schema=SCHEMA)
    op.create_index("ledger_occurred_at_idx", "ledger", ["occurred_at"], schema=SCHEMA)


def downgrade() -> None:
    op.drop_table("ledger", schema=SCHEMA)
