"""Many changed files in one process: what was read, refused, or went wrong."""

from __future__ import annotations

import resource
import signal
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from random import Random
from time import perf_counter, thread_time

from tests.tools.fuzz_files.mutate import mutated
from tests.tools.fuzz_files.read import read
from tests.tools.fuzz_files.seeds import Kind, seeds, structured_seeds
from tests.tools.fuzz_files.structured import changed_structure
from tests.tools.fuzz_files.structured_onnx import changed_onnx

SLOW = 1.0
"""Seconds of processor time after which a file may count as a hang."""
SEEDS = 4
"""It does if it takes so many times the processor time of all seeds: processors differ."""
TOOK = "took"
"""How faults of files that take too much begin."""
ROOM = 64 << 20
"""Bytes that reading may take besides twice the file."""


@dataclass(frozen=True)
class Fault:
    """A file that did what none may do."""

    what: str
    kind: Kind
    data: bytes
    trace: str = ""


@dataclass
class Found:
    """What happened to the files."""

    runs: int = 0
    read: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    longest: float = 0.0
    peak: int = 0
    """The bytes by which the process grew in all."""
    seconds: float = 0.0


def files(first: int, count: int, structured: bool = False) -> Iterator[tuple[Kind, bytes]]:
    """The changed files of these numbers; each depends on its number alone."""
    known = structured_seeds() if structured else seeds()
    for number in range(first, first + count):
        rng = Random(number)
        seed = rng.choice(known)
        if not structured:
            yield seed.kind, mutated(seed, known, rng)
        elif seed.kind == "onnx":
            yield seed.kind, changed_onnx(seed.data, rng)
        else:
            yield seed.kind, changed_structure(seed.data, rng)


class Stuck(BaseException):
    """A file that is still being read after many times the time that it may take."""


def _give_up(*_: object) -> None:
    raise Stuck


@dataclass(frozen=True)
class Outcome:
    """What happened to one file."""

    read: bool
    seconds: float
    fault: Fault | None


def outcome_of(kind: Kind, data: bytes, folder: Path) -> Outcome:
    """Read a file: it is at fault if it does anything but be read or refused, quickly.

    One that takes too much here is read once more by a new process, which counts: this one may
    have proved its programs, or have searched the objects of all that ran before.
    """
    outcome = _outcome(kind, data, folder)
    if outcome.fault is None or not outcome.fault.what.startswith(TOOK):
        return outcome
    with ProcessPoolExecutor(1, get_context("spawn")) as alone:
        return alone.submit(_outcome_alone, kind, data, folder).result()


def _outcome_alone(kind: Kind, data: bytes, folder: Path) -> Outcome:
    """Read a file in a process that has read others."""
    for seed in seeds():
        read(seed.kind, seed.data, folder)
    return _outcome(kind, data, folder)


def _outcome(kind: Kind, data: bytes, folder: Path) -> Outcome:
    signal.signal(signal.SIGPROF, _give_up)
    was_read, fault = False, None
    before, clock = _started(), thread_time()
    signal.setitimer(signal.ITIMER_PROF, 10 * SLOW)
    try:
        was_read = read(kind, data, folder)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        fault = Fault(f"{type(error).__name__}: {error}"[:200], kind, data, _trace())
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    seconds, grown = thread_time() - clock, _resident() - before
    if seconds > SLOW and seconds > SEEDS * _seconds_of_seeds():
        fault = Fault(f"{TOOK} {seconds:.1f} s", kind, data)
    if grown > 2 * len(data) + ROOM:
        fault = Fault(f"{TOOK} {grown >> 20} MB", kind, data)
    return Outcome(was_read, seconds, fault)


@cache
def _seconds_of_seeds() -> float:
    """Return the processor time that reading all seeds takes here, once they were read."""
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            clock = thread_time()
            for seed in seeds():
                read(seed.kind, seed.data, Path(folder))
    return thread_time() - clock


def run(
    count: int,
    first: int = 0,
    report: int = 0,
    faults: Path | None = None,
    structured: bool = False,
) -> Found:
    """Read so many changed files, from this number on; files at fault are kept in `faults`.

    A line is printed after every `report` files.  `structured` files are models that were nested,
    repeated and enlarged, the others had bytes and words changed.
    """
    found, began = Found(), perf_counter()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = _resident()
        for kind, data in files(first, count, structured):
            outcome = outcome_of(kind, data, Path(folder))
            found.read[kind] += outcome.read
            found.refused[kind] += not outcome.read
            found.longest = max(found.longest, outcome.seconds)
            if outcome.fault is not None:
                found.faults.append(outcome.fault)
                if faults is not None:
                    keep(outcome.fault, faults)
            found.runs += 1
            if report and found.runs % report == 0:
                rate = found.runs / (perf_counter() - began)
                print(
                    f"{found.runs:,} files, {rate:,.0f} a second, {len(found.faults)} faults",
                    flush=True,
                )
        found.peak = _resident() - start
    found.seconds = perf_counter() - began
    return found


def keep(fault: Fault, folder: Path) -> None:
    """Write a file at fault, and what it did beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{fault.kind}-{sha256(fault.data).hexdigest()[:12]}"
    path.write_bytes(fault.data)
    path.with_suffix(".txt").write_text(f"{fault.what}\n{fault.trace}")


def _started() -> int:
    """Begin to look for the largest number of bytes anew, where the system lets one."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _resident()


def _resident() -> int:
    """The largest number of bytes that the process has had since `_started`, or at all."""
    with suppress(OSError, ValueError):
        text = Path("/proc/self/status").read_text()
        at = text.index("VmHWM:") + 6
        return int(text[at : text.index("kB", at)]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _trace() -> str:
    return "".join(traceback.format_exc().splitlines(keepends=True)[-12:])
