"""Converters of ops that repeat, pad, mask to triangles, order and accumulate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import graphc as gc
from graphc.base.work import spend_array
from graphc.ir.build import Value
from graphc.ir.op import Array
from graphc.onnx.call import Call, Result
from graphc.onnx.convert.elementwise import dtype_of
from graphc.onnx.known import NotSupported


def _tile(call: Call) -> Value:
    return gc.tile(call.value(0), call.ints(1))


def _pad(call: Call) -> Value:
    x = call.value(0)
    if call.version < 11:
        numbers = call.attribute("pads") or call.required("paddings")
        value = call.attribute("value", 0.0)
    else:
        numbers, value = call.ints(1), call.number(2, 0)
    axes = call.ints(3) if call.has(3) else range(x.type.rank)
    pairs = [(0, 0)] * x.type.rank
    for i, axis in enumerate(axes):
        pairs[axis % x.type.rank] = (int(numbers[i]), int(numbers[i + len(axes)]))
    cuts = [slice(max(-a, 0), -max(-b, 0) or None) for a, b in pairs]
    if any(cut != slice(0, None) for cut in cuts):  # negative pads
        x = x[tuple(slice(None) if cut == slice(0, None) else cut for cut in cuts)]
    around = [(max(a, 0), max(b, 0)) for a, b in pairs]
    mode = call.attribute("mode", "constant")
    if mode not in ("constant", "edge", "reflect", "wrap"):
        raise NotSupported(f"mode={mode!r}")
    return gc.pad(x, around, value, mode=mode)


def _cumulative(function: Callable[..., Value]) -> Callable[[Call], Result]:
    def convert(call: Call) -> Value:
        how = {name: bool(call.attribute(name, 0)) for name in ("exclusive", "reverse")}
        return function(call.value(0), int(call.number(1)), **how)

    return convert


def _top_k(call: Call) -> Result:
    count = int(call.number(1)) if call.version >= 10 else call.required("k")
    largest = bool(call.attribute("largest", 1))
    return list(gc.topk(call.value(0), count, call.attribute("axis", -1), largest=largest))


def _trilu(call: Call) -> Value:
    function = gc.triu if call.attribute("upper", 1) else gc.tril
    return function(call.value(0), int(call.number(1, 0)))


def _eye_like(call: Call) -> Array:
    rows, columns = call.type(0).shape
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise NotSupported("its size depends on the batch")
    number = call.attribute("dtype")
    dtype = call.type(0).dtype if number is None else dtype_of(number)
    spend_array(rows * columns)
    return np.eye(rows, columns, call.attribute("k", 0), dtype)


def _depth_to_space(call: Call) -> Value:
    x, block = call.value(0), call.required("blocksize")
    n, c, h, w = x.shape
    if not (isinstance(c, int) and isinstance(h, int) and isinstance(w, int)):
        raise NotSupported("its size depends on the batch")
    deep = c // block**2
    if call.attribute("mode", "DCR") == "DCR":
        parts = gc.reshape(x, (n, block, block, deep, h, w))
        moved = gc.transpose(parts, (0, 3, 4, 1, 5, 2))
    else:
        parts = gc.reshape(x, (n, deep, block, block, h, w))
        moved = gc.transpose(parts, (0, 1, 4, 2, 5, 3))
    return gc.reshape(moved, (n, deep, h * block, w * block))


def _space_to_depth(call: Call) -> Value:
    x, block = call.value(0), call.required("blocksize")
    n, c, h, w = x.shape
    if not (isinstance(c, int) and isinstance(h, int) and isinstance(w, int)):
        raise NotSupported("its size depends on the batch")
    parts = gc.reshape(x, (n, c, h // block, block, w // block, block))
    if call.attribute("mode", "DCR") == "DCR":
        moved = gc.transpose(parts, (0, 3, 5, 1, 2, 4))
    else:
        moved = gc.transpose(parts, (0, 1, 3, 5, 2, 4))
    return gc.reshape(moved, (n, c * block**2, h // block, w // block))


CONVERTERS: dict[str, Callable[[Call], Result]] = {
    "CumProd": _cumulative(gc.cumprod),
    "CumSum": _cumulative(gc.cumsum),
    "DepthToSpace": _depth_to_space,
    "EyeLike": _eye_like,
    "Pad": _pad,
    "SpaceToDepth": _space_to_depth,
    "Tile": _tile,
    "TopK": _top_k,
    "Trilu": _trilu,
}
