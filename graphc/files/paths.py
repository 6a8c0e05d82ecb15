"""Paths in the form that the system takes, and in the form that errors show."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from graphc.base.errors import GraphError

AnyPath = str | os.PathLike[str]


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


def reason(error: OSError) -> str:
    """Return the message of an error, without numbers and names of files."""
    return error.strerror or str(error)


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
