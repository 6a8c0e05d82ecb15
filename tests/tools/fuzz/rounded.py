"""Which products of a graph multiply rounded factors, and the rounding, apart from graphc's own."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np

from graphc.ir.graph import Node
from graphc.ir.op import Array
from graphc.ops.conv import Conv, ConvDw, ConvDx
from graphc.ops.linalg import Affine, MatMul

Precision = Sequence[tuple[str, str]]
"""Patterns of layers, each with its precision; the last that matches counts."""
PRODUCTS = (MatMul, Affine, Conv, ConvDx, ConvDw)
BITS = 8
LEAST = 2.0**-56


def to_bfloat16(x: Array) -> Array:
    """Floats rounded to 8 significant bits, ties to even, and to 0 below 2**-56."""
    part, exponent = np.frexp(x)
    rounded = np.ldexp(np.rint(np.ldexp(part, BITS)), exponent - BITS)
    return np.asarray(np.where(np.abs(x) < LEAST, 0, rounded), x.dtype)


def half_gap(x: Array) -> Array:
    """Half of the distance between two neighbours of bfloat16 at each number."""
    _, exponent = np.frexp(np.maximum(np.abs(x), LEAST))
    return np.ldexp(np.ones_like(x), exponent - BITS - 1)


def rounds(node: Node, layer: str, precision: Precision) -> bool:
    """Whether a node of that layer is a product whose factors are rounded."""
    if not precision or node.type.dtype != "float32" or not isinstance(node.op, PRODUCTS):
        return False
    if getattr(node.op, "groups", 1) > 1:
        return False
    parts = layer.split(".")
    names = [".".join(parts[: i + 1]) for i in range(len(parts))]
    found = [to for pattern, to in precision if any(fnmatchcase(n, pattern) for n in names)]
    return found[-1:] in (["bf16"], ["bf16_blocks"])


def loop_of(layer: str) -> str:
    """The name of a loop, of which a layer is a result."""
    parts = layer.split(".")
    ends = [i for i, part in enumerate(parts) if part.rstrip("0123456789") in ("steps", "last")]
    return ".".join(parts[: ends[0]] if ends else parts)
