"""The text of a value in which nothing of it is left out, unlike `repr`, which is for people."""

from __future__ import annotations

import hashlib

# The package `json` takes as long to import as a first call may last; this is its C part.
from _json import encode_basestring_ascii, make_encoder
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from operator import attrgetter
from types import MappingProxyType
from typing import Any

import numpy as np


def exact(value: object) -> str:
    """Return a text of all that a value consists of: another value has another text.

    A tuple is written as its items, of whatever class it is; of a NaN only that it is one.  Raise
    TypeError for a value of a type that cannot be written.
    """
    return "".join(_encode(value, 0))


def _parts(value: Any) -> object:
    """Return the class and the parts of a value that is not plain data."""
    kind: type = type(value)
    return _form(kind)(value)


_encode: Any = make_encoder(
    None, _parts, encode_basestring_ascii, None, ":", ",", False, False, True
)


@cache
def _form(kind: type) -> Callable[[Any], object]:
    """Return the function that has the parts of a value of a class: every field it declares."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    if is_dataclass(kind):
        return _all_of(name, [field.name for field in fields(kind)])
    if issubclass(kind, (np.ndarray, np.generic)):
        return lambda x: (name, x.dtype.str, x.shape, _digest(x.tobytes()))
    if kind is bytes:
        return lambda x: (name, len(x), _digest(x))
    if kind is MappingProxyType:
        return dict
    bases = kind.__mro__[:-1]
    if bases and all("__slots__" in vars(base) for base in bases):  # a dict has what is derived
        slots = [slot for base in bases for slot in vars(base)["__slots__"]]
        return _all_of(name, [slot for slot in slots if slot != "__dict__"])
    raise TypeError(f"a key of the cache cannot hold {name}")


def _all_of(name: str, parts: list[str]) -> Callable[[Any], object]:
    """Return the function that has a name, and then these attributes of an object."""
    if len(parts) > 1:
        get = attrgetter(*parts)
        return lambda value: (name, get(value))
    return lambda value: (name, [getattr(value, part) for part in parts])


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
