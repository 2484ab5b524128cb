"""Entry point of the local model: `python -m infra.local.model_server --port 8123`."""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import cast

from infra.local.model.errors import ModelServerError

EXIT_CANNOT_START = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve SmolLM2 as OpenAI Chat Completions until a signal comes; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        serve = _load_server()
        serve(host=options.host, port=options.port, threads=options.threads)
    except ModelServerError as error:
        print(f"{error}.", file=sys.stderr)
        return EXIT_CANNOT_START
    return 0


def _load_server() -> Callable[..., None]:
    """The part that needs optional packages, loaded late to name the one that is missing."""
    try:
        module = importlib.import_module("infra.local.model.serve")
    except ModuleNotFoundError as error:
        raise ModelServerError(
            f"The package {error.name} is not installed; run: pip install 'antiphon[local]'"
        ) from error
    return cast("Callable[..., None]", module.serve)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.local.model_server", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="0 picks a free one")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    # llama.cpp's threads wait for each other at every layer by spinning. With one on each CPU, any
    # other busy process stalls them all: measured on 2 CPUs, 118 tokens/s become 3, while one
    # thread's 73 become 46.
    parser.add_argument(
        "--threads",
        type=int,
        default=max(1, len(os.sched_getaffinity(0)) // 2),
        help="CPU threads of the model, default: half the CPUs (%(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
