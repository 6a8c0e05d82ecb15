"""Programs bound to memory, once for each batch size that is run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from graphc.backends.backend import Call, Link
from graphc.backends.numpy.bind import bind
from graphc.ir.op import Array
from graphc.ir.plan import Program
from graphc.ir.tensor_type import TensorType
from graphc.runtime.state import readonly
from graphc.runtime.workspace import Workspace

if TYPE_CHECKING:
    from graphc.backends.native.bind import NativeProgram
    from graphc.backends.native.direct import Take

View = Callable[[str], Array]
BOUND_BATCHES = 64
"""The number of batch sizes that stay bound."""


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
    outcome: Outcome
    """The outputs that a run leaves."""
    native: NativeProgram | None = None
    all_native: bool = False
    """Whether all calls are native: such calls do not warn, and no interrupt comes between them."""

    def feed(self, arrays: Mapping[str, Array]) -> None:
        """Copy in the arrays that the program reads."""
        for name, array in arrays.items():
            if name in self.feeds:
                np.copyto(self.feeds[name], array)

    @property
    def loss(self) -> float:
        """The sum of the losses."""
        losses = self.losses
        return float(losses[0] if len(losses) == 1 else sum(losses))

    def kept(self) -> tuple[Bound, list[Call]]:
        """Return this with copies of the outputs, and the calls that fill them after a run."""
        copies = {name: array.copy() for name, array in self.outputs.items()}
        calls: list[Call] = [
            partial(copies[k].__setitem__, ..., array) for k, array in self.outputs.items()
        ]
        losses = [copies[name] for name in self.program.graph.losses if name in copies]
        kept = replace(self, outputs=copies, losses=losses, outcome=Outcome(copies))
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
    """Whether the gradients have been computed."""

    def copies(self) -> Mapping[str, Array]:
        """Return copies of the outputs, which later runs do not overwrite."""
        return MappingProxyType({name: readonly(array) for name, array in self.outputs.items()})


NOTHING = Outcome({})
"""The outcome while a run writes to the memory, and after one that did not reach its end."""


class Binder:
    """Binds programs to a workspace, and remembers the bound programs."""

    def __init__(self, workspace: Workspace, link: Link | None = None) -> None:
        self._workspace, self._link = workspace, link
        self._native: dict[tuple[str, frozenset[int]], NativeProgram] = {}
        self._known: OrderedDict[tuple[str, int, frozenset[str]], Bound] = OrderedDict()

    def bound(self, program: Program, n: int, missing: frozenset[str] = frozenset()) -> Bound:
        """Return the program for `n` rows, without what depends on the feeds that are missing.

        It reads its feeds in the workspace.
        """
        found = self.layout(program, n, missing)
        if found.native is not None:
            found.native.feed_in_place()
        return found

    def take(
        self, bound: Bound, types: Mapping[str, TensorType]
    ) -> tuple[Take, tuple[str, ...]] | None:
        """Return the native check of feeds of these types, and the names of feeds that are copied.

        Return None if all feeds are copied.
        """
        if bound.native is None:
            return None
        from graphc.backends.native.direct import bind_feeds, readable

        if not readable():
            return None
        native = bound.native
        entries = {name: native.feeds[name] for name in types if name in native.feeds}
        take = bind_feeds(bound.program, types, entries, native.table, self._workspace.written)
        read = [name for name in bound.program.feeds if name in types]
        return take, tuple(name for name in read if name not in entries)

    def layout(self, program: Program, n: int, missing: frozenset[str]) -> Bound:
        """Return the program as `bound` does, but do not change where it reads its feeds."""
        key = (program.name, n, missing)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._bind(program, n, missing)
            if len(self._known) > BOUND_BATCHES:
                self._known.popitem(last=False)
        return found

    def _bind(self, program: Program, n: int, missing: frozenset[str]) -> Bound:
        @cache
        def view(name: str) -> Array:
            return self._workspace.view(program, name, n)

        unknown = program.graph.downstream(missing) if missing else set()
        skip = frozenset(i for i, instr in enumerate(program.instrs) if instr.node in unknown)
        native = None
        if program.backend == "native":
            native = self._compiled(program, skip, view)
            calls, border = native.calls(n, view)
        else:
            scratch = self._workspace.scratch
            calls, border = bind(program, n, view, scratch, skip, self._link)
        outputs = {k: _fixed(view(v)) for k, v in program.outputs.items() if v not in unknown}
        return Bound(
            program,
            n,
            calls,
            border,
            {name: view(name) for name in program.feeds if name not in missing},
            outputs,
            {wrt: view(name) for wrt, name in program.gradients.items()},
            [outputs[name] for name in program.graph.losses if name in outputs],
            Outcome(outputs),
            native,
            native is not None and native.all_native,
        )

    def _compiled(self, program: Program, skip: frozenset[int], view: View) -> NativeProgram:
        """Return the native code of a program, made when it is first needed."""
        from graphc.backends.native.bind import NativeProgram

        found = self._native.get((program.name, skip))
        if found is None:
            found = NativeProgram(program, skip, self._workspace, view, self._link)
            self._native[program.name, skip] = found
        return found


def _fixed(array: Array) -> Array:
    """Return a view that cannot be written to: the array may be a parameter or a constant."""
    found = array.view()
    found.flags.writeable = False
    return found
