"""Runs a service: its parts start in order and stop in reverse, on a signal or a fatal error."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import uvloop

from contracts.providers import ProvidersFileError
from services.kit.logging import configure_logging
from services.kit.outages import OUTAGES
from services.kit.settings import ServiceSettings
from services.kit.telemetry import configure_telemetry

logger = logging.getLogger(__name__)
_GARBAGE_THRESHOLD = 20_000


class Part(Protocol):
    """Something with a life of its own within a service."""

    async def start(self) -> None:
        """Return when it is usable."""
        ...

    async def stop(self) -> None:
        """Finish what is open, within a bound, and let go."""
        ...


def _settle_garbage() -> None:
    """Keep what lives as long as the process out of the garbage collector's way.

    Modules and models are a large heap that every full collection walked through: a fifth of the
    CPU of a busy worker. What comes later is looked at less often, since little of it has cycles.
    """
    gc.collect()
    # What starting up has freed goes back to the system, where the C library can do that.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD, 20, 50)


class Runtime:
    """The parts of one running service, and the one reason why it must end."""

    def __init__(self, *, stop_seconds: float) -> None:
        self._stop_seconds = stop_seconds
        self._parts: list[Part] = []
        self._ended = asyncio.Event()
        self._fatal: BaseException | None = None

    @property
    def failed(self) -> bool:
        """Whether the service ends by an error, not because it was told to."""
        return self._fatal is not None

    def fail(self, error: BaseException) -> None:
        """End the service with exit code 1: it can't go on without losing something."""
        logger.critical("fatal: %r", error, exc_info=error)
        self._fatal = self._fatal or error
        self._ended.set()

    def add(self, part: Part) -> None:
        """Add a part; parts start in the order of adding."""
        self._parts.append(part)

    async def run(self, *, on_ready: Callable[[], None]) -> int:
        """Start all, wait for SIGTERM, SIGINT or a fatal error, stop; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ended.set)
        touched: list[Part] = []
        starting = asyncio.create_task(self._start(touched, on_ready), name="start")
        try:
            await self._ended.wait()
        finally:
            starting.cancel()
            await asyncio.wait([starting])
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            for part in reversed(touched):
                await self._stop(part)
        return 1 if self._fatal else 0

    async def _start(self, touched: list[Part], on_ready: Callable[[], None]) -> None:
        """Start the parts; one that fails is in `touched` too, since it may hold something."""
        for part in self._parts:
            touched.append(part)
            try:
                await part.start()
            except OUTAGES as error:
                # What others can cause is told in a sentence; a bug shows where it is.
                logger.critical("%s can't start: %s", type(part).__name__, error)
                self._fatal = error
                self._ended.set()
                return
            except Exception as error:
                self.fail(error)
                return
        _settle_garbage()
        on_ready()

    async def _stop(self, part: Part) -> None:
        try:
            async with asyncio.timeout(self._stop_seconds):
                await part.stop()
        except Exception:
            logger.exception("%s did not stop cleanly", type(part).__name__)


Settings = TypeVar("Settings", bound=ServiceSettings)


def run_service(
    name: str,
    settings_class: type[Settings],
    compose: Callable[[Settings, Runtime], Awaitable[None]],
) -> None:
    """Load settings, build the service with `compose`, run it; the whole of a service's `main`."""
    parser = argparse.ArgumentParser(prog=f"antiphon-{name.replace('_', '-')}")
    parser.add_argument("--check-config", action="store_true", help="validate settings and exit")
    arguments = parser.parse_args()
    settings = settings_class.load()
    try:
        settings.check()
    except ProvidersFileError as error:
        sys.stderr.write(f"the providers can't be used: {error}\n")
        raise SystemExit(2) from error
    if arguments.check_config:
        sys.stdout.write("the configuration is valid\n")
        return
    configure_logging(service=name, level=settings.log_level, style=settings.log_format)
    configure_telemetry(service=name, otlp_endpoint=settings.otel_exporter_otlp_endpoint)

    async def run() -> int:
        runtime = Runtime(stop_seconds=settings.stop_seconds)
        await compose(settings, runtime)
        return await runtime.run(on_ready=lambda: logger.info("%s is ready", name))

    sys.exit(uvloop.run(run()))
