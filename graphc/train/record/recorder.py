"""Writes the record of a run while it is trained."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from graphc.base.errors import GraphError, ModelFileError
from graphc.base.loc import caller_loc
from graphc.files.checkpoint_file import write_checkpoint
from graphc.files.container import NAMES
from graphc.files.lock import FolderLock
from graphc.files.paths import make_folder, reason, shown
from graphc.files.writing import remove_temporaries
from graphc.ir.op import Array
from graphc.runtime.executor import Executor
from graphc.train.arrays import ArraySource
from graphc.train.position import Position
from graphc.train.record.digests import WHOLE, StateDigest, state_arrays
from graphc.train.record.folder import About, RunFolder
from graphc.train.record.identity import identity, unwrapped
from graphc.train.record.journal import JournalWriter
from graphc.train.record.made_with import made_with
from graphc.train.same_run import Unlike, unlike_choices, unlike_net
from graphc.train.source import Source

KEPT = 16
"""The number of states that are kept besides the first; if there are more, every second is deleted.
"""
SECONDS = 2.0
"""The least seconds from one written state to the next: writing takes some milliseconds."""
LARGEST_DATA = 256 * 2**20
"""The most bytes of arrays that are kept with the run."""


class Recorder:
    """Records a run of `fit` in a folder, whose files folder.py describes.

    A state is written every `WHOLE` steps, but not sooner than SECONDS after another; when there
    are more than KEPT, the number of steps doubles.  So a record takes as much room as that many
    models, and any step is near one of them.
    """

    def __init__(
        self, path: Path, ex: Executor, source: Source, choices: Mapping[str, Any], classes: Any
    ) -> None:
        self.folder, self._ex, self._source = RunFolder(path), ex, source
        self._choices = dict(choices)
        self._classes = None if classes is None else [(int(k), float(classes[k])) for k in classes]
        self._every, self._written = WHOLE, 0.0
        self._journal: JournalWriter | None = None
        self._lock, self._resume = FolderLock(path, "record"), False

    def check(self, resume: bool) -> None:
        """Raise GraphError if the folder already holds another run."""
        self._resume = resume
        if os.path.exists(self.folder.about_path) and not resume:
            raise GraphError(
                f"fit: {shown(self.folder.path)} holds a recorded run",
                loc=caller_loc(),
                hint="record in another folder",
            )

    def begin(self, at: Position) -> None:
        """Describe the run and write the first state, or continue the record of a resumed run.

        Raise GraphError if another run has the folder or the record is of another run,
        ModelFileError if it cannot be written or does not reach this position.
        """
        self.digest = StateDigest(self._ex)
        make_folder(self.folder.path, ModelFileError)
        try:
            self._lock.take()
            self.check(self._resume)  # repeated, now that no other run can write there
            remove_temporaries(self.folder.path, lambda name: name.endswith((".gc", ".json")))
            if self.folder.about_path.exists():
                self._go_on(at)
            else:
                self._describe()
                self._write_state(at)
            self._journal = JournalWriter(self.folder.journal_path, at.steps)
        except OSError as error:
            raise self._unwritten(error) from error

    def step(self, at: Position, loss: float) -> None:
        """Record a finished step; `at` is after it.  Raise ModelFileError if the disk is full."""
        assert self._journal is not None
        try:
            self._journal.add(loss, self.digest.after(at.steps))
            if at.steps % self._every == 0 and perf_counter() - self._written >= SECONDS:
                self._journal.flush()
                self._write_state(at)
                self._thin()
        except OSError as error:
            raise self._unwritten(error) from error

    def flush(self) -> None:
        """Pass all that is recorded to the operating system."""
        assert self._journal is not None
        try:
            self._journal.flush()
        except OSError as error:
            raise self._unwritten(error) from error

    def changed(self, epoch: int, before: Mapping[str, Array]) -> None:
        """Write what callbacks changed in the state after an epoch."""
        now = state_arrays(self._ex)
        changed = {k: now[k].copy() for k, old in before.items() if _bits(now[k]) != _bits(old)}
        if changed:
            try:
                self.folder.write_arrays(self.folder.changed_path(epoch), changed)
            except OSError as error:
                raise self._unwritten(error) from error

    def end(self, at: Position) -> None:
        """Write the last state, after all steps, by which equal runs are recognised at once."""
        try:
            self._write_state(at)
            self._thin()
        except OSError as error:
            raise self._unwritten(error) from error

    def close(self) -> None:
        """Close the journal and release the folder, when the run is over or was stopped."""
        if self._journal is not None:
            with suppress(OSError):
                self._journal.close()
        self._lock.release()

    # ------------------------------------------------------------------ inside

    def _describe(self) -> None:
        inner = unwrapped(self._source)
        arrays = inner.arrays if isinstance(inner, ArraySource) else {}
        nbytes = sum(array.nbytes for array in arrays.values())
        known = all(array.dtype.name in NAMES for array in arrays.values())
        if arrays and known and nbytes <= LARGEST_DATA:
            self.folder.write_arrays(self.folder.data_path, arrays)
        about = About(
            self._choices, self._classes, identity(self._source), made_with(self._ex.plan.backend)
        )
        self.folder.write_about(about)

    def _go_on(self, at: Position) -> None:
        """Check that the record is of this run, and delete what lies after this position."""
        unlike = self._unlike(at)
        if unlike is not None:
            raise GraphError(
                f"fit: {shown(self.folder.path)} holds the record of another run, which "
                f"{unlike.words}",
                operands=unlike.shown,
                loc=caller_loc(),
                hint="record in another folder from here on",
            )
        for steps, path in self.folder.states().items():
            if steps > at.steps:
                path.unlink()
        for epoch, path in self.folder.changes().items():
            if epoch >= at.epoch:
                path.unlink()
        self._thin()
        if not self.folder.states():
            self._write_state(at)

    def _unlike(self, at: Position) -> Unlike | None:
        """Return how the recorded run differs from this one, or None."""
        about = self.folder.about()
        before = {**about.choices, "class_weight": about.class_weight, "data": asdict(about.data)}
        data = asdict(identity(self._source))
        now = {**self._choices, "class_weight": self._classes, "data": data}
        unlike = unlike_choices(before, now)
        states = self.folder.states()
        if unlike is not None or not states:
            return unlike
        file, begun = self.folder.read_state(states[min(states)])
        unlike = unlike_net(file.model, self._ex)
        if unlike is None and begun.steps == at.steps:
            arrays = state_arrays(self._ex)
            odd = [
                k for k in arrays if k not in file.state or _bits(arrays[k]) != _bits(file.state[k])
            ]
            unlike = Unlike(f"began with another {odd[0]!r}") if odd else None
        return unlike

    def _write_state(self, at: Position) -> None:
        write_checkpoint(self.folder.state_path(at.steps), self._ex, {"position": asdict(at)}, {})
        self._written = perf_counter()

    def _thin(self) -> None:
        """Delete every second state while there are too many."""
        states = self.folder.states()
        first, last = min(states, default=0), max(states, default=0)
        while len(states) - 1 > KEPT:
            self._every *= 2
            for steps in [s for s in states if s not in (first, last) and s % self._every]:
                states.pop(steps).unlink()

    def _unwritten(self, error: OSError) -> ModelFileError:
        return ModelFileError(
            f"cannot write the record in {shown(self.folder.path)}: {reason(error)}",
            loc=caller_loc(),
        )


def _bits(array: Array) -> bytes:
    return array.tobytes()
