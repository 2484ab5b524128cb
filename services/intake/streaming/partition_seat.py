"""Which partition of `responses.events` a replica reads: one that no other replica sits on."""

from __future__ import annotations

import asyncio
import logging

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.kit.outages import DATABASE_OUTAGES
from services.kit.tasks import TaskSet

logger = logging.getLogger(__name__)
_PING_SECONDS = 15.0
_SEATS = 0x73656174
_SIT = text("SELECT pg_try_advisory_lock(:seats, :partition)")


class PartitionSeat:
    """A partition, held by an advisory lock of PostgreSQL as long as a connection lives.

    The server frees it when the process ends, however it ends. Two replicas on one partition are
    harmless, each then reads the other's bytes: so one that finds no free seat, or no database,
    sits down on the one it prefers.
    """

    def __init__(self, engine: AsyncEngine, *, partitions: int, preferred: int) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._partitions = partitions
        self._preferred = preferred
        self._connection: AsyncConnection | None = None
        self._tasks = TaskSet()
        self.partition = preferred

    async def take(self) -> int:
        """Sit down and return the partition, which stays the same from then on."""
        try:
            self._connection = await self._engine.connect()
            for step in range(self._partitions):
                partition = (self._preferred + step) % self._partitions
                if await self._sit(self._connection, partition):
                    self.partition = partition
                    logger.info("reading partition %d of the events", partition)
                    return partition
            logger.warning("all partitions of the events are taken: sharing %d", self.partition)
        except DATABASE_OUTAGES as error:
            logger.warning("no seat could be taken, reading %d: %r", self.partition, error)
            await self._stand_up()
        return self.partition

    async def start(self) -> None:
        """Begin to look after the seat."""
        self._tasks.spawn(self._keep(), name="partition seat")

    async def stop(self) -> None:
        """Leave the seat to others."""
        await self._tasks.stop()
        await self._stand_up()
        await self._engine.dispose()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_PING_SECONDS)
            try:
                if self._connection is None:
                    self._connection = await self._engine.connect()
                    if not await self._sit(self._connection, self.partition):
                        logger.warning("partition %d is shared now", self.partition)
                else:
                    await self._connection.execute(text("SELECT 1"))
            except DATABASE_OUTAGES as error:
                logger.warning("the seat at partition %d was lost: %r", self.partition, error)
                await self._stand_up()

    async def _sit(self, connection: AsyncConnection, partition: int) -> bool:
        values = {"seats": _SEATS, "partition": partition}
        return bool((await connection.execute(_SIT, values)).scalar_one())

    async def _stand_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                # Given back to the pool it would keep the lock.
                await connection.invalidate()
                await connection.close()
            except DATABASE_OUTAGES as error:
                logger.info("the connection of the seat ended: %r", error)
