"""Writes the OpenAPI document of intake: `python -m infra.openapi [--check]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from infra.openapi.document import FILE, text

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Write or check; returns 1 when the committed document is stale."""
    parser = argparse.ArgumentParser(prog="python -m infra.openapi", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when stale")
    options = parser.parse_args()
    path, wanted = ROOT / FILE, text()
    if path.exists() and path.read_text(encoding="utf-8") == wanted:
        return 0
    if options.check:
        print(f"Not current: {FILE}. Run `make schemas`.", file=sys.stderr)
        return 1
    path.write_text(wanted, encoding="utf-8")
    print(f"{FILE} is current again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
