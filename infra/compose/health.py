"""Asks the service of this container for its health: `python health.py /healthz|/readyz`.

It runs every few seconds in every container, so it imports no HTTP client: that costs more than
the rest of it.
"""

import os
import socket
import sys

TIMEOUT_S = 4
OK = b"200"


def main() -> int:
    """Return 0 when the service answers 200, else print what it said and return 1."""
    path = sys.argv[1] if len(sys.argv) > 1 else "/healthz"
    port = int(os.environ.get(f"{os.environ['SERVICE'].upper()}_PORT", "8080"))
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n".encode())
            while received := connection.recv(65536):
                answer += received
    except OSError as error:
        print(error)
        return 1
    print(answer.partition(b"\r\n\r\n")[2].decode(errors="replace"))
    return 0 if answer.split(b" ", 2)[1:2] == [OK] else 1


if __name__ == "__main__":
    sys.exit(main())
