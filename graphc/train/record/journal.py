"""The journal of a run: sixteen bytes per step, a loss and a digest of the state after it.

A file begins with eight bytes that identify the format and the number of the steps that were done
before.  Each step adds its loss, as float64, and its digest, as uint64: of a few hundred bytes of
the state, and every 1000 steps of all its bytes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from hashlib import blake2b, sha256
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from graphc.base.errors import ModelFileError
from graphc.files.disk import check_plain, reason, shown
from graphc.ir.op import Array
from graphc.runtime.executor import Executor

_MAGIC = b"graphcJ1"
_HEAD = struct.Struct("<8sQ")
_STEP = struct.Struct("<dQ")
_ROW = np.dtype([("loss", "<f8"), ("digest", "<u8")])
assert _ROW.itemsize == _STEP.size == _HEAD.size

Rows = NDArray[np.void]


class JournalWriter:
    """A journal that is being written; `flush` passes its steps to the operating system."""

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
    """A journal that is read, only at the steps that are asked for.

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
    return ModelFileError(f"cannot read {shown(path)}: {why}")


WHOLE = 1000
"""The number of steps between two digests of the whole state."""

_ARRAYS = 16
_WORDS = 4


def state_arrays(ex: Executor) -> dict[str, Array]:
    """Return the arrays, not copies, of the states that the plan needs."""
    return {name: ex.state.arrays[name] for name in ex.plan.state_nodes}


class StateDigest:
    """The digest of an executor's state after each step.

    After most steps it is that of four words of each of 16 arrays, or of as many as there are:
    a step that went differently shows in its loss or in nearly all numbers of the state.  After
    every WHOLE steps it is that of all bytes, which finds what was missed.
    """

    def __init__(self, ex: Executor) -> None:
        self.parts = [array.reshape(-1).view(np.uint8) for array in state_arrays(ex).values()]
        """The arrays as bytes."""
        words = [part[: part.size // 8 * 8].view(np.uint64) for part in self.parts]
        some = _evenly([array for array in words if array.size], _ARRAYS)
        self._pieces = _in_one_block(ex.state.blocks, some) or [(a, _places(a.size)) for a in some]
        self._chosen = np.empty(sum(len(places) for _, places in self._pieces), np.uint64)

    def after(self, step: int) -> int:
        """Return the digest after the step of this number."""
        if step % WHOLE == 0:
            return self.whole()
        start = 0
        for words, places in self._pieces:
            # Any mode but "raise" writes straight into `out`; the places are all in range.
            words.take(places, out=self._chosen[start : start + len(places)], mode="clip")
            start += len(places)
        return int.from_bytes(blake2b(self._chosen.data, digest_size=8).digest(), "little")

    def whole(self) -> int:
        """Return the digest of all bytes of the state."""
        return digest(self.parts)


def digest(parts: Sequence[Array | bytes]) -> int:
    """Return 64 bits that depend on all bytes of the parts."""
    found = sha256()
    for part in parts:
        found.update(part.data if isinstance(part, np.ndarray) else part)
    return int.from_bytes(found.digest()[:8], "little")


def _evenly(arrays: Sequence[Array], count: int) -> list[Array]:
    """Return at most `count` of the arrays, spread evenly from the first to the last."""
    places = np.linspace(0, len(arrays) - 1, min(count, len(arrays)))
    return [arrays[int(place)] for place in places]


def _places(size: int) -> NDArray[np.intp]:
    """Return indices spread evenly over an array of `size` words."""
    return np.linspace(0, size - 1, min(_WORDS, size)).astype(np.intp)


def _in_one_block(
    blocks: Sequence[Array], some: Sequence[Array]
) -> list[tuple[Array, NDArray[np.intp]]]:
    """Return the places of all arrays in the block that holds them; none if several blocks do."""
    for block in blocks:
        first, end = _address(block), _address(block) + block.nbytes
        if some and all(first <= _address(array) < end for array in some):
            starts = [(_address(array) - first) // 8 for array in some]
            places = [
                start + _places(array.size) for start, array in zip(starts, some, strict=True)
            ]
            return [(block.view(np.uint64), np.concatenate(places))]
    return []


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])
