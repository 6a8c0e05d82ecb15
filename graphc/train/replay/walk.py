"""Moves through a recorded run again, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from graphc.base.errors import GraphError, ModelFileError
from graphc.base.loc import caller_loc
from graphc.files.serialize import load
from graphc.ir.op import Array, Op
from graphc.runtime.means import Count
from graphc.train.position import Position
from graphc.train.record.digests import StateDigest
from graphc.train.record.folder import RunFolder
from graphc.train.record.identity import identity
from graphc.train.source import Batch, Source
from graphc.train.sources import training_source


class Walk:
    """An executor that repeats a recorded run; `at` is its position.

    `data` are those given to `fit`, or None if the run has kept them.  Raise ModelFileError for a
    folder that does not hold a whole run, GraphError for other data.
    """

    def __init__(self, run: str | Path, data: Any = None, ops: Sequence[type[Op]] = ()) -> None:
        self.folder = RunFolder(run)
        self.about, self.journal = self.folder.about(), self.folder.journal()
        self.ex = load(self.folder.state_before(self.journal.first + 1), ops=ops)
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
                f"{self.about.choices['batch']}",
                loc=caller_loc(),
            )

    def _source(self, data: Any) -> Source:
        about, choices = self.about, self.about.choices
        if data is None:
            data = self._kept_data()
        seed = choices["seed"] if choices["shuffle"] else None
        weights = None if about.class_weight is None else dict(about.class_weight)
        source = training_source(self.ex, data, choices["batch"], seed, None, weights)
        found = identity(source)
        if found.kind != about.data.kind or found.digest != about.data.digest:
            raise GraphError(
                f"{self.folder.path}: the data are not those that the run was trained on: "
                f"{found.described}; then {about.data.described}",
                loc=caller_loc(),
                hint="give what fit was given, sample_weight as one more array",
            )
        return source

    def _kept_data(self) -> Any:
        if self.folder.data_path.is_file():
            return self.folder.arrays(self.folder.data_path)
        raise GraphError(
            f"{self.folder.path} does not hold its data: {self.about.data.described}",
            loc=caller_loc(),
            hint="give what fit was given: gc.replay(run, step=..., data=...)",
        )

    # ------------------------------------------------------------------ moving

    def to(self, step: int, near: int | None = None) -> None:
        """Move to the position just before the step of this number.

        It starts from the newest state before it, or before step `near`.  Raise GraphError if the
        run does not have the step.
        """
        first, last = self.journal.first + 1, self.journal.last
        if not first <= step <= last:
            raise GraphError(
                f"{self.folder.path} has no step {step}: it has {first} to {last}"
                if last >= first
                else f"{self.folder.path} has no steps",
                loc=caller_loc(),
            )
        file, self.at = self.folder.read_state(self.folder.state_before(near or step))
        odd = sorted(file.state.keys() ^ self.ex.plan.state_nodes.keys())
        if odd:
            raise ModelFileError(
                f"{self.folder.path} is damaged: its states do not all have {odd[0]!r}",
                loc=caller_loc(),
            )
        self.ex.state = file.state
        self._batches = self._all_batches()
        while self.at.steps < step - 1:
            rows, feeds = self.batch()
            self.done(rows, feeds, self.ex.step(feeds))

    def batch(self) -> Batch:
        """Return the rows and feeds of the next step, which the caller has to run.

        At the end of an epoch, this moves to the next one.
        """
        return next(self._batches)

    def done(self, rows: int, feeds: Mapping[str, Array], loss: float) -> None:
        """Count a step that has been run, and compare it with the record."""
        self.at.count(rows, loss, self._count(feeds, rows, self.ex.state.arrays))
        number = self.at.steps
        made = loss, self.digest.after(number)
        if self.unlike is None and made != self.journal.step(number):
            self.unlike = number

    def _all_batches(self) -> Iterator[Batch]:
        """Yield the batches from here to the end, epoch by epoch."""
        while True:
            empty = self.at.step == 0
            for batch in self.source.batches(self.at.epoch, self.at.step):
                empty = False
                yield batch
            if empty:
                raise GraphError(
                    f"{self.folder.path}: the data of epoch {self.at.epoch} are empty",
                    loc=caller_loc(),
                )
            path = self.folder.changed_path(self.at.epoch)
            if path.is_file():
                self.ex.state = self.folder.arrays(path)
            self.at.next_epoch()
