"""The cache on disk: a private directory whose every entry is checked.

An entry that cannot be read or fails its check counts as absent; one that cannot be written is not
kept.  Neither is an error or a warning.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

MAGIC = b"graphc object 1\n"
LIMIT = 256 << 20
"""The most bytes in the whole directory; the least recently used entries are deleted first."""
PRUNING = "0"
"""The first hexadecimal digit of the keys whose writing also prunes the directory: one key in
sixteen, since a full directory has thousands of files to list."""
_SUFFIX = ".object"
_TEMPORARY = ".part"
_ABANDONED = 3600.0
"""The age in seconds from which a temporary file counts as abandoned by its writer."""
_HEADER = len(MAGIC) + hashlib.sha256().digest_size


def cache_path() -> Path | None:
    """Return the cache directory: $GRAPHC_CACHE, $XDG_CACHE_HOME/graphc or ~/.cache/graphc.

    Return None if neither variable gives a directory and the home directory is unknown.
    """
    if own := os.environ.get("GRAPHC_CACHE"):
        return Path(own)
    if (shared := os.environ.get("XDG_CACHE_HOME")) and os.path.isabs(shared):
        return Path(shared, "graphc")
    home = os.path.expanduser("~")
    return Path(home, ".cache", "graphc") if os.path.isabs(home) else None


def cached(key: str) -> bytes | None:
    """Return the object of a key, or None if no entry of that key passes its check."""
    try:
        with _directory() as directory:
            return _checked(key, _bytes(key + _SUFFIX, directory))
    except OSError:
        return None


def store(key: str, object: bytes) -> None:
    """Store an object under a key if possible."""
    with contextlib.suppress(OSError), _directory() as directory:
        _replace(key + _SUFFIX, MAGIC + _checksum(key, object) + object, directory)
        if key.startswith(PRUNING):
            _prune(directory)


def _checksum(key: str, object: bytes) -> bytes:
    """Return the checksum of an entry, which covers its key, so that a renamed entry fails."""
    return hashlib.sha256(key.encode() + object).digest()


def _checked(key: str, entry: bytes) -> bytes | None:
    object = entry[_HEADER:]
    return object if entry[:_HEADER] == MAGIC + _checksum(key, object) else None


@contextlib.contextmanager
def _directory() -> Iterator[int]:
    """Yield the open directory; raise OSError if there is none that only this user can write.

    All further access is relative to this descriptor, so replacing the path later has no effect.
    """
    where = cache_path()
    if where is None:
        raise FileNotFoundError
    with contextlib.suppress(FileExistsError):
        where.mkdir(mode=0o700, parents=True)
    directory = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _private(os.fstat(directory))
        yield directory
    finally:
        os.close(directory)


def _private(status: os.stat_result) -> None:
    """Raise PermissionError unless this user owns the file and no other can write it."""
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
        raise PermissionError


def _bytes(name: str, directory: int) -> bytes:
    """Return the bytes of a plain file, without following links or waiting for a pipe.

    Raise PermissionError if it is another kind of file, too large, or not private.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(name, flags, dir_fd=directory), "rb") as file:
        status = os.fstat(file.fileno())
        _private(status)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LIMIT:
            raise PermissionError
        with contextlib.suppress(OSError):
            os.utime(file.fileno())  # the order of pruning
        return file.read()


def _replace(name: str, data: bytes, directory: int) -> None:
    """Write a file atomically: a reader finds either the old bytes or all the new ones."""
    part = f"{name}.{secrets.token_hex(8)}{_TEMPORARY}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(part, flags, 0o600, dir_fd=directory), "wb") as file:
            file.write(data)
        os.replace(part, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part, dir_fd=directory)
        raise


def _prune(directory: int) -> None:
    """Delete the least recently used files beyond `LIMIT`, and abandoned temporary files."""
    found = [(status.st_mtime, status.st_size, name) for name, status in _files(directory)]
    space, now = LIMIT, time.time()
    for used, size, name in sorted(found, reverse=True):
        space -= size
        if space < 0 or (name.endswith(_TEMPORARY) and now - used > _ABANDONED):
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=directory)


def _files(directory: int) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the name and status of each cache file; skip those another process has deleted."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith((_SUFFIX, _TEMPORARY)):
                with contextlib.suppress(OSError):
                    yield entry.name, entry.stat(follow_symlinks=False)
