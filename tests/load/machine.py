"""The machine: cores to pin to, CPU seconds and memory of process trees, what it is."""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Cores:
    """One core for the gateways, the others for everything else."""

    gateway: frozenset[int]
    rest: frozenset[int]


def split_cores(usable: Iterable[int]) -> Cores | None:
    """Take the first core for the gateway; None when there is only one, and nothing to pin."""
    first, *others = sorted(usable)
    return Cores(frozenset({first}), frozenset(others)) if others else None


def families(pids: Iterable[int]) -> list[list[psutil.Process]]:
    """Give each process with all it started, in one pass; empty for one that is gone."""
    processes: dict[int, psutil.Process] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):
            children[process.ppid()].append(process.pid)
            processes[process.pid] = process

    def tree(pid: int) -> list[psutil.Process]:
        below = [process for child in children[pid] for process in tree(child)]
        return [processes[pid], *below] if pid in processes else below

    return [tree(pid) for pid in pids]


def bind(pid: int, cores: frozenset[int] | None, *, nice: int = 0) -> None:
    """Bind every thread of a process tree to cores, with a priority; what they start inherits both.

    Raises PermissionError for a priority that only root may give.
    """
    for process in families([pid])[0]:
        with suppress(FileNotFoundError):
            for thread in Path(f"/proc/{process.pid}/task").iterdir():
                with suppress(ProcessLookupError):
                    if cores is not None:
                        os.sched_setaffinity(int(thread.name), cores)
                    if nice:
                        os.setpriority(os.PRIO_PROCESS, int(thread.name), nice)


@dataclass(frozen=True, slots=True)
class Usage:
    """A reading. `cpu_s` and `rss_mb` are of each named tree, the others of the machine."""

    cpu_s: dict[str, float]
    rss_mb: dict[str, float]
    own_s: float
    machine_s: float

    def since(self, before: Usage, elapsed_s: float) -> tuple[dict[str, float], float]:
        """Give the CPU seconds of each tree, and how many cores programs not ours kept busy."""
        spent = {name: round(self.cpu_s[name] - before.cpu_s[name], 3) for name in self.cpu_s}
        foreign_s = self.machine_s - before.machine_s - (self.own_s - before.own_s)
        return spent, round(max(0.0, foreign_s / elapsed_s), 2)


def read_usage(pids: Mapping[str, int]) -> Usage:
    """Read the trees of `pids`; "own" is this process with all it started, they included."""
    own, *others = families([os.getpid(), *pids.values()])
    trees = dict(zip(pids, others, strict=True))
    times = psutil.cpu_times()
    return Usage(
        cpu_s={name: sum(map(_cpu_s, tree)) for name, tree in trees.items()},
        rss_mb={name: round(sum(map(_rss_bytes, tree)) / MB, 1) for name, tree in trees.items()},
        own_s=sum(map(_cpu_s, own)),
        machine_s=sum(times[:8]) - times.idle - times.iowait,
    )


def _cpu_s(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):
        # Children count when they were waited for, so that short ones aren't lost.
        return float(sum(process.cpu_times()[:4]))
    return 0.0


def _rss_bytes(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess):
        return int(process.memory_info().rss)
    return 0


def describe() -> dict[str, str]:
    """Name the hardware and the software under the figures; no host or user names."""
    model = platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / 1e9:.1f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
