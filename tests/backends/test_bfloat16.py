"""Products of bfloat16 have the bits of plain loops on every backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest

import graphc as gc
from graphc.features.precision.bfloat16 import nearest, rounded, widened
from graphc.ir.forms import TermOrder
from graphc.ir.op import Array
from graphc.ops.conv import ConvDw
from graphc.ops.rounding import RoundBfloat16
from passes.set_precision import Precision
from tests.extras import EACH_BACKEND
from tests.together import together

each_backend = pytest.mark.parametrize("name", EACH_BACKEND)
each_precision = pytest.mark.parametrize("precision", ["bf16", "bf16_blocks"])


def numbers(shape: tuple[int, ...], seed: int) -> Array:
    """Return float32 numbers of several sizes, some of them ties of bfloat16."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal(shape) * 2.0 ** rng.integers(-6, 6, shape)).astype(np.float32)
    words = x.view(np.uint32)
    ties = np.where(rng.random(shape) < 0.2, words & 0xFFFF0000 | 0x8000, words)
    return ties.astype(np.uint32).view(np.float32)


def as_rounded(x: Array) -> Array:
    """Return numbers rounded to bfloat16, in float64."""
    return widened(rounded(x)).astype(np.float64)


def summed(terms: Sequence[tuple[Any, Any]], run: int) -> Any:
    """Return a sum of products of rounded numbers, each added with one rounding.

    Many sums at once if the factors are arrays.  A sum of a float32 and of such a product in
    float64, rounded to float32, is rounded once.
    """
    total = np.float32(0)
    for start in range(0, len(terms), run):
        part = terms[start : start + run]
        for even in range(0, len(part), 2):
            for a, b in reversed(part[even : even + 2]):
                total = (total + a * b).astype(np.float32)
    return total


def in_blocks(terms: Sequence[tuple[Any, Any]], run: int) -> Any:
    """Return the same in blocks of 32 terms, whose even and odd terms are summed apart."""
    total = np.float32(0)
    for first in range(0, len(terms), run):
        part = terms[first : first + run]
        for start in range(0, len(part), 32):
            block = part[start : start + 32]
            even, odd = (summed(block[half::2], 1) for half in (0, 1))
            total = total + (even + odd)
    return total


def dot(terms: Sequence[tuple[Any, Any]], run: int, precision: str) -> Any:
    """Return the sum of products in the order of a precision."""
    return (in_blocks if precision == "bf16_blocks" else summed)(terms, run)


def product(a: Array, b: Array, precision: str = "bf16") -> Any:
    """Return the product of two matrices by a loop."""
    x, y = as_rounded(a), as_rounded(b)
    terms = [(column[:, None], row) for column, row in zip(x.T, y, strict=True)]
    return dot(terms, max(len(y), 1), precision)


