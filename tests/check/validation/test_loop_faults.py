"""Faults planted in loops: in their gradient rule, their lengths and their memory."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

import graphc as gc
from graphc.check.validation import ValidationError, validate_pass
from graphc.compiler import driver
from graphc.ir.step_graph import nested as nodes_within
from passes.specialize import Specialize
from tests.check.loops import derived, mixed, nested, several
from tests.check.validation.faults import Fault, plant

GRADIENT, LOWERED = "graphc.ops.loops.gradient:_Gradient", "graphc.features.loops.lowering"
STEPS, STEP = "graphc.features.loops.bind:_Loop", "graphc.ir.step_graph:StepGraph"

# fmt: off
FAULTS = (
    # the fault, a net that shows it, the function; what is right, what is wrong; what catches it
    Fault("the gradient runs the steps in the same order", several, f"{GRADIENT}._end",
          "reverse = not self.op.reverse", "reverse = self.op.reverse", "backward: gradient"),
    Fault("the gradient of the last values is forgotten", several, f"{GRADIENT}._given",
          "self.initial[self.arriving[result]] = dout", "pass", "backward: gradient"),
    Fault("only the first cotangent of a value counts", mixed, "graphc.ops.loops.gradient:_total",
          "total = total + value", "pass", "backward: gradient"),
    Fault("the gradient of an initial value is forgotten", nested, f"{GRADIENT}._end",
          'result, kind = self.arriving[name], "last"', "return None", "backward: gradient"),
    Fault("a value that is kept is that of the last step", several, f"{GRADIENT}._stack",
          "name = self.b.unique", "op = replace(op, reverse=not op.reverse); name = self.b.unique",
          "backward: gradient"),
    Fault("a derivative in a step is twice it", derived, "graphc.ops.autodiff:Gradient.expand",
          "constant(b, 1.0", "constant(b, 2.0", "specialize: grad"),
    Fault("a layer in a step with a derivative is another", derived,
          "graphc.ops.linalg:AffineLayer.expand", "= ins[0], ins[1]", "= ins[0] * 2, ins[1]",
          "specialize: output"),
    Fault("a loop runs a step too few for its longest row", several,
          "graphc.kernels.scan:ScanKernel.count", "int(view(self.lengths).max(initial=0))",
          "int(view(self.lengths).max(initial=0)) - 1", "program"),
    Fault("lengths are forgotten where a loop is split", several, "passes.split_scans:_Split._part",
          "if step.lengths and step.lengths not in whole", "if False", "verify"),
    Fault("a carried value stays that of the first step", mixed, f"{STEPS}._step",
          "np.copyto(feed, result)", "pass", "program"),
    Fault("a loop's values lie over each other", nested, f"{LOWERED}:_workspace",
          "offset += align(buffer.type.nbytes(program.capacity))", "pass", "proof"),
    Fault("the values of a loop lie over its arena", mixed, f"{LOWERED}:_workspace",
          "offset = align(program.arena.nbytes)", "offset = 0", "proof"),
    Fault("the workspace has no room for the last slot", several, f"{LOWERED}:_workspace",
          "return offset, slots", "return max(offset - 64, 0), slots", "proof"),
)
# fmt: on


@pytest.mark.one_in(8)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_planted_fault_is_caught(
    fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphc.check.validation.reproduce.LIMIT", 0)
    net = fault.net()
    passes = plant(fault, monkeypatch)
    options = {"batch": 8, "optimizer": gc.SGD(lr=0.1), "backend": "numpy", "passes": passes}
    if fault.caught == "proof":
        unverified = inspect.unwrap(driver.build_program)
        monkeypatch.setattr(driver, "build_program", unverified)
        report = gc.compile(net, **options).verify()
        assert not report.ok
        return
    with pytest.raises((gc.GraphError, ValueError, KeyError)) as caught:
        gc.compile(net, **options, validate=tmp_path)
    if fault.caught != "verify":
        assert isinstance(caught.value, ValidationError), caught.value
        step, _, what = fault.caught.partition(": ")
        assert step in str(caught.value) and what in str(caught.value)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("make", [several, mixed, nested])
def test_nets_with_loops_are_valid(make: Callable[[], gc.Net], tmp_path: Path) -> None:
    gc.compile(make(), batch=5, optimizer=gc.Adam(), backend="numpy", validate=tmp_path)


@pytest.mark.parametrize("train", [False, True])
def test_derivatives_in_steps_are_valid(train: bool) -> None:
    made = validate_pass(Specialize(train), derived().graph(), batches=(1, 3))
    assert not any(node.op.is_layer for node in nodes_within(made))
