"""Products of many sizes and precisions, and numbers at the edges of their types."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphc as gc
from graphc.backends.backend import USUAL
from graphc.cli.installation import plain
from graphc.cli.installation.int8 import check_int8
from graphc.cli.installation.plain import Array
from graphc.cli.installation.trial import ROUGH, Trial, near, same
from graphc.ir.tensor_type import shape_at

EDGES = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 96, 100, 127, 129)
"""Extents around those of tiles and vectors."""
LEAST = 24


def bfloat16(x: Array) -> Array:
    """Return numbers rounded to bfloat16, ties to even."""
    bits = np.asarray(x, "float32").view("uint32").astype("uint64")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return np.asarray(rounded.astype("uint32").view("float32"))


def sizes(trial: Trial) -> str:
    """Check products and convolutions of random sizes, in float32, float64 and bfloat16."""
    here, number = [name for name in trial.backends() if name in USUAL], 0
    for number in trial.numbers(LEAST):
        rng = np.random.default_rng([trial.seed, number])
        kind = ("float32", "float64", "bf16", "bf16_blocks")[number % 4]
        rows, inner, columns = (int(rng.choice(EDGES)) for _ in range(3))
        what = f"{rows} x {inner} x {columns}, {kind}, number {number}"
        for backend in here:
            with trial.case(f"a product of {what}, on {backend}"):
                _product(rng, backend, kind, rows, inner, columns)
            with trial.case(f"a convolution of {what}, on {backend}"):
                _convolution(rng, backend, kind, rows % 7 + 1, inner % 20 + 1, columns % 35 + 1)
    return f"{number + 1} products with gradients, and convolutions, of sizes from 1 to {EDGES[-1]}"


def _compiled(net: gc.Net, backend: str, kind: str, rows: int) -> gc.Executor:
    precision: Any = {"*": kind} if kind.startswith("bf16") else None
    plan = gc.compile(net, batch=rows, backend=backend, threads=2, precision=precision)
    return gc.Executor(plan)


def _drawn(rng: np.random.Generator, kind: str, *shape: int) -> Array:
    """Return numbers, some of them halfway between two of bfloat16."""
    x = rng.normal(size=shape).astype("float64" if kind == "float64" else "float32")
    ties = (1 + (2 * rng.integers(0, 128, shape) + 1) / 256).astype(x.dtype)
    return np.where(rng.random(shape) < 0.2, ties, x)


def _rounded(kind: str, x: Array) -> Array:
    return (bfloat16(x) if kind.startswith("bf16") else x).astype("float64")


def _product(
    rng: np.random.Generator, backend: str, kind: str, rows: int, inner: int, columns: int
) -> None:
    net = gc.Net("product", dtype="float64" if kind == "float64" else "float32")
    x, w = _drawn(rng, kind, rows, inner), _drawn(rng, kind, inner, columns)
    bias = _drawn(rng, kind, columns)
    weight, add = net.parameter("w", w.shape, init="zeros"), net.parameter("b", bias.shape)
    y = gc.affine(net.input("x", (gc.N, inner)), weight=weight, bias=add)
    net.output("y", gc.relu(y))
    net.loss("loss", gc.sum(y * net.input("d", (gc.N, columns))))
    ex = _compiled(net, backend, kind, rows)
    ex.state.assign({"w": w, "b": bias})
    d = _drawn(rng, kind, rows, columns)
    found = ex.forward({"x": x, "d": d}, train=True)["y"]
    right = _rounded(kind, x) @ _rounded(kind, w) + bias
    rough = ROUGH["float64" if kind == "float64" else "float32"]
    near("relu(x @ w + b)", np.maximum(right, 0), found, rough)
    gradients = ex.backward()
    near("the gradient by w", _rounded(kind, x).T @ _rounded(kind, d), gradients["w"], rough)
    near("the gradient by b", d.astype("float64").sum(0), gradients["b"], rough)


def _convolution(
    rng: np.random.Generator, backend: str, kind: str, rows: int, channels: int, out: int
) -> None:
    """Check images of 1 to 3 dimensions; strides, paddings and the rest differ by axis."""
    rank = int(rng.integers(1, 4))
    groups = 1 if kind.startswith("bf16") else int(rng.integers(1, 3))
    kernel, stride, dilation = (rng.integers(1, 4, rank).tolist() for _ in range(3))
    pads = rng.integers(0, 4, (rank, 2)) * rng.integers(0, 2, (rank, 1))  # some have none
    least = np.multiply(dilation, np.subtract(kernel, 1)) + 1 - pads.sum(1)
    space = np.maximum(least, 1) + rng.integers(0, (40, 7, 4)[rank - 1], rank)
    x, dx = (_drawn(rng, kind, rows, groups * channels, *space) for _ in range(2))
    w, dw = (_drawn(rng, kind, groups * out, channels, *kernel) for _ in range(2))
    net = gc.Net("images", dtype=str(x.dtype))
    fed, weight = net.input("x", (gc.N, *x.shape[1:])), net.parameter("w", w.shape, init="zeros")
    options: dict[str, Any] = {"stride": stride, "dilation": dilation, "groups": groups}
    y = net.output("y", gc.conv(fed, weight, padding=pads.tolist(), **options))
    d = _drawn(rng, kind, *shape_at(y.type.shape, rows))
    loss = net.loss("loss", gc.sum(y * net.input("d", y.type.shape)))
    (slope,) = gc.grad(loss, [fed])
    net.output("dx", slope)
    ex = _compiled(net, backend, kind, rows)
    ex.state.assign({"w": w})
    found = ex.forward({"x": x, "d": d}, train=True)

    def right(x: Array, w: Array) -> Array:
        return plain.conv(x, w, None, stride, pads.tolist(), dilation, groups)

    x, w, d = (_rounded(kind, array) for array in (x, w, d))
    what, rough = f"conv(x, w, {pads.tolist()}, {options})", ROUGH[str(dx.dtype)]
    near(what, right(x, w), found["y"], 2 * rough)
    for name, slopes, move, ends in (
        ("w", ex.backward()["w"], dw, (x, dw)),
        ("x", found["dx"], dx, (dx, w)),
    ):  # how the loss grows if one moves
        size = (abs(d) * right(*map(abs, ends))).sum() or 1.0
        grown = (d * right(*ends)).sum()
        near(f"{what}: its slope by {name}", grown / size, (slopes * move).sum() / size, rough)


CASTS = (
    *(("float64", "float32"), ("int64", "float32"), ("int64", "int8"), ("int64", "uint8")),
    *(("int32", "int16"), ("float32", "int32"), ("float64", "int64"), ("float32", "bool")),
    ("int32", "bool"),
)
ROUNDED = {"round": np.rint, "floor": np.floor, "ceil": np.ceil}


def edges(trial: Trial) -> str:
    """Check casts and rounding at the edges of types, and products in int8."""
    here = trial.backends()
    for backend in here:
        for source, target in CASTS:
            with trial.case(f"cast of {source} to {target} on {backend}"):
                x = _edge_numbers(source)
                net = gc.Net("cast")
                net.output("y", gc.cast(net.input("x", (gc.N,), dtype=source), target))
                ex = gc.Executor(gc.compile(net, batch=len(x), backend=backend))
                same("the cast", x.astype(target), ex.forward(x=x)["y"])
        with trial.case(f"rounding on {backend}"):
            x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.49999997, 8388609.0], "float32")
            net = gc.Net("round")
            v = net.input("x", (gc.N,))
            for name in ROUNDED:
                net.output(name, getattr(gc, name)(v))
            found = gc.Executor(gc.compile(net, batch=len(x), backend=backend)).forward(x=x)
            for name, right in ROUNDED.items():
                near(name, right(x), found[name], 0.0)
    check_int8(trial, here)
    return f"{len(CASTS)} casts and rounding on {', '.join(here)}; int8 of several widths"


def _edge_numbers(dtype: str) -> Array:
    if dtype.startswith("float"):
        whole = [0.0, -0.0, 0.5, -0.5, 0.99, -0.99, 1.5, -2.5, 2.5, 127.9, -128.9, 1e9, -1e9, 1 / 3]
        return np.array([*whole, 1 + 2.0**-24, 1 + 3 * 2.0**-24, 16777217.0], dtype)
    more = [2**24 + 1, 2**24 + 3, 2**31 - 1, -(2**31)]
    return np.array([0, 1, -1, 127, 128, -128, -129, 255, 256, 32767, 32768, *more], dtype)
