"""Conversations: their items, and the turns that responses take in them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = "intake"


def upgrade() -> None:
    op.create_table(
        "conversations",
        sa.Column("conversation_id", sa.Text, primary_key=True),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("turns", sa.BigInteger, nullable=False, server_default="0"),
        schema=SCHEMA,
    )
    op.create_table(
        "conversation_items",
        _conversation(),
        sa.Column("turn", sa.BigInteger, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("item", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("conversation_id", "turn", "position"),
        schema=SCHEMA,
    )
    op.create_index(
        "conversation_items_id_idx",
        "conversation_items",
        ["conversation_id", "item_id"],
        schema=SCHEMA,
    )
    op.create_table(
        "conversation_turns",
        sa.Column("response_id", sa.Text, primary_key=True),
        _conversation(),
        sa.Column("turn", sa.BigInteger, nullable=False),
        sa.Column("reserved_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("accepted_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("settled_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("input", sa.Text),
        schema=SCHEMA,
    )
    # Deleting a conversation looks for all its turns, a new response for the open ones.
    op.create_index(
        "conversation_turns_conversation_idx",
        "conversation_turns",
        ["conversation_id", "settled_at"],
        schema=SCHEMA,
    )


def _conversation() -> sa.Column[str]:
    return sa.Column(
        "conversation_id",
        sa.Text,
        sa.ForeignKey(f"{SCHEMA}.conversations.conversation_id", ondelete="CASCADE"),
        nullable=False,
    )


def downgrade() -> None:
    for table in ("conversation_turns", "conversation_items", "conversations"):
        op.drop_table(table, schema=SCHEMA)
