"""Watch a rank from a process beside it, and end the job when the rank is stopped or dies.

A rank that is stopped reports nothing, and one that waits inside MPI for a rank that does not come
runs no Python.  So each rank starts this file as a script, which loads neither NumPy nor MPI, and
reports to it by a pipe when a wait begins and ends, and when it is done.  The script also watches
the next rank of the same launcher: one that is stopped while Python starts has no watcher yet.

A slow rank is not a stopped rank: only the system's report counts, that a process is stopped and
has not used the processor since.  Time is counted in looks, so that none passes while the whole job
is suspended.  Without /proc there is no watcher, and --timeout alone ends a job.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

RANKS = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")
"""The variables in which launchers write a process's rank; the first one that is set counts."""

LOOK = 0.5
"""Seconds from one look to the next."""
STOPPED = 4
"""The number of looks in a row after which a stopped rank is ended."""
UNWATCHED = 6
"""The same number for the next rank: its own watcher, if there is one, has acted by then."""
LATER = 1.0
"""Seconds that a launcher has to end the job before the watcher does."""

PATIENCE = 2.0
"""Seconds that scancel is given.  It gets no answer from a step that already ends and waits for
this process.
"""

_IS_STOPPED = "is stopped, for example by SIGSTOP, so the job is ended"

WAITS, CONTINUES, DONE = b"(", b")", b"."


class Watcher:
    """The process that watches this one, from now to its end."""

    def __init__(self, limit: float) -> None:
        """Start the process; `limit` is how many seconds this rank may be `waiting` for others."""
        self._process: subprocess.Popen[bytes] | None = None
        if Path("/proc/self/stat").exists():
            # -I and -S: neither variables nor site packages of the user can change or delay it.
            command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(limit)]
            with suppress(OSError):  # if the system allows no more processes, nobody watches
                self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
        atexit.register(self._say, DONE)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Mark a wait for other ranks inside MPI, which may last no longer than the limit."""
        self._say(WAITS)
        try:
            yield
        finally:
            self._say(CONTINUES)

    def _say(self, word: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                os.write(self._process.stdin.fileno(), word)


class Rank:
    """The process of a rank on this machine, as another process sees it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._seen: tuple[str, ...] = ()
        self._looks = 0

    def looks_stopped(self) -> int:
        """Return for how many looks in a row, this one included, the process was stopped."""
        seen = _status(self.pid)
        same = seen == self._seen and seen[:1] == ("T",)
        self._seen, self._looks = seen, self._looks + 1 if same else 0
        return self._looks

    @property
    def number(self) -> str | None:
        """The rank that its launcher names, or None if it names none."""
        with suppress(OSError):
            words = Path(f"/proc/{self.pid}/environ").read_bytes().decode(errors="replace")
            return rank_in(dict(w.split("=", 1) for w in words.split("\0") if "=" in w))
        return None

    def end(self, why: str) -> None:
        """Report why the process is ended, and kill it."""
        _say(f"{self.described()} {why}")
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def described(self) -> str:
        """Return the rank, process number and machine as text."""
        number = self.number
        name = "a rank" if number is None else f"rank {number}"
        return f"{name} (process {self.pid} on {socket.gethostname()})"


def rank_in(environment: Mapping[str, str]) -> str | None:
    """Return the rank that a launcher wrote into an environment."""
    return next((environment[name] for name in RANKS if name in environment), None)


def _status(pid: int) -> tuple[str, ...]:
    """Return a process's state, user and system time, and start; an empty tuple if it is gone."""
    try:
        # After the last parenthesis: the name of a program may contain parentheses and spaces.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ()
    return fields[0], fields[11], fields[12], fields[19]


def _next_rank(rank: Rank) -> Rank | None:
    """Return the rank that the same launcher started next; after the last one, the first."""
    launcher = Path(f"/proc/{rank.pid}/stat").read_text(errors="replace").rpartition(")")[2]
    lists = Path(f"/proc/{launcher.split()[1]}/task").glob("*/children")
    pids = sorted({int(pid) for path in lists for pid in path.read_text().split()})
    after = [pid for pid in pids if pid > rank.pid] + [pid for pid in pids if pid < rank.pid]
    others = (other for other in map(Rank, after) if other.number not in (None, rank.number))
    return next(others, None)


def watch(rank: Rank, limit: float) -> None:
    """Watch the rank until it is gone or has to be ended."""
    described = rank.described()
    waits, waited, done = False, 0.0, False
    other: Rank | None = None
    while os.getppid() == rank.pid:
        with suppress(OSError):
            found = _next_rank(rank)
            other = other if found and other and found.pid == other.pid else found
        messages = _messages()
        waits, done = _waits(messages, waits), done or DONE in messages
        waited = waited + LOOK if waits else 0.0
        if rank.looks_stopped() >= STOPPED:
            return _end(rank, _IS_STOPPED)
        if other is not None and other.looks_stopped() >= UNWATCHED:
            return _end(other, _IS_STOPPED)
        if waited > limit:
            return _end(rank, f"has waited for the other ranks for {limit:g} s")
    if not done:
        time.sleep(LATER)
        _end_step(f"{described} was killed or has crashed")


def _waits(messages: bytes, before: bool) -> bool:
    """Return whether the rank waits, by its last message."""
    begins, ends = messages.rfind(WAITS), messages.rfind(CONTINUES)
    return begins > ends or (before and ends < 0)


def _messages() -> bytes:
    """Read the rank's messages until it is time for the next look."""
    messages, until = b"", time.monotonic() + LOOK
    while (left := until - time.monotonic()) > 0:
        if select.select([sys.stdin], [], [], left)[0]:
            part = os.read(sys.stdin.fileno(), 100)
            if not part:
                # The pipe is closed: without this sleep, select would return at once, again and
                # again.
                time.sleep(left)
                break
            messages += part
    return messages


def _end(rank: Rank, why: str) -> None:
    rank.end(why)
    time.sleep(LATER)
    _end_step("")


def _end_step(why: str) -> None:
    """End a Slurm job step, which continues without a rank; other launchers end their jobs."""
    if not in_step(os.environ):
        return
    if why:
        _say(why)
    step = f"{os.environ['SLURM_JOB_ID']}.{os.environ['SLURM_STEP_ID']}"
    command = ["scancel", "--quiet", "--signal=KILL", step]
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, stderr=subprocess.DEVNULL, timeout=PATIENCE, check=False)


def _say(sentence: str) -> None:
    """Write an error to stderr, which the rank shares."""
    with suppress(OSError):
        os.write(2, f"error: {sentence}\n".encode())


def in_step(environment: Mapping[str, str]) -> bool:
    """Return whether srun started the ranks, rather than an mpiexec within a Slurm step."""
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    return (
        tasks != "1"
        and "SLURM_JOB_ID" in environment
        and "OMPI_COMM_WORLD_SIZE" not in environment
        and environment.get("PMI_SIZE", tasks) == tasks
    )


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the rank ends after its step
    watch(Rank(int(sys.argv[1])), float(sys.argv[2]))
