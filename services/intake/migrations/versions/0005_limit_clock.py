"""Limits go on when the clock is put back: a bucket's time is the one at which it was judged."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# What is added to each moment is nothing; it is there so that the way back finds its place.
_CHANGES = (
    ("take_limits", "greatest(used.requests_at, moment)", "moment + interval '0 s'"),
    ("take_limits", "greatest(used.tokens_at, moment)", "moment + interval '0 ms'"),
    ("settle_limits", "greatest(tokens_at, moment)", "moment + interval '0 s'"),
)


def _replace(function: str, old: str, new: str) -> None:
    old, new = (words.replace("'", "''") for words in (old, new))
    op.execute(
        f"DO $$ BEGIN EXECUTE replace(pg_get_functiondef('intake.{function}'::regproc),"
        f" '{old}', '{new}'); END $$"
    )


def upgrade() -> None:
    for function, old, new in _CHANGES:
        _replace(function, old, new)


def downgrade() -> None:
    for function, old, new in _CHANGES:
        _replace(function, new, old)
