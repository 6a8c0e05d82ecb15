"""Convolutions as products of windows: against their meaning, between guards, and bit by bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.backends.native.gemm import emit_gemm
from graphc.backends.native.ir import Module
from tests.backends.native.gemm_function import run
from tests.backends.native.window_checks import (
    KINDS,
    WIDTHS,
    check_any,
    check_batches,
    check_bits,
    check_body,
    check_both,
    check_in_turn,
)
from tests.backends.native.window_function import WindowProduct, pitches, specs

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


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str) -> None:
    check_in_turn(list(SHAPES).index(name), SHAPES[name])


@pytest.mark.parametrize(("bits", "columns"), [*zip(WIDTHS, (50, 63, 66), strict=True)])
def test_image_gradients_of_lines_longer_than_a_tile(bits: int, columns: int) -> None:
    """The last places of a line may have no pixel to read; its tiles are not the first ones."""
    check_both(((3, columns, 2), (2, 4, 2, 20), (1, 2), (1, 1)), 1, bits)


@pytest.mark.one_in(6)
@pytest.mark.slow
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("kind", range(3), ids=KINDS)
@pytest.mark.parametrize("name", SHAPES)
def test_every_shape(name: str, kind: int, bits: int) -> None:
    check_both(SHAPES[name], kind, bits)


def check_drawn(data: st.DataObject) -> None:
    check_any(data, 17, lambda: (1, *(data.draw(st.integers(1, most)) for most in (17, 40))))


@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    check_drawn(data)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_many_shapes(data: st.DataObject) -> None:
    check_drawn(data)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", range(3), ids=KINDS)
def test_bits_depend_on_nothing(kind: int) -> None:
    check_bits(specs((7, 9, 3), (3, 3, 3, 37), (2, 1), (1, 1))[kind], WIDTHS[1 + kind % 2])


@pytest.mark.parametrize("kind", (0, 1), ids=KINDS[:2])
def test_images_do_not_depend_on_the_batch(kind: int) -> None:
    check_batches(specs((7, 7, 3), (3, 3, 3, 10), (1, 1), (1, 1))[kind], 6)


@pytest.mark.parametrize("kind", range(3), ids=KINDS)
def test_the_body_meets_the_product(kind: int) -> None:
    check_body(specs((8, 8, 6), (3, 3, 6, 12), (1, 1), (1, 1))[kind])


@pytest.mark.one_in(2)
@pytest.mark.parametrize("kind", (0, 1), ids=KINDS[:2])
def test_threads_share_a_line(kind: int) -> None:
    """Their parts end within tiles, and within runs of neighbours that meet the same offsets."""
    spec = specs((75, 4), (3, 4, 10), (1,), (2,))[kind]
    check_bits(spec, WIDTHS[1 + kind])
    check_body(spec)


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


BORDERS = {
    "one around": ((8, 9, 16), (3, 3, 16, 16), (1, 1), (1, 1), (1, 1)),
    "stride 2 and dilation": ((9, 7, 8), (3, 3, 8, 20), (2, 2), (2, 1), (2, 1)),
    "channels that no chunk divides": ((5, 5, 24), (3, 3, 24, 33), (1, 2), (1, 1), (1, 1)),
    "offsets that meet no pixel": ((2, 3, 8), (5, 5, 8, 4), (1, 1), (2, 2), (4, 4)),
    "one dimension": ((20, 16), (5, 16, 8), (1,), (1,), (2,)),
    "three dimensions": ((3, 4, 5, 8), (3, 3, 3, 8, 8), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
    "few channels": ((8, 8, 3), (3, 3, 3, 16), (1, 1), (1, 1), (1, 1)),
}


@pytest.mark.one_in(32)
@pytest.mark.parametrize("name", BORDERS)
@pytest.mark.parametrize("bits", WIDTHS)
def test_weight_gradients_of_images_with_a_border(name: str, bits: int) -> None:
    """As if the images were stored with their zeros."""
    (*space, channels), weight, stride, dilation, border = BORDERS[name]
    around = tuple(size + 2 * zeros for size, zeros in zip(space, border, strict=True))
    spec = specs((*around, channels), weight, stride, dilation)[2]
    window = spec.op.product([spec.a, spec.b]).window  # type: ignore[union-attr]
    inside = replace(spec, window=replace(window, space=tuple(space), before=border))
    before = spec.operands(3)
    cut = tuple(slice(zeros, zeros + size) for size, zeros in zip(space, border, strict=True))
    images = before["a"][:, *cut].copy()
    before["a"] = np.pad(images, [(0, 0), *((zeros, zeros) for zeros in border), (0, 0)])
    want = run(WindowProduct(spec, bits), before, 3, threads=2)["c"]
    for threads in (1, 2, 5):
        got = run(WindowProduct(inside, bits), before | {"a": images}, 3, threads)["c"]
        assert got.tobytes() == want.tobytes()
