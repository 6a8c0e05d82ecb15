"""Paths, locks of folders, and atomic writes of files.

Locks end with the process that holds them, however it ends: the system releases the lock of a file
when it closes the file, so nothing has to find out whether a recorded process is still alive.

A file is written under another name in the same folder, and then replaces the old one: whenever
the process ends, the old file or the new one is there, whole.  While it is written it is locked;
one without a lock was left by a killed writer, and the next writer of the same file removes it.
"""

from __future__ import annotations

import errno
import logging
import os
import platform
import secrets
import stat
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self

from graphc.base.errors import GraphError, ModelFileError

LOG = logging.getLogger("graphc")
AnyPath = str | os.PathLike[str]

_LONGEST = 200
"""The number of characters of a lock file that are shown."""
_BEHIND = 1 << 20
"""The offset of the byte that Windows locks: others cannot read it, so it is past the text."""
_MARK = 16
"""The number of random digits in the name of an unfinished file."""
_POSIX = os.name == "posix"
"""True where open files can be renamed and removed."""


def system_path(path: AnyPath) -> str:
    """Return a path as text; raise OSError if no file can have it, GraphError for another type."""
    if not isinstance(path, (str, os.PathLike)):
        raise GraphError(f"{type(path).__name__} is not a path")
    name = os.fspath(path)
    try:
        encoded = os.fsencode(name)
    except ValueError:
        raise OSError(errno.EINVAL, "it has characters that a file name cannot have") from None
    if b"\0" in encoded:
        raise OSError(errno.EINVAL, "a path cannot hold the character NUL")
    return name


def shown(path: AnyPath) -> str:
    """Return the path for an error, quoted and escaped if it has unprintable characters."""
    name = str(path)
    return name if name.isprintable() else ascii(name)


def reason(error: BaseException) -> str:
    """Return the message of an error, on one line, without numbers and names of files."""
    text = error.strerror if isinstance(error, OSError) else None
    return " ".join((text or str(error) or type(error).__name__).split())


def check_plain(path: AnyPath) -> None:
    """Refuse devices, pipes and sockets, which may have no end; raise OSError, also for no file."""
    mode = os.stat(system_path(path)).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "it is not a regular file")


