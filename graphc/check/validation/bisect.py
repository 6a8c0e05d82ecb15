"""Bisection: finds the first pass, and the first rewrite of it, that shows a symptom."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from graphc.base.errors import GraphError
from graphc.check.validation.limit import LIMIT, LOG


@dataclass(frozen=True)
class Tried:
    """The result of one try."""

    bad: bool
    told: str
    """The symptom, or that there is none, in a sentence."""
    passes: Sequence[str] = ()
    """The passes that can be left out, in order."""
    rewrites: int = 0
    """The number of rewrites of the cut pass, in the program with the most."""
    last: Sequence[str] = ()
    """The last rewrite that was made, in each program."""


class NotThePasses(GraphError):
    """The error for a symptom that occurs without passes, or if no pass can be left out."""


class Symptom(Protocol):
    """A test that tries a limit of passes; None is all of them."""

    def __call__(self, limit: str | None) -> Tried:
        """Return what is seen with that many passes."""


@dataclass(frozen=True)
class Found:
    """The pass and the rewrite with which a symptom begins."""

    told: str
    name: str
    position: int
    """The number of the pass among those that can be left out, from 1."""
    count: int
    good: str
    """The last limit without the symptom, for GRAPHC_PASS_LIMIT."""
    bad: str
    """The first limit with the symptom."""
    rewrite: tuple[str, ...] = ()
    """The rewrite, as it is in each program; empty if the pass as a whole is at fault."""


def bisect(symptom: Symptom) -> Found | None:
    """Return the first bad pass and rewrite; None if even all passes do not show the symptom.

    Raise NotThePasses if the symptom occurs without any of the passes that can be left out.
    """
    everything = symptom(None)
    if not everything.bad:
        return None
    names = everything.passes
    if not names:
        raise NotThePasses(
            f"{everything.told}, but no pass was run that can be left out",
            hint="the command must compile a net with graphc",
        )
    without = symptom("0")
    if without.bad:
        raise NotThePasses(
            f"without passes it is the same: {without.told}",
            hint="the passes that can be left out are not the cause",
        )
    position = _halved(lambda count: symptom(str(count)).bad, len(names))
    good, bad = str(position - 1), str(position)
    whole = symptom(f"{position - 1}.{10**9}")
    rewrite: tuple[str, ...] = ()
    if whole.bad and whole.rewrites and not symptom(f"{position - 1}.0").bad:
        number = _halved(lambda count: symptom(f"{position - 1}.{count}").bad, whole.rewrites)
        good, bad = f"{position - 1}.{number - 1}", f"{position - 1}.{number}"
        rewrite = tuple(dict.fromkeys(symptom(bad).last))
    return Found(everything.told, names[position - 1], position, len(names), good, bad, rewrite)


def _halved(bad: Callable[[int], bool], count: int) -> int:
    """Return a number up to `count`, which is bad, that is bad while the one before it is not."""
    good = 0
    while count - good > 1:
        middle = (good + count) // 2
        if bad(middle):
            count = middle
        else:
            good = middle
    return count


@dataclass(frozen=True)
class Command:
    """A user's command, which is bad if its exit status is not 0."""

    words: Sequence[str]

    @classmethod
    def of(cls, text: str) -> Command:
        """Return the command of a shell's line; `python` is the running interpreter."""
        words = shlex.split(text)
        if not words:
            raise GraphError("the command is empty", hint='--run "python train.py"')
        return cls([sys.executable if words[0] == "python" else words[0], *words[1:]])

    def __call__(self, limit: str | None) -> Tried:
        """Run it with the limit in its environment; raise GraphError if it cannot be started."""
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            environment = {k: v for k, v in os.environ.items() if k != LIMIT} | {LOG: str(log)}
            if limit is not None:
                environment[LIMIT] = limit
            try:
                done = subprocess.run(
                    self.words, env=environment, capture_output=True, check=False, text=True
                )
            except OSError as error:
                raise GraphError(f"cannot run {self.words[0]!r}: {error.strerror}") from None
            records = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        lines = [json.loads(record) for record in records]
        passes = max((line.get("passes", ()) for line in lines), key=len, default=())
        told = f"the exit status is {done.returncode}"
        last = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        return Tried(
            done.returncode != 0,
            f"{told}: {last}" if last else told,
            passes,
            max((line.get("rewrites", 0) for line in lines), default=0),
            [line["last"] for line in lines if line.get("last")],
        )
