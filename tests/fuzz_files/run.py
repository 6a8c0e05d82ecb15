"""Many changed files in one process: what was read, refused, or went wrong."""

from __future__ import annotations

import resource
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random
from time import perf_counter, thread_time

from tests.fuzz_files.mutate import mutated
from tests.fuzz_files.read import read
from tests.fuzz_files.seeds import Kind, seeds

SLOW = 1.0
"""Seconds of processor time after which a file counts as a hang."""
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


def files(first: int, count: int) -> Iterator[tuple[Kind, bytes]]:
    """The changed files of these numbers; each depends on its number alone."""
    known = seeds()
    for number in range(first, first + count):
        rng = Random(number)
        seed = rng.choice(known)
        yield seed.kind, mutated(seed, known, rng)


def run(count: int, first: int = 0, report: int = 0, faults: Path | None = None) -> Found:
    """Read so many changed files, from this number on; files at fault are kept in `faults`.

    A line is printed after every `report` files.
    """
    found, began = Found(), perf_counter()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = _resident()
        for kind, data in files(first, count):
            before, clock = _resident(), thread_time()
            fault = None
            try:
                counter = found.read if read(kind, data, Path(folder)) else found.refused
                counter[kind] += 1
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                fault = Fault(f"{type(error).__name__}: {error}"[:200], kind, data, _trace())
            seconds, grown = thread_time() - clock, _resident() - before
            found.longest = max(found.longest, seconds)
            if seconds > SLOW:
                fault = Fault(f"took {seconds:.1f} s", kind, data)
            if grown > 2 * len(data) + ROOM:
                fault = Fault(f"took {grown >> 20} MB", kind, data)
            if fault is not None:
                found.faults.append(fault)
                if faults is not None:
                    keep(fault, faults)
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


def _resident() -> int:
    """The largest number of bytes that the process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _trace() -> str:
    return "".join(traceback.format_exc().splitlines(keepends=True)[-12:])
