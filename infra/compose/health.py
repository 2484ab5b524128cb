"""Asks the service of this container for its health: `python health.py /healthz|/readyz`."""

import http.client
import os
import sys

TIMEOUT_S = 4
OK = 200


def main() -> int:
    """Return 0 when the service answers 200, else print what it said and return 1."""
    path = sys.argv[1] if len(sys.argv) > 1 else "/healthz"
    port = os.environ.get(f"{os.environ['SERVICE'].upper()}_PORT", "8080")
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        said = answer.read().decode(errors="replace")
    except OSError as error:
        print(error)
        return 1
    print(said)
    return 0 if answer.status == OK else 1


if __name__ == "__main__":
    sys.exit(main())
