"""The container of a model file: named arrays and text, in the safetensors format.

Eight bytes with the length of a JSON header, the header, the arrays one after the other
(https://github.com/huggingface/safetensors, "Format").  Every such file can be opened by the
`safetensors` package.  Files of graphc also carry the SHA-256 of all their bytes, computed with 64
zeros in its place, and are the same bytes for the same content.  Files of other writers may have
their arrays in any order, but without gaps or overlaps; `read_tensors` reads those.

Nothing in a file is trusted before it is checked: sizes against the bytes that are there, the
digest, and only then the content.  Every fault is a ValueError in plain words.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from graphc.base.errors import ModelFileError
from graphc.files.disk import check_plain, reason, shown
from graphc.ir.op import Array

NAMES = {
    "float32": "F32",
    "float64": "F64",
    "int64": "I64",
    "int32": "I32",
    "uint64": "U64",
    "uint32": "U32",
    "int16": "I16",
    "int8": "I8",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
"""The format's names of the dtypes that are written."""

DTYPES = {text: np.dtype(name) for name, text in NAMES.items()}
"""The dtypes that a model file may hold, by the format's names."""

_HALF: dict[str, np.dtype[Any]] = {"F16": np.dtype(np.float16), "BF16": np.dtype(np.uint16)}
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_LENGTH = 8
_NO_DIGEST = "0" * 64
_LARGEST = 2**63 - 1
_DEEPEST = 32


def pack(metadata: Mapping[str, str], tensors: Mapping[str, Array]) -> list[bytes | memoryview]:
    """Return the bytes of a file, in pieces; the large pieces are the arrays' own memory."""
    arrays = {name: np.asarray(tensors[name], order="C") for name in _aligned(tensors)}
    pieces = [array.reshape(-1).view(np.uint8).data for array in arrays.values()]
    blank = _header(metadata, arrays, _NO_DIGEST)
    digest = hashlib.sha256(blank)
    for piece in pieces:
        digest.update(piece)
    return [_header(metadata, arrays, digest.hexdigest()), *pieces]


def _aligned(tensors: Mapping[str, Array]) -> list[str]:
    """Return the names, wide items first, so that arrays start at a multiple of their item size."""
    return sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))


