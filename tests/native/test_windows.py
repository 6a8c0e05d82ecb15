"""Convolutions as products of windows: against their meaning, between guards, and bit by bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.backends.native.gemm import emit_gemm
from graphc.backends.native.ir import Module
from graphc.kernels.expr import BodyBuilder, Expr
from graphc.kernels.interpret import run as interpreted
from tests.native.gemm_function import Array, run, same_bytes
from tests.native.window_function import Spec, WindowProduct, pitches, specs

WIDTHS = (512, 256, 128)
KINDS = ("y", "dx", "dw")
TOLERANCE = {"float32": 3e-6, "float64": 1e-14}


def check(spec: Spec, got: Array, before: dict[str, Array]) -> None:
    """Within rounding of the terms that were added."""
    n = len(before["a"])
    op = spec.op.at(n)
    want = op.reference([before["a"].astype(float), before["b"].astype(float)])
    sizes = op.reference([np.abs(before["a"]).astype(float), np.abs(before["b"]).astype(float)])
    assert (np.abs(got - want) <= TOLERANCE[spec.a.dtype] * (sizes + 1)).all()


SHAPES = {
    "3x3 in one vector": ((9, 10, 3), (3, 3, 3, 16), (1, 1), (1, 1)),
    "stride 2 in two vectors": ((9, 9, 8), (3, 3, 8, 33), (2, 2), (1, 1)),
    "dilation, narrow": ((8, 7, 5), (2, 3, 5, 6), (1, 2), (2, 2)),
    "pixels left over": ((8, 8, 4), (2, 2, 4, 40), (3, 3), (1, 1)),
    "one dimension": ((40, 6), (5, 6, 10), (2,), (1,)),
    "three dimensions": ((4, 5, 6, 2), (2, 3, 2, 2, 7), (1, 2, 1), (1, 1, 2)),
    "one channel": ((28, 28, 1), (5, 5, 1, 6), (1, 1), (1, 1)),
    "lines longer than a tile": ((3, 50, 2), (2, 2, 2, 20), (1, 1), (1, 1)),
    "one place": ((4, 4, 24), (4, 4, 24, 12), (1, 1), (1, 1)),
    "single pixels with stride": ((6, 6, 7), (1, 1, 7, 9), (2, 2), (1, 1)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str) -> None:
    """Each as another of the three, on vectors of another width, in another precision."""
    number = list(SHAPES).index(name)
    check_shape(name, number % 3, WIDTHS[number // 3 % 3], ("float32", "float64")[number % 2])


@pytest.mark.slow
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("kind", range(3), ids=KINDS)
@pytest.mark.parametrize("name", SHAPES)
def test_every_shape(name: str, kind: int, bits: int) -> None:
    for dtype in TOLERANCE:
        check_shape(name, kind, bits, dtype)


def check_shape(name: str, kind: int, bits: int, dtype: str) -> None:
    spec = specs(*SHAPES[name], dtype=dtype)[kind]
    before = spec.operands(3)
    check(spec, run(WindowProduct(spec, bits), before, 3, threads=2)["c"], before)


@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    check_any_shape(data)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_many_shapes(data: st.DataObject) -> None:
    check_any_shape(data)


def check_any_shape(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))

    def sizes(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in range(rank))

    kernel, dilation = sizes(1, 3), sizes(1, 2)
    reach = ((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    space = tuple(r + more for r, more in zip(reach, sizes(0, 17 // rank), strict=True))
    c, o = (data.draw(st.integers(1, most)) for most in (17, 40))
    split = data.draw(st.sampled_from(["rows", "columns", "none"]))
    found = specs((*space, c), (*kernel, c, o), sizes(1, 3), dilation, split=split)
    spec = found[data.draw(st.integers(0, 2))]
    n, threads = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    before = spec.operands(n)
    bits = data.draw(st.sampled_from(WIDTHS))
    check(spec, run(WindowProduct(spec, bits), before, n, threads)["c"], before)


@pytest.mark.parametrize("kind", range(3), ids=KINDS)
def test_bits_depend_on_nothing(kind: int) -> None:
    """Not on threads, not on how they share, nor on the width of vectors."""
    shape = ((7, 9, 3), (3, 3, 3, 37), (2, 1), (1, 1))
    spec = specs(*shape)[kind]
    before, product = spec.operands(4), WindowProduct(spec)
    results = [run(product, before, 4, threads)["c"] for threads in (1, 2, 3, 4, 9)]
    other = WindowProduct(replace(spec, split="columns"))
    results += [run(other, before, 4, threads)["c"] for threads in (1, 2)]
    results.append(run(WindowProduct(spec, WIDTHS[1 + kind % 2]), before, 4)["c"])
    assert same_bytes(results)


@pytest.mark.parametrize("kind", (0, 1), ids=KINDS[:2])
def test_images_do_not_depend_on_the_batch(kind: int) -> None:
    """Each batch from 1 to the capacity has the first images of the full one."""
    spec = specs((7, 7, 3), (3, 3, 3, 10), (1, 1), (1, 1))[kind]
    product, full = WindowProduct(spec), spec.operands(6)
    want = run(product, full, 6)["c"]
    for n in range(1, 6):
        some = {"a": full["a"][:n], "b": full["b"], "c": full["c"][:n]}
        assert run(product, some, n, threads=2)["c"].tobytes() == want[:n].tobytes()


@pytest.mark.parametrize("kind", range(3), ids=KINDS)
def test_the_body_meets_the_product(kind: int) -> None:
    """A bias for each column, a residual that is updated in place, and a mask."""

    def write(b: BodyBuilder, x: Expr) -> None:
        y = x + b.load("bias", "column", x.dtype) - b.load("c", "each", x.dtype)
        b.store(y, "c", "each")
        b.store(y > 0, "positive", "each")

    spec = replace(specs((8, 8, 6), (3, 3, 6, 12), (1, 1), (1, 1))[kind], write=write)
    rng, before = np.random.default_rng(1), spec.operands(3)
    before["c"] = rng.standard_normal(before["c"].shape).astype("float32")
    before["bias"] = rng.standard_normal(spec.result.shape[-1]).astype("float32")
    before["positive"] = np.ones(before["c"].shape, bool)
    got = run(WindowProduct(spec), before, 3, threads=3)
    wanted = {name: array.copy() for name, array in before.items()}
    interpreted(spec.kernel(), wanted, 3)
    np.testing.assert_allclose(got["c"], wanted["c"], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(got["positive"], got["c"] > 0)


def test_a_nan_stays_in_its_image() -> None:
    """Zeros around an image are not those of the one before."""
    for spec in specs((6, 6, 2), (3, 3, 2, 4), (1, 1), (1, 1))[:2]:
        before = spec.operands(3)
        before["a"][1] = np.nan
        c = run(WindowProduct(spec), before, 3)["c"]
        assert np.isnan(c[1]).any() and not np.isnan(c[[0, 2]]).any()


def test_equal_convolutions_share_a_function() -> None:
    """All of the window counts."""
    module = Module()

    def emitted(stride: int) -> str:
        kernel = specs((9, 9, 4), (3, 3, 4, 8), (stride, 1), (1, 1))[0].kernel()
        return emit_gemm(module, kernel, {"c": 8, **pitches(kernel)}, 512).name

    assert emitted(1) == emitted(1) != emitted(2)
