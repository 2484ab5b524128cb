"""Webhooks over real sockets: where they do not go, and endpoints that misbehave."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from services.webhooks.clients.sender import HttpSender
from services.webhooks.domain.addresses import AddressRules
from services.webhooks.errors import UndeliveredError
from tests.integration.webhooks.parts import HERE, sending
from tests.unit.webhooks.samples import NOW
from tests.webhook_receiver import Receiver, held

STRICT = AddressRules(http=True)
BODY = b'{"id":"evt_1"}'
HEADERS = {"webhook-id": "wh_1"}
Place = tuple[Any, ...]


def answering(*addresses: str) -> Callable[..., list[Place]]:
    """A name server that gives every name these addresses."""

    def lookup(_: str, port: int, *rest: int) -> list[Place]:
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                (address, port),
            )
            for address in addresses
        ]

    return lookup


async def refusal(sender: HttpSender, url: str) -> str:
    with pytest.raises(UndeliveredError) as caught:
        await sender.post(url, BODY, HEADERS)
    return str(caught.value)


async def test_a_webhook_arrives_as_it_was_signed(receiver: Receiver) -> None:
    async with sending() as sender:
        answer = await sender.post(receiver.url("hook?a=%2Fb"), BODY, HEADERS)
    assert (answer.status_code, answer.retry_after) == (204, None)
    [webhook] = receiver.received
    assert webhook.body == BODY
    assert webhook.headers["content-type"] == "application/json"
    assert webhook.headers["user-agent"].startswith("Antiphon")
    assert webhook.headers["webhook-id"] == "wh_1"
    assert "cookie" not in webhook.headers


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.1", "[::1]", "[::ffff:127.0.0.1]", "0"],
)
async def test_no_writing_of_this_machine_is_connected_to(receiver: Receiver, host: str) -> None:
    port = receiver.base_url.rpartition(":")[2]
    async with sending(STRICT) as sender:
        assert "not allowed" in await refusal(sender, f"http://{host}:{port}/hook")
    assert receiver.received == []


async def test_a_name_of_this_machine_is_not_connected_to(receiver: Receiver) -> None:
    port = receiver.base_url.rpartition(":")[2]
    async with sending(STRICT) as sender:
        reason = await refusal(sender, f"http://localhost:{port}/hook")
    assert "not a public address" in reason
    assert receiver.received == []


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("93.184.215.14", "127.0.0.1"), ("::1",)])
async def test_a_name_with_one_inner_address_is_refused_whole(
    receiver: Receiver, addresses: tuple[str, ...]
) -> None:
    port = receiver.base_url.rpartition(":")[2]
    async with sending(STRICT, lookup=answering(*addresses)) as sender:
        reason = await refusal(sender, f"http://hooks.example:{port}/hook")
    assert "not a public address" in reason
    assert receiver.received == []


async def test_a_name_that_changes_after_its_check_changes_nothing(receiver: Receiver) -> None:
    asked: list[str] = []
    port = receiver.base_url.rpartition(":")[2]

    def rebinding(host: str, port: int, *rest: int) -> list[Place]:
        asked.append(host)
        # The address is public when it is checked and inner if anybody asks again.
        return answering("192.0.2.1" if len(asked) == 1 else "127.0.0.1")(host, port, *rest)

    rules = AddressRules(http=True, networks=(IPv4Network("192.0.2.0/24"),))
    async with sending(rules, total_seconds=0.5, lookup=rebinding) as sender:
        reason = await refusal(sender, f"http://hooks.example:{port}/hook")
    # It went to the checked address, where nobody is.
    assert "not allowed" not in reason
    assert asked == ["hooks.example"]
    assert receiver.received == []


async def test_networks_on_the_list_can_be_reached(receiver: Receiver) -> None:
    rules = AddressRules(http=True, networks=(IPv4Network("127.0.0.0/8"),))
    async with sending(rules) as sender:
        assert (await sender.post(receiver.url("hook"), BODY, HEADERS)).status_code == 204


async def test_http_is_refused_where_it_is_not_allowed(receiver: Receiver) -> None:
    async with sending(AddressRules(private=True)) as sender:
        assert "http is not allowed" in await refusal(sender, receiver.url("hook"))
    assert receiver.received == []


async def test_a_redirect_is_an_answer_and_is_not_followed(receiver: Receiver) -> None:
    async def elsewhere(_: web.Request) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect(receiver.url("inner"))

    receiver.answer("hook", elsewhere)
    async with sending() as sender:
        assert (await sender.post(receiver.url("hook"), BODY, HEADERS)).status_code == 307
    assert [one.path for one in receiver.received] == ["/hook"]


async def test_an_answer_without_end_is_not_read_to_its_end(receiver: Receiver) -> None:
    gone = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-encoding": "gzip"})
        await response.prepare(request)
        try:
            while True:
                await response.write(b"\0" * 65_536)
        finally:
            gone.set()

    receiver.answer("hook", endless)
    async with sending() as sender, asyncio.timeout(5):
        assert (await sender.post(receiver.url("hook"), BODY, HEADERS)).status_code == 200
        await gone.wait()


async def test_an_answer_that_comes_in_pieces_is_let_finish(receiver: Receiver) -> None:
    finished = asyncio.Event()

    async def pieces(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(20):
            await response.write(b"piece")
            await asyncio.sleep(0)
        await response.write_eof()
        finished.set()
        return response

    receiver.answer("hook", pieces)
    async with sending() as sender, asyncio.timeout(5):
        assert (await sender.post(receiver.url("hook"), BODY, HEADERS)).status_code == 200
        await finished.wait()


async def test_an_answer_that_stops_in_the_middle_counts(receiver: Receiver) -> None:
    async def stopping(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    receiver.answer("hook", stopping)
    async with sending() as sender, asyncio.timeout(5):
        assert (await sender.post(receiver.url("hook"), BODY, HEADERS)).status_code == 200


async def test_an_endpoint_that_hangs_is_given_up_in_time(receiver: Receiver) -> None:
    receiver.answer("hook", held(asyncio.Event()))
    async with sending(total_seconds=0.3) as sender, asyncio.timeout(5):
        assert await refusal(sender, receiver.url("hook")) == "no answer in time"


@pytest.mark.parametrize(
    ("value", "pause"),
    [
        ("120", timedelta(seconds=120)),
        ("9" * 40, timedelta(seconds=999_999)),
        ("-1", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
async def test_a_pause_that_an_endpoint_asks_for_is_understood(
    receiver: Receiver, value: str, pause: timedelta | None
) -> None:
    async def busy(_: web.Request) -> web.StreamResponse:
        return web.Response(status=503, headers={"retry-after": value})

    receiver.answer("hook", busy)
    async with sending() as sender:
        answer = await sender.post(receiver.url("hook"), BODY, HEADERS)
    assert (answer.status_code, answer.retry_after) == (503, pause)


@asynccontextmanager
async def raw_server(talk: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """The URL of a server that reads a request and then does as it likes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await talk(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def test_servers_that_speak_no_http_are_failures_with_a_reason() -> None:
    async def nothing(_: asyncio.StreamWriter) -> None:
        return

    async def babble(writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x16\x03\x01 what?\r\n\r\n")
        await writer.drain()

    async def long_head(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while not writer.is_closing():
            writer.write(b"x-more: " + b"m" * 60_000 + b"\r\n")
            await writer.drain()

    async with sending() as sender, asyncio.timeout(10):
        async with raw_server(nothing) as url:
            assert await refusal(sender, url) == "the connection was closed without an answer"
        for talk in (babble, long_head):
            async with raw_server(talk) as url:
                assert (await refusal(sender, url)).startswith("the answer is not HTTP")


async def test_an_address_where_nobody_is_and_a_name_that_is_none_are_failures() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        async with sending() as sender:
            reason = await refusal(sender, f"http://127.0.0.1:{port}/")
            assert reason.startswith("no connection could be made")

    def unknown(*_: object) -> list[Place]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with sending(HERE, lookup=unknown) as sender:
        reason = await refusal(sender, "https://nowhere.example/")
        assert reason == "the host name can't be resolved"


async def test_a_certificate_that_nobody_trusts_is_refused(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_own_certificate(tmp_path))
    heard = asyncio.Event()
    server = await asyncio.start_server(lambda *_: heard.set(), "127.0.0.1", 0, ssl=context)
    async with server, sending() as sender:
        port = server.sockets[0].getsockname()[1]
        assert (await refusal(sender, f"https://localhost:{port}/")).startswith("TLS failed")
    assert not heard.is_set()


def _own_certificate(folder: Path) -> Path:
    """Write a certificate of localhost that it signed itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=365))
        .not_valid_after(NOW + timedelta(days=36_500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, SHA256())
    )
    file = folder / "localhost.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(secret + certificate.public_bytes(Encoding.PEM))
    return file
