"""Plans large enough that two threads share each kind of kernel, with odd rows and columns."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import graphc as gc
from graphc.check.validation import ValidationError
from graphc.check.validation.plans import validate_plan
from tests.check.validation.faults import Fault, plant

ROWS = 67


def mixed_rows() -> gc.Net:
    """A loop of whose steps rows are mixed, so that threads wait for each other within it."""
    net = gc.Net("mixed_rows")
    x, h0 = net.input("x", (gc.N, 3, 41)), net.input("h0", (gc.N, 41))

    def step(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        h = gc.tanh(gc.affine(x + h, 41))
        h = h - gc.mean(h, 0, keepdims=True)
        return h, h

    net.output("last", gc.scan(step, x, h0)[1])
    return net


def several_kernels() -> gc.Net:
    """A product, sums along rows and columns, a stack of products, and a convolution."""
    net = gc.Net("several_kernels")
    h = gc.relu(gc.affine(net.input("x", (gc.N, 19)), 37))
    net.output("shares", gc.softmax(h))
    net.output("centred", h - gc.mean(h, 0))
    stack = gc.reshape(gc.affine(h, 4 * 33), (gc.N, 4, 33))
    net.output("products", gc.matmul(stack, gc.transpose(stack, (0, 2, 1))))
    net.output("image", gc.conv2d(net.input("image", (gc.N, 3, 7, 5)), 9, 3, padding=1))
    return net


@pytest.mark.parametrize("net", [mixed_rows, several_kernels], ids=lambda net: net.__name__)
def test_two_threads_compute_what_one_does(net: Callable[[], gc.Net]) -> None:
    assert validate_plan(gc.compile(net(), batch=ROWS, backend="native", threads=2)).count.values


def test_a_loop_that_each_thread_runs_by_itself_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    where = "graphc.backends.native.program:_Emission._segment"
    old, new = "self._turn(function, i) if number in loops else", "'-1' if number in loops else"
    plant(Fault("turns", mixed_rows, where, old, new, ""), monkeypatch)
    rows = ROWS + 4  # for which no code is kept
    plan = gc.compile(mixed_rows(), batch=rows, backend="native", threads=2)
    with pytest.raises(ValidationError) as caught:
        validate_plan(plan)
    assert caught.value.layer == "threads"
