"""Machine code of programs: compiled once, kept on disk, shared in a process.

The cache on disk holds an object under a hash of its IR text.  A second entry, under a hash of the
program's key, holds the object's name: the key determines the text and is cheaper to make.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import sys
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, cast
from weakref import WeakValueDictionary

from graphc.backends.elf import ElfError
from graphc.backends.native.cache import cached, store
from graphc.backends.native.keys import object_key
from graphc.backends.native.linker import LinkedCode, UnsupportedError
from graphc.backends.native.llvm import LLVM, bindings
from graphc.backends.native.target import Target, machine

_loaded: WeakValueDictionary[tuple[str, tuple[str, ...]], Library] = WeakValueDictionary()
_recent: deque[Library] = deque(maxlen=64)
"""Libraries kept while unused: a plan's executors come and go, and each link leaks some bytes."""
_numbers = itertools.count()


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
        with contextlib.suppress(ElfError, RuntimeError):  # complete, but it cannot be linked
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
    library = Library(_code(object, symbols, target), symbols)
    _loaded[key, tuple(symbols)] = library
    _recent.append(library)
    return library


def _code(object: bytes, symbols: Sequence[str], target: Target) -> Any:
    """Return the functions of an object by name, linked without LLVM if that is possible."""
    try:
        return LinkedCode(object, symbols)
    except (UnsupportedError, OSError):
        return _linked_by_llvm(object, symbols, target)


def _linked_by_llvm(object: bytes, symbols: Sequence[str], target: Target) -> Any:
    builder = bindings().JITLibraryBuilder().add_object_img(object).add_current_process()
    for symbol in symbols:
        builder.export_symbol(symbol)
    return builder.link(_session(target), f"library{next(_numbers)}")


@lru_cache
def _session(target: Target) -> Any:
    """Return the linker: JITLink, since it frees a library's memory when the library is deleted."""
    return bindings().create_lljit_compiler(
        machine(target), use_jit_link=True, suppress_errors=True
    )


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
