"""Connections through the proxy: bytes pumped from end to end, and what troubles them."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Literal, cast

MAX_HELD_BYTES = 4 * 1024 * 1024
"""What a direction may hold back before its sender is told to wait."""
_RST_ON_CLOSE = struct.pack("ii", 1, 0)

What = Literal["cut", "blackhole", "delay", "throttle"]
PortsOf = Callable[[frozenset[int]], Container[int]]
"""Gives the local ports of processes' TCP connections; processes that are gone have none."""


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What happens to bytes.

    `cut` resets connections, new ones too. `blackhole` lets nothing pass, not even an end; what was
    sent arrives when it is over, as over a net that was parted. `delay` is `delay_ms` and up to
    `jitter_ms` more for each piece, in order. `throttle` lets `bytes_per_s` pass each way.
    """

    what: What
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    bytes_per_s: float = 0.0

    def hold_s(self, size: int) -> float:
        """Return how long a piece of `size` bytes takes longer."""
        if self.what == "throttle":
            return size / self.bytes_per_s
        return (self.delay_ms + random.random() * self.jitter_ms) / 1_000


class Direction:
    """What goes one way: passed at once, or held until its time has come."""

    def __init__(self, source: End, sink: End) -> None:
        self.source = source
        self.sink = sink
        self.trouble: Trouble | None = None
        self._held: deque[tuple[float, bytes]] = deque()
        self._held_bytes = 0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False

    def send(self, data: bytes) -> None:
        """Pass a piece on, or hold it."""
        if self.trouble is None and not self._held:
            self.sink.write(data)
            return
        now = asyncio.get_running_loop().time()
        self._due = max(self._due, now)
        if self.trouble is not None:
            extra = self.trouble.hold_s(len(data))
            base = self._due if self.trouble.what == "throttle" else now
            self._due = max(self._due, base + extra)
        self._held.append((self._due, data))
        self._held_bytes += len(data)
        if self._held_bytes > MAX_HELD_BYTES:
            self.source.pause()
        self.flush()

    def end(self) -> None:
        """Pass the end of the connection on, after what is held."""
        self._ended = True
        self.flush()

    def heal(self) -> None:
        """Pass all on that is held, in order, and hold nothing any more."""
        self.trouble = None
        self._held = deque((0.0, data) for _, data in self._held)
        self._due = 0.0
        self.source.resume()
        self.flush()

    def flush(self) -> None:
        """Pass on what is due, and come again for the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.trouble is not None and self.trouble.what == "blackhole":
            return
        loop = asyncio.get_running_loop()
        while self._held and self._held[0][0] <= loop.time():
            _, data = self._held.popleft()
            self._held_bytes -= len(data)
            self.sink.write(data)
        if self._held_bytes <= MAX_HELD_BYTES:
            self.source.resume()
        if self._held:
            self._timer = loop.call_at(self._held[0][0], self.flush)
        elif self._ended:
            self.sink.close()


class End(asyncio.Protocol):
    """One side of a link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._closing = False
        self._paused = False
        self.peer_port = 0
        """The other side's port, also after the connection's end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # A side that is gone already has no name any more.
        name = transport.get_extra_info("peername")
        self.peer_port = int(name[1]) if name else 0
        for data in self._early:
            self._transport.write(data)
        self._early.clear()
        if self._closing:
            self._transport.close()
        self._link.opened(self)

    def data_received(self, data: bytes) -> None:
        self._link.direction(self).send(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._closing = True
        self._link.lost(self)

    def pause_writing(self) -> None:
        self._link.other(self).pause()

    def resume_writing(self) -> None:
        self._link.other(self).resume()

    def write(self, data: bytes) -> None:
        """Send, at once or when the connection stands; to a closed one nothing is sent."""
        if self._transport is not None:
            self._transport.write(data)
        elif not self._closing:
            self._early.append(data)

    def pause(self) -> None:
        """Take no more."""
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Take on."""
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        """End in order."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """End with an RST."""
        self._closing = True
        if self._transport is not None:
            taken: socket.socket = self._transport.get_extra_info("socket")
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
            self._transport.abort()


class Link:
    """One connection of a client and the one to the server behind it."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.client = End(self)
        self.server = End(self)
        self._up = Direction(self.client, self.server)
        self._down = Direction(self.server, self.client)
        self._connecting: asyncio.Task[None] | None = None
        self._ends = 0

    def direction(self, source: End) -> Direction:
        """The way of what comes from an end."""
        return self._up if source is self.client else self._down

    def other(self, end: End) -> End:
        """The end across."""
        return self.server if end is self.client else self.client

    def opened(self, end: End) -> None:
        """Go on to the server when a client came."""
        self._ends += 1
        if end is self.client:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
            self._listener.joined(self)

    def lost(self, end: End) -> None:
        """Tell the other end, when its time has come."""
        self._ends -= 1
        self.direction(end).end()
        if self._ends == 0:
            self._listener.left(self)

    async def _connect(self) -> None:
        await self._listener.open_way(self)
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self.server, *self._listener.target)
        except OSError:
            self.client.reset()

    def trouble(self, trouble: Trouble) -> None:
        """Let it happen to this link."""
        if trouble.what == "cut":
            self.cut()
            return
        self._up.trouble = self._down.trouble = trouble

    def heal(self) -> None:
        """Let everything pass again."""
        self._up.heal()
        self._down.heal()

    def cut(self) -> None:
        """Reset both ends."""
        if self._connecting is not None:
            self._connecting.cancel()
        self.client.reset()
        self.server.reset()


class Listener:
    """All links of one route, and the trouble that it has now.

    `ports_of` gives the ports that processes hold, to trouble the links of some of them alone.
    """

    def __init__(self, target: tuple[str, int], ports_of: PortsOf) -> None:
        self.target = target
        self.links: set[Link] = set()
        self._ports_of = ports_of
        self._trouble: Trouble | None = None
        self._pids: frozenset[int] = frozenset()
        self._healed = asyncio.Event()
        self._healed.set()

    def protocol(self) -> End:
        """Return the client's end of a new link."""
        return Link(self).client

    def joined(self, link: Link) -> None:
        """Take in a link whose client has just come."""
        self.links.add(link)
        if self._trouble is not None and self._concerns(link):
            link.trouble(self._trouble)

    def left(self, link: Link) -> None:
        """Forget a link."""
        self.links.discard(link)

    async def open_way(self, link: Link) -> None:
        """Return when the link may go on to the server: no connection comes about in a hole."""
        if self._trouble is not None and self._trouble.what == "blackhole" and self._concerns(link):
            await self._healed.wait()

    def impose(self, trouble: Trouble, pids: frozenset[int]) -> int:
        """Trouble the links of these processes, of all when none is named; return how many."""
        self.heal()
        self._trouble, self._pids = trouble, pids
        self._healed.clear()
        ports = self._ports_of(pids) if pids else None
        hit = [x for x in self.links if ports is None or x.client.peer_port in ports]
        for link in hit:
            link.trouble(trouble)
        return len(hit)

    def heal(self) -> None:
        """End the trouble of all links."""
        self._trouble, self._pids = None, frozenset()
        self._healed.set()
        for link in list(self.links):
            link.heal()

    def _concerns(self, link: Link) -> bool:
        return not self._pids or link.client.peer_port in self._ports_of(self._pids)
