"""Convolutions in groups: against their meaning, between guards, and bit by bit."""

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
from tests.native.gemm_function import run, same_bytes
from tests.native.test_windows import KINDS, TOLERANCE, WIDTHS, check
from tests.native.window_function import Spec, WindowProduct, pitches, specs

Shape = tuple[tuple[int, ...], ...]
"""An image, a kernel, stride and dilation."""

SHAPES = {
    "a group for each channel": ((5, 12, 37), (3, 3, 1, 37), (1, 1), (1, 1), 37),
    "stride 2, a panel and more": ((7, 8, 70), (3, 2, 1, 70), (2, 2), (1, 1), 70),
    "dilation beyond the stride": ((9, 9, 8), (2, 3, 1, 8), (2, 1), (3, 2), 8),
    "two columns a channel": ((5, 6, 12), (2, 2, 1, 24), (1, 2), (1, 1), 12),
    "three columns a channel": ((5, 5, 5), (2, 2, 1, 15), (2, 3), (1, 1), 5),
    "as many channels as columns": ((5, 6, 24), (2, 2, 4, 24), (1, 1), (1, 1), 6),
    "more channels than columns": ((4, 4, 9), (2, 2, 3, 6), (1, 1), (1, 1), 3),
    "one dimension": ((40, 6), (20, 1, 6), (2,), (1,), 6),
    "three dimensions": ((4, 5, 6, 4), (2, 3, 2, 2, 4), (1, 2, 1), (1, 1, 2), 2),
    "groups of vectors": ((5, 6, 40), (2, 3, 20, 74), (1, 1), (1, 1), 2),
    "groups of vectors, stride": ((5, 7, 54), (2, 3, 18, 51), (2, 2), (1, 1), 3),
    "groups of vectors, one dimension": ((24, 34), (5, 17, 66), (2,), (2,), 2),
    "single pixels": ((4, 5, 8), (1, 1, 2, 8), (1, 1), (1, 1), 4),
    "single pixels with stride": ((6, 6, 4), (1, 1, 1, 4), (2, 3), (1, 1), 4),
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
    *shape, groups = SHAPES[name]
    spec = specs(*shape, dtype=dtype, groups=groups)[kind]
    before = spec.operands(3)
    check(spec, run(WindowProduct(spec, bits), before, 3, threads=2)["c"], before)


@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    check_any_shape(data)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_many_shapes(data: st.DataObject) -> None:
    check_any_shape(data)


def check_any_shape(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))

    def sizes(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in range(rank))

    kernel, dilation = sizes(1, 3), sizes(1, 2)
    reach = ((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    space = tuple(r + more for r, more in zip(reach, sizes(0, 14 // rank), strict=True))
    groups, c, o = data.draw(
        st.sampled_from([(40, 1, 1), (6, 1, 2), (5, 4, 4), (3, 2, 5), (2, 20, 18)])
    )
    split = data.draw(st.sampled_from(["rows", "columns", "none"]))
    shape = (*space, groups * c), (*kernel, c, groups * o), sizes(1, 3), dilation
    spec = specs(*shape, split=split, groups=groups)[data.draw(st.integers(0, 2))]
    n, threads = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    before = spec.operands(n)
    bits = data.draw(st.sampled_from(WIDTHS))
    check(spec, run(WindowProduct(spec, bits), before, n, threads)["c"], before)


DEPTHWISE = ((7, 9, 37), (3, 3, 1, 37), (2, 1), (1, 1))
OF_VECTORS = ((7, 5, 36), (3, 3, 18, 34), (2, 1), (1, 1))


@pytest.mark.parametrize("kind", range(3), ids=KINDS)
@pytest.mark.parametrize(("shape", "groups"), [(DEPTHWISE, 37), (OF_VECTORS, 2)])
def test_bits_depend_on_nothing(shape: Shape, groups: int, kind: int) -> None:
    """Not on threads, not on how they share, nor on the width of vectors."""
    spec = specs(*shape, groups=groups)[kind]
    before, product = spec.operands(4), WindowProduct(spec)
    results = [run(product, before, 4, threads)["c"] for threads in (1, 2, 3, 4, 9)]
    other = WindowProduct(replace(spec, split="columns"))
    results += [run(other, before, 4, threads)["c"] for threads in (1, 2)]
    results.append(run(WindowProduct(spec, WIDTHS[1 + kind % 2]), before, 4)["c"])
    assert same_bytes(results)


@pytest.mark.parametrize("kind", (0, 1), ids=KINDS[:2])
def test_images_do_not_depend_on_the_batch(kind: int) -> None:
    """Each batch from 1 to the capacity has the first images of the full one."""
    spec = specs(*DEPTHWISE, groups=37)[kind]
    product, full = WindowProduct(spec), spec.operands(5)
    want = run(product, full, 5)["c"]
    for n in range(1, 5):
        some = {"a": full["a"][:n], "b": full["b"], "c": full["c"][:n]}
        assert run(product, some, n, threads=2)["c"].tobytes() == want[:n].tobytes()


@pytest.mark.parametrize("kind", range(3), ids=KINDS)
def test_the_body_meets_the_product(kind: int) -> None:
    """A bias for each column, a residual that is updated in place, and a mask."""

    def write(b: BodyBuilder, x: Expr) -> None:
        y = x + b.load("bias", "column", x.dtype) - b.load("c", "each", x.dtype)
        b.store(y, "c", "each")
        b.store(y > 0, "positive", "each")

    spec = replace(specs(*DEPTHWISE, groups=37)[kind], write=write)
    rng, before = np.random.default_rng(1), spec.operands(3)
    before["c"] = rng.standard_normal(before["c"].shape).astype("float32")
    before["bias"] = rng.standard_normal(spec.result.shape[-1]).astype("float32")
    before["positive"] = np.ones(before["c"].shape, bool)
    got = run(WindowProduct(spec), before, 3, threads=3)
    wanted = {name: array.copy() for name, array in before.items()}
    interpreted(spec.kernel(), wanted, 3)
    np.testing.assert_allclose(got["c"], wanted["c"], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(got["positive"], got["c"] > 0)


def around(spec: Spec, before: int) -> Spec:
    """The convolution with zeros before its images, and fewer after them."""
    kernel = spec.kernel()
    assert kernel.window is not None
    return replace(spec, window=replace(kernel.window, before=(before, before)))


@pytest.mark.parametrize("kind", range(3), ids=KINDS)
@pytest.mark.parametrize("before", (1, 2))
@pytest.mark.parametrize("width", (1, 17))
def test_zeros_around_images(width: int, before: int, kind: int) -> None:
    """What meets no pixel is multiplied, as 0: so it is by the interpreter."""
    shape = (6, 7, 2 * width), (3, 3, width, 2 * width), (1, 1), (1, 1)
    spec = around(specs(*shape, groups=2)[kind], before)
    arrays = spec.operands(2)
    wanted = {name: array.copy() for name, array in arrays.items()}
    interpreted(spec.kernel(), wanted, 2)
    got = run(WindowProduct(spec), arrays, 2, threads=2)["c"]
    np.testing.assert_allclose(got, wanted["c"], rtol=1e-4, atol=1e-5)


def test_a_nan_stays_in_its_image_and_channel() -> None:
    for spec in specs((6, 6, 20), (3, 3, 1, 20), (1, 1), (1, 1), groups=20)[:2]:
        before = spec.operands(3)
        before["a"][1, ..., 7] = np.nan
        c = run(WindowProduct(spec), before, 3)["c"]
        assert np.isnan(c[1, ..., 7]).any()
        c[1, ..., 7] = 0
        assert not np.isnan(c).any()


def test_equal_convolutions_share_a_function() -> None:
    """How many groups there are counts."""
    module = Module()

    def emitted(groups: int) -> str:
        shape = (9, 9, 4), (3, 3, 4 // groups, 8), (1, 1), (1, 1)
        kernel = specs(*shape, groups=groups)[0].kernel()
        return emit_gemm(module, kernel, {"c": 8, **pitches(kernel)}, 512).name

    assert emitted(2) == emitted(2) != emitted(4)
