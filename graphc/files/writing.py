"""Atomic writing of files: whenever the process ends, the old file or the new one is there, whole.

A file is written under another name in the same folder, and then replaces the old one.  While it is
written it is locked; one without a lock was left by a writer that was killed, and the next writer
of the same file removes it.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from graphc.base.errors import GraphError, ModelFileError
from graphc.files.lock import try_lock
from graphc.files.paths import AnyPath, reason, shown, system_path

_MARK = 16
"""The number of random digits in the name of an unfinished file."""
_POSIX = os.name == "posix"
"""Whether open files can be renamed and removed."""


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
    """Open a file to write, which replaces the one at the path if all went well.

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
    """Return the status of a path, or None if nothing is there."""
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
    """Lock a new file; return False if another writer took it for abandoned before that."""
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
