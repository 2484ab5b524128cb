"""Starting and stopping a model server as its own process."""

import re
import subprocess

READY = re.compile(r"ready on (?P<url>http://\S+/v1) ")
STOP_SECONDS = 2


def read_ready_url(process: subprocess.Popen[str]) -> str:
    """The URL the server prints once it is ready; its pipe ends if it never gets there."""
    assert process.stdout is not None
    line = process.stdout.readline()
    match = READY.search(line)
    assert match, f"no ready line but {line!r}"
    return match["url"]


def stop(process: subprocess.Popen[str]) -> int:
    """Send SIGTERM and return the exit code; a server that outlives the bound fails the test."""
    process.terminate()
    try:
        return process.wait(timeout=STOP_SECONDS)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
