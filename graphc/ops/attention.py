"""Attention: for each query a mean of values, weighted by how well their keys match it.

Positions are encoded by sines, by rotation, or by learned rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar, SupportsIndex

import numpy as np

from graphc.base.arguments import checked_number, whole
from graphc.ir.build import Value, as_value, misfit
from graphc.ir.by_formula import ByFormula
from graphc.ir.expr import Axis, Broadcast, Expr, call, select
from graphc.ir.init import Normal
from graphc.ir.op import Array, Iteration, shared
from graphc.ir.tensor_type import Dim, TensorType, shape_text
from graphc.ops.apply import with_attributes
from graphc.ops.dropout import dropout as dropout_layer
from graphc.ops.elementwise import add, mul, neg
from graphc.ops.functions import Softmax
from graphc.ops.linalg import MatMul, affine
from graphc.ops.select import where
from graphc.ops.shape import reshape, transpose
from graphc.ops.slicing import concat
from graphc.ops.source import constant, parameter

__all__ = [
    "attention",
    "learned_positions",
    "multi_head_attention",
    "rotary_positions",
    "sinusoidal_positions",
]

PERIOD = 10000.0
"""The longest wavelength of both fixed encodings, in units of 2 pi."""
NORMAL = Normal(0.02)
"""The initial values of learned positions, as in GPT-2."""


@with_attributes(
    example=("(N, 5, 8)", "x", "(N, 5, 8)"),
    x="Floats (..., T, C), for T positions of fixed number and an even C.",
)
def sinusoidal_positions(x: Value, *, name: str | None = None) -> Value:
    """Add sin(t / 10000**(2i / C)) to the columns 2i of x, and the cosine to the columns 2i + 1.

    Vaswani et al. 2017 (arXiv:1706.03762), section 3.5.
    """
    steps, width = _sizes("sinusoidal_positions", x)
    angles = _angles(steps, width)
    table = np.stack((np.sin(angles), np.cos(angles)), axis=-1).reshape(steps, width)
    return add(x, constant(x.builder, table, x.dtype), name=name)


@with_attributes(
    example=("(N, 5, 8)", "x", "(N, 5, 8)"),
    x="Floats (..., T, C), for T positions of fixed number.",
    init="The initial values of `<node>.weight`.",
)
def learned_positions(x: Value, *, init: Any = NORMAL, name: str | None = None) -> Value:
    """Add `<node>.weight` (T, C), a trained row for each position, to x."""
    b = as_value("learned_positions", x).builder
    steps, width = _sizes("learned_positions", x, even=False)
    node = b.free_name("learned_positions", name)
    with b.all_or_nothing():
        return add(x, parameter(b, f"{node}.weight", (steps, width), x.dtype, init), name=node)


@with_attributes(
    example=("(N, 5, 8)", "x", "(N, 5, 8)"),
    x="Floats (..., T, C), for T positions of fixed number and an even C.",
)
def rotary_positions(x: Value, *, name: str | None = None) -> Value:
    """Rotate each pair of columns (i, i + C/2) of x by the angle t / 10000**(2i / C).

    For queries and keys of each head: their products then depend only on the distance of positions
    (Su et al. 2021, arXiv:2104.09864; halves as pairs, as in GPT-NeoX and Llama).
    """
    steps, width = _sizes("rotary_positions", x)
    b, half = x.builder, width // 2
    angles = np.tile(_angles(steps, width), 2)
    with b.all_or_nothing():
        rotated = concat([neg(x[..., half:]), x[..., :half]], axis=-1)
        cos, sin = (constant(b, part, x.dtype) for part in (np.cos(angles), np.sin(angles)))
        return add(mul(x, cos), mul(rotated, sin), name=name)


def _angles(steps: int, width: int) -> Array:
    """Return the angle of each position and frequency: (steps, width / 2)."""
    waves = PERIOD ** (-np.arange(0, width, 2) / width)
    return np.asarray(np.arange(steps)[:, None] * waves)


def _sizes(what: str, x: Value, *, even: bool = True) -> tuple[int, int]:
    """Return the number of positions and the width of x; raise GraphError if x does not fit."""
    steps, width = as_value(what, x).shape[-2:] if x.type.rank > 2 else (None, None)
    fits = x.type.is_float and isinstance(width, int) and not (even and width % 2)
    if fits and isinstance(steps, int) and isinstance(width, int):
        return steps, width
    hint = f"it must be floats of shape (..., T, C){' with an even C' if even else ''}"
    raise misfit(f"{what}: x is {x.type}\n{hint}", x=x)


@dataclass(frozen=True)
class CausalSoftmax(ByFormula):
    """Softmax over the first i + 1 entries of row i; the others become 0.

    The last two axes are (queries, keys); row i is query i.
    """

    roles = ("x",)
    inplace: ClassVar[tuple[int, ...]] = (0,)
    gradient_text = ("d_out * out - out * sum(d_out * out, -1)",)
    queries: Dim

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return x's type; raise ValueError unless it is of floats (..., queries, keys)."""
        (x,) = ins
        if not x.is_float or x.rank < 2:
            raise ValueError(f"x is {x}, {self.name} takes floats of shape (..., queries, keys)")
        if x.shape[-2] != self.queries or not isinstance(x.shape[-1], int):
            raise ValueError(f"x is {x}, not of {self.queries} queries and a number of keys")
        return x

    def reference(self, ins: Sequence[Array]) -> Array:
        (x,) = ins
        later = np.triu(np.ones(x.shape[-2:], bool), 1)
        x = np.where(later, -np.inf, x).astype(x.dtype)
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return np.asarray(e / e.sum(axis=-1, keepdims=True))

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "columns" if isinstance(self.queries, int) or ins[0].rank == 2 else "call"

    def lead(self, ins: Sequence[TensorType]) -> int:
        return ins[0].rank - 1

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        return ("each",)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        """Return softmax over the keys up to the row's query; later keys get weight 0."""
        (x,) = ins
        row, key = x.builder.index("rows"), x.builder.index("columns")
        if isinstance(self.queries, int):
            # The rows of all leading axes are one axis of the iteration space.
            row = row - call("floor_div", row, self.queries) * self.queries
        x = select(key <= row, x, -np.inf)
        e = call("exp", x - x.max(axis))
        return e * (1 / e.sum(axis))


