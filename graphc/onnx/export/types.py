"""The dtypes that ONNX's ops accept, and those that other operands are cast to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from onnx import defs

WIDER = {
    **dict.fromkeys(("bool", "int8", "int16", "uint8", "uint16"), ("int32", "int64")),
    "int32": ("int64",),
}
"""The wider dtypes that hold all numbers of a dtype."""
_ONNX = {"float": "float32", "double": "float64"}


class Formal(NamedTuple):
    """An operand or result as ONNX declares it: its type variable, and that variable's dtypes."""

    variable: str
    dtypes: frozenset[str]


@cache
def formals(op: str, opset: int) -> tuple[tuple[Formal, ...], tuple[Formal, ...]]:
    """Return the operands and results of an op; the last one also represents any further ones."""
    schema = defs.get_schema(op, opset)
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}

    def formal(text: str) -> Formal:
        return Formal(text, frozenset(map(_dtype, allowed.get(text, [text]))))

    return tuple(formal(x.type_str) for x in schema.inputs), tuple(
        formal(x.type_str) for x in schema.outputs
    )


def _dtype(text: str) -> str:
    name = text.removeprefix("tensor(").removesuffix(")")
    return _ONNX.get(name, name)


def bound(
    declared: Sequence[Formal], names: Sequence[str], dtypes: Mapping[str, str]
) -> Iterator[tuple[Formal, str]]:
    """Yield the declared operand and the dtype of each of these values whose dtype is known."""
    for number, name in enumerate(names):
        if name in dtypes and declared:
            yield declared[min(number, len(declared) - 1)], dtypes[name]


def wider(found: Sequence[tuple[Formal, str]]) -> dict[str, str]:
    """Return for each type variable of a forbidden dtype an allowed one that holds its numbers."""
    return {
        formal.variable: dtype
        for formal, own in found
        if own not in formal.dtypes
        for dtype in [next((w for w in WIDER.get(own, ()) if w in formal.dtypes), "")]
        if dtype
    }
