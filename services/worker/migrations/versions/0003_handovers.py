"""What an orderly stop left does not count as a failure; when the first attempt began."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SCHEMA = "worker"


def upgrade() -> None:
    # Workers of the version before write rows without these columns meanwhile.
    for name in ("handovers", "resent"):
        column = sa.Column(name, sa.Integer, nullable=False, server_default="0")
        op.add_column("leases", column, schema=SCHEMA)
    op.add_column(
        "leases", sa.Column("first_claimed_at", sa.TIMESTAMP(timezone=True)), schema=SCHEMA
    )


def downgrade() -> None:
    for name in ("first_claimed_at", "resent", "handovers"):
        op.drop_column("leases", name, schema=SCHEMA)
