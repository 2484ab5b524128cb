"""Files that clients uploaded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = "artifacts"
TIME = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("content_type", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME),
        sa.ForeignKeyConstraint(["sha256"], [f"{SCHEMA}.blobs.sha256"], name="files_sha256_fkey"),
        schema=SCHEMA,
    )
    # Pages of one project, who still needs a blob, and what is due.
    op.create_index("files_project_idx", "files", ["project", "created_at", "id"], schema=SCHEMA)
    op.create_index("files_sha256_idx", "files", ["sha256"], schema=SCHEMA)
    op.create_index(
        "files_expires_at_idx",
        "files",
        ["expires_at"],
        schema=SCHEMA,
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_table("files", schema=SCHEMA)
    # Their blobs belong to nobody now: the next sweep removes the bytes.
    op.execute(
        "UPDATE artifacts.blobs b SET stored = false WHERE NOT EXISTS "
        "(SELECT FROM artifacts.artifacts a WHERE a.sha256 = b.sha256)"
    )
