"""What a plan says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.ir.tensor_type import N, TensorType
from graphc.kernels.traits import reason_for_call
from graphc.ops import OPS
from tests.backends.loop_nets import called

native = pytest.mark.needs("native")
both = pytest.mark.parametrize("backend", ["numpy", pytest.param("native", marks=native)])
SGD = gc.SGD(lr=0.1)


@dataclass(frozen=True)
class Softplus(gc.Op):
    """A user's op: enough to run, and to differentiate."""

    name = "own_softplus"

    def infer(self, ins: Any) -> TensorType:
        found: TensorType = ins[0]
        return found

    def reference(self, ins: Any) -> Any:
        return np.logaddexp(0, ins[0])

    def grad(self, b: Any, ins: Any, out: Any, dout: Any) -> Any:
        return (dout * gc.sigmoid(ins[0]),)


def network() -> gc.Net:
    net = gc.Net("net")
    x, z = net.input("x", (gc.N, 6)), net.input("z", (gc.N, 3, 4))
    h = gc.apply(Softplus(), gc.affine(x, 4), name="soft")
    net.output("product", gc.matmul(z, gc.reshape(h, (gc.N, 4, 1)), name="product"))
    net.output("any", gc.max(z > 0, axis=1, name="any"))
    for i in range(5):
        net.output(f"sums{i}", gc.cumsum(z + i, axis=2, name=f"sums{i}"))
    net.loss("loss", gc.mean(h * h))
    net.parameter("idle", (3,))
    return net


@both
def test_a_plan_says_what_runs_by_its_reference_rule_and_why(backend: str) -> None:
    plan = gc.compile(network(), batch=8, optimizer=SGD, backend=backend)
    assert plan.backend == backend
    first, *rest = plan.report().splitlines()
    assert first == f"plan of 'net' for up to 8 rows on {backend}"
    programs, lines = rest[: len(plan.programs)], rest[len(plan.programs) :]
    for name, text in zip(plan.programs, programs, strict=True):
        assert text.startswith(f"  {name}: {len(plan.programs[name].graph)} nodes, ")
    assert programs[0].endswith(" kernels, 7 calls")
    assert "call" not in programs[-1]
    assert lines == [
        "  own_softplus runs its reference rule: it has no scalar rule (soft)",
        "  max runs its reference rule: no generated form for bool[N, 3, 4] (any)",
        "  cumsum runs its reference rule: it has no scalar rule (sums0, sums1, sums2 and 2 more)",
        "  not trained: idle",
    ]


def test_reference_rules_inside_loops_are_listed() -> None:
    report = gc.compile(called("float32"), batch=8, backend="numpy").report()
    assert "2 calls, of which 2 in loops" in report
    assert "\n  cumsum runs its reference rule: it has no scalar rule (cumsum_1, sums" in report


@both
def test_a_plan_of_kernels_alone_lists_no_calls(backend: str) -> None:
    net = gc.Net("net")
    net.output("out", gc.relu(gc.affine(net.input("x", (gc.N, 4)), 3)))
    plan = gc.compile(net, batch=8, backend=backend)
    lines = plan.report().splitlines()
    assert len(lines) == 1 + len(plan.programs)
    assert lines[1].endswith(" nodes, 1 kernel")


def test_parameters_that_are_not_trained_are_named() -> None:
    plan = gc.compile(network(), batch=8, optimizer=SGD, wrt="*.bias")
    assert plan.report().endswith("\n  not trained: affine_1.weight, idle")


def test_reasons() -> None:
    matrix, cube = TensorType((N, 4), "float32"), TensorType((N, 3, 4), "float32")
    assert reason_for_call(Softplus(), [matrix]) == "it has no scalar rule"
    softmax = OPS["softmax"](axis=1)  # type: ignore[call-arg]
    assert reason_for_call(softmax, [cube]) == "no generated form for float32[N, 3, 4]"
