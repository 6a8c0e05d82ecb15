"""Machine code of programs: compiled once, kept on disk, shared in a process.

The cache on disk is a private directory whose every entry is checked.  An object is stored under a
hash of its IR text.  A second entry, under a hash of the program's key, holds the object's name:
the key determines the text and is cheaper to make.  An entry that cannot be read or fails its check
is recompiled; one that cannot be written is not kept.  Neither is an error or a warning.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import itertools
import os
import secrets
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from weakref import WeakValueDictionary

from graphc.backends.layout import kernels
from graphc.backends.native.panels import packed_factors
from graphc.backends.native.target import (
    CODEGEN,
    LLVM,
    Target,
    bindings,
    compiler_version,
    machine,
)
from graphc.kernels.program import Program

_loaded: WeakValueDictionary[tuple[str, tuple[str, ...]], Library] = WeakValueDictionary()
_recent: deque[Library] = deque(maxlen=64)
"""Libraries kept while unused: a plan's executors come and go, and each link leaks some bytes."""
_numbers = itertools.count()

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


class Library:
    """Functions in memory.  Their addresses are valid as long as this object lives."""

    def __init__(self, tracker: Any, symbols: Sequence[str]) -> None:
        self._tracker = tracker
        self._addresses: dict[str, int] = {symbol: tracker[symbol] for symbol in symbols}

    # Defaults, since the module's globals may be gone by the time Python ends.
    def __del__(self, lock: Any = LLVM, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        """Free the memory, except while Python ends, when threads may still be running in it."""
        if not ending():
            lock(self._tracker.close)

    def address(self, symbol: str) -> int:
        """Return the address of a function; raise KeyError unless `load` was asked for it."""
        return self._addresses[symbol]


def load(ir: str, symbols: Sequence[str], target: Target) -> Library:
    """Return the functions named `symbols` of a module, from this process, from disk, or compiled.

    Any number of threads may load at once; equal modules share one library.  Raise RuntimeError
    with LLVM's message if the text is not a valid module.
    """
    return LLVM(_load, ir, symbols, target)


def _load(ir: str, symbols: Sequence[str], target: Target) -> Library:
    key = object_key(ir, target)
    library = _found(key, symbols, target)
    if library is None:
        object = _emitted(ir, target)
        # Linked first: an object that this LLVM cannot link is not kept on disk.
        library = _linked(key, object, symbols, target)
        store(key, object)
    return library


def load_by_key(
    given: str | None, write: Callable[[], str], symbols: Sequence[str], target: Target
) -> Library:
    """Load the module whose text `write` makes, and call `write` only if it must be compiled.

    `given` is a key that determines the text (see `program_key`), or None; the disk cache maps it
    to the key of the object.
    """

    def found() -> Library:
        if given is None:
            return _load(write(), symbols, target)
        name = object_key(given, target)
        key = cached(name)
        library = None if key is None else _found(key.decode(), symbols, target)
        if library is None:
            ir = write()
            library = _load(ir, symbols, target)
            store(name, object_key(ir, target).encode())
        return library

    return LLVM(found)


def stale(given: str | None, write: Callable[[], str], target: Target, emits: bool) -> str | None:
    """Return why the cache's code for a key is not that of the text, or None; see `load_by_key`.

    With `emits` the text is compiled again, and every byte of the object compared.
    """
    named = None if given is None else cached(object_key(given, target))
    if named is None and not emits:
        return None
    ir = write()
    key = object_key(ir, target)
    if named is not None and named.decode() != key:
        return "the key of the program names code of another text"
    object = cached(key) if emits else None
    if object is not None and object != LLVM(_emitted, ir, target):
        return "the object kept for its text differs from the one that is compiled now"
    return None


def _found(key: str, symbols: Sequence[str], target: Target) -> Library | None:
    """Return the library if this process or the disk has it, else None."""
    library = _loaded.get((key, tuple(symbols)))
    object = cached(key) if library is None else None
    if object is not None:
        with contextlib.suppress(RuntimeError):  # complete, but this LLVM cannot link it
            return _linked(key, object, symbols, target)
    return library


def _emitted(ir: str, target: Target) -> bytes:
    return bytes(machine(target).emit_object(_parsed(ir, target)))


def _parsed(ir: str, target: Target) -> Any:
    module = bindings().parse_assembly(ir)
    module.triple = target.triple
    module.data_layout = str(machine(target).target_data)
    module.verify()
    return module


def _linked(key: str, object: bytes, symbols: Sequence[str], target: Target) -> Library:
    """Return the library of an object, and keep it for later loads."""
    builder = bindings().JITLibraryBuilder().add_object_img(object).add_current_process()
    for symbol in symbols:
        builder.export_symbol(symbol)
    library = Library(builder.link(_session(target), f"library{next(_numbers)}"), symbols)
    _loaded[key, tuple(symbols)] = library
    _recent.append(library)
    return library


@lru_cache
def _session(target: Target) -> Any:
    """Return the linker: JITLink, since it frees a library's memory when the library is deleted."""
    return bindings().create_lljit_compiler(
        machine(target), use_jit_link=True, suppress_errors=True
    )


WRITERS = (
    "backends/native",
    "backends/arithmetic.py",
    "backends/coefficients.py",
    "backends/layout.py",
    "backends/doubles.py",
    "backends/maths.py",
    "backends/softfloat.py",
    "kernels",
    "ir/tensor_type.py",
    "ir/expr.py",
    "ir/access.py",
    "ir/forms.py",
)
"""The parts of the package that determine the text of a program."""


def program_key(program: Program, bits: int, skip: frozenset[int]) -> str | None:
    """Return a key whose equality means equal texts; None if `WRITERS` cannot be read."""
    writers = _writers()
    if writers is None:
        return None
    code = [
        (instr.kind, None if i in skip else instr.body) for i, instr in enumerate(program.instrs)
    ]
    names = {n: None for instr in kernels(program, skip) for n in (*instr.ins, *instr.outs)}
    # The text does not depend on live ranges.
    buffers = [program.buffers[name]._replace(first=0, last=0) for name in names]
    packed = sorted(packed_factors(program, bits))
    return repr((writers, bits, program.contract, program.boundary, code, buffers, packed))


@lru_cache
def _writers() -> str | None:
    """Return a digest of the source of `WRITERS`, or None without it, as in an archive."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    try:
        for part in WRITERS:
            path = root / part
            for file in sorted(path.glob("*.py")) if path.is_dir() else (path,):
                source = file.read_bytes()
                digest.update(f"{part} {file.name} {len(source)}\n".encode() + source)
    except OSError:
        return None
    return digest.hexdigest()


def object_key(text: str, target: Target) -> str:
    """Return the name of an entry: a hash of all that its bytes depend on.

    They depend on graphc only by the text: a new version finds all objects of unchanged text.
    """
    parts = (compiler_version(), str(CODEGEN), target.triple, target.cpu, target.features, text)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


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


_ONE_ARGUMENT = 0x0008  # METH_O


class _Method(ctypes.Structure):
    """The C structure PyMethodDef: name, function, flags and documentation."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


def builtin(
    name: str, address: int, frame: ctypes.Array[ctypes.c_uint64], keep: tuple[Any, ...]
) -> Callable[[Any], Any]:
    """Return the code at `address`, `ptr code(ptr self, ptr argument)`, as a Python function.

    `self` is the address of `frame` as an int.  The function keeps its frame and `keep` alive.
    """
    method = _Method(name.encode(), address, _ONE_ARGUMENT, None)
    new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, *[ctypes.py_object] * 2)(
        ("PyCFunction_NewEx", ctypes.pythonapi)
    )
    # The third argument is the builtin's `__module__`, any object: it lives as long as the builtin.
    made = new(ctypes.addressof(method), ctypes.addressof(frame), (method, frame, keep))
    return cast("Callable[[Any], Any]", made)