@with_attributes(
    example=("(N, 5, 8)", "x, x, x, causal=True", "(N, 5, 8)"),
    v="Queries (..., T, D), keys (..., S, D) and values (..., S, E); leading axes broadcast.",
    mask="Floats (..., T, S) to add to the scores, or bools that mark the keys that a query sees.",
    causal="True if query i sees only the keys up to i.",
    scale="The factor of the scores; by default 1 / sqrt(D).",
    dropout="The share of weights that training drops.",
    name="The name of the result; the other nodes are named `<name>.part`.",
    returns="Of the shape (..., T, E).",
    raises="If shapes do not fit, or a number is out of range.",
)
def attention(
    q: Value,
    k: Value,
    v: Value,
    *,
    mask: Value | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    name: str | None = None,
) -> Value:
    """Return softmax(q @ k.T * scale) @ v: for each query a mean of values.

    Vaswani et al. 2017 (arXiv:1706.03762), equation 1.
    """
    b = as_value("attention", q).builder
    width = _checked(q, k, v)
    node = b.free_name("attention", name)
    factor = 1 / sqrt(width) if scale is None else checked_number("attention: scale", scale)
    with b.all_or_nothing():
        products = b.apply(shared(MatMul, False, True), q, k, name=f"{node}.products")
        scores = mul(products, factor, name=f"{node}.scores")
        if mask is not None:
            scores = _masked(scores, mask, f"{node}.masked")
        op = CausalSoftmax(scores.shape[-2]) if causal else Softmax()
        weights = b.apply(op, scores, name=f"{node}.weights")
        if dropout:
            weights = dropout_layer(weights, drop_prob=dropout, name=f"{node}.dropped")
        return b.apply(shared(MatMul), weights, v, name=node)


def _checked(q: Value, k: Value, v: Value) -> int:
    """Return the width of a key; raise GraphError if the shapes do not fit."""
    ranks = all(value.type.rank >= 2 for value in (q, k, v))
    width = q.shape[-1] if q.type.rank else None
    fits = ranks and k.shape[-1] == width and v.shape[-2] == k.shape[-2]
    if fits and isinstance(width, int) and width > 0:
        return width
    shapes = ", ".join(shape_text(value.shape) for value in (q, k, v))
    hint = "they must be (..., T, D), (..., S, D) and (..., S, E), with D above 0"
    raise misfit(f"attention: q, k, v have shapes {shapes}\n{hint}", q=q, k=k, v=v)


def _masked(scores: Value, mask: Value, name: str) -> Value:
    """Return the scores with a mask: of bools, or of numbers to add."""
    if mask.dtype == "bool":
        return where(mask, scores, -np.inf, name=name)
    return add(scores, mask, name=name)


@with_attributes(
    example=("(N, 5, 8)", "x, 2", "(N, 5, 8)"),
    x="Floats (N, T, C).",
    heads="The number of heads, which divides C.",
    context="Floats (N, S, C), from which keys and values are made; by default x.",
    mask="As of `attention`, of a shape that broadcasts to (N, heads, T, S).",
    causal="True if position i sees only the positions up to i.",
    dropout="The share of weights that training drops.",
    bias="True if the affine layers have biases.",
    init="The initial values of their weights.",
)
def multi_head_attention(
    x: Value,
    heads: SupportsIndex,
    *,
    context: Value | None = None,
    mask: Value | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    bias: bool = True,
    init: Any = "glorot",
    name: str | None = None,
) -> Value:
    """Return the attention of x to itself, or to a context, in several heads.

    `<node>.q`, `<node>.k` and `<node>.v` make queries, keys and values, and `<node>` joins the
    results of the heads: affine layers of width C on the last axis.
    """
    b = as_value("multi_head_attention", x).builder
    count, width = _heads(x, heads)
    node = b.free_name("multi_head_attention", name)
    source = x if context is None else context
    with b.all_or_nothing():

        def part(value: Value, role: str) -> Value:
            layer = affine(value, width, bias=bias, axis=-1, init=init, name=f"{node}.{role}")
            apart = reshape(layer, (*layer.shape[:2], count, width // count))
            return transpose(apart, (0, 2, 1, 3), name=f"{node}.{role}.heads")

        q, k, v = part(x, "q"), part(source, "k"), part(source, "v")
        seen = attention(
            q, k, v, mask=mask, causal=causal, dropout=dropout, name=f"{node}.attention"
        )
        joined = reshape(transpose(seen, (0, 2, 1, 3)), x.shape, name=f"{node}.joined")
        return affine(joined, width, bias=bias, axis=-1, init=init, name=node)


def _heads(x: Value, heads: object) -> tuple[int, int]:
    """Return the number of heads and the width of x; raise GraphError if they do not fit."""
    count, width = whole(heads, 1), x.shape[-1] if x.type.rank == 3 else None
    if count is not None and isinstance(width, int) and width % count == 0:
        return count, width
    raise misfit(
        f"multi_head_attention: x has shape {shape_text(x.shape)}, heads is {heads!r}\n"
        "x must be (N, T, C), and C a multiple of heads",
        x=x,
    )
