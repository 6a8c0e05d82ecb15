"""Faults of what was compiled, and of what runs it: a result that is not the expected one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from graphc.backends.backend import PORTABLE
from graphc.check.validation.compare import Results, gap, same_bytes
from graphc.ir.graph import Node
from graphc.ir.op import Array

Layer = Literal[
    "own plan", "reference", "lowering", "backend", "memory", "cached code", "update", "threads",
    "executor", "freeze", "model file", "feeds", "exchange", "quantize", "population", "training",
    "exchange file",
]  # fmt: skip
"""The part of graphc at fault, below the passes."""

HINTS: Mapping[Layer, str] = {
    "own plan": "plan.verify() proves or refutes what planner= and schedule= make",
    "reference": "the reference rule of the op is not what the documentation promises",
    "lowering": "if the op is yours, gc.check_op tries its rules; or else graphc is wrong",
    "backend": f'graphc is wrong; backend="{PORTABLE}" computes kernels in another way',
    "memory": "graphc is wrong; graphc verify may prove where",
    "cached code": "delete the folder of the cache, which GRAPHC_CACHE names",
    "update": "the optimizer's reference defines the update, in float64",
    "threads": "graphc is wrong; threads=1 avoids it",
    "executor": "graphc is wrong: the same program gives it by itself",
    "freeze": "graphc is wrong; the executor that is not frozen gives the right numbers",
    "model file": "graphc is wrong; keep ex.state until this is mended",
    "feeds": "check the array before it is fed",
    "exchange": "graphc is wrong; a plan without shards= gives the right numbers",
    "exchange file": "graphc is wrong; a model file of graphc gives the right numbers",
    "quantize": "graphc is wrong; the net in float gives the right numbers",
    "population": "graphc is wrong; gc.Executor(plan, seed=...) trains a member alone",
    "training": "graphc is wrong; a loop of ex.step trains as it should",
}
"""The advice for a fault of each layer."""


@dataclass
class Count:
    """The number of kernels and values that were compared, and of those that could not be."""

    kernels: int = 0
    values: int = 0
    large: int = 0
    """Kernels with too much work for the interpreter."""
    near: int = 0
    """Values so near to a kink that rounding decides."""


@dataclass(frozen=True)
class Fault:
    """A wrong value: the layer at fault, its program, kernel and node, and the numbers."""

    layer: Layer
    program: str
    what: str
    """The fault, in a sentence."""
    rows: int
    node: Node | None = None
    kernel: str = ""
    """The text of the kernel."""
    threads: int = 1


@dataclass(frozen=True)
class Trial:
    """The results of a run by a part of graphc, beside those of a run without that part."""

    layer: Layer
    program: str
    expected: Results
    found: Results
    rows: int
    bounds: Mapping[str, Array | float] | None = None
    """The bounds of the results; without, every byte must be equal."""
    says: str = "{name} {wrong}"
    """The sentence about a result, of its name and what is wrong with it."""
    by: str = "the reference gives"
    nodes: Mapping[str, Node] = field(default_factory=dict)
    """The nodes at fault by results, where they are known."""
    threads: int = 1

    def faults(self) -> Iterator[Fault]:
        """Yield a fault for each result that is missing or differs."""
        for name, expected in self.expected.items():
            wrong = self._wrong(name, expected)
            if wrong:
                what, node = self.says.format(name=name, wrong=wrong), self.nodes.get(name)
                yield Fault(self.layer, self.program, what, self.rows, node, "", self.threads)

    def _wrong(self, name: str, expected: Array) -> str:
        if name not in self.found:
            return "is gone"
        found = np.asarray(self.found[name])
        if self.bounds is not None:
            return gap(expected, found, self.bounds[name], self.by)
        if same_bytes(expected, found):
            return ""
        return gap(expected, found, 0.0, self.by) or "has other bytes"


Trials = Iterator[Trial | Fault]
"""Comparisons in their order, and faults that are known without one."""


def first_fault(trials: Iterable[Trial | Fault]) -> Fault | None:
    """Return the first fault; later trials are not made."""
    faults = (each for t in trials for each in ((t,) if isinstance(t, Fault) else t.faults()))
    return next(faults, None)


class Untried(Exception):
    """Raised by trials that cannot be made; its arguments say why, if it is worth a word."""
