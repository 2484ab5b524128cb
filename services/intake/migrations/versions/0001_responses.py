"""The projection of responses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "intake"


def upgrade() -> None:
    op.create_table(
        "responses",
        sa.Column("response_id", sa.Text, primary_key=True),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("user", sa.Text),
        sa.Column("chat", sa.Text),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("background", sa.Boolean, nullable=False),
        sa.Column("stream", sa.Boolean, nullable=False),
        sa.Column("events_partition", sa.Integer, nullable=False),
        sa.Column("previous_response_id", sa.Text),
        sa.Column("accepted_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("finished_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("last_sequence_number", sa.Integer),
        sa.Column("request", sa.Text),
        sa.Column("response", sa.Text),
        sa.Column("deleted_at", sa.TIMESTAMP(timezone=True)),
        schema=SCHEMA,
    )
    # Lists of a project's responses, newest first.
    op.create_index("responses_project_idx", "responses", ["project", "accepted_at"], schema=SCHEMA)


def downgrade() -> None:
    op.drop_table("responses", schema=SCHEMA)
