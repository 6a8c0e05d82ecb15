"""The journal of a run: sixteen bytes per step.

A file begins with eight bytes that identify the format and the number of the steps that were done
before.  Each step adds its loss, as float64, and a digest of the state after it, as uint64.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from graphc.base.errors import ModelFileError
from graphc.base.loc import caller_loc
from graphc.files.paths import check_plain, reason, shown

_MAGIC = b"graphcJ1"
_HEAD = struct.Struct("<8sQ")
_STEP = struct.Struct("<dQ")
_ROW = np.dtype([("loss", "<f8"), ("digest", "<u8")])
assert _ROW.itemsize == _STEP.size == _HEAD.size

Rows = NDArray[np.void]


class JournalWriter:
    """Adds steps to a journal; `flush` passes them to the operating system."""

    def __init__(self, path: Path, done: int) -> None:
        """Begin a journal after `done` steps, or continue one without its later steps.

        Raise ModelFileError if an existing journal does not reach that far.
        """
        if path.exists():
            journal = Journal(path)
            if not journal.first <= done <= journal.last:
                raise ModelFileError(
                    f"{path} has steps {journal.first + 1} to {journal.last}, the run "
                    f"continues after step {done}",
                    loc=caller_loc(),
                    hint="record the run in another folder from here on",
                )
            os.truncate(path, _HEAD.size + (done - journal.first) * _STEP.size)
            self._file: BinaryIO = open(path, "ab")  # noqa: SIM115
        else:
            self._file = open(path, "xb")  # noqa: SIM115
            self._file.write(_HEAD.pack(_MAGIC, done))
        self.flush()

    def add(self, loss: float, digest: int) -> None:
        """Add a finished step."""
        self._file.write(_STEP.pack(loss, digest))

    def flush(self) -> None:
        """Pass all steps to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Pass all steps to the operating system, and close the file."""
        self._file.close()


class Journal:
    """A journal that is read step by step, when steps are asked for.

    A last step that was not written whole does not count.  Raise ModelFileError for another file.
    """

    def __init__(self, path: Path) -> None:
        try:
            check_plain(path)
            with open(path, "rb") as file:
                head = file.read(_HEAD.size)
                size = os.fstat(file.fileno()).st_size
        except OSError as error:
            raise _unreadable(path, reason(error)) from error
        if len(head) < _HEAD.size or not head.startswith(_MAGIC):
            raise _unreadable(path, "it is not a journal of this version of graphc")
        self._path = path
        self.first = int(_HEAD.unpack(head)[1])
        """The number of steps that were done before the first one."""
        if self.first >= 2**62:
            raise _unreadable(path, "it is not a journal of this version of graphc")
        self._count = (size - _HEAD.size) // _STEP.size

    @property
    def last(self) -> int:
        """The number of the last step."""
        return self.first + self._count

    def steps(self, start: int, stop: int) -> Rows:
        """Return the losses and digests of the steps after number `start`, up to `stop`."""
        count = max(0, stop - start)
        try:
            offset = _HEAD.size + (start - self.first) * _STEP.size
            return np.fromfile(self._path, _ROW, count, offset=offset)
        except OSError as error:
            raise _unreadable(self._path, reason(error)) from error

    def step(self, number: int) -> tuple[float, int]:
        """Return the loss and the digest of one step."""
        row = self.steps(number - 1, number)
        return float(row["loss"][0]), int(row["digest"][0])


def _unreadable(path: Path, why: str) -> ModelFileError:
    return ModelFileError(f"cannot read {shown(path)}: {why}", loc=caller_loc())
