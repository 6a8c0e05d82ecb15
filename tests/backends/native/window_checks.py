"""What a convolution's product is held to, with groups or without: its meaning, and its bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from graphc.ir.expr import BodyBuilder, Expr
from graphc.kernels.interpret import run as interpreted
from tests.backends.native.gemm_function import Array, run, same_bytes
from tests.backends.native.window_function import Spec, WindowProduct, specs

WIDTHS = (512, 256, 128)
KINDS = ("y", "dx", "dw")
TOLERANCE = {"float32": 3e-6, "float64": 1e-14}

Shape = tuple[tuple[int, ...], ...]
"""An image, a kernel, stride and dilation."""


def check(spec: Spec, bits: int, n: int = 3, threads: int = 2) -> None:
    """Within rounding of the terms that were added."""
    before = spec.operands(n)
    got = run(WindowProduct(spec, bits), before, n, threads)["c"]
    op = spec.op.at(n)
    want = op.reference([before["a"].astype(float), before["b"].astype(float)])
    sizes = op.reference([np.abs(before["a"]).astype(float), np.abs(before["b"]).astype(float)])
    assert (np.abs(got - want) <= TOLERANCE[spec.a.dtype] * (sizes + 1)).all()


def check_in_turn(number: int, shape: Shape, groups: int = 1) -> None:
    """Each as another of the three, on vectors of another width, in another precision."""
    dtype = ("float32", "float64")[number % 2]
    check(specs(*shape, dtype=dtype, groups=groups)[number % 3], WIDTHS[number // 3 % 3])


def check_both(shape: Shape, kind: int, bits: int, groups: int = 1) -> None:
    """In both precisions."""
    for dtype in TOLERANCE:
        check(specs(*shape, dtype=dtype, groups=groups)[kind], bits)


def check_any(data: st.DataObject, more: int, channels: Callable[[], tuple[int, int, int]]) -> None:
    """A drawn shape of up to `more` places in all; `channels` draws groups, and those of each."""
    rank = data.draw(st.integers(1, 3))

    def sizes(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in range(rank))

    kernel, dilation = sizes(1, 3), sizes(1, 2)
    reach = ((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    space = tuple(r + extra for r, extra in zip(reach, sizes(0, more // rank), strict=True))
    groups, c, o = channels()
    partition = data.draw(st.sampled_from(["rows", "columns", "none"]))
    shape = (*space, groups * c), (*kernel, c, groups * o), sizes(1, 3), dilation
    spec = specs(*shape, partition=partition, groups=groups)[data.draw(st.integers(0, 2))]
    n, threads = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    check(spec, data.draw(st.sampled_from(WIDTHS)), n, threads)


def check_bits(spec: Spec, other_width: int) -> None:
    """They do not depend on threads, on how these share, nor on the width of vectors."""
    before, product = spec.operands(4), WindowProduct(spec)
    results = [run(product, before, 4, threads)["c"] for threads in (1, 2, 3, 4, 9)]
    other = WindowProduct(replace(spec, partition="columns"))
    results += [run(other, before, 4, threads)["c"] for threads in (1, 2)]
    results.append(run(WindowProduct(spec, other_width), before, 4)["c"])
    assert same_bytes(results)


def check_batches(spec: Spec, most: int) -> None:
    """Each batch from 1 to the capacity has the first images of the full one."""
    product, full = WindowProduct(spec), spec.operands(most)
    want = run(product, full, most)["c"]
    for n in range(1, most):
        some = {"a": full["a"][:n], "b": full["b"], "c": full["c"][:n]}
        assert run(product, some, n, threads=2)["c"].tobytes() == want[:n].tobytes()


def check_body(spec: Spec) -> None:
    """A bias for each column, a residual that is updated in place, and a mask."""

    def write(b: BodyBuilder, x: Expr) -> None:
        y = x + b.load("bias", "column", x.dtype) - b.load("c", "each", x.dtype)
        b.store(y, "c", "each")
        b.store(y > 0, "positive", "each")

    spec = replace(spec, write=write)
    rng, before = np.random.default_rng(1), spec.operands(3)
    before["c"] = rng.standard_normal(before["c"].shape).astype("float32")
    before["bias"] = rng.standard_normal(spec.result.shape[-1]).astype("float32")
    before["positive"] = np.ones(before["c"].shape, bool)
    got = run(WindowProduct(spec), before, 3, threads=3)
    wanted = as_interpreted(spec, before, 3)
    np.testing.assert_allclose(got["c"], wanted["c"], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(got["positive"], got["c"] > 0)


def as_interpreted(spec: Spec, before: dict[str, Array], n: int) -> dict[str, Array]:
    """What the interpreter of kernels writes."""
    wanted = {name: array.copy() for name, array in before.items()}
    interpreted(spec.kernel(), wanted, n)
    return wanted
