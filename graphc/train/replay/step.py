"""`gc.replay`: repeat a step of a recorded run, to inspect the value of every node in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphc.base.arguments import checked_whole
from graphc.base.docstrings import with_shared
from graphc.base.errors import GraphError, ModelFileError, close_names
from graphc.files.serialize import load_executor
from graphc.ir.graph import Node
from graphc.ir.op import Array, Op
from graphc.ops.loops.lengths import with_lengths
from graphc.runtime.executor import Executor
from graphc.runtime.rows import Count
from graphc.train.history import Position
from graphc.train.record.folder import RunFolder, identity, made_with
from graphc.train.record.journal import StateDigest
from graphc.train.replay.values import Part, StepValues
from graphc.train.source import Batch, Source
from graphc.train.user_data import training_source


class Rerun:
    """An executor that repeats a recorded run; `at` is its position.

    `data` are those given to `fit`, or None if the run has kept them.  Raise ModelFileError for a
    folder that does not hold a whole run, GraphError for other data.
    """

    def __init__(self, run: str | Path, data: Any = None, ops: Sequence[type[Op]] = ()) -> None:
        self.folder = RunFolder(run)
        self.about, self.journal = self.folder.about(), self.folder.journal()
        self.ex = load_executor(self.folder.state_before(self.journal.first + 1), ops=ops)
        self._check_plan()
        self.source = self._source(data)
        self.digest = StateDigest(self.ex)
        self.at = Position()
        self.unlike: int | None = None
        """The first step whose result differs from the record."""
        self._count = Count.of_steps(self.ex.plan)
        self._batches: Iterator[Batch] = iter(())

    def _check_plan(self) -> None:
        plan = self.ex.plan
        trains = "step" in plan.programs or "accumulate" in plan.programs
        if not trains or self.about.choices["batch"] > plan.rows:
            raise ModelFileError(
                f"{self.folder.path} is not a recorded run: its model does not train in batches of "
                f"{self.about.choices['batch']}"
            )

    def _source(self, data: Any) -> Source:
        about, choices = self.about, self.about.choices
        if data is None:
            data = self._kept_data()
        seed = choices["seed"] if choices["shuffle"] else None
        weights = None if about.class_weight is None else dict(about.class_weight)
        sort = bool(choices.get("by_length"))
        source = training_source(self.ex, data, choices["batch"], seed, None, weights, sort)
        found = identity(source)
        if found.kind != about.data.kind or found.digest != about.data.digest:
            raise GraphError(
                f"{self.folder.path}: the data are not the data of the run: "
                f"{found.described}; the run had {about.data.described}",
                hint="give what fit was given, sample_weight as one more array",
            )
        return source

    def _kept_data(self) -> Any:
        if self.folder.data_path.is_file():
            return self._in_rows(self.folder.arrays(self.folder.data_path))
        raise GraphError(
            f"{self.folder.path} does not hold its data: {self.about.data.described}",
            hint="give what fit was given: gc.replay(run, step=..., data=...)",
        )

    def _in_rows(self, arrays: dict[str, Array]) -> dict[str, Any]:
        """Return kept arrays, with lists of rows where all steps lie one after the other."""
        declared, found = self.ex.plan.declared, dict[str, Any](arrays)
        for lengths in (declared[name] for name in arrays):
            for name in with_lengths(lengths):
                if name in arrays and arrays[name].ndim < declared[name].type.rank:
                    ends = np.cumsum(arrays[lengths.name])[:-1]
                    found[name] = np.split(arrays[name], ends)
        return found

    # ------------------------------------------------------------------ moving

    def move_before(self, step: int) -> None:
        """Move to the position just before the step of this number.

        It starts from the newest state before it.  Raise GraphError if the run does not have it.
        """
        first, last = self.journal.first + 1, self.journal.last
        if not first <= step <= last:
            raise GraphError(
                f"{self.folder.path} has no step {step}: it has {first} to {last}"
                if last >= first
                else f"{self.folder.path} has no steps"
            )
        file, self.at = self.folder.read_state(self.folder.state_before(step))
        odd = sorted(file.state.keys() ^ self.ex.plan.state_nodes.keys())
        if odd:
            raise ModelFileError(
                f"{self.folder.path} is damaged: its states do not all have {odd[0]!r}"
            )
        self.ex.state = file.state
        self._batches = self._all_batches()
        while self.at.steps < step - 1:
            rows, feeds = self.batch()
            self.check_step(rows, feeds, self.ex.step(feeds))

    def batch(self) -> Batch:
        """Return the rows and feeds of the next step to run, which may begin the next epoch."""
        return next(self._batches)

    def check_step(self, rows: int, feeds: Mapping[str, Array], loss: float) -> None:
        """Compare the result of a step that has been run with the record, and count the step."""
        self.at.count(rows, loss, self._count(feeds, rows, self.ex.state.arrays))
        number = self.at.steps
        made = loss, self.digest.after(number)
        if self.unlike is None and made != self.journal.step(number):
            self.unlike = number

    def _all_batches(self) -> Iterator[Batch]:
        """Yield the batches from here to the end, epoch by epoch."""
        while True:
            empty = self.at.step == 0
            for rows, feeds in self.source.batches(self.at.epoch, self.at.step):
                empty = False
                yield rows, dict(self.ex.padded(feeds))
            if empty:
                raise GraphError(f"{self.folder.path}: the data of epoch {self.at.epoch} are empty")
            path = self.folder.changed_path(self.at.epoch)
            if path.is_file():
                self.ex.state = self.folder.arrays(path)
            self.at.next_epoch()


class Replay:
    """A repeated step of a recorded run, which `gc.replay` returns.

    `ex` is as it was after the step, `before` the state before it, `feeds` its rows as they were
    fed.  `unlike` is the first repeated step whose loss or state is not the recorded one; None
    if there is none, so that every bit is as it was.

    Parameters
    ----------
    rerun
        The recorded run, with an executor.
    step
        The number of the step, from 1.

    Examples
    --------
    >>> gc.replay("run", step=7).value("d_scores")  # doctest: +SKIP
    """

    def __init__(self, rerun: Rerun, step: int) -> None:
        rerun.move_before(step)
        rows, feeds = rerun.batch()
        self.run, self.step, self.rows = rerun.folder.path, step, rows
        self.epoch, self.batch = rerun.at.epoch, rerun.at.step + 1
        self.feeds = {name: np.array(array) for name, array in feeds.items()}
        self.data_rows = [rerun.source.row(self.epoch, self.batch - 1, row) for row in range(rows)]
        """The index in the data of each row, or None if it is unknown."""
        self._values = StepValues(rerun.ex, self.feeds)
        self.loss = self._values.loss
        rerun.check_step(rows, self.feeds, self.loss)
        self.ex: Executor = rerun.ex
        self.unlike = rerun.unlike
        now = made_with(rerun.ex.plan.backend)
        self.made_otherwise = rerun.about.made_with.differences(now)
        """The differences, as texts, of this process's versions and settings from the run's."""

    @property
    def before(self) -> Mapping[str, Array]:
        """The state from before the replayed step."""
        return self._values.before

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes of the step in the order of the plan: data, state, values, gradients, updates.

        Next values of a state are called `NAME.next`.
        """
        return tuple(self._values.nodes.values())

    def value(self, name: str) -> Array:
        """Return the value of a node.

        Parameters
        ----------
        name
            The name of a node of the step, or of one that was fused into others.

        Returns
        -------
        array
            The value, with the bits of the step if `exact(name)`.

        Raises
        ------
        GraphError
            If there is no node of that name.
        """
        return self._values_with(name)[name]

    @with_shared(value.__doc__)
    def node(self, name: str) -> Node:
        """Return a node.

        Returns
        -------
        Node
            The node of that name.
        """
        return self._values_with(name).node(name)

    @with_shared(value.__doc__)
    def part(self, name: str) -> Part:
        """Return the part of the step that a node belongs to.

        Returns
        -------
        str
            "data", "state", "constant", "forward", "backward" or "update".
        """
        return self._values_with(name).part(name)

    @with_shared(value.__doc__)
    def exact(self, name: str) -> bool:
        """Return whether `value` has the very bits of the step.

        Values that the step did not store are computed by reference rules: those of nodes that were
        fused into others, a few numbers, and all values of a batch that was cut into shards.

        Returns
        -------
        bool
            True if the step stored the value.
        """
        return self._values_with(name).exact(name)

    def _values_with(self, name: str) -> StepValues:
        """Return the values of the step; raise GraphError if they have none of that name."""
        if name not in self._values:
            close = close_names(name, self._values.nodes)
            raise GraphError(
                f"step {self.step} has no node {name!r}",
                hint=f"did you mean {' or '.join(close)}?" if close else "replay.nodes lists them",
            )
        return self._values


def replay(run: str | Path, *, step: int, data: Any = None, ops: Sequence[type[Op]] = ()) -> Replay:
    """Repeat a step of a recorded run, with the same bits.

    The run starts at the newest state before the step that it has kept, and continues from there
    on the same rows in the same order.

    Parameters
    ----------
    run
        The folder of the run.
    step
        The number of the step, from 1.
    data
        The data given to `fit`, needed if the run has not kept them.
    ops
        The classes of your own ops.

    Returns
    -------
    Replay
        The step with the value of every node.

    Raises
    ------
    ModelFileError
        If the folder does not hold a whole run.
    GraphError
        If the run has no such step, or was trained on other data.

    Examples
    --------
    >>> import tempfile
    >>> net = gc.Net("small")
    >>> loss = net.loss("loss", gc.mean(gc.affine(net.input("x", (gc.N, 2)), 1)))
    >>> ex = gc.Executor(gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1)))
    >>> with tempfile.TemporaryDirectory() as run:
    ...     history = gc.fit(ex, np.ones((8, 2)), record=run)
    ...     found = gc.replay(run, step=2)
    >>> found.value("affine_1").shape
    (4, 1)
    """
    number = checked_whole("replay: step", step)
    return Replay(Rerun(run, data, ops), number)