class Case(NamedTuple):
    """A product of an input (N, ...) and a weight."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    make: Callable[[gc.Value, gc.Value], gc.Value]


ROWS = 5
CASES = {
    "one": Case((1,), (1, 1), gc.matmul),
    "odd": Case((7,), (7, 3), gc.matmul),
    "wide": Case((70,), (70, 65), gc.matmul),
    "block": Case((32,), (32, 33), gc.matmul),
    "part": Case((31,), (31, 3), lambda x, w: gc.relu(gc.affine(x, weight=w))),
    "tall": Case((13, 6), (6, 2), gc.matmul),
    "stack": Case((2, 4, 5), (2, 5, 6), gc.matmul),
    "grey": Case((1, 6, 5), (5, 1, 3, 2), gc.conv),
    "colour": Case((3, 6, 5), (5, 3, 3, 2), lambda x, w: gc.conv(x, w, stride=2, padding=1)),
    "point": Case((7, 3, 3), (5, 7, 1, 1), gc.conv),
    "same": Case((4, 5, 4), (2, 4, 3, 3), lambda x, w: gc.conv(x, w, padding=1)),
    "deep": Case((35, 3, 2), (34, 35, 2, 2), gc.conv),
}


@cache
def results(name: str, precision: Any = "bf16") -> dict[str, dict[str, Array]]:
    """Return, for each case, the arrays x, w, y, and the cotangents dy, dx and dw."""
    net = gc.Net("products")
    for case, (of_x, of_w, make) in CASES.items():
        x = net.input(f"x_{case}", (gc.N, *of_x))
        net.output(case, make(x, net.parameter(f"w_{case}", of_w)))
    wrt = [f"{part}_{case}" for case in CASES for part in "xw"]
    plan = gc.compile(net, batch=ROWS, wrt=wrt, backend=name, precision={"*": precision})
    ex = gc.Executor(plan)
    feeds = {f"x_{case}": numbers((ROWS, *one.x), 1) for case, one in CASES.items()}
    for case, one in CASES.items():
        ex.parameters[f"w_{case}"] = numbers(one.w, 2)
    y = ex.forward(feeds, train=True)
    dy = {case: numbers(y[case].shape, 3) for case in CASES}
    d = ex.backward(**dy)
    return {
        case: {
            **{"x": feeds[f"x_{case}"], "w": ex.parameters[f"w_{case}"], "y": y[case]},
            **{"dy": dy[case], "dx": d[f"x_{case}"], "dw": d[f"w_{case}"]},
        }
        for case in CASES
    }


@each_backend
@each_precision
@pytest.mark.parametrize("case", ["one", "odd", "wide", "block"])
def test_matrices(name: str, precision: str, case: str) -> None:
    x, w, y, dy, dx, dw = results(name, precision)[case].values()
    assert np.array_equal(y, product(x, w, precision))
    assert np.array_equal(dx, product(dy, w.T, precision))
    assert np.array_equal(dw, product(x.T, dy, precision))


@each_backend
@each_precision
def test_affine_maps_with_a_relu(name: str, precision: str) -> None:
    x, w, y, dy, _, dw = results(name, precision)["part"].values()
    assert np.array_equal(y, np.maximum(product(x, w, precision), 0))
    assert np.array_equal(dw, product(x.T, np.where(y > 0, dy, 0), precision))


@each_backend
@each_precision
def test_many_rows(name: str, precision: str) -> None:
    x, w, y, dy, dx, dw = results(name, precision)["tall"].values()
    rows, sent = x.reshape(-1, 6), dy.reshape(-1, 2)
    assert np.array_equal(y.reshape(-1, 2), product(rows, w, precision))
    assert np.array_equal(dx.reshape(-1, 6), product(sent, w.T, precision))
    assert np.array_equal(dw, product(rows.T, sent, precision))


@each_backend
@each_precision
def test_stacks_of_matrices(name: str, precision: str) -> None:
    x, w, y, dy, dx, _ = results(name, precision)["stack"].values()
    for n, m in np.ndindex(ROWS, 2):
        assert np.array_equal(y[n, m], product(x[n, m], w[m], precision))
        assert np.array_equal(dx[n, m], product(dy[n, m], w[m].T, precision))


SHAPES = {"grey": (1, 0), "colour": (2, 1), "same": (1, 1), "point": (1, 0), "deep": (1, 0)}
"""The stride and the padding of each convolution."""


@each_backend
@each_precision
@together("case", SHAPES)
def test_a_convolution_counts_the_channels_of_a_pixel(name: str, precision: str, case: str) -> None:
    x, w, y, *_ = results(name, precision)[case].values()
    (stride, padding), filters = SHAPES[case], as_rounded(w)
    images = as_rounded(np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)]))
    for n, i, j in np.ndindex(len(y), *y.shape[2:]):
        window = images[n, :, i * stride :, j * stride :]
        terms: list[tuple[Any, Any]] = []
        for p, q in np.ndindex(*w.shape[2:]):
            terms += zip(window[:, p, q], filters[:, :, p, q].T, strict=True)
        assert np.array_equal(y[n, :, i, j], dot(terms, len(window), precision))


@each_backend
@each_precision
@together("case", SHAPES)
def test_the_gradient_of_a_filter_adds_places_in_order(
    name: str, precision: str, case: str
) -> None:
    x, w, _, dy, _, dw = results(name, precision)[case].values()
    (stride, padding), sent = SHAPES[case], as_rounded(dy)
    images = as_rounded(np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)]))
    for p, q in np.ndindex(*w.shape[2:]):
        places = np.ndindex(ROWS, *dy.shape[2:])
        pixels = ((n, i * stride + p, j * stride + q, i, j) for n, i, j in places)
        terms = [(images[n, :, up, left], sent[n, :, i, j, None]) for n, up, left, i, j in pixels]
        run = len(terms) // ROWS if precision == "bf16_blocks" else 1
        if case == "point":
            run = len(terms)  # a product of matrices
        assert np.array_equal(dw[:, :, p, q], dot(terms, run, precision))


@pytest.mark.parametrize(("precision", "order"), [("bf16", "pairs"), ("bf16_blocks", "blocks")])
@pytest.mark.parametrize("case", ["grey", "point"])
def test_the_reference_of_a_filter_gradient_has_these_bits(
    case: str, precision: str, order: TermOrder
) -> None:
    x, w, _, dy, _, dw = results("numpy", precision)[case].values()
    channels, size, *filter_size = w.shape
    op = ConvDw((*filter_size, size, channels), (1, 1), (1, 1), order=order)
    found = op.reference([rounded(np.moveaxis(image, 1, -1)) for image in (x, dy)])
    assert np.array_equal(np.transpose(found, (3, 2, 0, 1)), dw)


@each_backend
@each_precision
@together("case", SHAPES)
def test_the_gradient_of_images_adds_the_last_offset_first(
    name: str, precision: str, case: str
) -> None:
    x, w, _, dy, dx, _ = results(name, precision)[case].values()
    (stride, padding), sent, filters = SHAPES[case], as_rounded(dy), as_rounded(w)
    for n, i, j in np.ndindex(len(x), *x.shape[2:]):
        terms: list[tuple[Any, Any]] = []
        for p, q in reversed([*np.ndindex(*w.shape[2:])]):
            (up, no), (left, nor) = divmod(i + padding - p, stride), divmod(j + padding - q, stride)
            if not no and not nor and 0 <= up < dy.shape[2] and 0 <= left < dy.shape[3]:
                terms += zip(sent[n, :, up, left], filters[:, :, p, q], strict=True)
        assert np.all(dx[n, :, i, j] == dot(terms, len(w), precision))


def convolved(name: str, seed: int) -> list[Array]:
    """Return a random convolution in blocks, and the gradients of its images and its filter."""
    rng = np.random.default_rng(seed)
    rank, rows = int(rng.choice([1, 2, 2, 3])), int(rng.choice([1, 2, 5]))
    channels, filters = rng.choice([1, 3, 16, 17, 32, 35, 64, 70], 2).tolist()
    size = rng.integers(1, 4, rank)
    stride, dilation, padding = (int(rng.choice(some)) for some in ((1, 2), (1, 1, 2), (0, 0, 1)))
    space = (size - 1) * dilation + 1 + rng.integers(0, {1: 50, 2: 9, 3: 3}[rank], rank)
    net = gc.Net("images")
    x = net.input("x", (gc.N, channels, *space.tolist()))
    of_w = filters, channels, *size.tolist()
    w = net.parameter("w", of_w)
    net.output("y", gc.conv(x, w, stride=stride, padding=padding, dilation=dilation))
    options: Any = {"precision": {"*": "bf16_blocks"}, "threads": 1 if name == "numpy" else 2}
    ex = gc.Executor(gc.compile(net, batch=rows, wrt=["x", "w"], backend=name, **options))
    ex.parameters["w"] = numbers(of_w, 2)
    y = ex.forward(x=numbers((rows, channels, *space), 1), train=True)["y"]
    gradients = ex.backward(y=numbers(y.shape, 3))
    return [y, gradients["x"], gradients["w"]]


@pytest.mark.one_in(20)
@pytest.mark.parametrize("seed", range(80))
@pytest.mark.needs("native")
def test_random_convolutions_in_blocks_have_the_bits_of_numpy(seed: int) -> None:
    for found, wanted in zip(convolved("native", seed), convolved("numpy", seed), strict=True):
        assert found.tobytes() == wanted.tobytes()


def matrix_product(name: str, x: Array, w: Array, precision: Any) -> Array:
    """Return a product of matrices on a backend."""
    net = gc.Net("product")
    value = net.input("x", (gc.N, x.shape[1]))
    net.output("y", gc.matmul(value, net.constant(w)))
    plan = gc.compile(net, batch=len(x), backend=name, precision={"*": precision})
    return gc.Executor(plan).forward(x=x)["y"]


@each_backend
@each_precision
def test_special_numbers(name: str, precision: str) -> None:
    x = [[2.0**-57, np.inf], [2.0**-56, 1], [np.nan, 1], [-0.0, 3e38], [2.0**127, -(2.0**126)]]
    w = np.array([[2.0**-56, 2.0**60, 2], [1, 2, 1]], np.float32)
    found = matrix_product(name, np.array(x, np.float32), w, precision)
    large = as_rounded(np.array(3e38, np.float32))
    both = np.inf if precision == "bf16_blocks" else 2.0**127 + 2.0**126
    wanted = [
        [np.inf, np.inf, np.inf],
        [2.0**-112 + 1, 18, 1],
        [np.nan, np.nan, np.nan],
        [large, np.inf, large],
        [-(2.0**126), np.inf, both],  # 2**128 is not finite in float32
    ]
    assert np.array_equal(found, np.array(wanted, np.float32), equal_nan=True)


@pytest.mark.slow
@pytest.mark.needs("native", "c")
@pytest.mark.parametrize(("threads", "to"), [(1, "bf16"), (2, "bf16"), (2, "bf16_blocks")])
def test_training_has_the_same_bits_on_native_and_in_c(threads: int, to: Precision) -> None:
    x, y = numbers((7, 3, 6, 5), 4), np.arange(7) % 4
    found = []
    for name in ("native", "c"):
        net = gc.Net("images")
        h = gc.relu(gc.conv2d(net.input("x", (gc.N, 3, 6, 5)), 4, 3, padding=1))
        rows, _ = gc.lstm(gc.reshape(h, (gc.N, 6, 20)), 5)
        labels = net.input("y", (gc.N,), dtype="int64")
        net.loss("loss", gc.softmax_loss(gc.affine(rows, 4), labels))
        plan = gc.compile(
            net,
            batch=7,
            optimizer=gc.Adam(),
            backend=name,
            threads=threads,
            precision={"*": to},
        )
        ex = gc.Executor(plan, seed=1)
        for _ in range(5):
            ex.step(x=x, y=y)
        found.append(ex.parameters.flat().tobytes())
    assert found[0] == found[1]


@each_backend
def test_rounding_that_stays_in_float32_has_the_bits_of_its_rule(name: str) -> None:
    net = gc.Net("rounding")
    near = gc.apply(RoundBfloat16(), net.input("x", (gc.N, 40)) * 1.0)
    net.output("near", near)
    net.loss("loss", gc.sum(near * near))
    ex = gc.Executor(gc.compile(net, batch=60, wrt="x", backend=name))
    x = numbers((60, 40), 5)
    x[0, :8] = np.nan, np.inf, -np.inf, 0, -0.0, 3.4e38, 1.2e-38, 1e-20
    found = ex.forward(x=x)["near"]
    np.testing.assert_array_equal(found.view(np.uint32), nearest(x).view(np.uint32))
    x[0] = 1
    ex.forward(x=x, train=True)
    np.testing.assert_array_equal(ex.backward()["x"], 2 * nearest(x))  # as if it did not round
