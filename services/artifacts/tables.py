"""The tables of the service: what responses made, what clients uploaded, and the blobs of both."""

from __future__ import annotations

import sqlalchemy as sa

from services.kit.database import metadata

TABLES = metadata("artifacts")
TIME = sa.TIMESTAMP(timezone=True)

RESPONSES = sa.Table(
    "responses",
    TABLES,
    sa.Column("response_id", sa.Text, primary_key=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("deleted_at", TIME),
)
BLOBS = sa.Table(
    "blobs",
    TABLES,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    # False from before the bytes are written until they are, and again before they are removed.
    sa.Column("stored", sa.Boolean, nullable=False),
)
ARTIFACTS = sa.Table(
    "artifacts",
    TABLES,
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
    sa.Column("sha256", sa.Text, sa.ForeignKey(BLOBS.c.sha256), nullable=False),
    sa.Column("created_at", TIME, nullable=False),
)
REFUSALS = sa.Table(
    "refusals",
    TABLES,
    sa.Column("response_id", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("item_id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
)
FILES = sa.Table(
    "files",
    TABLES,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("filename", sa.Text, nullable=False),
    sa.Column("content_type", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.Text, sa.ForeignKey(BLOBS.c.sha256), nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("expires_at", TIME),
)
