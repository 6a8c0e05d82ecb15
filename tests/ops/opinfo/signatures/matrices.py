"""PyTorch's products of matrices and vectors, by graphc."""

from __future__ import annotations

from functools import reduce
from typing import Any

import graphc as gc
from tests.ops.opinfo.refused import refuse

Value = gc.Value


def _mixed(x: Value, product: Value, beta: float, alpha: float) -> Value:
    return x * beta + product * alpha


def addmm(x: Value, a: Value, b: Value, *, beta: float = 1, alpha: float = 1) -> Value:
    return _mixed(x, gc.matmul(a, b), beta, alpha)


def addbmm(x: Value, a: Value, b: Value, *, beta: float = 1, alpha: float = 1) -> Value:
    return _mixed(x, gc.sum(gc.matmul(a, b), 0), beta, alpha)


def outer(x: Value, y: Value) -> Value:
    return gc.unsqueeze(x, 1) * gc.unsqueeze(y, 0)


def addr(x: Value, a: Value, b: Value, *, beta: float = 1, alpha: float = 1) -> Value:
    return _mixed(x, outer(a, b), beta, alpha)


def inner(x: Value, y: Value) -> Value:
    if not x.type.rank or not y.type.rank:
        return x * y
    left, right = (gc.reshape(v, (-1, v.shape[-1])) for v in (x, y))
    product = gc.matmul(left, gc.transpose(right))
    return gc.reshape(product, (*x.shape[:-1], *y.shape[:-1]))


def vecdot(x: Value, y: Value, *, dim: int = -1) -> Value:
    return gc.sum(x * y, dim)


def linear(x: Value, weight: Value, bias: Value | None = None) -> Value:
    refuse("the weight is a vector", weight.type.rank != 2)
    rows = gc.unsqueeze(x, 0) if x.type.rank == 1 else x
    given: Any = False if bias is None else bias
    y = gc.affine(rows, weight=gc.transpose(weight), bias=given, axis=-1)
    return gc.squeeze(y, 0) if x.type.rank == 1 else y


def attention(
    q: Value,
    k: Value,
    v: Value,
    attn_mask: Value | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    refuse("no heads of queries that share keys", enable_gqa)
    refuse("random", dropout_p)
    return gc.attention(q, k, v, mask=attn_mask, causal=is_causal, scale=scale)


OURS = {
    "matmul": gc.matmul,
    "__rmatmul__": lambda x, other: other @ x,
    "mm": gc.matmul,
    "bmm": gc.matmul,
    "mv": gc.matmul,
    "dot": gc.matmul,
    "vdot": gc.matmul,
    "linalg.vecdot": vecdot,
    "linalg.multi_dot": lambda matrices: reduce(gc.matmul, matrices),
    "inner": inner,
    "outer": outer,
    "addmm": addmm,
    "addmm/decomposed": addmm,
    "baddbmm": addmm,
    "addmv": addmm,
    "addbmm": addbmm,
    "addr": addr,
    "nn.functional.linear": linear,
    "nn.functional.scaled_dot_product_attention": attention,
}
