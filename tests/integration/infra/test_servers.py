"""The real servers of the local stack, each started by itself."""

import asyncio
import io
import uuid
from pathlib import Path

import aiokafka
import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from minio import Minio
from minio.error import S3Error

from infra.local.parts.kafka import KafkaServer
from infra.local.parts.kafka_quorum import KafkaQuorum
from infra.local.parts.postgres import PostgresServer
from infra.local.parts.s3 import S3Server
from infra.local.process import serving
from infra.local.settings import LocalSettings


@pytest.fixture
def downloads() -> Path:
    """The checkout's own, so that archives are fetched once for all tests."""
    return LocalSettings.load().downloads


async def test_kafka_keeps_messages_over_a_restart(tmp_path: Path, downloads: Path) -> None:
    async with serving(KafkaServer(tmp_path, downloads)) as kafka:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic("kept", 1, 1)])
            await admin.describe_topics(["never-created"])
            assert "never-created" not in await admin.list_topics()
        finally:
            await admin.close()
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all")
        await producer.start()
        try:
            await producer.send_and_wait("kept", b"message")
        finally:
            await producer.stop()
    async with serving(KafkaServer(tmp_path, downloads)) as kafka:
        consumer = aiokafka.AIOKafkaConsumer(
            "kept", bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            async with asyncio.timeout(20):
                assert (await consumer.getone()).value == b"message"
        finally:
            await consumer.stop()


async def test_kafka_takes_a_cluster_id_that_begins_with_a_dash(
    tmp_path: Path, downloads: Path
) -> None:
    dashed = uuid.UUID(bytes=b"\xf8" + bytes(15))
    quorum = KafkaQuorum(tmp_path, new_id=lambda: dashed)
    async with serving(KafkaServer(tmp_path, downloads, quorum)) as kafka:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        try:
            assert (await admin.describe_cluster())["cluster_id"].startswith("-")
        finally:
            await admin.close()


async def test_postgresql_18_keeps_rows_and_has_pgvector(tmp_path: Path) -> None:
    async with serving(PostgresServer(tmp_path)) as postgres:
        connection = await asyncpg.connect(postgres.url)
        assert connection.get_server_version().major == 18
        await connection.execute("CREATE EXTENSION vector")
        await connection.execute("CREATE TABLE kept AS SELECT '[1,2]'::vector AS v")
        assert await connection.fetchval("SHOW synchronous_commit") == "on"
        await connection.close()
        wrong = postgres.url.replace("antiphon:", "antiphon:not-", 1)
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(wrong)
    async with serving(PostgresServer(tmp_path)) as postgres:
        connection = await asyncpg.connect(postgres.url)
        assert await connection.fetchval("SELECT v <-> '[1,2]' FROM kept") == 0
        await connection.close()


async def test_s3_keeps_objects_and_checks_signatures(tmp_path: Path, downloads: Path) -> None:
    def client(server: S3Server, secret: str) -> Minio:
        access = server.environment()["S3_ACCESS_KEY"]
        host = server.endpoint.removeprefix("http://")
        return Minio(host, access_key=access, secret_key=secret, secure=False)

    async with serving(S3Server(tmp_path, downloads)) as server:
        s3 = client(server, server.environment()["S3_SECRET_KEY"])
        await asyncio.to_thread(s3.put_object, server.bucket, "a/b", io.BytesIO(b"bytes"), 5)
        with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
            await asyncio.to_thread(client(server, "wrong").stat_object, server.bucket, "a/b")
    async with serving(S3Server(tmp_path, downloads)) as server:
        s3 = client(server, server.environment()["S3_SECRET_KEY"])
        answer = await asyncio.to_thread(s3.get_object, server.bucket, "a/b")
        try:
            assert answer.read() == b"bytes"
        finally:
            answer.close()
            answer.release_conn()
