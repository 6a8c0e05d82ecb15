"""`gc.compare_runs`: find the first step, and in it the first node, where two runs differ.

A run is repeated in this process, or in a separate one under the variables that it was made with:
NumPy's products depend on variables that are read when a process begins, such as the number of
threads of its BLAS.  That process returns files in a temporary folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphc.base.errors import GraphError
from graphc.files.container import pack, unpack
from graphc.files.serialize import read_checkpoint
from graphc.ir.op import Array, Op
from graphc.ir.text.graph import node_text
from graphc.train.record.folder import VARIABLES, RunFolder, made_with, variables
from graphc.train.record.journal import WHOLE, digest
from graphc.train.replay.step import Replay, Rerun
from graphc.train.replay.values import Part

_CHUNK = 1 << 16
_CODE = "from graphc.train.replay.compare import answer_question; answer_question()"


@dataclass(frozen=True)
class RunDifference:
    """The first difference of two runs, which `gc.compare_runs` returns.

    Parameters
    ----------
    step, epoch
        The step, and its epoch.
    node, part
        The first node that differs, and its part of the step; None if it was not found.
    described
        The size of the difference of the values.
    texts
        The node in each run, if they differ.
    rows, data_rows
        For data: the rows of the batch that differ, and their indices in the data of the first run.
    otherwise
        Other differences of the runs: choices of `fit`, versions, settings.
    why
        The reason why no node was found.

    Examples
    --------
    >>> print(gc.RunDifference(step=3, epoch=1, node="scores", part="forward"))
    the runs differ from step 3 (epoch 1) on, first in forward 'scores'
    """

    step: int
    epoch: int | None = None
    node: str | None = None
    part: Part | None = None
    described: str = ""
    texts: tuple[str, str] | None = None
    rows: tuple[int, ...] = ()
    data_rows: tuple[int | None, ...] = ()
    otherwise: tuple[str, ...] = ()
    why: str = ""

    def __str__(self) -> str:
        place = f"step {self.step}" + (f" (epoch {self.epoch})" if self.epoch else "")
        first = f", first in {self.part} {self.node!r}" if self.node is not None else ""
        lines = [f"the runs differ from {place} on{first}"]
        lines[0] += f": {self.described}" if self.described else ""
        if self.rows:
            lines.append(f"  rows of the batch: {_row_list(self.rows)}")
            lines.append(f"  rows of the data: {_row_list(self.data_rows)}")
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
    """Return where two recorded runs first differ.

    The digests of their steps bracket the difference; both repeat the steps in between, and the
    whole states are compared after each.  The nodes of the step found are compared in the order
    of the plan, bit by bit.  A run that was made under other variables, such as the number of
    BLAS threads, is repeated in a separate process under those, if it has kept its data.

    Parameters
    ----------
    run, other
        The folders of the runs.
    data, other_data
        The data given to `fit`, needed if a run has not kept them.
    ops
        The classes of your own ops.

    Returns
    -------
    RunDifference or None
        The first difference; None if all common steps are equal.

    Raises
    ------
    ModelFileError
        If a folder does not hold a whole run.
    GraphError
        If the runs have no step in common, or were trained on other data.

    Examples
    --------
    >>> gc.compare_runs("run", "other")  # doctest: +SKIP
    """
    one, two = _recorded_run(run, data, ops), _recorded_run(other, other_data, ops)
    first = max(one.journal.first, two.journal.first)
    last = min(one.journal.last, two.journal.last)
    if last <= first:
        raise GraphError("the runs have no step in common")
    step = _first_unlike(one, two, first, last)
    if step is None and _end_equal(one, two, last):
        return None
    stop = last if step is None else step
    return _found(one, two, max(first, (stop - 1) // WHOLE * WHOLE), stop)


def _recorded_run(run: str | Path, data: Any, ops: Sequence[type[Op]]) -> RecordedRun:
    """Return the run, for a separate process if it was made under other variables."""
    folder = RunFolder(run)
    alone = data is None and not ops and folder.data_path.is_file()
    if alone and folder.about().made_with.variables != variables():
        return SeparateRun(folder)
    return LocalRun(run, data, ops)


def _first_unlike(one: RecordedRun, two: RecordedRun, first: int, last: int) -> int | None:
    """Return the first step after `first` whose records differ."""
    for start in range(first, last, _CHUNK):
        stop = min(start + _CHUNK, last)
        unlike = np.flatnonzero(one.journal.steps(start, stop) != two.journal.steps(start, stop))
        if len(unlike):
            return start + int(unlike[0]) + 1
    return None


def _end_equal(one: RecordedRun, two: RecordedRun, last: int) -> bool:
    """Return whether both have kept the state after the last step, and it is the same."""
    paths = [run.folder.state_path(last) for run in (one, two)]
    if not all(path.is_file() for path in paths):
        return False
    a, b = (read_checkpoint(path).state for path in paths)
    return a.keys() == b.keys() and all(_same(a[name], b[name]) for name in a)


def _found(one: RecordedRun, two: RecordedRun, start: int, stop: int) -> RunDifference | None:
    """Return the first difference in the steps after `start`, up to `stop`, or None."""
    otherwise = tuple(_other_differences(one, two))
    digests = []
    for run in (one, two):
        found, unlike = run.digests(start, stop)
        if unlike is not None:
            return RunDifference(stop, otherwise=otherwise, why=_unrepeatable(run, unlike))
        digests.append(found)
    pairs = enumerate(zip(*digests, strict=True), start + 1)
    step = next((number for number, (a, b) in pairs if a != b), None)
    if step is None:
        return None
    return _first_node(step, one.nodes_of(step), two.nodes_of(step), otherwise)


def _other_differences(one: RecordedRun, two: RecordedRun) -> list[str]:
    """Return the differences of the runs' options, versions and settings."""
    a, b = ({**run.about.choices, "data": run.about.data.described} for run in (one, two))
    found = [f"{name} {a[name]} and {b.get(name)}" for name in a if a[name] != b.get(name)]
    return found + one.about.made_with.differences(two.about.made_with)


