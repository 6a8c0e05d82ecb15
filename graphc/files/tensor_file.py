"""Safetensors files of any writer: named arrays, checked before they are used.

A file of graphc also has a digest and holds a model; see container.py.  Here the arrays may be in
any order, but they still fill the file without gaps or overlaps.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from graphc.files.container import DTYPES, array_layout, header_entries
from graphc.ir.op import Array

_HALF: dict[str, np.dtype[Any]] = {"F16": np.dtype(np.float16), "BF16": np.dtype(np.uint16)}
_OTHERS: dict[str, np.dtype[Any]] = {
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U16": np.dtype(np.uint16),
}
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def read_tensors(data: bytes) -> dict[str, Array]:
    """Return read-only arrays by name, half precision as float32; raise ValueError otherwise."""
    if data.startswith(_PICKLES):
        raise ValueError("it is a pickle, as torch.save writes them, which runs its author's code")
    entries, start = header_entries(data)
    entries.pop("__metadata__", None)
    kinds = {**DTYPES, **_HALF, **_OTHERS}
    tensors: dict[str, Array] = {}
    position = start
    for name in sorted(entries, key=lambda name: _begin(entries[name])):
        dtype, shape, nbytes = array_layout(name, entries[name], position - start, kinds)
        if position + nbytes > len(data):
            raise ValueError(f"it is cut short: {name[:80]!r} ends beyond its {len(data)} bytes")
        array = np.frombuffer(data, dtype, prod(shape), position).reshape(shape)
        tensors[name] = _widened(array, entries[name]["dtype"])
        position += nbytes
    if position != len(data):
        raise ValueError(f"it has {len(data)} bytes, its header describes {position}")
    return tensors


def _begin(entry: Any) -> tuple[int, int]:
    """Return an array's offsets, for sorting; invalid ones come first, and are refused there."""
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    known = isinstance(offsets, list) and [type(size) for size in offsets] == [int, int]
    return (offsets[0], offsets[1]) if known and isinstance(offsets, list) else (-1, -1)


def _widened(array: Array, kind: str) -> Array:
    if kind == "F16":
        return array.astype(np.float32)
    if kind == "BF16":  # the upper half of a float32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array
