"""The loop of training: steps, the end of an epoch, checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from time import perf_counter
from typing import Any

from graphc.errors import FeedError, GraphError
from graphc.executor import Executor
from graphc.files.checkpoint_file import CheckpointFile
from graphc.loc import caller_loc
from graphc.op import Array
from graphc.runtime.means import Count
from graphc.train.callbacks import Callback, Called, Epoch, begin, saved_arrays
from graphc.train.checkpoints import Checkpoints
from graphc.train.history import History
from graphc.train.interrupts import StepBorder
from graphc.train.nonfinite.guard import EVERY, Guard
from graphc.train.position import Position
from graphc.train.progress import Progress
from graphc.train.ranks import Ranks
from graphc.train.record.recorder import Recorder
from graphc.train.source import Source
from graphc.train.validate import validated


class Run:
    """Training up to an epoch, from where it begins or is resumed.

    A `history` of epochs before is gone on with: the next one has the number that follows.
    """

    def __init__(
        self,
        ex: Executor,
        source: Source,
        epochs: int,
        callbacks: tuple[Called, ...] = (),
        *,
        held: Source | None = None,
        history: History | None = None,
        record: Recorder | None = None,
    ) -> None:
        self.ex, self.source, self.held, self.epochs = ex, source, held, epochs
        self.ranks = Ranks(ex)
        self.callbacks = tuple(called for called in callbacks if self._has(called))
        self.record = record
        self.history = History() if history is None else history
        self.history.stopped = ""
        self.at = Position(epoch=len(self.history.epochs) + 1)
        self.checkpoints: Checkpoints | None = None
        self.choices: dict[str, Any] = {}
        self._saved: Mapping[str, Array] = {}
        self._count = Count.of_steps(ex.plan)
        self._touched = not all(
            isinstance(called, Callback) and called.only_reads_numbers for called in callbacks
        )

    def _has(self, called: Called) -> bool:
        """Whether this rank runs a callback: files are rank 0's business."""
        return self.ranks.first or not getattr(called, "writes_files", False)

    def keep(self, checkpoints: Checkpoints, choices: Mapping[str, Any], resume: bool) -> None:
        """Write checkpoints; with `resume` go on from the last one, where there is one.

        `choices` are what decides the order of rows.  GraphError, with nothing changed, when
        the earlier run had another order, or another net.
        """
        self.checkpoints, self.choices = checkpoints, dict(choices)
        file = self.ranks.from_first(lambda: checkpoints.begin(resume))
        if file is not None:
            self._resume(file)

    def _resume(self, file: CheckpointFile) -> None:
        for name, value in self.choices.items():
            before = file.notes["choices"].get(name)
            if before != value:
                raise GraphError(
                    f"fit: the run to be resumed had {name} {before}, now it is {value}",
                    loc=caller_loc(),
                    hint="resume with what the run began with, or begin anew in another folder",
                )
        odd = sorted(file.state.keys() ^ self.ex.plan.state_nodes.keys())
        if odd:
            raise GraphError(
                f"fit: the run to be resumed was of another net or optimizer: {odd[0]!r} is not "
                "in both",
                loc=caller_loc(),
                hint="begin anew in another folder",
            )
        self._check_shapes(file)
        self.ex.state = file.state
        self.at = Position(**file.notes["position"])
        self.history = History(**file.notes["history"])
        self._saved = file.arrays

    def _check_shapes(self, file: CheckpointFile) -> None:
        for name, before in file.state.items():
            now = self.ex.state.arrays[name].shape
            if before.shape != now:
                raise GraphError(
                    f"fit: the run to be resumed was of another net: {name!r} had shape "
                    f"{before.shape}, now it has {now}",
                    loc=caller_loc(),
                    hint="begin anew in another folder",
                )

    def train(self, progress: bool | None) -> History:
        """Train what is left; Ctrl-C comes out between two steps, with a checkpoint written."""
        if self.record is not None:
            self.record.begin(self.at)
        try:
            return self._train(progress)
        finally:
            if self.record is not None:
                self.record.close()

    def _train(self, progress: bool | None) -> History:
        self.ranks.begin(self.at.steps)
        self.guard = Guard(self.ex, self.source, self.at)
        begin(self.callbacks, self.history, self._saved)
        progress = progress if self.ranks.first else False
        shown = Progress(progress, self.epochs, self.source.rows, self.at.epoch, self.at.rows)
        try:
            with shown, StepBorder() as border:
                while self.at.epoch <= self.epochs and not self.history.stopped:
                    self._epoch(shown, border)
        except KeyboardInterrupt:
            between = len(self.history.epochs) == self.at.epoch - 1
            if self.checkpoints is not None and between:
                with StepBorder():
                    self._save(self.checkpoints)
            raise
        if self.record is not None:
            self.record.end(self.at)
        self.ranks.check(self.at)
        for callback in self.callbacks:
            if isinstance(callback, Callback):
                callback.finish(self.ex)
        return self.history

    def _epoch(self, shown: Progress, border: StepBorder) -> None:
        """The steps of an epoch that are left, and its end."""
        at, held = self.at, self.held
        before = perf_counter() - at.seconds
        try:
            self._steps(shown, border)
            if not at.rows:
                raise FeedError(f"the data of epoch {at.epoch} are empty", loc=caller_loc())
            val_loss, metrics = None, dict[str, float]()
            if held is not None:
                val_loss, metrics = validated(self.ex, held, border, self.ranks.all)
            if at.epoch == self.epochs or not isfinite(val_loss or 0.0):
                self.guard.check_state(at)
        finally:
            at.seconds = perf_counter() - before
        self.history.add(at.loss, at.seconds, val_loss, metrics)
        if self.ranks.first:
            shown.epoch(self.history)
        self._end()
        border.check()

    def _steps(self, shown: Progress, border: StepBorder) -> None:
        ex, at, guard, count, record = self.ex, self.at, self.guard, self._count, self.record
        every = self.checkpoints.every if self.checkpoints is not None else None
        for rows, feeds in self.source.batches(at.epoch, at.step):
            loss = ex.step(feeds)
            if not isfinite(loss):
                raise guard.trace(at, loss)
            at.count(rows, loss, count(feeds, rows, ex.state.arrays))
            if record is not None:
                record.step(at, loss)
            shown.rows(rows)
            if at.steps % EVERY == 0:
                guard.check_state(at)
                guard.mark(at)
                self.ranks.check(at)
            if every and at.steps % every == 0:
                assert self.checkpoints is not None
                self._save(self.checkpoints)
            border.check()

    def _end(self) -> None:
        """What follows an epoch: the best model, callbacks, a checkpoint."""
        checkpoints = self.checkpoints
        if checkpoints is not None or self._touched:
            self.guard.check_state(self.at)
        if checkpoints is not None:
            watch = checkpoints.watch or ("loss" if self.held is None else "val_loss")
            if self.ranks.first:
                checkpoints.write_best(self.ex, self.history, watch)
        self._call()
        self.at.next_epoch()
        if self._touched:
            self.guard.mark(self.at)
        last = self.at.epoch > self.epochs or bool(self.history.stopped)
        if checkpoints is not None and (checkpoints.every is None or last):
            self._save(checkpoints)

    def _call(self) -> None:
        """Let the callbacks run."""
        before = self.ex.snapshot() if self.record is not None and self.callbacks else {}
        epoch = Epoch(self.ex, self.history, self.at.steps)
        for callback in self.callbacks:
            callback(epoch)
        if self.record is not None:
            self.record.changed(self.at.epoch, before)

    def _save(self, checkpoints: Checkpoints) -> None:
        """A checkpoint of this position; never of a state that has become bad."""
        self.guard.check_state(self.at)
        if self.record is not None:
            self.record.flush()
        notes = {
            "choices": self.choices,
            "position": asdict(self.at),
            "history": asdict(self.history),
        }
        if self.ranks.first:
            checkpoints.write(self.ex, self.at.steps, notes, saved_arrays(self.callbacks))
