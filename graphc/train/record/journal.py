"""The journal of a run: sixteen bytes a step.

A file begins with eight bytes that say what it is and the number of the steps that were done
before.  Each step adds its loss, as float64, and a digest of the state after it, as uint64.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from graphc.errors import ModelFileError
from graphc.files.paths import check_plain, reason, shown
from graphc.loc import caller_loc

_MAGIC = b"graphcJ1"
_HEAD = struct.Struct("<8sQ")
_STEP = struct.Struct("<dQ")
_ROW = np.dtype([("loss", "<f8"), ("digest", "<u8")])
assert _ROW.itemsize == _STEP.size == _HEAD.size

Rows = NDArray[np.void]


class JournalWriter:
    """Adds steps to a journal; they are on their way to the disk after `flush`."""

    def __init__(self, path: Path, done: int) -> None:
        """Begin a journal after so many steps, or go on with one, whose later steps go.

        ModelFileError where the one that is there does not reach so far.
        """
        if path.exists():
            journal = Journal(path)
            if not journal.first <= done <= journal.last:
                raise ModelFileError(
                    f"{path} has steps {journal.first + 1} to {journal.last}, the run goes on "
                    f"after step {done}",
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
        """A step has been made."""
        self._file.write(_STEP.pack(loss, digest))

    def flush(self) -> None:
        """Hand all steps to the system."""
        self._file.flush()

    def close(self) -> None:
        """Hand all steps to the system, and end."""
        self._file.close()


class Journal:
    """A journal to be read; steps are read when they are asked for.

    A last step that was not written whole does not count.  ModelFileError for another file.
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
            raise _unreadable(path, "it is no journal of this version of graphc")
        self._path = path
        self.first = int(_HEAD.unpack(head)[1])
        """The steps that were done before the first one."""
        if self.first >= 2**62:
            raise _unreadable(path, "it is no journal of this version of graphc")
        self._count = (size - _HEAD.size) // _STEP.size

    @property
    def last(self) -> int:
        """The number of the last step."""
        return self.first + self._count

    def steps(self, start: int, stop: int) -> Rows:
        """The steps after number `start`, up to `stop`: losses and digests."""
        count = max(0, stop - start)
        try:
            offset = _HEAD.size + (start - self.first) * _STEP.size
            return np.fromfile(self._path, _ROW, count, offset=offset)
        except OSError as error:
            raise _unreadable(self._path, reason(error)) from error

    def step(self, number: int) -> tuple[float, int]:
        """Loss and digest of one step."""
        row = self.steps(number - 1, number)
        return float(row["loss"][0]), int(row["digest"][0])


def _unreadable(path: Path, why: str) -> ModelFileError:
    return ModelFileError(f"cannot read {shown(path)}: {why}", loc=caller_loc())
