"""Checkpoints of a run in a folder: the last two, and the best model."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from graphc.base.errors import GraphError, ModelFileError
from graphc.base.loc import caller_loc
from graphc.files.checkpoint_file import CheckpointFile, read_checkpoint, write_checkpoint
from graphc.files.lock import FolderLock
from graphc.files.paths import make_folder, shown
from graphc.files.serialize import save
from graphc.files.writing import remove_temporaries
from graphc.ir.numbers import checked_whole
from graphc.ir.op import Array
from graphc.runtime.executor import Executor
from graphc.train.best import Best
from graphc.train.history import History

LOG = logging.getLogger("graphc")
KEPT = 2
"""The number of checkpoints that are kept besides the best model."""

_NAME = re.compile(r"step-(\d{9,})\.gc")


class Checkpoints:
    """The folder where `fit` writes checkpoints, and how often it does.

    `folder` is made if it does not exist.  A checkpoint, `step-<steps>.gc`, is written after
    each epoch, or with `every` after that many steps; the last two are kept.  `best.gc` is the
    model of the epoch with the smallest `watch`, or with `largest` the greatest; `watch` None is
    "val_loss" if there are validation data, and else "loss".  All of them are models
    that `gc.load` reads, written whole or not at all, with a checksum.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        every: int | None = None,
        watch: str | None = None,
        largest: bool = False,
    ) -> None:
        if every is not None:
            hint = "it counts steps; leave it out for a checkpoint after each epoch"
            every = checked_whole("Checkpoints: every", every, hint=hint)
        self.folder, self.every = Path(folder), every
        self.watch, self.largest = watch, largest

    @property
    def best(self) -> Path:
        """The path of the model of the best epoch."""
        return self.folder / "best.gc"

    @property
    def last(self) -> Path | None:
        """The newest checkpoint, or None if there is none."""
        found = self._found()
        return found[-1] if found else None

    def lock(self) -> FolderLock:
        """Return the lock that reserves the folder for one run once it is taken."""
        return FolderLock(self.folder, "checkpoints")

    def begin(self, lock: FolderLock, resume: bool) -> CheckpointFile | None:
        """Prepare the folder; return the newest whole checkpoint if a run is to be resumed.

        The lock is taken, and is the caller's to release, also after an error.  Raise GraphError if
        another run has the folder or it holds checkpoints of one, ModelFileError if none of its
        checkpoints can be read or the folder cannot be made.
        """
        make_folder(self.folder, ModelFileError)
        lock.take()
        remove_temporaries(self.folder, lambda name: name == "best.gc" or bool(_number(name)))
        found = self._found()
        if found and not resume:
            raise GraphError(
                f"fit: {shown(self.folder)} holds checkpoints of an earlier run",
                loc=caller_loc(),
                hint="resume=True continues it; another folder starts a new run",
            )
        return self._newest(found)

    def write(
        self, ex: Executor, steps: int, notes: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> None:
        """Write a checkpoint and delete all but the last two; raise ModelFileError on failure."""
        write_checkpoint(self.folder / f"step-{steps:09d}.gc", ex, notes, arrays)
        for path in self._found()[:-KEPT]:
            with suppress(OSError):
                path.unlink()

    def write_best(self, ex: Executor, history: History, watch: str) -> None:
        """Write the model if the last epoch is the best; raise ModelFileError on failure."""
        best = Best(self.largest)
        if [best.add(value) for value in history.column(watch)][-1]:
            save(self.best, ex)

    def _found(self) -> list[Path]:
        """Return the checkpoints, oldest first."""
        paths = [path for path in self.folder.glob("step-*.gc") if _number(path.name)]
        return sorted(paths, key=lambda path: int(_number(path.name)))

    def _newest(self, found: list[Path]) -> CheckpointFile | None:
        error: ModelFileError | None = None
        for path in reversed(found):
            try:
                return read_checkpoint(path)
            except ModelFileError as damage:
                error = error or damage
                LOG.warning("%s; the checkpoint before it is tried", damage.sentence)
        if error is not None:
            raise error
        return None


def _number(name: str) -> str:
    """Return the digits of a checkpoint's name, or "" for another file."""
    match = _NAME.fullmatch(name)
    return match[1] if match else ""
