"""Wires engine and HTTP edge together, and runs them until a signal comes."""

import asyncio
import errno
import signal
import socket
import time
from collections.abc import Callable

from aiohttp import web

from infra.local.model.engine import MODEL_ID, start_engine
from infra.local.model.errors import ModelServerError
from infra.local.model.front import Front

# A generation that runs when the server stops is cut off, not awaited.
SHUTDOWN_SECONDS = 0.1


def serve(*, host: str, port: int, threads: int) -> None:
    """Serve until SIGTERM or SIGINT, then stop at once; port 0 picks a free one and prints it.

    Raises ModelServerError when the port is taken or the model can't be loaded. Blocks.
    """
    started = time.monotonic()
    with _bind(host, port) as listener:
        engine = start_engine(threads=threads)
        url = f"http://{host}:{listener.getsockname()[1]}/v1"
        front = Front(engine_url=engine.base_url, model_id=MODEL_ID)
        ready = f"{MODEL_ID} ready on {url} with {threads} threads"
        asyncio.run(_run(front, listener, lambda: _say(ready, started)))


def _say(ready: str, started: float) -> None:
    print(f"{ready} after {time.monotonic() - started:.1f} s", flush=True)


async def _run(front: Front, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for stopping in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(stopping, stop.set)
    runner = web.AppRunner(front.app(), access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.SockSite(runner, listener, shutdown_timeout=SHUTDOWN_SECONDS).start()
    on_ready()
    await stop.wait()
    await runner.cleanup()


def _bind(host: str, port: int) -> socket.socket:
    """A bound socket that doesn't listen yet: nobody connects before the model is loaded."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OverflowError as error:
        listener.close()
        raise ModelServerError(f"{port} is no port; choose one from 0 to 65535") from error
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ModelServerError(
                f"Port {port} on {host} is taken; stop the program that uses it or choose "
                "another port with --port"
            ) from error
        raise ModelServerError(
            f"Can't listen on {host}:{port} ({error.strerror}); choose another --host or --port"
        ) from error
    return listener
