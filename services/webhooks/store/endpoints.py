"""Endpoints on record, and the history of each."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from services.webhooks.domain.endpoints import Delivery, Endpoint
from services.webhooks.errors import ParameterError
from services.webhooks.service import DeliveryQuery
from services.webhooks.store.mapping import from_endpoint, to_delivery, to_endpoint
from services.webhooks.store.tables import DELIVERIES, ENDPOINTS


class PostgresEndpoints:
    """Implements `service.Endpoints`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, endpoint: Endpoint, *, most: int) -> bool:
        """Add an endpoint; False when its project has `most` of them."""
        of_project = (
            sa.select(sa.func.count())
            .select_from(ENDPOINTS)
            .where(ENDPOINTS.c.project == endpoint.project)
        )
        async with self._engine.begin() as connection:
            # Two that are added at once must see each other.
            lock = sa.func.pg_advisory_xact_lock(sa.func.hashtext(endpoint.project))
            await connection.execute(sa.select(lock))
            if (await connection.execute(of_project)).scalar_one() >= most:
                return False
            await connection.execute(sa.insert(ENDPOINTS).values(from_endpoint(endpoint)))
            return True

    async def find(self, endpoint_id: str, *, project: str) -> Endpoint | None:
        """Return an endpoint of the project."""
        async with self._engine.connect() as connection:
            row = (await connection.execute(_one(endpoint_id, project))).one_or_none()
        return None if row is None else to_endpoint(row)

    async def page(self, *, project: str, limit: int, after: str | None) -> list[Endpoint]:
        """Return up to `limit` + 1 endpoints, the newest first."""
        order = (ENDPOINTS.c.created_at, ENDPOINTS.c.id)
        statement = (
            sa.select(ENDPOINTS)
            .where(ENDPOINTS.c.project == project)
            .order_by(*(column.desc() for column in order))
            .limit(limit + 1)
        )
        if after is not None:
            last = await self.find(after, project=project)
            if last is None:
                raise ParameterError(
                    "after", f"Invalid value for 'after': no endpoint has the id '{after}'."
                )
            statement = statement.where(
                sa.tuple_(*order) < sa.tuple_(sa.literal(last.created_at), sa.literal(last.id))
            )
        async with self._engine.connect() as connection:
            return [to_endpoint(row) for row in await connection.execute(statement)]

    async def change(
        self, endpoint_id: str, *, project: str, to: Callable[[Endpoint], Endpoint]
    ) -> Endpoint | None:
        """Change an endpoint that nobody else changes meanwhile; None when there is none."""
        async with self._engine.begin() as connection:
            locked = _one(endpoint_id, project).with_for_update(key_share=True)
            row = (await connection.execute(locked)).one_or_none()
            if row is None:
                return None
            before = to_endpoint(row)
            after = to(before)
            if after != before:
                await connection.execute(
                    sa.update(ENDPOINTS)
                    .where(ENDPOINTS.c.id == endpoint_id)
                    .values(from_endpoint(after))
                )
            return after

    async def remove(self, endpoint_id: str, *, project: str) -> bool:
        """Forget an endpoint and its deliveries; whether there was one."""
        statement = sa.delete(ENDPOINTS).where(
            ENDPOINTS.c.id == endpoint_id, ENDPOINTS.c.project == project
        )
        async with self._engine.begin() as connection:
            return (await connection.execute(statement)).rowcount > 0

    async def deliveries(self, endpoint_id: str, query: DeliveryQuery) -> list[Delivery]:
        """Return up to `limit` + 1 deliveries, the newest first."""
        order = (DELIVERIES.c.created_at, DELIVERIES.c.id)
        of_endpoint = DELIVERIES.c.endpoint_id == endpoint_id
        statement = (
            sa.select(DELIVERIES)
            .where(of_endpoint)
            .order_by(*(column.desc() for column in order))
            .limit(query.limit + 1)
        )
        if query.state is not None:
            statement = statement.where(DELIVERIES.c.state == query.state)
        if query.response_id is not None:
            statement = statement.where(DELIVERIES.c.response_id == query.response_id)
        async with self._engine.connect() as connection:
            if query.after is not None:
                place = sa.select(*order).where(of_endpoint, DELIVERIES.c.id == query.after)
                last = (await connection.execute(place)).one_or_none()
                if last is None:
                    raise ParameterError(
                        "after",
                        f"Invalid value for 'after': no delivery has the id '{query.after}'.",
                    )
                statement = statement.where(
                    sa.tuple_(*order) < sa.tuple_(sa.literal(last.created_at), sa.literal(last.id))
                )
            return [to_delivery(row) for row in await connection.execute(statement)]

    async def resend(self, endpoint_id: str, delivery_id: str, *, at: datetime) -> Delivery | None:
        """Make a delivery due at once, with all its attempts; None when there is none.

        One that is being sent this moment is sent again after that.
        """
        statement = (
            sa.update(DELIVERIES)
            .where(DELIVERIES.c.endpoint_id == endpoint_id, DELIVERIES.c.id == delivery_id)
            .values(
                state="pending",
                due_at=at,
                first_due_at=at,
                leased=False,
                attempts=0,
                finished_at=None,
            )
            .returning(DELIVERIES)
        )
        async with self._engine.begin() as connection:
            row = (await connection.execute(statement)).one_or_none()
        return None if row is None else to_delivery(row)


def _one(endpoint_id: str, project: str) -> sa.Select[tuple[object, ...]]:
    return sa.select(ENDPOINTS).where(ENDPOINTS.c.id == endpoint_id, ENDPOINTS.c.project == project)
