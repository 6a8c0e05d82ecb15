"""Values are the same if they are equal in type and in every bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.ir.exact import same
from passes.cse import cse

NAN = float("nan")
DIFFERENT = [0, 0.0, -0.0, False, None, "0", b"0", (0,), (0.0,), (-0.0,), [0], NAN, np.float32(0.0)]
DIFFERENT += [np.float32(-0.0), np.zeros(1), -np.zeros(1), np.zeros(1, np.float32), gc.N, 2 * gc.N]


def test_no_two_of_these_are_the_same() -> None:
    for i, a in enumerate(DIFFERENT):
        assert [same(a, b) for b in DIFFERENT] == [i == j for j in range(len(DIFFERENT))], a
    assert same((1, (NAN, "a")), (1, (float("nan"), "a")))


@dataclass(frozen=True)
class Scaled(gc.Op):
    """x * factor."""

    factor: Any

    def infer(self, ins: Sequence[gc.TensorType]) -> gc.TensorType:
        return ins[0]

    def reference(self, ins: Sequence[Any]) -> Any:
        return ins[0] * np.float32(self.factor)


@pytest.mark.parametrize("pair", [(0.0, -0.0), (1, 1.0), (1, True), (0, False)])
def test_ops_of_other_attributes_are_others(pair: tuple[Any, Any]) -> None:
    a, b = map(Scaled, pair)
    assert a != b and {a: "a", b: "b"}[Scaled(pair[0])] == "a"
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3))
    values = [gc.apply(Scaled(one), x) for one in (*pair, *pair)]
    for i, value in enumerate(values):
        net.output(f"y{i}", value)
    outputs = cse(net.graph()).outputs
    assert outputs["y0"] == outputs["y2"] != outputs["y1"] == outputs["y3"]
