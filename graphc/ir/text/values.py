"""Attribute values as text: numbers, strings, dimensions, tuples, bytes and frozen dataclasses."""

from __future__ import annotations

import base64
import dataclasses
import json
import zlib
from typing import Any

import numpy as np

from graphc.base.errors import GraphError
from graphc.base.work import bytes_left, spend_bytes
from graphc.ir.tensor_type import Batch

_KINDS: dict[str, tuple[type, ...]] = {"f": (float, int), "b": (bool,)}
SHOWN = 16
"""Arrays of at most this many numbers are written as numbers, larger ones as compressed bytes."""


def value_text(value: Any) -> str:
    """Return the text of an attribute; raise GraphError for a value that text cannot hold."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, Batch)):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, bytes):
        return bytes_text(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(value_text, value))}{',' if len(value) == 1 else ''})"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f.name for f in dataclasses.fields(value) if f.init and f.compare]
        inside = ", ".join(f"{name}={value_text(getattr(value, name))}" for name in fields)
        return f"{type(value).__name__}({inside})"
    raise GraphError(
        f"an attribute of type {type(value).__name__} cannot be written as text",
        hint="attributes are numbers, strings, None, tuples, bytes and frozen dataclasses of these",
    )


def bytes_text(data: bytes) -> str:
    """Return compressed bytes: `zlib"..."`."""
    return f'zlib"{base64.b64encode(zlib.compress(data, 6)).decode()}"'


def bytes_value(text: str) -> bytes:
    """Return the bytes that `bytes_text` wrote between the quotes.

    Raise ValueError if they are damaged.  A few letters can expand to any number of bytes: no more
    are made than the work budget allows.
    """
    stream, left = zlib.decompressobj(), bytes_left()
    try:
        packed = base64.b64decode(text, validate=True)
        data = stream.decompress(packed, 0 if left is None else left + 1)
    except zlib.error as error:
        raise ValueError(f"the compressed bytes are damaged ({error})") from None
    spend_bytes(len(data))
    if not stream.eof or stream.unused_data:
        raise ValueError("the compressed bytes are damaged (they do not end where they should)")
    return data


def array_text(data: bytes, dtype: str) -> str:
    """Return a small array as numbers, `[0.5, 1.0]`, if these give every bit; else as bytes."""
    array = np.frombuffer(data, dtype)
    if array.size <= SHOWN:
        numbers = [_number_text(number) for number in array]
        if _read_back(numbers, dtype) == data:
            return f"[{', '.join(numbers)}]"
    return bytes_text(data)


def array_value(numbers: list[Any], dtype: str) -> bytes:
    """Return the bytes of numbers; raise ValueError if one does not fit the dtype."""
    kinds = _KINDS.get(np.dtype(dtype).kind, (int,))
    try:
        if all(type(number) in kinds for number in numbers):
            return np.array(numbers, dtype).tobytes()
    except OverflowError:
        pass
    raise ValueError(f"the numbers do not fit {dtype}")


def _number_text(number: Any) -> str:
    if isinstance(number, (np.bool_, np.integer)):
        return repr(number.item())
    text = str(number)  # the shortest decimal that reads back in this dtype
    return text if set(text) & set(".einf") else f"{text}.0"


def _read_back(numbers: list[str], dtype: str) -> bytes:
    if dtype in ("float32", "float64"):
        return array_value([float(number) for number in numbers], dtype)
    return array_value([json.loads(number.lower()) for number in numbers], dtype)
