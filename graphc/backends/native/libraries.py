"""Machine code of programs: compiled once, kept on disk, shared in a process.

The cache on disk holds an object under a hash of its IR text.  A second entry, under a hash of the
program's key, holds the names of its objects: the key determines the texts and is cheaper to make.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from weakref import WeakValueDictionary

from graphc.backends.elf import ElfError
from graphc.backends.native.cache import cached, store
from graphc.backends.native.cache_keys import object_key
from graphc.backends.native.linker import LinkedCode, UnsupportedError
from graphc.backends.native.llvm import LLVM, bindings
from graphc.backends.native.objects import objects_of
from graphc.backends.native.target import Target, machine

Keys = tuple[str, ...]
"""The names of the objects of a library in the cache."""
_loaded: WeakValueDictionary[tuple[Keys, tuple[str, ...]], Library] = WeakValueDictionary()
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
    return LLVM(_load, (ir,), symbols, target)


def _load(texts: Sequence[str], symbols: Sequence[str], target: Target) -> Library:
    keys = _keys(texts, target)
    library = _found(keys, symbols, target)
    if library is not None:
        return library
    kept = {key: object for key in keys if (object := cached(key)) is not None}
    if 0 < len(kept) < len(keys):
        with contextlib.suppress(ElfError, RuntimeError):  # a kept object that cannot be linked
            return _compiled(keys, texts, symbols, target, kept)
    return _compiled(keys, texts, symbols, target, {})


def _compiled(
    keys: Keys,
    texts: Sequence[str],
    symbols: Sequence[str],
    target: Target,
    kept: Mapping[str, bytes],
) -> Library:
    """Return the library of objects that are kept, and of the others, which are compiled."""
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in kept}
    made = dict(zip(missing, objects_of([*missing.values()], target), strict=True))
    objects = {**kept, **made}
    # Linked first: an object that this LLVM cannot link is not kept on disk.
    library = _linked(keys, [objects[key] for key in keys], symbols, target)
    for key, object in made.items():
        store(key, object)
    return library


def _keys(texts: Sequence[str], target: Target) -> Keys:
    return tuple(object_key(text, target) for text in texts)


def load_by_key(
    given: str | None, write: Callable[[], Sequence[str]], symbols: Sequence[str], target: Target
) -> Library:
    """Load the modules whose texts `write` makes, and call `write` only if it must compile them.

    `given` is a key that determines the texts (see `program_key`), or None; the disk cache maps it
    to the keys of the objects.
    """

    def found() -> Library:
        """Return the library that the key names, or compile it and store its name."""
        if given is None:
            return _load(write(), symbols, target)
        name = object_key(given, target)
        keys = cached(name)
        library = None if keys is None else _found(_split(keys), symbols, target)
        if library is None:
            texts = write()
            library = _load(texts, symbols, target)
            store(name, "\n".join(_keys(texts, target)).encode())
        return library

    return LLVM(found)


def _split(keys: bytes) -> Keys:
    """Return the keys of a program's objects, of which there are none if it has no kernel."""
    return tuple(keys.decode().split("\n")) if keys else ()


def stale(
    given: str | None, write: Callable[[], Sequence[str]], target: Target, emits: bool
) -> str | None:
    """Return why the cache's code for a key is not that of the texts, or None; see `load_by_key`.

    With `emits` the texts are compiled again, and every byte of the objects compared.
    """
    named = None if given is None else cached(object_key(given, target))
    if named is None and not emits:
        return None
    texts = write()
    keys = _keys(texts, target)
    if named is not None and _split(named) != keys:
        return "the key of the program names code of another text"
    objects = _cached(keys) if emits else None
    if objects is not None and objects != LLVM(objects_of, texts, target):
        return "the object kept for its text differs from the one that is compiled now"
    return None


def _found(keys: Keys, symbols: Sequence[str], target: Target) -> Library | None:
    """Return the library if this process or the disk has it, else None."""
    library = _loaded.get((keys, tuple(symbols)))
    objects = _cached(keys) if library is None else None
    if objects is not None:
        with contextlib.suppress(ElfError, RuntimeError):  # complete, but it cannot be linked
            return _linked(keys, objects, symbols, target)
    return library


def _cached(keys: Keys) -> list[bytes] | None:
    """Return the objects of a library, or None if the disk lacks one."""
    found = [object for key in keys if (object := cached(key)) is not None]
    return found if len(found) == len(keys) else None


def _linked(
    keys: Keys, objects: Sequence[bytes], symbols: Sequence[str], target: Target
) -> Library:
    """Return the library of some objects, and keep it for later loads."""
    library = Library(_code(objects, symbols, target), symbols)
    _loaded[keys, tuple(symbols)] = library
    _recent.append(library)
    return library


def _code(objects: Sequence[bytes], symbols: Sequence[str], target: Target) -> Any:
    """Return the functions of some objects by name, linked without LLVM if that is possible."""
    try:
        return LinkedCode(objects, symbols)
    except (UnsupportedError, OSError):
        return _linked_by_llvm(objects, symbols, target)


def _linked_by_llvm(objects: Sequence[bytes], symbols: Sequence[str], target: Target) -> Any:
    builder = bindings().JITLibraryBuilder().add_current_process()
    for object in objects:
        builder.add_object_img(object)
    for symbol in symbols:
        builder.export_symbol(symbol)
    return builder.link(_session(target), f"library{next(_numbers)}")


@lru_cache
def _session(target: Target) -> Any:
    """Return the linker: JITLink, since it frees a library's memory when the library is deleted."""
    return bindings().create_lljit_compiler(
        machine(target), use_jit_link=True, suppress_errors=True
    )
