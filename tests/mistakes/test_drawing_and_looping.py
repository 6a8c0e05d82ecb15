"""Mistakes with random numbers, distributions, loops and replay buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.mistakes.harness import first_line


def net_of() -> gc.Net:
    net = gc.Net("net")
    net.input("x", (gc.N, 3))
    net.input("pair", (gc.N, 2))
    net.input("ids", (gc.N,), dtype="int64")
    net.input("series", (gc.N, 5, 2))
    return net


def step(x: Any, h: Any) -> Any:
    h = gc.tanh(gc.affine(x, 3) + h)
    return h, h


def scan(step: Any, lengths: Any = None) -> Callable[[gc.Net], object]:
    return lambda net: gc.scan(step, net["series"], net["x"], lengths=lengths)


DECLARING: list[tuple[Callable[[gc.Net], object], str]] = [
    (lambda n: gc.random_normal(n["x"], (2, gc.N)), "noise 'random_normal_1': float32[2, N] is"),
    (
        lambda n: gc.random_normal(n["x"], counter=n["ids"]),
        "random_normal: counter is int64[N]",
    ),
    (
        lambda n: gc.random_uniform(n["x"], counter=3),  # type: ignore[arg-type]
        "random_uniform: counter: int is not a value of the net",
    ),
    (lambda n: gc.Gaussian(n["ids"], 0.0), "Gaussian: mean is int64[N]"),
    (
        lambda n: gc.Gaussian(n["x"], n["pair"]),
        "Gaussian: log_std is float32[N, 2], the mean float32[N, 3]",
    ),
    (
        lambda n: gc.Gaussian(n["x"], "a"),  # type: ignore[arg-type]
        "Gaussian: log_std: str is not a value of the net",
    ),
    (
        lambda n: n.state("seen", (3,), np.ones(2)),
        "state 'seen': the array given as initial value has shape (2,), it must be (3,)",
    ),
    (scan(step, lengths=3), "scan: lengths: int is not a value of the net"),
    (
        scan(lambda x: x),
        "scan: the step cannot be called with 1 slice and 1 carried value: too many positional",
    ),
    (
        lambda n: gc.scan(step, n["series"]),
        "scan: the step cannot be called with 1 slice and 0 carried values: missing a required",
    ),
    (scan(3), "scan: the step cannot be called with 1 slice and 1 carried value: 3 is not a"),
]


@pytest.mark.parametrize(("call", "sentence"), DECLARING)
def test_declaring(call: Callable[[gc.Net], object], sentence: str) -> None:
    net = net_of()
    before = str(net)
    with pytest.raises(gc.GraphError) as caught:
        call(net)
    assert first_line(caught.value, __file__).startswith(sentence)
    assert str(net) == before


def test_a_replay_buffer_refuses_what_a_step_would() -> None:
    net = net_of()
    net.loss("loss", gc.softmax_loss(gc.affine(net["x"], 2), net["ids"], ignore=-1))
    plan = gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1), backend="numpy")
    buffer = gc.ReplayBuffer(plan, 8)
    good: Any = {"x": np.ones((2, 3)), "ids": [1, -1], "pair": np.ones((2, 2))}
    good["series"] = np.ones((2, 5, 2))
    mistakes: list[tuple[Any, str]] = [
        ({"ids": [0, 5]}, "input 'ids' holds the label 5 at row 1, there are 2 classes"),
        ({"x": [[1, 2, 3], [1]]}, "input 'x' is not an array: its parts have different lengths"),
    ]
    for wrong, sentence in mistakes:
        with pytest.raises(gc.FeedError) as caught:
            buffer.add({**good, **wrong})
        assert first_line(caught.value, __file__) == sentence
    assert len(buffer) == 0
    buffer.add(good)
    assert len(buffer) == 2
    assert np.isfinite(gc.Executor(plan).step(buffer.sample(4)))
