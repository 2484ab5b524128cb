"""Run the scripted upstream as a process of its own: `python -m tests.upstream --port N`."""

import argparse
import asyncio
import json
import signal
import sys

from tests.upstream.server import ScriptedUpstream


def main() -> None:
    """Serve until SIGINT or SIGTERM, after one line of JSON with `url`, `base_url` and `pid`."""
    parser = argparse.ArgumentParser(prog="python -m tests.upstream")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--api-key", default=None, help="refuse every other key")
    parser.add_argument("--lenient", action="store_true", help="accept unknown parameters")
    parser.add_argument("--tag", default=None, help="part of every id; random by default")
    asyncio.run(_serve(parser.parse_args()))


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with ScriptedUpstream(**vars(options)) as upstream:
        ready = {"url": upstream.url, "base_url": upstream.base_url}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    main()
