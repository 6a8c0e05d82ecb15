"""The training loop: steps, the end of an epoch, checkpoints; Ctrl-C ends it between two steps."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import zip_longest
from math import isfinite
from time import perf_counter
from types import FrameType
from typing import Any, TypeVar

from graphc.base.errors import FeedError
from graphc.base.scoped_lock import Scope
from graphc.files.disk import FolderLock
from graphc.files.model_file import damage
from graphc.files.serialize import CheckpointFile
from graphc.ir.op import Array
from graphc.runtime.distributed.communicator import Communicator
from graphc.runtime.executor import Executor
from graphc.runtime.rows import Count, Means, Numbers
from graphc.train.callbacks import Callback, Epoch, begin, saved_arrays
from graphc.train.checkpoints import Checkpoints, check_same_run
from graphc.train.history import History, Position, Progress
from graphc.train.nonfinite import EVERY, Guard
from graphc.train.ranks import Ranks
from graphc.train.record.recorder import Recorder
from graphc.train.source import Source
from graphc.train.user_data import check_losses_fed

T = TypeVar("T")


class StepBoundary:
    """A call in which an interrupt waits until `check` or the end of `run`.

    An interrupt within a step would leave a count of steps that does not match the state.  Only
    the main thread gets signals, so in another one this does nothing.
    """

    def __init__(self) -> None:
        self._scope = Scope()
        self._pending: tuple[int, FrameType | None] | None = None
        self._before: Any = None

    def run(self, work: Callable[..., T], *args: Any) -> T:
        """Make a call, in which an interrupt takes effect only at `check`."""
        self._before = signal.getsignal(signal.SIGINT)
        # SIG_IGN and SIG_DFL are numbers, and a handler that C has set is None.
        holds = callable(self._before)
        if holds:
            try:
                signal.signal(signal.SIGINT, self._hold)
            except ValueError:  # not the main thread
                holds = False
        try:
            made = self._scope.run(work, *args)
        finally:
            if holds:
                signal.signal(signal.SIGINT, self._before)
        self.check()
        return made

    def check(self) -> None:
        """Deliver a pending interrupt: usually raise KeyboardInterrupt."""
        if self._pending is not None:
            (number, frame), self._pending = self._pending, None
            self._before(number, frame)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if self._scope.entered:
            self._pending = number, frame
        else:  # an exception came before the old handler was restored
            signal.signal(signal.SIGINT, self._before)
            self._before(number, frame)


class Run:
    """A training run from its start or a checkpoint; it continues a `history` and its numbers."""

    def __init__(
        self,
        ex: Executor,
        source: Source,
        epochs: int,
        callbacks: tuple[Callback, ...] = (),
        *,
        validation: Source | None = None,
        history: History | None = None,
        record: Recorder | None = None,
    ) -> None:
        self.ex, self.source, self.validation, self.epochs = ex, source, validation, epochs
        self.ranks = Ranks(ex)
        self.callbacks = tuple(c for c in callbacks if self.ranks.first or not c.writes_files)
        self.record = record
        self.history = History() if history is None else history
        self.history.stopped = ""
        self.at = Position(epoch=len(self.history.epochs) + 1)
        self.checkpoints: Checkpoints | None = None
        self._lock: FolderLock | None = None
        self.choices: dict[str, Any] = {}
        self._saved: Mapping[str, Array] = {}
        self._count = Count.of_steps(ex.plan)
        self._consistent = True
        """True while state, position and history belong together, so that they can be saved."""
        self._callbacks_may_write = not all(callback.only_reads_numbers for callback in callbacks)

    def use_checkpoints(
        self, checkpoints: Checkpoints, choices: Mapping[str, Any], resume: bool
    ) -> None:
        """Write checkpoints; with `resume` continue from the last one, if there is one.

        `choices` determine the order of rows.  Raise GraphError, with nothing changed, if the
        earlier run had others, or another net or optimizer, or another run has the folder; `close`
        releases it.
        """
        self.checkpoints, self.choices = checkpoints, dict(choices)
        self._lock = lock = checkpoints.lock()
        file = self.ranks.from_first(lambda: checkpoints.begin(lock, resume))
        if file is not None:
            self._resume(file)

    def close(self) -> None:
        """Release the folders, whether the run has ended or never began."""
        if self._lock is not None:
            self._lock.release()
        if self.record is not None:
            self.record.close()

    def _resume(self, file: CheckpointFile) -> None:
        check_same_run(file, self.ex, self.choices, self.epochs)
        with damage(file.model, "a run"):
            at, history = Position(**file.notes["position"]), History(**file.notes["history"])
        self.choices |= file.notes["choices"]  # the choices that the run began with
        self.ex.state = file.state
        self.at, self.history = at, history
        self._saved = file.arrays

    def train(self, progress: bool | None) -> History:
        """Train to the last epoch; Ctrl-C takes effect after a step and writes a checkpoint."""
        if self.record is not None:
            self.record.begin(self.at)
        self.ranks.begin()
        self.guard = Guard(self.ex, self.source, self.at)
        begin(self.callbacks, self.history, self._saved)
        progress = progress if self.ranks.first else False
        shown = Progress(progress, self.epochs, self.source.rows, self.at.epoch, self.at.rows)
        interrupts = StepBoundary()
        try:
            with shown:
                interrupts.run(self._epochs, shown, interrupts)
        except KeyboardInterrupt:
            if self.checkpoints is not None and self._consistent:
                # A second interrupt waits for the checkpoint, too.
                StepBoundary().run(self._save, self.checkpoints)
            raise
        if self.record is not None:
            self.record.end(self.at)
        self.ranks.check(self.at)
        for callback in self.callbacks:
            callback.finish(self.ex)
        return self.history

    def _epochs(self, shown: Progress, interrupts: StepBoundary) -> None:
        while self.at.epoch <= self.epochs and not self.history.stopped:
            self._epoch(shown, interrupts)

    def _epoch(self, shown: Progress, interrupts: StepBoundary) -> None:
        """Run the steps of an epoch that are left, and its end."""
        at, validation = self.at, self.validation
        # A resumed epoch continues its clock: the seconds before the checkpoint count.
        before = perf_counter() - at.seconds
        try:
            self._steps(shown, interrupts)
            if not at.rows:
                raise FeedError(f"the data of epoch {at.epoch} are empty")
            val_loss, metrics = None, dict[str, float]()
            if validation is not None:
                val_loss, metrics = validated(self.ex, validation, interrupts, self.ranks.all)
            if at.epoch == self.epochs or not isfinite(val_loss or 0.0):
                self.guard.check_state(at)
        finally:
            at.seconds = perf_counter() - before
        self._consistent = False
        self.history.add(at.loss, at.seconds, val_loss, metrics)
        if self.ranks.first:
            shown.epoch(self.history)
        self._end_epoch()
        interrupts.check()

    def _steps(self, shown: Progress, interrupts: StepBoundary) -> None:
        ex, at, guard, count, record = self.ex, self.at, self.guard, self._count, self.record
        every = self.checkpoints.every if self.checkpoints is not None else None
        for rows, given in self.source.batches(at.epoch, at.step):
            feeds = ex.padded(given)
            self._consistent = False
            share = count(feeds, rows, ex.state.arrays)  # of the weights before they are updated
            loss = ex.step(feeds)
            if not isfinite(loss):
                raise guard.trace(at, loss)
            at.count(rows, loss, share)
            self._consistent = True
            if record is not None:
                record.step(at, loss)
            shown.rows(rows)
            if at.steps % EVERY == 0:
                guard.check_state(at)
                guard.copy_state(at)
                self.ranks.check(at)
            if every and at.steps % every == 0:
                assert self.checkpoints is not None
                self._save(self.checkpoints)
            interrupts.check()

    def _end_epoch(self) -> None:
        """End an epoch: write the best model, run callbacks, write a checkpoint."""
        checkpoints = self.checkpoints
        if checkpoints is not None or self._callbacks_may_write:
            self.guard.check_state(self.at)
        if checkpoints is not None:
            watch = checkpoints.watch or ("loss" if self.validation is None else "val_loss")
            if self.ranks.first:
                checkpoints.write_best(self.ex, self.history, watch)
        self._run_callbacks()
        self.at.next_epoch()
        self._consistent = True
        if self._callbacks_may_write:
            self.guard.copy_state(self.at)
        last = self.at.epoch > self.epochs or bool(self.history.stopped)
        if checkpoints is not None and (checkpoints.every is None or last):
            self._save(checkpoints)

    def _run_callbacks(self) -> None:
        """Call each callback with the epoch, and record what they changed in the state."""
        before = self.ex.snapshot() if self.record is not None and self.callbacks else {}
        epoch = Epoch(self.ex, self.history, self.at.steps)
        for callback in self.callbacks:
            callback(epoch)
        if self.record is not None:
            self.record.changed(self.at.epoch, before)

    def _save(self, checkpoints: Checkpoints) -> None:
        """Write a checkpoint of this position; never of a state that is not finite."""
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


def validated(
    ex: Executor, validation: Source, interrupts: StepBoundary, ranks: Communicator
) -> tuple[float, dict[str, float]]:
    """Return the sum of the losses, and the other scalar outputs, as means over all rows.

    Several ranks take the batches in turns, and add the numbers of all in order.  Raise
    FeedError if the batches determine no loss.
    """
    totals, mine = Means(ex.plan, ex.state.arrays), list[Numbers]()
    for number, (rows, given) in enumerate(validation.batches(0)):
        if not number:
            check_losses_fed(ex, frozenset(ex.padded(given)))
        if number % ranks.size == ranks.rank:
            feeds = ex.padded(given)
            mine.append(totals.numbers(rows, feeds, ex.forward(feeds, copy=False)))
        interrupts.check()
    for turn in zip_longest(*ranks.gather(mine)):
        for numbers in turn:
            if numbers is not None:
                totals.add_numbers(numbers)
    means = totals.found()
    return sum(means.pop(name, 0.0) for name in ex.plan.losses), means
