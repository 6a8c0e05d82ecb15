"""compare_runs(): finds the first step, and in it the first node, where two runs differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.files.checkpoint_file import read_checkpoint
from graphc.ir.op import Array, Op
from graphc.train.record.digests import WHOLE
from graphc.train.record.folder import RunFolder
from graphc.train.record.made_with import made_with
from graphc.train.replay.elsewhere import Elsewhere, made_elsewhere
from graphc.train.replay.look import Here, Look, Side
from graphc.train.replay.values import Part

_CHUNK = 1 << 16


@dataclass(frozen=True)
class RunDifference:
    """The first difference of two runs.  If `node` is None it was not found, and `why` says why."""

    step: int
    epoch: int | None = None
    node: str | None = None
    part: Part | None = None
    described: str = ""
    """The size of the difference of the values."""
    texts: tuple[str, str] | None = None
    """The node in each run, if they differ."""
    rows: tuple[int, ...] = ()
    """For data: the rows of the batch that differ."""
    data_rows: tuple[int | None, ...] = ()
    """For data: the same rows by their indices in the data of the first run."""
    otherwise: tuple[str, ...] = ()
    """Other differences of the runs: choices of fit, versions, settings."""
    why: str = ""

    def __str__(self) -> str:
        place = f"step {self.step}" + (f" (epoch {self.epoch})" if self.epoch else "")
        first = f", first in {self.part} {self.node!r}" if self.node is not None else ""
        lines = [f"the runs differ from {place} on{first}"]
        lines[0] += f": {self.described}" if self.described else ""
        if self.rows:
            lines.append(f"  rows of the batch: {_listed(self.rows)}")
            lines.append(f"  rows of the data: {_listed(self.data_rows)}")
        lines.extend(f"  {i}  {text}" for i, text in enumerate(self.texts or (), 1))
        lines.extend(f"  not the same: {text}" for text in self.otherwise)
        return "\n".join([*lines, *([f"  {self.why}"] if self.why else [])])


def compare_runs(
    run: str | Path,
    other: str | Path,
    *,
    data: Any = None,
    other_data: Any = None,
    ops: Sequence[type[Op]] = (),
) -> RunDifference | None:
    """Return where two recorded runs first differ; None if they are equal as far as both go.

    The digests of their steps bracket the place; between, both are run again, and the whole
    states are compared after each step.  The nodes of the step found are compared in the order
    of the plan, bit by bit.  A run that was made under other variables, such as the number of
    BLAS threads, is run again in a separate process under those, if it has kept its data.
    `data`, `other_data` and `ops` are as in `replay`.

    Raise ModelFileError for a folder that does not hold a whole run, GraphError for runs that have
    no step in common or for other data.
    """
    one, two = _side(run, data, ops), _side(other, other_data, ops)
    first = max(one.journal.first, two.journal.first)
    last = min(one.journal.last, two.journal.last)
    if last <= first:
        raise GraphError("the runs have no step in common", loc=caller_loc())
    step = _first_unlike(one, two, first, last)
    if step is None and _end_equal(one, two, last):
        return None
    stop = last if step is None else step
    return _found(one, two, max(first, (stop - 1) // WHOLE * WHOLE), stop)


def _side(run: str | Path, data: Any, ops: Sequence[type[Op]]) -> Side:
    if data is None and not ops and made_elsewhere(run):
        return Elsewhere(run)
    return Here(run, data, ops)


def _first_unlike(one: Side, two: Side, first: int, last: int) -> int | None:
    """Return the first step after `first` whose records differ."""
    for start in range(first, last, _CHUNK):
        stop = min(start + _CHUNK, last)
        unlike = np.flatnonzero(one.journal.steps(start, stop) != two.journal.steps(start, stop))
        if len(unlike):
            return start + int(unlike[0]) + 1
    return None


def _end_equal(one: Side, two: Side, last: int) -> bool:
    """Return whether both have kept the state after the last step, and it is the same."""
    paths = [RunFolder(side.path).state_path(last) for side in (one, two)]
    if not all(path.is_file() for path in paths):
        return False
    a, b = (read_checkpoint(path).state for path in paths)
    return a.keys() == b.keys() and all(_same(a[name], b[name]) for name in a)


def _found(one: Side, two: Side, start: int, stop: int) -> RunDifference | None:
    """Return the difference that lies after `start` and shows by `stop`, or None."""
    otherwise = tuple(_otherwise(one, two))
    found = one.digests(start, stop), two.digests(start, stop)
    for side, digests in zip((one, two), found, strict=True):
        if digests.unlike is not None:
            return RunDifference(stop, otherwise=otherwise, why=_why(side, digests.unlike))
    pairs = zip(found[0].steps, found[1].steps, strict=True)
    step = next((start + i for i, (a, b) in enumerate(pairs, 1) if a != b), None)
    if step is None:
        return None
    return _first_node(step, one.look(step), two.look(step), otherwise)


def _otherwise(one: Side, two: Side) -> list[str]:
    """Return the differences of the runs' options, versions and settings."""
    a, b = ({**side.about.choices, "data": side.about.data.described} for side in (one, two))
    told = [f"{name} {a[name]} and {b.get(name)}" for name in a if a[name] != b.get(name)]
    return told + one.about.made_with.differences(two.about.made_with)


