"""The cores that this process may use, and whether some of them are idle.

On Linux a thread of the scheduling class SCHED_IDLE is asked now and then: it answers at once if a
core has nothing to do, and late, without disturbing other threads, if all are busy.  On other
systems time decides: after a stall, programs run on one thread for a hundred times as long as the
stall took.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from graphc.base.errors import GraphError

VARIABLES = ("GRAPHC_THREADS", "OMP_NUM_THREADS")
Group = tuple[Path, int]
"""The folder of a control group, and the version of its control groups."""
LIMITS: dict[str, dict[int, tuple[str, ...]]] = {
    "cpu": {1: ("cpu.cfs_quota_us", "cpu.cfs_period_us"), 2: ("cpu.max",)},
    "memory": {1: ("memory.limit_in_bytes",), 2: ("memory.max",)},
}
"""The files with the limits of a group, by its version."""


def thread_count(asked: int | None = None) -> int:
    """Return `asked`, or GRAPHC_THREADS, or OMP_NUM_THREADS, or every usable core; never more.

    A child of multiprocessing gets one by default, since its siblings use the other cores.
    Raise GraphError if the number is not positive.
    """
    if asked is None:
        asked = _from_environment()
    elif asked < 1:
        raise GraphError(f"threads is {asked}, but a program runs on at least one thread.")
    if asked is None:
        return 1 if _among_siblings() else cores()
    return min(asked, cores())


def cores() -> int:
    """Return the cores that this process may keep busy, by its affinity and its control groups."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(own or 1, _quota(int(time.monotonic()))))


@lru_cache(maxsize=1)
def _quota(second: int) -> int:
    """Return the processors' worth of time that the control groups allow, read once a second."""
    return smallest(limiting_groups("cpu"))


@lru_cache
def limiting_groups(of: str) -> tuple[Group, ...]:
    """Return this process's control groups that can have limits; it is slow to look for them."""
    try:
        membership = Path("/proc/self/cgroup").read_text()
    except OSError:  # not Linux
        return ()
    return groups(membership, Path("/sys/fs/cgroup"), of)


def groups(membership: str, root: Path, of: str = "cpu") -> tuple[Group, ...]:
    """Return a process's groups with files for limits, and those above them, with their version.

    `membership` is the text of /proc/self/cgroup for a process; the groups are mounted at `root`.
    """
    found: dict[Group, None] = {}
    for line in membership.splitlines():
        _, controllers, group = line.split(":", 2)
        version = 1 if controllers else 2
        mounts = (controllers, *controllers.split(",")) if controllers else ("",)
        for mount in mounts:
            for folder in _upwards(root / mount, group):
                if (folder / LIMITS[of][version][0]).exists():
                    found[folder, version] = None
    return tuple(found)


def smallest(groups: Iterable[Group]) -> int:
    """Return the smallest quota, rounded down, at least 1; sys.maxsize if there is none.

    With a quota of 1.5 processors two threads would be stopped for a quarter of each period.
    """
    limits = [_allowed(folder, version) for folder, version in groups]
    return max(1, min(limits, default=sys.maxsize))


def _upwards(root: Path, group: str) -> list[Path]:
    """Return the folders of a group and of all above it; a container does not show all of them."""
    parts = [part for part in group.split("/") if part not in ("", "..")]
    return [root.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]


def _allowed(folder: Path, version: int) -> int:
    """Return the quota of a group: "150000 100000" is 1.5 processors, so 1; "max" or -1 is none."""
    try:
        limit, period = " ".join(
            (folder / name).read_text() for name in LIMITS["cpu"][version]
        ).split()
        return max(1, int(limit) // int(period)) if int(limit) > 0 else sys.maxsize
    except (OSError, ValueError, ZeroDivisionError):
        return sys.maxsize


def _from_environment() -> int | None:
    for name in VARIABLES:
        if value := os.environ.get(name, "").strip():
            return _number(name, value)
    return None


def _number(name: str, value: str) -> int:
    """Return the first number; OpenMP allows one for each level of nesting: "4,2"."""
    first = value.split(",")[0].strip() if name == "OMP_NUM_THREADS" else value
    if not (first.isascii() and first.isdigit() and int(first)):
        raise GraphError(
            f"{name} is {value!r}, which is not a valid number of threads.",
            hint=f"set it to 1 or more, or unset {name}",
        )
    return int(first)


def _among_siblings() -> bool:
    """Return whether this process is a child of multiprocessing."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


PROMPT = 200_000
"""Nanoseconds within which a prober with a core for itself answers."""
FIRST, MOST = 2, 1024
"""The number of prompt answers in a row that show idle cores: at first, and after many stalls."""
SHARE = 100
"""Stalls may take a hundredth of the time in which they are risked, unless a known gain allows
more."""


class Prober(Protocol):
    """A thread that runs on idle cores only."""

    @property
    def answered(self) -> int | None:
        """The time of its answer to the last question, by `time.monotonic_ns`; None before."""

    def start_prober(self) -> bool:
        """Start the thread unless it runs; return whether this system can have one."""

    def ask(self) -> None:
        """Ask the prober, which answers as soon as a core is idle."""


class IdleCores:
    """The record of whether the machine has idle cores, updated when they are looked for."""

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        self._free = False
        self._since = self._asked = self._retry_at = 0
        self._prompt, self._wanted = 0, FIRST

    def free(self, patience: int = 0) -> bool:
        """Return whether cores were idle when last seen, or become so in `patience` nanoseconds."""
        end = time.monotonic_ns() + patience
        while not (self._free or self._look()) and time.monotonic_ns() < end:
            time.sleep(0)  # hands over the interpreter's lock, and keeps the core
        return self._free

    def _look(self) -> bool:
        """Return whether cores are idle now, as far as the prober has answered."""
        now = time.monotonic_ns()
        free = self._answers(now) if self._prober.start_prober() else now >= self._retry_at
        if free:
            self._free, self._since = True, now
        return free

    def stalled(self, took: int, gain: float) -> bool:
        """Record that a shared run stalled, and return whether cores count as busy now.

        The run took `took` nanoseconds; `gain` is the fraction of the time of a run on one thread
        that sharing saves.  Cores count as busy if sharing has saved less than `took` since it
        began, or since its last stall.
        """
        now = time.monotonic_ns()
        busy = (now - self._since) * max(gain, 1 / SHARE) < took
        self._since = now
        self._wanted = min(2 * self._wanted, MOST) if busy else FIRST
        if busy:
            self._retry_at = now + SHARE * took
            self._free, self._prompt, self._asked = False, 0, 0
        return busy

    def _answers(self, now: int) -> bool:
        """Return whether the prober was prompt often enough, and ask it again if not."""
        answered = self._prober.answered
        if answered is None:
            if now - self._asked > PROMPT:
                self._prompt = 0
            return False
        if self._asked:
            self._prompt = self._prompt + 1 if answered - self._asked <= PROMPT else 0
        if self._prompt >= self._wanted:
            return True
        self._asked = now
        self._prober.ask()
        return False
