"""Artifacts, the blobs they share, refused files, and marks of deleted responses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "artifacts"
TIME = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.create_table(
        "responses",
        sa.Column("response_id", sa.Text, primary_key=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("deleted_at", TIME),
        schema=SCHEMA,
    )
    op.create_index(
        "responses_deleted_at_idx",
        "responses",
        ["deleted_at"],
        schema=SCHEMA,
        postgresql_where=sa.text("deleted_at IS NOT NULL"),
    )
    op.create_table(
        "blobs",
        sa.Column("sha256", sa.Text, primary_key=True),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("stored", sa.Boolean, nullable=False),
        sa.CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="blobs_sha256_check"),
        schema=SCHEMA,
    )
    op.create_index(
        "blobs_orphans_idx",
        "blobs",
        ["sha256"],
        schema=SCHEMA,
        postgresql_where=sa.text("NOT stored"),
    )
    op.create_table(
        "artifacts",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("response_id", sa.Text, nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("user", sa.Text),
        sa.Column("chat", sa.Text),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("content_type", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["sha256"], [f"{SCHEMA}.blobs.sha256"], name="artifacts_sha256_fkey"
        ),
        sa.CheckConstraint("kind IN ('image', 'file', 'audio')", name="artifacts_kind_check"),
        schema=SCHEMA,
    )
    # Pages of one response, of one project, of all; and who still needs a blob.
    order = ["created_at", "response_id", "position"]
    indexes = {
        "artifacts_response_id_idx": ["response_id", "position"],
        "artifacts_project_idx": ["project", *order],
        "artifacts_created_at_idx": order,
        "artifacts_sha256_idx": ["sha256"],
    }
    for name, columns in indexes.items():
        op.create_index(name, "artifacts", columns, schema=SCHEMA)
    op.create_table(
        "refusals",
        sa.Column("response_id", sa.Text, primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        schema=SCHEMA,
    )


def downgrade() -> None:
    for table in ("refusals", "artifacts", "blobs", "responses"):
        op.drop_table(table, schema=SCHEMA)
