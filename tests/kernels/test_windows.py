"""Windows over images, by the interpreter and as text, and the borders that they deal with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import graphc as gc
from graphc.ir.build import Value
from graphc.ir.forms import Window
from graphc.kernels.interpret import run
from graphc.kernels.kernel import Gemm
from graphc.kernels.program import Program
from graphc.kernels.text import kernel_text
from graphc.ops.conv import Conv
from tests.backends.native.window_function import Spec, specs
from tests.kernels.test_program_text import instructions, native
from tests.ops.test_contract import close

SHAPES = (
    ((6, 5, 3), (3, 2, 3, 4), (1, 1), (1, 1)),
    ((7, 8, 2), (3, 3, 2, 3), (2, 3), (1, 2)),
    ((9, 2), (3, 2, 5), (2,), (3,)),
    ((3, 4, 4, 2), (2, 2, 1, 2, 3), (1, 2, 1), (1, 1, 2)),
    ((4, 4, 3), (1, 1, 3, 2), (1, 1), (1, 1)),
)


@pytest.mark.parametrize("kind", range(3), ids=("y", "dx", "dw"))
@pytest.mark.parametrize("shape", SHAPES)
def test_a_convolution_is_a_product(shape: Sequence[Sequence[int]], kind: int) -> None:
    spec: Spec = specs(*shape, dtype="float64")[kind]  # type: ignore[misc, arg-type]
    arrays = spec.operands(3)
    run(spec.kernel(), arrays, 3)
    assert close(arrays["c"], spec.op.at(3).reference([arrays["a"], arrays["b"]]))


IN_GROUPS = (
    ((5, 6, 6), (2, 3, 1, 6), (1, 2), (1, 1), 6),
    ((5, 6, 6), (3, 2, 2, 9), (2, 1), (1, 2), 3),
    ((9, 4), (3, 2, 2), (2,), (3,), 2),
    ((4, 4, 4), (1, 1, 2, 6), (1, 1), (1, 1), 2),
)


@pytest.mark.parametrize("kind", range(3), ids=("y", "dx", "dw"))
@pytest.mark.parametrize("shape", IN_GROUPS)
def test_so_is_one_in_groups(shape: Sequence[Sequence[int]], kind: int) -> None:
    *sizes, groups = shape
    spec: Spec = specs(*sizes, dtype="float64", groups=groups)[kind]  # type: ignore[misc, arg-type]
    arrays = spec.operands(3)
    run(spec.kernel(), arrays, 3)
    assert close(arrays["c"], spec.op.at(3).reference([arrays["a"], arrays["b"]]))


def test_sizes() -> None:
    """Of images that are read where they lie, and of copies with zeros."""
    direct = Window((5, 7), 3, (3, 2), (3, 3), (1, 2), (1, 1), (0, 0), (1, 1))
    assert (direct.count, direct.depth, direct.pixels, direct.extent) == (9, 18, 105, (5, 6))
    assert direct.is_direct
    assert (direct.pitches, direct.steps, direct.run) == ((21, 3), (21, 6), 6)
    assert list(direct.columns[:7]) == [0, 1, 2, 3, 4, 5, 21]
    around = Window((5, 7), 3, (3, 2), (5, 4), (1, 2), (1, 1), (1, 0), (1, 1))
    assert not around.is_direct
    assert (around.held, around.pitches) == ((7, 8), (24, 3))
    dilated = Window((9, 9), 2, (2, 2), (3, 3), (1, 1), (2, 3), (0, 0), (1, 1))
    assert (dilated.run, dilated.reach) == (2, ((2, 36), (2, 6)))
    assert list(dilated.columns) == [0, 1, 6, 7, 36, 37, 42, 43]
    grouped = Window((5, 7), 3, (3, 2), (3, 3), (1, 2), (1, 1), (0, 0), (1, 1), groups=4)
    assert (grouped.depth, grouped.pixel, grouped.pixels) == (18, 12, 420)
    assert (grouped.pitches, grouped.run, grouped.reach) == ((84, 12), 3, ((3, 84), (2, 12)))


def test_text() -> None:
    y, dx, dw = (s.kernel() for s in specs((9, 9, 4), (3, 3, 4, 8), (2, 1), (1, 2)))
    assert kernel_text(y) == (
        "gemm 20*N x 8  float32 partition=rows  "
        "product = 3x3 window stride 2x1 dilation 1x2(a) @ b over 36\n"
        "  c = product\n"
    )
    head = "gemm 81*N x 4  float32 partition=rows  "
    assert kernel_text(dx).startswith(
        head + "product = 3x3 window dilation 1x2 before 2x4 apart 2x1(a) @ b.T over 72\n"
    )
    assert "product = 3x3 window stride 2x1 dilation 1x2(a).T @ b over 20*N\n" in kernel_text(dw)


def test_text_of_groups() -> None:
    kernels = [s.kernel() for s in specs((9, 9, 4), (3, 3, 2, 8), (2, 1), (1, 1), groups=2)]
    assert [kernel_text(kernel).splitlines()[0] for kernel in kernels] == [
        "gemm 28*N x 8  float32 partition=rows  "
        "product = 3x3 window stride 2x1 in 2 groups(a) @ b over 18",
        "gemm 81*N x 4  float32 partition=rows  "
        "product = 3x3 window before 2x2 apart 2x1 in 2 groups(a) @ b.T over 36",
        "gemm 18 x 8  float32 partition=rows  "
        "product = 3x3 window stride 2x1 in 2 groups(a).T @ b over 28*N",
    ]


# ---------------------------------------------------------------------- borders


def padded(*more: str) -> gc.Net:
    """A convolution of a padded image; `more` says who else looks at it."""
    net = gc.Net("padded")
    x, y = net.input("x", (gc.N, 6, 6, 2)), net.input("y", (gc.N,), dtype="int64")
    h = gc.tanh(x * net.parameter("scale", (2,)), name="bent")
    pads: list[object] = [0, (1, 2), 1, 0]
    around = gc.apply(_pad(pads, 0.5 if "half" in more else 0.0), h, name="around")
    if "output" in more:
        net.output("around", around)
    kernel = net.parameter("w", (3, 3, 2, 4))
    seen: Value = gc.apply(Conv((1, 1), (1, 1)), around, kernel, name="seen")
    if "sum" in more:
        seen = seen + gc.sum(around, (1, 2, 3), keepdims=True)
    net.loss("loss", gc.softmax_loss(gc.affine(seen, 3), y))
    return net


def _pad(pads: Sequence[object], value: float) -> gc.Op:
    from graphc.ops.pad import Pad

    pairs = tuple(p if isinstance(p, tuple) else (p, p) for p in pads)
    return Pad(pairs, value)  # type: ignore[arg-type]


def step(net: gc.Net) -> Program:
    return native(net, "step", gc.SGD(lr=0.1))


def test_windows_take_in_pads_and_cuts() -> None:
    """Nothing is copied, and no cotangent of a boundary is computed."""
    text = instructions(step(padded()))
    assert "3x3 window before 1x1(bent) @ w over 18" in text
    assert "3x3 window before 1x1(bent).T @ d_affine_1.flat over 42*N" in text
    assert (
        "gemm 36*N x 2" in text and "3x3 window before 1x1(d_affine_1.flat) @ w.T over 36" in text
    )
    assert "places=" not in text and "around" not in text


@pytest.mark.parametrize("reader", ["half", "output", "sum"])
def test_a_pad_that_others_look_at_is_made(reader: str) -> None:
    """And one whose boundary is no 0."""
    program = step(padded(reader))
    assert "window(around) @ w" in instructions(program)
    assert "around" in program.buffers
    assert program.verify().ok


def test_borders_change_no_number() -> None:
    arrays = {"x": np.random.default_rng(0).standard_normal((5, 6, 6, 2)), "y": np.arange(5) % 3}
    losses = []
    for net in (padded(), padded("output")):
        plan = gc.compile(net, batch=5, optimizer=gc.SGD(lr=0.1), backend="native")
        ex = gc.Executor(plan, seed=1)
        losses.append([ex.step(arrays) for _ in range(3)])
    assert losses[0] == losses[1]


def test_a_window_of_weights_that_are_images_too() -> None:
    """x as both factors: its pixels by the window, its numbers as a matrix."""
    net = gc.Net("own")
    h = net.parameter("h", (4, 3, 3, 2))
    y = gc.apply(Conv((1, 1), (1, 1)), h, gc.transpose(h, (1, 2, 3, 0)), name="y")
    net.output("y", y)
    (gemm,) = (i.body for i in native(net, "infer").instrs if isinstance(i.body, Gemm))
    assert (gemm.m, gemm.n, gemm.k) == (4, 4, 18)
