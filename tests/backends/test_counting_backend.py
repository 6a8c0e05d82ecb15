"""A third backend, the example of `docs/writing_a_backend.md`: a folder and a line in the table."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import graphc as gc
from graphc.backends import backend as table
from graphc.backends.backend import (
    Backend,
    Call,
    Link,
    Memory,
    Part,
    PeakWork,
    Runner,
    View,
)
from graphc.compiler.cost import kernel_flops, program_cost
from graphc.ir.tensor_type import dim_at
from graphc.kernels.interpret import FUNCTIONS
from graphc.kernels.kernel import Gemm, Kernel
from graphc.kernels.program import Program

PAGE = Path(__file__).resolve().parents[2] / "docs" / "writing_a_backend.md"


def operations(kernel: Kernel, n: int) -> Counter[str]:
    """Return how often a kernel applies each function, for `n` rows."""
    rows, columns = (dim_at(dim, n) for dim in kernel.space)
    times = {"each": rows * columns, "row": rows, "column": columns, "one": 1}
    found: Counter[str] = Counter()
    for step in kernel.body.steps:
        if step.op in ("sum", "max"):
            found[step.op] += times[kernel.body.steps[step.args[0]].broadcast]
        elif step.op in FUNCTIONS and step.op != "cast":
            found[step.op] += times[step.broadcast]
    if isinstance(kernel, Gemm):
        found["product"] = 2 * rows * columns * dim_at(kernel.k, n)
    return found


class CountingBackend(Backend):
    """The backend that counts operations instead of computing them."""

    name = "counting"
    compiles = False
    by_row = False

    def __init__(self) -> None:
        self.counted: dict[str, Counter[str]] = {}
        """The operations of each kernel that has run, by its last node."""

    def missing(self) -> str | None:
        """Return None: it is always there."""
        return None

    def scratch(self, program: Program) -> Sequence[int]:
        """Return 0 for each instruction: counting needs no memory."""
        return [0] * len(program.instrs)

    def bind(
        self, program: Program, skip: frozenset[int], memory: Memory, link: Link | None = None
    ) -> CountingRunner:
        """Return a program whose calls count."""
        return CountingRunner(self, program, skip)

    def peak_work(self) -> PeakWork:
        """Return a call without any operations: it makes no multiply-adds."""
        return PeakWork("nothing", 0, lambda: lambda: None)

    def note(self, node: str, counts: Counter[str]) -> None:
        """Add the operations of a kernel that runs."""
        self.counted.setdefault(node, Counter()).update(counts)


class CountingRunner(Runner):
    """A program whose kernels are counted."""

    uninterrupted = False

    def __init__(self, backend: CountingBackend, program: Program, skip: frozenset[int]) -> None:
        self._backend, self._program, self._skip = backend, program, skip

    def calls(self, n: int, view: View) -> tuple[list[Call], int]:
        """Return the calls of a run with `n` rows, and how many of them are the forward pass."""
        calls: list[Call] = []
        forward = 0
        for i, instr in enumerate(self._program.instrs):
            if instr.body is not None and i not in self._skip:
                counts = operations(instr.body, n)
                calls.append(partial(self._backend.note, instr.node, counts))
                forward += i < self._program.boundary
        return calls, forward

    def parts(self, n: int, view: View, threads: int) -> list[Part]:
        """Return the same run as one part, after which nothing can be examined."""
        return [Part(self.calls(n, view)[0], (), ())]


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingBackend]:
    """Add the backend to the table, as a folder and a name there would."""
    backend = CountingBackend()
    module = ModuleType("graphc.backends.counting.backend")
    monkeypatch.setattr(module, "BACKEND", backend, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    first, *others = table.BACKENDS
    monkeypatch.setattr(table, "BACKENDS", (first, backend.name, *others))
    table.backend.cache_clear()
    table._missing.cache_clear()
    yield backend
    table.backend.cache_clear()
    table._missing.cache_clear()


def net() -> gc.Net:
    """A perceptron with dropout and a loss."""
    made = gc.Net("counted")
    x, y = made.input("x", (gc.N, 4)), made.input("y", (gc.N,), dtype="int64")
    h = gc.dropout(gc.relu(gc.affine(x, 3, name="hidden"), name="active"), keep_prob=0.5)
    made.output("active", h)
    made.loss("loss", gc.softmax_loss(gc.affine(h, 2, name="scores"), y))
    return made


def test_a_step_counts_what_the_cost_report_says(counting: CountingBackend) -> None:
    plan = gc.compile(net(), batch=8, optimizer=gc.Adam(lr=0.1), backend="counting")
    ex = gc.Executor(plan)
    ex.step(x=np.ones((5, 4)), y=np.zeros(5, int))
    step = plan.programs["step"]
    kernels = {i.node: sum(kernel_flops(i.body, 5)) for i in step.instrs if i.body is not None}
    assert {node: counts.total() for node, counts in counting.counted.items()} == kernels
    assert sum(kernels.values()) == program_cost(step, 5).flops


def test_a_forward_pass_by_hand(counting: CountingBackend) -> None:
    made = gc.Net("hand")
    made.output("y", gc.relu(gc.affine(made.input("x", (gc.N, 4)), 3), name="active"))
    ex = gc.Executor(gc.compile(made, batch=8, backend="counting"))
    ex.forward(x=np.ones((5, 4)))
    each = 5 * 3
    hand = Counter(product=2 * 4 * each, add=each, greater=each, select=each)
    assert counting.counted == {"active": hand}


def test_the_forward_part_ends_at_the_border(counting: CountingBackend) -> None:
    ex = gc.Executor(gc.compile(net(), batch=8, backend="counting"))
    ex.forward(x=np.ones((5, 4)), y=np.zeros(5, int), train=True)
    forward = set(counting.counted)
    ex.backward()
    assert forward < set(counting.counted)
    assert not any(node.startswith("d_") for node in forward)


def test_it_is_a_backend_and_the_preferred_one_stays(counting: CountingBackend) -> None:
    there: Backend = counting
    assert table.backend("counting") is there
    assert "counting" in gc.compile(net(), batch=8, backend="counting").report()


@pytest.mark.parametrize("part", [operations, CountingBackend, CountingRunner])
def test_the_page_shows_this_code(part: type) -> None:
    assert inspect.getsource(part) in PAGE.read_text()