def _unrepeatable(run: RecordedRun, step: int) -> str:
    before = run.about.made_with
    other = "; ".join(before.differences(made_with(before.backend)))
    cause = f"then and now: {other}" if other else "its code has changed"
    return (
        f"step {step} of {run.folder.path} does not give the recorded result, so its nodes cannot "
        f"be compared ({cause})"
    )


def _first_node(
    step: int, one: StepNodes, two: StepNodes, otherwise: tuple[str, ...]
) -> RunDifference:
    for name, (text, part) in one.nodes.items():
        if name not in two.nodes or _same(one.values[name], two.values[name]):
            continue
        a, b, other = one.values[name], two.values[name], two.nodes[name][0]
        rows = _rows(a, b) if part == "data" else ()
        return RunDifference(
            step,
            one.epoch,
            name,
            part,
            _described(a, b),
            (text, other) if text != other else None,
            rows,
            tuple(one.data_rows[row] for row in rows),
            otherwise,
        )
    alone = sorted(one.nodes.keys() ^ two.nodes.keys())
    why = f"only one of them has {alone[0]!r}" if alone else "no node of this step differs"
    return RunDifference(step, one.epoch, otherwise=otherwise, why=why)


def _described(a: Array, b: Array) -> str:
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


def _row_list(rows: Sequence[int | None]) -> str:
    return ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")


@dataclass(frozen=True)
class StepNodes:
    """The nodes of a step in the order of the plan: the text and part of each, and the values.

    `data_rows` are the indices in the data of the rows of the batch, None for unknown ones.
    """

    epoch: int
    nodes: Mapping[str, tuple[str, Part]]
    values: Mapping[str, Array]
    data_rows: Sequence[int | None]


Digests = tuple[Sequence[int], int | None]
"""The digests of loss and whole state after each of some steps, and the first of the steps whose
result differs from the record."""


class LocalRun(Rerun):
    """A recorded run that is repeated in this process."""

    def digests(self, start: int, stop: int) -> Digests:
        """Return the digests of the steps after `start`, up to `stop`."""
        found = []
        self.move_before(start + 1)
        for _ in range(start, stop):
            rows, feeds = self.batch()
            loss = self.ex.step(feeds)
            self.check_step(rows, feeds, loss)
            found.append(digest([np.float64(loss).tobytes(), *self.digest.parts]))
        return found, self.unlike

    def nodes_of(self, step: int) -> StepNodes:
        """Return the nodes of a step."""
        replay = Replay(self, step)
        nodes = [node for node in replay.nodes if not node.op.is_constant]
        return StepNodes(
            replay.epoch,
            {node.name: (node_text(node), replay.part(node.name)) for node in nodes},
            {node.name: replay.value(node.name) for node in nodes},
            replay.data_rows,
        )


class SeparateRun:
    """A recorded run that is repeated in separate processes."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.about, self.journal = folder, folder.about(), folder.journal()

    def digests(self, start: int, stop: int) -> Digests:
        """Return the digests of the steps after `start`, up to `stop`."""
        steps, unlike = json.loads(self._answer("digests", start, stop))
        return steps, unlike

    def nodes_of(self, step: int) -> StepNodes:
        """Return the nodes of a step."""
        metadata, values = unpack(self._answer("nodes", step))
        content = json.loads(metadata["step"])
        nodes = {name: (text, part) for name, (text, part) in content["nodes"].items()}
        return StepNodes(content["epoch"], nodes, values, content["data_rows"])

    def _answer(self, *words: str | int) -> bytes:
        """Return the answer of a new process, as bytes; raise GraphError if it gives none."""
        env = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        env |= self.about.made_with.variables
        # A script's own folder is in this process's path only.
        env["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        with tempfile.TemporaryDirectory() as folder:
            answer = Path(folder, "answer")
            words = (str(self.folder.path.resolve()), str(answer), *words)
            command = [sys.executable, "-c", _CODE, *map(str, words)]
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
            if not answer.exists():
                lines = done.stderr.strip().splitlines() or ["it ended without an answer"]
                raise GraphError(
                    f"{self.folder.path} could not be repeated under its own variables: {lines[-1]}"
                )
            return answer.read_bytes()


RecordedRun = LocalRun | SeparateRun


def answer_question() -> None:
    """Write the answer about a run, in a new process whose arguments are run, file and question."""
    path, answer, question, *numbers = sys.argv[1:]
    run = LocalRun(path)
    if question == "digests":
        Path(answer).write_text(json.dumps(run.digests(*map(int, numbers))), encoding="utf-8")
        return
    step = run.nodes_of(int(numbers[0]))
    content = {"epoch": step.epoch, "nodes": step.nodes, "data_rows": step.data_rows}
    Path(answer).write_bytes(b"".join(pack({"step": json.dumps(content)}, step.values)))
