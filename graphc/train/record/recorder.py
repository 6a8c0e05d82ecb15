"""The recorder of a run, which writes while the run trains."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from time import perf_counter
from typing import Any, Concatenate, ParamSpec

from graphc.base.errors import GraphError, ModelFileError
from graphc.files.container import NAMES
from graphc.files.disk import FolderLock, make_folder, reason, remove_temporaries, shown
from graphc.files.serialize import write_checkpoint
from graphc.ir.op import Array
from graphc.runtime.executor import Executor
from graphc.train.checkpoints import Mismatch, choices_mismatch, net_mismatch
from graphc.train.history import Position
from graphc.train.record.folder import About, RunFolder, identity, made_with
from graphc.train.record.journal import WHOLE, JournalWriter, StateDigest, state_arrays
from graphc.train.source import ArraySource, Source

P = ParamSpec("P")

KEPT = 16
"""The number of states that are kept besides the first; if there are more, every second is deleted.
"""
SECONDS = 2.0
"""The least seconds from one written state to the next: writing takes some milliseconds."""
LARGEST_DATA = 256 * 2**20
"""The most bytes of arrays that are kept with the run."""


def _writes(
    method: Callable[Concatenate[Recorder, P], None],
) -> Callable[Concatenate[Recorder, P], None]:
    """Make a method raise ModelFileError where a file of the record cannot be written."""

    @wraps(method)
    def called(recorder: Recorder, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call the method, and raise ModelFileError for an OSError."""
        try:
            method(recorder, *args, **kwargs)
        except OSError as error:
            raise ModelFileError(
                f"cannot write the record in {shown(recorder.folder.path)}: {reason(error)}"
            ) from error

    return called


class Recorder:
    """A recorder of a run of `fit`; folder.py describes the files that it writes.

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
                hint="record in another folder",
            )

    @_writes
    def begin(self, at: Position) -> None:
        """Describe the run and write the first state, or continue the record of a resumed run.

        Raise GraphError if another run has the folder or the record is of another run,
        ModelFileError if it cannot be written or does not reach this position.
        """
        self.digest = StateDigest(self._ex)
        make_folder(self.folder.path, ModelFileError)
        self._lock.take()
        self.check(self._resume)  # repeated, now that no other run can write there
        remove_temporaries(self.folder.path, lambda name: name.endswith((".gc", ".json")))
        if self.folder.about_path.exists():
            self._continue(at)
        else:
            self._describe()
            self._write_state(at)
        self._journal = JournalWriter(self.folder.journal_path, at.steps)

    @_writes
    def step(self, at: Position, loss: float) -> None:
        """Record a finished step; `at` is after it.  Raise ModelFileError if the disk is full."""
        assert self._journal is not None
        self._journal.add(loss, self.digest.after(at.steps))
        if at.steps % self._every == 0 and perf_counter() - self._written >= SECONDS:
            self._journal.flush()
            self._write_state(at)
            self._thin()

    @_writes
    def flush(self) -> None:
        """Pass all that is recorded to the operating system."""
        assert self._journal is not None
        self._journal.flush()

    @_writes
    def changed(self, epoch: int, before: Mapping[str, Array]) -> None:
        """Write what callbacks changed in the state after an epoch."""
        now = state_arrays(self._ex)
        changed = {
            k: now[k].copy() for k, old in before.items() if now[k].tobytes() != old.tobytes()
        }
        if changed:
            self.folder.write_arrays(self.folder.changed_path(epoch), changed)

    @_writes
    def end(self, at: Position) -> None:
        """Write the last state, after all steps, by which equal runs are recognised at once."""
        self._write_state(at)
        self._thin()

    def close(self) -> None:
        """Close the journal and release the folder, when the run is over or was stopped."""
        if self._journal is not None:
            with suppress(OSError):
                self._journal.close()
        self._lock.release()

    # ------------------------------------------------------------------ inside

    def _describe(self) -> None:
        arrays = self._source.arrays if isinstance(self._source, ArraySource) else {}
        nbytes = sum(array.nbytes for array in arrays.values())
        known = all(array.dtype.name in NAMES for array in arrays.values())
        if arrays and known and nbytes <= LARGEST_DATA:
            self.folder.write_arrays(self.folder.data_path, arrays)
        about = About(
            self._choices, self._classes, identity(self._source), made_with(self._ex.plan.backend)
        )
        self.folder.write_about(about)

    def _continue(self, at: Position) -> None:
        """Check that the record is of this run, and delete what lies after this position."""
        mismatch = self._mismatch(at)
        if mismatch is not None:
            raise GraphError(
                f"fit: {shown(self.folder.path)} holds the record of another run, which "
                f"{mismatch.words}",
                operands=mismatch.shown,
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

    def _mismatch(self, at: Position) -> Mismatch | None:
        """Return how the recorded run differs from this one, or None."""
        about = self.folder.about()
        before = {**about.choices, "class_weight": about.class_weight, "data": asdict(about.data)}
        data = asdict(identity(self._source))
        now = {**self._choices, "class_weight": self._classes, "data": data}
        mismatch = choices_mismatch(before, now)
        states = self.folder.states()
        if mismatch is not None or not states:
            return mismatch
        file, begun = self.folder.read_state(states[min(states)])
        mismatch = net_mismatch(file.model, self._ex)
        if mismatch is None and begun.steps == at.steps:
            arrays = state_arrays(self._ex)
            odd = [
                k
                for k in arrays
                if k not in file.state or arrays[k].tobytes() != file.state[k].tobytes()
            ]
            mismatch = Mismatch(f"began with another {odd[0]!r}") if odd else None
        return mismatch

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
