"""Convolutions in groups: against their meaning, between guards, and bit by bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.backends.native.gemm import emit_gemm
from graphc.backends.native.ir import Module
from graphc.kernels.kernel import Convolution
from tests.backends.native.gemm_function import run
from tests.backends.native.window_checks import (
    KINDS,
    WIDTHS,
    Shape,
    as_interpreted,
    check,
    check_any,
    check_batches,
    check_bits,
    check_body,
    check_both,
    check_in_turn,
)
from tests.backends.native.window_function import Spec, WindowProduct, pitches, specs

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


@pytest.mark.one_in(5)
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str) -> None:
    *shape, groups = SHAPES[name]
    check_in_turn(list(SHAPES).index(name), tuple(shape), groups)


@pytest.mark.parametrize(("channels", "columns"), [(1, 2), (2, 4), (3, 2)])
def test_a_group_has_channels_and_columns_of_its_own(channels: int, columns: int) -> None:
    """Those of a group are repeated in a vector, or gathered if they are more than the columns."""
    shape = (5, 6, 6 * channels), (2, 2, channels, 6 * columns), (1, 1), (1, 1)
    for number, spec in enumerate(specs(*shape, groups=6)[:2]):
        check(spec, WIDTHS[number])


@pytest.mark.one_in(6)
@pytest.mark.slow
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("kind", range(3), ids=KINDS)
@pytest.mark.parametrize("name", SHAPES)
def test_every_shape(name: str, kind: int, bits: int) -> None:
    *shape, groups = SHAPES[name]
    check_both(tuple(shape), kind, bits, groups)


def check_drawn(data: st.DataObject) -> None:
    kinds = [(40, 1, 1), (6, 1, 2), (5, 4, 4), (3, 2, 5), (2, 20, 18)]
    check_any(data, 14, lambda: data.draw(st.sampled_from(kinds)))


@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    check_drawn(data)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_many_shapes(data: st.DataObject) -> None:
    check_drawn(data)


DEPTHWISE = ((7, 9, 37), (3, 3, 1, 37), (2, 1), (1, 1))
OF_VECTORS = ((7, 5, 36), (3, 3, 18, 34), (2, 1), (1, 1))


@pytest.mark.one_in(5)
@pytest.mark.parametrize("kind", range(3), ids=KINDS)
@pytest.mark.parametrize(("shape", "groups"), [(DEPTHWISE, 37), (OF_VECTORS, 2)])
def test_bits_depend_on_nothing(shape: Shape, groups: int, kind: int) -> None:
    check_bits(specs(*shape, groups=groups)[kind], WIDTHS[1 + kind % 2])


@pytest.mark.parametrize("kind", (0, 1), ids=KINDS[:2])
def test_images_do_not_depend_on_the_batch(kind: int) -> None:
    check_batches(specs(*DEPTHWISE, groups=37)[kind], 5)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", range(3), ids=KINDS)
def test_the_body_meets_the_product(kind: int) -> None:
    check_body(specs(*DEPTHWISE, groups=37)[kind])


def around(spec: Spec, before: int) -> Spec:
    """The convolution with zeros before its images, and fewer after them."""
    kernel = spec.kernel()
    assert isinstance(kernel, Convolution)
    return replace(spec, window=replace(kernel.window, before=(before, before)))


@pytest.mark.one_in(4)
@pytest.mark.parametrize("kind", range(3), ids=KINDS)
@pytest.mark.parametrize("before", (1, 2))
@pytest.mark.parametrize("width", (1, 17))
def test_zeros_around_images(width: int, before: int, kind: int) -> None:
    """What meets no pixel is multiplied, as 0: so it is by the interpreter."""
    shape = (6, 7, 2 * width), (3, 3, width, 2 * width), (1, 1), (1, 1)
    spec = around(specs(*shape, groups=2)[kind], before)
    arrays = spec.operands(2)
    wanted = as_interpreted(spec, arrays, 2)
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
