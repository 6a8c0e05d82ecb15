"""Programs bound to memory: once for each batch size that comes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from graphc.backends.numpy.bind import Call, bind
from graphc.op import Array
from graphc.plan import Program
from graphc.runtime.workspace import Workspace

BOUND_BATCHES = 64
"""How many batch sizes stay bound."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A program bound to memory for `n` rows: its calls, and the arrays it reads and leaves."""

    program: Program
    n: int
    calls: list[Call]
    border: int
    feeds: dict[str, Array]
    outputs: dict[str, Array]
    gradients: dict[str, Array]
    losses: list[Array]


class Binder:
    """Binds programs to a workspace, and remembers them."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._known: OrderedDict[tuple[str, int, frozenset[str]], Bound] = OrderedDict()

    def bound(self, program: Program, n: int, missing: frozenset[str] = frozenset()) -> Bound:
        """The program for `n` rows, without what depends on the feeds that are missing."""
        key = (program.name, n, missing)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._bind(program, n, missing)
            if len(self._known) > BOUND_BATCHES:
                self._known.popitem(last=False)
        return found

    def _bind(self, program: Program, n: int, missing: frozenset[str]) -> Bound:
        def view(name: str) -> Array:
            return self._workspace.view(program, name, n)

        unknown = program.graph.downstream(missing) if missing else set()
        skip = frozenset(i for i, instr in enumerate(program.instrs) if instr.node in unknown)
        calls, border = bind(program, n, view, skip)
        outputs = {k: view(v) for k, v in program.outputs.items() if v not in unknown}
        return Bound(
            program,
            n,
            calls,
            border,
            {name: view(name) for name in program.feeds if name not in missing},
            outputs,
            {wrt: view(name) for wrt, name in program.gradients.items()},
            [outputs[name] for name in program.graph.losses if name in outputs],
        )