def _why(side: Side, step: int) -> str:
    before = side.about.made_with
    other = "; ".join(before.differences(made_with(before.backend)))
    return (
        f"{side.path} does not give at step {step} what it gave when it was recorded, so its nodes "
        f"cannot be compared ({'then and now: ' + other if other else 'its code has changed'})"
    )


def _first_node(step: int, one: Look, two: Look, otherwise: tuple[str, ...]) -> RunDifference:
    for name, seen in one.nodes.items():
        if name not in two.nodes:
            continue
        a, b = one.values[name], two.values[name]
        if _same(a, b):
            continue
        texts = seen.text, two.nodes[name].text
        rows = _rows(a, b) if seen.part == "data" else ()
        return RunDifference(
            step,
            one.epoch,
            name,
            seen.part,
            _how(a, b),
            texts if texts[0] != texts[1] else None,
            rows,
            tuple(one.data_rows[row] for row in rows),
            otherwise,
        )
    alone = sorted(one.nodes.keys() ^ two.nodes.keys())
    why = f"only one of them has {alone[0]!r}" if alone else "no node of this step differs"
    return RunDifference(step, one.epoch, otherwise=otherwise, why=why)


def _how(a: Array, b: Array) -> str:
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{a.dtype.name}{list(a.shape)} and {b.dtype.name}{list(b.shape)}"
    if a.size == 1:
        return f"{a.item()!r} and {b.item()!r}"
    unlike = _unlike(a, b)
    index = tuple(int(i) for i in np.argwhere(unlike)[0])
    with np.errstate(all="ignore"):
        most = np.abs(a.astype(np.float64) - b.astype(np.float64)).max()
    return (
        f"{int(unlike.sum())} of {a.size} numbers, by up to {most:.3g}; the first at {index}: "
        f"{a[index].item()!r} and {b[index].item()!r}"
    )


def _rows(a: Array, b: Array) -> tuple[int, ...]:
    if a.shape != b.shape or a.ndim == 0:
        return ()
    unlike = _unlike(a, b).reshape(len(a), -1).any(axis=1)
    return tuple(int(row) for row in np.flatnonzero(unlike))


def _unlike(a: Array, b: Array) -> Array:
    """Return a mask of the numbers whose bits differ."""
    words = np.dtype(f"u{a.dtype.itemsize}")
    found: Array = np.ascontiguousarray(a).view(words) != np.ascontiguousarray(b).view(words)
    return found


def _same(a: Array, b: Array) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def _listed(rows: Sequence[int | None]) -> str:
    return ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
