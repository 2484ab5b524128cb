"""Idempotency keys in PostgreSQL: one statement that takes a key or reads who has it."""

from __future__ import annotations

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.intake.idempotency.service import KeyClaim, KeyHolder
from services.kit.database import TimedEngine

# A key that is too old is anybody's. One whose command is not known to be on the log after a while
# is taken over, but keeps its response: whoever sends that command again sends the same.
_TAKE = text("""
    WITH taken AS (
        INSERT INTO intake.idempotency_keys AS known
            (project, idempotency_key, body_sha256, response_id, events_partition)
        VALUES (:project, :name, :body_sha256, :response_id, :events_partition)
        ON CONFLICT (project, idempotency_key) DO UPDATE SET
            body_sha256 = excluded.body_sha256,
            response_id = CASE WHEN known.created_at < now() - make_interval(secs => :keep_seconds)
                THEN excluded.response_id ELSE known.response_id END,
            events_partition = CASE
                WHEN known.created_at < now() - make_interval(secs => :keep_seconds)
                THEN excluded.events_partition ELSE known.events_partition END,
            created_at = CASE WHEN known.created_at < now() - make_interval(secs => :keep_seconds)
                THEN now() ELSE known.created_at END,
            attempt = known.attempt + 1, attempted_at = now(), published = false,
            status = NULL, error = NULL
        WHERE known.created_at < now() - make_interval(secs => :keep_seconds)
            OR (known.body_sha256 = excluded.body_sha256 AND NOT known.published
                AND known.attempted_at < now() - make_interval(secs => :patience_seconds)
                AND NOT EXISTS (
                    SELECT 1 FROM intake.responses r WHERE r.response_id = known.response_id))
        RETURNING body_sha256, response_id, events_partition, attempt, status, error
    )
    SELECT body_sha256, response_id, events_partition, attempt, status, error, true, false
    FROM taken
    UNION ALL
    SELECT body_sha256, response_id, events_partition, attempt, status, error, false,
           published OR EXISTS (
               SELECT 1 FROM intake.responses r WHERE r.response_id = k.response_id)
    FROM intake.idempotency_keys k
    WHERE project = :project AND idempotency_key = :name AND NOT EXISTS (SELECT 1 FROM taken)
""")
_OWN = "project = :project AND idempotency_key = :name AND response_id = :response_id"
_RELEASE = text(f"""
    DELETE FROM intake.idempotency_keys WHERE {_OWN} AND attempt = :attempt
""")  # noqa: S608 - only names of columns
_PUBLISHED = text(f"UPDATE intake.idempotency_keys SET published = true WHERE {_OWN}")  # noqa: S608
_FAILED = text(f"""
    UPDATE intake.idempotency_keys SET status = :status, error = :error WHERE {_OWN}
""")  # noqa: S608
_FORGET = text("""
    DELETE FROM intake.idempotency_keys WHERE (project, idempotency_key) IN (
        SELECT project, idempotency_key FROM intake.idempotency_keys
        WHERE created_at < now() - make_interval(secs => :keep_seconds)
        ORDER BY created_at LIMIT :most FOR UPDATE SKIP LOCKED
    )
""")


class IdempotencyStore:
    """Who has which key. Every method is one statement, a transaction by itself.

    All but `forget` raise `TimeoutError` when it takes longer than `answer_seconds`.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        keep_seconds: float,
        patience_seconds: float,
        answer_seconds: float | None = None,
    ) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._timed = TimedEngine(self._engine, seconds=answer_seconds)
        self._keep_seconds = keep_seconds
        self._patience_seconds = patience_seconds

    async def take(self, claim: KeyClaim) -> KeyHolder | None:
        """Take the key for a new response, or return who has it.

        None in the moment in which another one takes it: ask again. A key whose command did not
        reach the log within the patience is taken over with its response.
        """
        values = {
            **_names(claim),
            "body_sha256": claim.body_sha256,
            "events_partition": claim.events_partition,
            "keep_seconds": self._keep_seconds,
            "patience_seconds": self._patience_seconds,
        }
        async with self._timed.connect() as connection:
            row = (await connection.execute(_TAKE, values)).first()
        return None if row is None else KeyHolder(*tuple(row))

    async def release(self, claim: KeyClaim, attempt: int) -> None:
        """Give a key back, unless somebody took it over since. Idempotent."""
        await self._do(_RELEASE, {**_names(claim), "attempt": attempt})

    async def published(self, claim: KeyClaim) -> None:
        """Note that the command is on the log, for responses that are not projected. Idempotent."""
        await self._do(_PUBLISHED, _names(claim))

    async def failed(self, claim: KeyClaim, *, status: int, error: str) -> None:
        """Note what the client of a failed response was told, a JSON text. Idempotent."""
        await self._do(_FAILED, {**_names(claim), "status": status, "error": error})

    async def forget(self, *, most: int) -> int:
        """Delete up to `most` keys that are too old; return how many there were."""
        values = {"keep_seconds": self._keep_seconds, "most": most}
        async with self._engine.connect() as connection:
            return (await connection.execute(_FORGET, values)).rowcount

    async def _do(self, statement: TextClause, values: dict[str, object]) -> None:
        async with self._timed.connect() as connection:
            await connection.execute(statement, values)


def _names(claim: KeyClaim) -> dict[str, object]:
    return {
        "project": claim.project,
        "name": claim.name,
        "response_id": claim.response_id,
    }
