"""Functions of values other than layers, losses and activations.

They are for indices, shapes, order, rounding, remainders, logic and trigonometry.
"""

from __future__ import annotations

from graphc.ops.activations import celu, hard_tanh, relu6, shrink, thresholded_relu
from graphc.ops.arrange import (
    expand,
    flip,
    repeat,
    roll,
    split,
    squeeze,
    stack,
    tile,
    tril,
    triu,
    unsqueeze,
)
from graphc.ops.cumulative import cumprod, cumsum, l1_norm, l2_norm, logsumexp, prod, sum_squares
from graphc.ops.elementwise import reciprocal
from graphc.ops.functions import expm1, log1p
from graphc.ops.gather import embedding, gather
from graphc.ops.index import argmin, argsort, sort, topk
from graphc.ops.logic import (
    isfinite,
    isinf,
    isnan,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
)
from graphc.ops.reduce import min_ as min
from graphc.ops.resize import resize
from graphc.ops.rounding import ceil, floor, floor_div, fmod, mod, trunc_div
from graphc.ops.rounding import round_ as round
from graphc.ops.scatter import gather_elements, gather_nd, scatter_elements, scatter_nd
from graphc.ops.trigonometry import acos, acosh, asin, asinh, atan, atanh, cos, cosh, sin, sinh, tan

__all__ = [
    "acos",
    "acosh",
    "argmin",
    "argsort",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "ceil",
    "celu",
    "cos",
    "cosh",
    "cumprod",
    "cumsum",
    "embedding",
    "expand",
    "expm1",
    "flip",
    "floor",
    "floor_div",
    "fmod",
    "gather",
    "gather_elements",
    "gather_nd",
    "hard_tanh",
    "isfinite",
    "isinf",
    "isnan",
    "l1_norm",
    "l2_norm",
    "log1p",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logsumexp",
    "min",
    "mod",
    "prod",
    "reciprocal",
    "relu6",
    "repeat",
    "resize",
    "roll",
    "round",
    "scatter_elements",
    "scatter_nd",
    "shrink",
    "sin",
    "sinh",
    "sort",
    "split",
    "squeeze",
    "stack",
    "sum_squares",
    "tan",
    "thresholded_relu",
    "tile",
    "topk",
    "tril",
    "triu",
    "trunc_div",
    "unsqueeze",
]