def make_folder(path: AnyPath, error: type[GraphError] = GraphError) -> Path:
    """Make a folder and the missing ones above it; raise `error` if that fails."""
    try:
        folder = Path(system_path(path))
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise error(f"cannot make the folder {shown(path)}: {reason(failure)}") from failure
    return folder


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
        """Lock a file until closed; return False if it is locked, raise OSError without locks."""
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
            # Somebody may have deleted the file, and another run have made one of that name.
            if os.name == "posix" and _is(self._file, self.path):
                self.path.unlink()  # while locked, so that it is not the next run's
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
            LOG.warning(
                "%s cannot be locked against other runs: %s", shown(self.folder), reason(error)
            )
            return True

    def _busy(self, file: BinaryIO) -> GraphError:
        file.seek(0)
        owner = file.read(_LONGEST).decode(errors="replace").strip()
        return GraphError(
            f"{shown(self.folder)} is in use by "
            f"{owner if owner and owner.isprintable() else 'another process'}",
            hint="wait for that run, stop it, or use another folder",
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
    """Close the copies of locks after a fork; the locks belong to the parent."""
    for lock in list(_LOCKS):
        lock._close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def write_file(
    path: AnyPath,
    pieces: Iterable[bytes | bytearray | memoryview],
    error: type[GraphError] = ModelFileError,
) -> Path:
    """Write a file, all or nothing; raise `error`, in one sentence, if that fails."""
    try:
        write_atomically(path, pieces)
    except OSError as failure:
        raise cannot_write(path, failure, error) from failure
    return Path(path)


def cannot_write(
    path: AnyPath, failure: OSError, error: type[GraphError] = ModelFileError
) -> GraphError:
    """Return the error for a file that could not be written."""
    folder = Path(path).parent
    missing = isinstance(failure, FileNotFoundError) and not folder.exists()
    hint = f"make the folder first: {shown(folder)}" if missing else "an old file was not changed"
    return error(f"cannot write {shown(path)}: {reason(failure)}", hint=hint)


def write_atomically(path: AnyPath, pieces: Iterable[bytes | bytearray | memoryview]) -> None:
    """Write a file, all or nothing; raise OSError if that fails."""
    with new_file(path) as file:
        for piece in pieces:
            file.write(piece)


@contextmanager
def new_file(path: AnyPath) -> Iterator[BinaryIO]:
    """Open a new file that replaces the one at the path when it has been written.

    Links are followed, and the new file has the mode of the old one.  A path that is not a plain
    file, such as a device or a pipe, is written into.  Raise OSError if that fails.
    """
    name = system_path(path)
    old = _status(name)
    if old is not None and not stat.S_ISREG(old.st_mode):
        with _special(name, old) as file:
            yield file
        return
    target = Path(os.path.realpath(name))
    if old is not None and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    remove_temporaries(target.parent, lambda found: found == target.name)
    with _beside(target, old) as file:
        yield file
    _sync_folder(target.parent)


def remove_temporaries(folder: Path, names: Callable[[str], bool]) -> None:
    """Remove the unfinished files of these names that killed writers left behind."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name, _, mark = entry.name[1:-4].rpartition(".")
            hidden = entry.name.startswith(".") and entry.name.endswith(".tmp")
            marked = len(mark) == _MARK and set(mark) <= set("0123456789abcdef")
            if hidden and marked and names(name) and entry.is_file(follow_symlinks=False):
                _remove_abandoned(entry.path)


def _remove_abandoned(path: str) -> None:
    """Remove a file that nobody is writing."""
    with suppress(OSError):
        if not _POSIX:  # an open file cannot be removed there
            os.unlink(path)
            return
        with open(path, "r+b") as file:
            if try_lock(file):
                os.unlink(path)


def _status(name: str) -> os.stat_result | None:
    """Return the status of a path, or None if it does not exist."""
    try:
        return os.stat(name)
    except FileNotFoundError:
        return None


@contextmanager
def _special(name: str, old: os.stat_result) -> Iterator[BinaryIO]:
    """Open an existing device or pipe as it is; raise OSError for others, or if nobody reads it."""
    if stat.S_ISDIR(old.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if stat.S_ISSOCK(old.st_mode):
        raise OSError(errno.EINVAL, "it is a socket")
    flags = os.O_WRONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    try:
        file = open(name, "wb", opener=lambda path, _: os.open(path, flags))  # noqa: SIM115
    except OSError as error:
        if error.errno == errno.ENXIO and stat.S_ISFIFO(old.st_mode):
            raise OSError(errno.ENXIO, "it is a pipe that nobody reads") from None
        raise
    with file:
        if _POSIX:
            # Opened without blocking, since opening a pipe that nobody reads would never return.
            os.set_blocking(file.fileno(), True)
        yield file


@contextmanager
def _beside(target: Path, old: os.stat_result | None) -> Iterator[BinaryIO]:
    """Open an unfinished file, which replaces the target if all went well."""
    temporary: Path | None = None
    try:
        while True:
            temporary = target.with_name(f".{target.name}.{secrets.token_hex(_MARK // 2)}.tmp")
            file = open(temporary, "xb")  # noqa: SIM115
            if _claimed(file, temporary):
                break
            file.close()
        with file:
            if old is not None:
                _take_over_mode(file, old)
            yield file
            file.flush()
            # The bytes are on disk before the name is: a crash never leaves a short file under it.
            os.fsync(file.fileno())
            if _POSIX:  # still locked
                os.replace(temporary, target)
        if not _POSIX:
            os.replace(temporary, target)
    except BaseException:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()
        raise


def _claimed(file: BinaryIO, path: Path) -> bool:
    """Lock a new file; return False if another writer has removed it as abandoned."""
    try:
        return try_lock(file) and path.exists()
    except OSError:  # without locks nobody can take it for abandoned
        return True


def _take_over_mode(file: BinaryIO, old: os.stat_result) -> None:
    """Give a file the mode, and if allowed the owner, of the one that it replaces."""
    if not _POSIX:
        return
    new = os.fstat(file.fileno())
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        with suppress(OSError):
            os.fchown(file.fileno(), old.st_uid, old.st_gid)
    with suppress(OSError):  # some file systems have no modes
        os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))


def _sync_folder(folder: Path) -> None:
    """Flush the new name to disk, too, if folders can be opened as files."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