def _header(metadata: Mapping[str, str], arrays: Mapping[str, Array], digest: str) -> bytes:
    """Return the header with its length before it, padded to a multiple of 8 bytes."""
    entries: dict[str, Any] = {"__metadata__": {"sha256": digest, **metadata}}
    start = 0
    for name, array in arrays.items():
        end = start + array.nbytes
        entries[name] = {
            "dtype": NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    # The format pads with spaces, so that the arrays after the header are aligned.
    text += b" " * (-len(text) % _LENGTH)
    return len(text).to_bytes(_LENGTH, "little") + text


def unpack(data: bytes) -> tuple[dict[str, str], dict[str, Array]]:
    """Return metadata and read-only arrays; raise ValueError, in plain words, for other bytes."""
    entries, start = _header_entries(data)
    metadata = _metadata(entries.pop("__metadata__", None))
    tensors = {}
    for name, array in _arrays(data, start, entries, DTYPES):
        if array.dtype == np.bool_ and array.view(np.uint8).max(initial=0) > 1:
            raise ValueError(f"{name!r} has booleans other than 0 and 1")
        tensors[name] = array
    _check_digest(data, metadata.pop("sha256"), start)
    return metadata, tensors


def read_tensors(data: bytes) -> dict[str, Array]:
    """Return read-only arrays by name, half precision as float32; raise ValueError otherwise."""
    if data.startswith(_PICKLES):
        raise ValueError("it is a pickle, as torch.save writes them, which runs its author's code")
    entries, start = _header_entries(data)
    entries.pop("__metadata__", None)
    ordered = {name: entries[name] for name in sorted(entries, key=lambda k: _begin(entries[k]))}
    arrays = _arrays(data, start, ordered, {**DTYPES, **_HALF})
    return {name: _widened(array, entries[name]["dtype"]) for name, array in arrays}


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


def _arrays(
    data: bytes, start: int, entries: Mapping[str, Any], dtypes: Mapping[str, np.dtype[Any]]
) -> Iterator[tuple[str, Array]]:
    """Yield the arrays after the header by name; raise ValueError unless they fill the file."""
    position = start
    for name, entry in entries.items():
        dtype, shape, nbytes = _array_layout(name, entry, position - start, dtypes)
        if position + nbytes > len(data):
            raise ValueError(f"it is cut short: {name[:80]!r} ends beyond its {len(data)} bytes")
        yield name, np.frombuffer(data, dtype, prod(shape), position).reshape(shape)
        position += nbytes
    if position != len(data):
        raise ValueError(f"it has {len(data)} bytes, its header describes {position}")


def _header_entries(data: bytes) -> tuple[dict[str, Any], int]:
    """Return the header, and the offset of the arrays; raise ValueError if it cannot be read."""
    if len(data) < _LENGTH:
        raise ValueError("it is empty" if not data else "it is cut short")
    length = int.from_bytes(data[:_LENGTH], "little")
    start = _LENGTH + length
    if start > len(data):
        raise ValueError("it is cut short, or not a model file at all")
    try:
        entries = parsed(data[_LENGTH:start].decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its header cannot be read ({error})") from None
    if not isinstance(entries, dict):
        raise ValueError("its header is not a table")
    return entries, start


def read_whole(path: str | Path) -> bytes:
    """Return the bytes of a file; raise OSError, also for a device, pipe or socket."""
    check_plain(path)
    return Path(path).read_bytes()


def read_file(path: str | Path, hint: str = "") -> bytes:
    """Return the bytes of a file; raise ModelFileError if it cannot be read."""
    try:
        return read_whole(path)
    except OSError as error:
        raise ModelFileError(f"cannot read {shown(path)}: {reason(error)}", hint=hint) from error


def parsed(text: str | bytes) -> Any:
    """Parse JSON; raise ValueError for duplicate keys, NaN and infinity."""
    return json.loads(text, object_pairs_hook=single, parse_constant=_no_number)


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number")


def single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; raise ValueError if it has duplicate keys."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:40]!r} appears twice")
    return found


def _metadata(entry: Any) -> dict[str, str]:
    if not isinstance(entry, dict) or "sha256" not in entry:
        raise ValueError("it holds arrays, but not a graphc model")
    if not all(isinstance(value, str) for value in entry.values()):
        raise ValueError("its metadata is not text")
    return entry


def _array_layout(
    name: str, entry: Any, position: int, dtypes: Mapping[str, np.dtype[Any]]
) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Return an array's dtype, shape and bytes; raise ValueError unless it begins at `position`."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name!r} is not described as the format requires")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in dtypes:
        raise ValueError(f"{name!r} is of dtype {entry['dtype']!r}, which graphc does not have")
    dtype = dtypes[entry["dtype"]]
    if not _are_sizes(shape) or len(shape) > _DEEPEST:
        raise ValueError(f"{name!r} has an impossible shape")
    # NumPy refuses shapes whose other dimensions are too large, even if one is 0.
    if max(prod(shape), prod(filter(None, shape))) * dtype.itemsize > _LARGEST:
        raise ValueError(f"{name!r} is larger than any memory")
    nbytes = prod(shape) * dtype.itemsize
    if not _are_sizes(offsets) or offsets != [position, position + nbytes]:
        raise ValueError(f"{name!r} does not have the offsets that its shape requires")
    return dtype, tuple(shape), nbytes


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _check_digest(data: bytes, digest: str, start: int) -> None:
    """Raise ValueError unless the digest is that of all bytes."""
    text = f'"sha256":"{digest}"'.encode()
    blank = f'"sha256":"{_NO_DIGEST}"'.encode()
    header = data[:start]
    # The first occurrence is the digest's own: metadata come first, and the digest first in them.
    if len(digest) == 64 and text in header:
        found = hashlib.sha256(header.replace(text, blank, 1))
        found.update(memoryview(data)[start:])
        if found.hexdigest() == digest:
            return
    raise ValueError("it is damaged: its checksum does not match")
