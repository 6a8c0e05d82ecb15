"""Which outputs of all rows are made up of those of parts, where loops compute them."""

from __future__ import annotations

import pytest

import graphc as gc
from passes.specialize import Specialize
from tests.tools.fuzz.whole import whole_outputs


@pytest.mark.parametrize(("axis", "whole"), [(1, {"mean"}), (0, set())])
def test_a_loop_may_work_along_rows(axis: int, whole: set[str]) -> None:
    net = gc.Net("loop")
    x = net.input("x", (gc.N, 3, 2))

    def step(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        return gc.softmax(x + h, axis=axis), h

    rows, _ = gc.scan(step, x, x[:, 0])
    net.output("mean", gc.mean(rows))
    assert whole_outputs(Specialize(train=False)(net.graph())) == whole
