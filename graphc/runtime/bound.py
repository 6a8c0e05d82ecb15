"""Programs bound to memory, once for each batch size that is run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from types import MappingProxyType

import numpy as np

from graphc.backends.backend import Call, Link, Runner, backend
from graphc.ir.op import Array
from graphc.kernels.program import PREPARE, Program
from graphc.runtime.state import readonly
from graphc.runtime.workspace import Workspace

BOUND_BATCHES = 64
"""The most bound programs that are kept, one for each batch size."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A program bound to memory for `n` rows: its calls, feeds and results."""

    program: Program
    n: int
    calls: list[Call]
    forward_calls: int
    """The number of calls, from the first, that are the forward pass."""
    feeds: dict[str, Array]
    outputs: dict[str, Array]
    gradients: dict[str, Array]
    losses: list[Array]
    outcome: Outcome
    """The outcome of a run: its outputs."""
    runner: Runner
    only_call: Call | None
    """The only call of a program, if no call warns or can be interrupted; None for other programs.

    It needs no quiet context and no mark of a broken state, which take 1.2 of 16 us.
    """
    loss: Callable[[], float]
    """Reads the sum of the losses."""

    def feed(self, arrays: Mapping[str, Array]) -> None:
        """Copy in the arrays that the program reads."""
        for name, array in arrays.items():
            if name in self.feeds:
                np.copyto(self.feeds[name], array)

    def kept(self) -> tuple[Bound, list[Call]]:
        """Return a variant whose outputs are copies, and the calls that fill them after a run."""
        copies = {name: array.copy() for name, array in self.outputs.items()}
        calls: list[Call] = [
            partial(copies[k].__setitem__, ..., array) for k, array in self.outputs.items()
        ]
        losses = [copies[name] for name in self.program.graph.losses if name in copies]
        own = Outcome(copies)
        kept = replace(self, outputs=copies, losses=losses, outcome=own, loss=_reader(losses))
        return kept, calls


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results that the last run left in the memory of an executor.

    It is one object, so that one store replaces it: an executor never holds a part of a result.
    """

    outputs: Mapping[str, Array]
    saved: Bound | None = None
    """The forward pass that `backward` may follow."""
    differentiated: bool = False
    """True once the gradients have been computed."""

    def copies(self) -> Mapping[str, Array]:
        """Return copies of the outputs, which later runs do not overwrite."""
        return MappingProxyType({name: readonly(array) for name, array in self.outputs.items()})


NOTHING = Outcome({})
"""The outcome while a run writes to the memory, and after one that did not reach its end."""


class Binder:
    """Binds programs to a workspace, and remembers the bound programs."""

    def __init__(self, workspace: Workspace, link: Link | None = None) -> None:
        self._workspace, self._link = workspace, link
        self._runners: dict[tuple[str, frozenset[int]], Runner] = {}
        self._known: OrderedDict[tuple[str, int, frozenset[str]], Bound] = OrderedDict()

    def bound(self, program: Program, n: int, missing: frozenset[str] = frozenset()) -> Bound:
        """Return the program for `n` rows of feeds in the workspace, less nodes without feeds."""
        found = self.layout(program, n, missing)
        found.runner.feed_in_place()
        return found

    def layout(self, program: Program, n: int, missing: frozenset[str]) -> Bound:
        """Return the program as `bound` does, but do not change where it reads its feeds."""
        key = (program.name, n, missing)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._bind(program, n, missing)
            if len(self._known) > BOUND_BATCHES:
                self._known.popitem(last=False)
        return found

    def preparation(self, programs: Mapping[str, Program]) -> list[Call]:
        """Return the calls that prepare what inference keeps of the state."""
        first = self.bound(programs[PREPARE], 1).calls if PREPARE in programs else []
        return [*first, *self._workspace.prepared_writes(programs)]

    def _bind(self, program: Program, n: int, missing: frozenset[str]) -> Bound:
        @cache
        def view(name: str) -> Array:
            return self._workspace.view(program, name, n)

        unknown = program.graph.downstream(missing) if missing else set()
        skip = frozenset(i for i, instr in enumerate(program.instrs) if instr.node in unknown)
        runner = self._runner(program, skip)
        calls, forward_calls = runner.calls(n, view)
        outputs = {k: fixed(view(v)) for k, v in program.outputs.items() if v not in unknown}
        losses = [outputs[name] for name in program.graph.losses if name in outputs]
        return Bound(
            program,
            n,
            calls,
            forward_calls,
            {name: view(name) for name in program.feeds if name not in missing},
            outputs,
            {wrt: view(name) for wrt, name in program.gradients.items()},
            losses,
            Outcome(outputs),
            runner,
            calls[0] if len(calls) == 1 and runner.uninterrupted else None,
            _reader(losses),
        )

    def _runner(self, program: Program, skip: frozenset[int]) -> Runner:
        """Return the runner of a program without the instructions of `skip`, made once."""
        found = self._runners.get((program.name, skip))
        if found is None:
            found = backend(program.backend).bind(program, skip, self._workspace, self._link)
            self._runners[program.name, skip] = found
        return found


def _reader(losses: list[Array]) -> Callable[[], float]:
    """Return the function that reads the sum of the losses; of one it is a method of the array."""
    return losses[0].item if len(losses) == 1 else lambda: float(sum(losses))


def fixed(array: Array) -> Array:
    """Return a read-only view: the array may be a parameter or a constant."""
    found = array.view()
    found.flags.writeable = False
    return found
