"""Windows that reach beyond images: offsets outside are left out, for any threads and vectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.ir.forms import Window
from graphc.kernels.kernel import Convolution
from tests.backends.native.gemm_function import Array, run
from tests.backends.native.window_checks import KINDS, WIDTHS, as_interpreted, check_bits
from tests.backends.native.window_function import Spec, WindowProduct, specs

BORDERS = {
    "same": ((9, 20, 5), (3, 3, 5, 33), (1, 1), (1, 1), 1, (1, 1)),
    "stride 2": ((12, 13, 4), (3, 5, 4, 17), (2, 2), (1, 1), 1, (1, 3)),
    "dilation": ((12, 11, 3), (3, 3, 3, 8), (1, 1), (2, 3), 1, (2, 3)),
    "groups": ((7, 9, 40), (3, 3, 20, 64), (1, 1), (1, 1), 2, (1, 1)),
    "cut away": ((9, 10, 4), (3, 3, 4, 8), (1, 1), (1, 1), 1, (-2, -1)),
    "a line": ((50, 3), (4, 3, 10), (1,), (1,), 1, (3,)),
    "causal": ((40, 6), (3, 6, 10), (1,), (4,), 1, (8,)),
    "space": ((4, 5, 6, 2), (2, 3, 3, 2, 7), (1, 1, 1), (1, 1, 1), 1, (1, 1, 2)),
    "nothing met": ((6, 6, 2), (2, 2, 2, 4), (1, 1), (1, 1), 1, (9, 9)),
    "short lines": ((9, 3, 4), (3, 2, 4, 40), (1, 1), (1, 1), 1, (0, 1)),
}


def spec(name: str, kind: int = 0) -> Spec:
    *shape, groups, before = BORDERS[name]
    return shifted(specs(*shape, groups=groups)[kind], before)  # type: ignore[misc, arg-type]


def shifted(spec: Spec, before: tuple[int, ...]) -> Spec:
    """Return the same places, on images that begin elsewhere."""
    kernel = spec.kernel()
    assert isinstance(kernel, Convolution)
    return replace(spec, window=replace(kernel.window, before=before))


def check_meaning(spec: Spec, bits: int, threads: int = 2) -> None:
    before = spec.operands(3)
    got = run(WindowProduct(spec, bits), before, 3, threads)["c"]
    np.testing.assert_allclose(got, as_interpreted(spec, before, 3)["c"], rtol=1e-4, atol=1e-4)


@pytest.mark.one_in(16)
@pytest.mark.parametrize("name", BORDERS)
def test_pixels_outside_count_as_zero(name: str) -> None:
    number = list(BORDERS).index(name)
    check_meaning(spec(name), WIDTHS[number % 3])
    check_meaning(spec(name, 1), WIDTHS[number // 3 % 3])


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", ("same", "stride 2", "groups", "causal"))
def test_bits_depend_on_nothing(name: str) -> None:
    check_bits(spec(name), 256)


@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_any_padding(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))

    def sizes(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in range(rank))

    kernel, dilation, more = sizes(2, 3), sizes(1, 3), sizes(0, 12 // rank)
    space = tuple((k - 1) * d + 1 + m for k, d, m in zip(kernel, dilation, more, strict=True))
    groups, c, o = (data.draw(st.integers(1, most)) for most in (2, 20, 40))
    shape = (*space, groups * c), (*kernel, c, groups * o), sizes(1, 2), dilation
    drawn = shifted(specs(*shape, groups=groups)[data.draw(st.integers(0, 1))], sizes(-3, 5))
    check_meaning(drawn, data.draw(st.sampled_from(WIDTHS)), data.draw(st.integers(1, 4)))


NOTHING_MET = {
    "a line": ((6, 3), (2, 3, 5), (1,), (1,), 1, (8,)),
    "half a line": ((6, 3), (2, 3, 5), (1,), (1,), 1, (4,)),
    "lines side by side": ((4, 3, 2), (1, 2, 2, 5), (1, 1), (1, 1), 1, (0, 9)),
    "ends of lines": ((3, 9, 2), (2, 3, 2, 20), (1, 2), (1, 2), 1, (1, -6)),
    "lines and places": ((5, 4, 2), (2, 2, 2, 5), (2, 1), (1, 2), 1, (-6, 5)),
    "space": ((2, 3, 4, 2), (1, 2, 2, 2, 5), (1, 1, 1), (1, 1, 1), 1, (0, 0, 6)),
    "depthwise": ((3, 6, 16), (2, 2, 1, 16), (1, 1), (1, 1), 16, (0, 4)),
    "groups": ((3, 6, 40), (2, 2, 20, 40), (1, 1), (1, 1), 2, (0, 4)),
}


@pytest.mark.one_in(5)
@pytest.mark.parametrize("kind", range(3), ids=KINDS)
@pytest.mark.parametrize("name", NOTHING_MET)
def test_places_without_a_pixel_are_written(name: str, kind: int) -> None:
    """All offsets of the filter are outside the image there: the sum is 0, not what lay there."""
    *shape, groups, before = NOTHING_MET[name]
    one = shifted(specs(*shape, groups=groups)[kind], before)  # type: ignore[misc, arg-type]
    check_meaning(one, WIDTHS[list(NOTHING_MET).index(name) % 3])


NARROW = {
    "depthwise": ((9, 20, 40), (3, 3, 1, 40), (1, 1), (1, 1), 40, (1, 1)),
    "depthwise, stride 2": ((12, 13, 24), (3, 5, 1, 24), (2, 2), (1, 1), 24, (1, 3)),
    "depthwise, apart": ((12, 13, 20), (3, 3, 1, 20), (1, 1), (2, 3), 20, (2, 5)),
    "pairs": ((7, 9, 16), (3, 2, 2, 24), (1, 2), (1, 1), 8, (2, 1)),
    "a line of groups": ((30, 16), (5, 1, 32), (3,), (2,), 16, (4,)),
    "space in groups": ((4, 5, 6, 16), (2, 3, 3, 1, 16), (1, 2, 1), (1, 1, 1), 16, (1, 1, 2)),
}
DEEP = {
    "offsets of 8": ((9, 10, 8), (3, 3, 8, 20), (1, 1), (1, 1), 1, (1, 1)),
    "offsets of 24": ((9, 10, 24), (3, 3, 24, 20), (2, 1), (1, 1), 1, (1, 2)),
    "one channel": ((9, 14, 1), (5, 5, 1, 20), (1, 1), (1, 1), 1, (2, 4)),
    "stride 3 in space": ((5, 7, 8, 2), (2, 3, 4, 2, 5), (3, 2, 1), (1, 1, 2), 1, (1, 2, 3)),
}


def exact(spec: Spec, seed: int) -> dict[str, Array]:
    """Operands whose sums are exact, with zeros among them, and some that are not finite."""
    rng = np.random.default_rng(seed)
    found = spec.operands(2)
    for name in "ab":
        size = found[name].shape
        found[name][...] = rng.integers(-3, 4, size)
        found[name][rng.random(size) < 0.03] = rng.choice([np.inf, -np.inf, np.nan])
    return found


def with_one_nan(array: Array) -> bytes:
    """The bytes of an array whose NaNs all have the same sign and payload."""
    return np.where(np.isnan(array), np.float32(np.nan), array).astype("float32").tobytes()


@pytest.mark.one_in(47)
@pytest.mark.parametrize("kind", range(3), ids=KINDS)
@pytest.mark.parametrize("name", {**BORDERS, **NARROW, **DEEP})
def test_what_is_not_finite_meets_no_padding(name: str, kind: int) -> None:
    """It is not multiplied by a zero that is no pixel, for vectors of any width."""
    *shape, groups, before = {**BORDERS, **NARROW, **DEEP}[name]
    one = shifted(specs(*shape, groups=groups)[kind], before)  # type: ignore[misc, arg-type]
    for seed, bits in enumerate(WIDTHS):
        operands = exact(one, seed)
        wanted = with_one_nan(as_interpreted(one, operands, 2)["c"])
        assert with_one_nan(run(WindowProduct(one, bits), operands, 2, 2)["c"]) == wanted


def test_places_say_which_offsets_meet_pixels() -> None:
    one = (1,)
    window = Window((5,), 1, (3,), (5,), one, one, one, one)
    met = [list(window.met(0, place)) for place in range(5)]
    assert met == [[1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1]]
    assert window.is_padded(0) and not replace(window, before=(0,), places=(3,)).is_padded(0)
    assert replace(window, before=(-7,)).met(0, 0) == range(0)
