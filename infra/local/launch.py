"""Become another program whose life is bound to its parent's; run as a script by `process`.

Usage: launch.py PARENT_PID DEATH_SIGNAL UID:GID|- PROGRAM [ARGUMENT...]

It imports next to nothing, so that it costs a child some ten milliseconds, and it is a program
because code between fork and exec is unsafe in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
CANNOT_RUN = 126
PARENT_GONE = 125


def main() -> None:
    """Drop to the given user, ask for the death signal, then replace this program."""
    parent, death_signal, user, *argv = sys.argv[1:]
    if user != "-":
        uid, gid = (int(part) for part in user.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After setuid, which would clear it. It fires when the thread that started us ends.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(PARENT_GONE)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - replacing this program is its purpose
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(CANNOT_RUN)


if __name__ == "__main__":
    main()
