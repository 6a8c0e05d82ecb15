"""Locks that end with the process that holds them, however it ends.

The system releases a file's lock when the file is closed, and it closes the files of a process that
was killed.  So nothing has to find out whether a recorded process is still alive.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from graphc.base.errors import GraphError
from graphc.files.paths import reason, shown, system_path

LOG = logging.getLogger("graphc")

_LONGEST = 200
"""The number of characters of a lock file that are shown."""
_BEHIND = 1 << 20
"""The offset of the byte that Windows locks: others cannot read it, so it is past the text."""

if sys.platform == "win32":
    import msvcrt

    def try_lock(file: BinaryIO) -> bool:
        """Lock a file until it is closed; return False if it is locked already."""
        os.lseek(file.fileno(), _BEHIND, os.SEEK_SET)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        finally:
            os.lseek(file.fileno(), 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def try_lock(file: BinaryIO) -> bool:
        """Lock a file until it is closed; return False if it is locked already.

        Raise OSError if the file system has no locks.
        """
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class FolderLock:
    """A lock that limits a folder to one run at a time, by a file in it that names the process.

    `name` is the purpose of the lock: locks of different names do not exclude each other.  The file
    is deleted when the run ends; one that a killed run left behind does not block others.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.path = folder, folder / f".{name}.lock"
        self._file: BinaryIO | None = None
        _LOCKS.add(self)

    def take(self) -> None:
        """Take the lock once; raise GraphError that names the process if another run holds it."""
        if self._file is not None:
            return
        try:
            while self._file is None:
                self._file = open(system_path(self.path), "a+b", 0)  # noqa: SIM115
                if not self._locked(self._file):
                    raise self._busy(self._file)
                if not _is(self._file, self.path):  # its last holder has just removed it
                    self._close()
            self._file.truncate(0)
            self._file.write(_owner().encode())
        except OSError as error:
            self._close()
            raise GraphError(f"cannot write {shown(self.path)}: {reason(error)}") from error
        except BaseException:
            self._close()
            raise

    def release(self) -> None:
        """Release the folder if it was taken, and delete the lock file."""
        if self._file is None:
            return
        with suppress(OSError):
            if os.name == "posix" and _is(self._file, self.path):
                self.path.unlink()
        self._close()
        if os.name != "posix":  # an open file cannot be removed there
            with suppress(OSError):
                self.path.unlink()

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()

    def _locked(self, file: BinaryIO) -> bool:
        try:
            return try_lock(file)
        except OSError as error:
            LOG.warning("%s cannot be kept to one run: %s", shown(self.folder), reason(error))
            return True

    def _busy(self, file: BinaryIO) -> GraphError:
        file.seek(0)
        owner = file.read(_LONGEST).decode(errors="replace").strip()
        return GraphError(
            f"{shown(self.folder)} is in use by "
            f"{owner if owner and owner.isprintable() else 'another process'}",
            hint="wait until that run has ended, or end it, or take another folder",
        )


def _owner() -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {platform.node()} since {since}"


def _is(file: BinaryIO, path: Path) -> bool:
    """Return whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


_LOCKS: weakref.WeakSet[FolderLock] = weakref.WeakSet()


def _forget() -> None:
    """Close a forked child's copies of the locks, which belong to the parent."""
    for lock in list(_LOCKS):
        lock._close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
