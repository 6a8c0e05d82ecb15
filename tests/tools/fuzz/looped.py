"""Loops in more digits: the nodes of a step one after the other, for each step in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.ir.op import Array
from graphc.ops.loops.op import Scan
from graphc.ops.shape import StopGradient

if TYPE_CHECKING:
    from tests.tools.fuzz.wide import Noise, Run

Runs = Callable[[Mapping[str, Array]], "Run"]
"""Runs a step on its inputs."""


class Steps:
    """What the steps of a loop computed, which all of its results are made of."""

    def __init__(self, op: Scan, ins: Sequence[Array], run: Runs, name: str) -> None:
        self.op, self.values = op, dict[int, Mapping[str, Array]]()
        self.kinks: dict[str, Array] = {}
        self.factors: list[Array] = []
        step, first = op.step, len(op.step.sequences)
        self.carried = dict(zip(step.inputs[first:], ins[first:], strict=True))
        for t in op.order(ins):
            given = {k: np.asarray(x[t]) for k, x in zip(step.sequences, ins, strict=False)}
            if step.number:
                given[step.number] = np.asarray(t, np.int32)
            found = run({**self.carried, **given})
            self.carried |= {one.input: found.values[one.next] for one in step.carried}
            self.values[t] = found.values
            self.kinks |= {f"{name}[{t}].{k}": gap for k, gap in found.kinks.items()}
            self.factors += found.factors

    def result(self, op: Scan, empty: Array, noise: Noise | None, scale: float) -> Array:
        """One result of the loop; `empty` is that of no step."""
        if op.kind == "last":
            return self.carried[op.result]
        if op.kind == "stacked":
            made = np.stack([empty] * op.steps)
            for t, values in self.values.items():
                made[t] = values[op.result]
            return made
        total = empty
        for values in self.values.values():
            total = np.asarray(total + values[op.result])
            total = total if noise is None or not scale else noise.on(total, scale)
        return total


def stops_inside(op: Any) -> bool:
    """Whether a loop has a value in it through which no gradient flows."""
    return isinstance(op, Scan) and any(
        isinstance(node.op, StopGradient) or stops_inside(node.op) for node in op.step.nodes
    )
