"""Programs bound to memory: once for each batch size that comes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphc.backends.numpy.bind import Call, bind
from graphc.op import Array
from graphc.plan import Program
from graphc.runtime.workspace import Workspace

if TYPE_CHECKING:
    from graphc.backends.native.bind import NativeProgram
    from graphc.backends.native.direct import Take

View = Callable[[str], Array]
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
    native: NativeProgram | None = None


class Direct:
    """A native program that reads the arrays of a user where they lie."""

    __slots__ = ("_bind", "bounds", "copied", "quiet", "take")

    def __init__(
        self, take: Take, copied: tuple[str, ...], quiet: bool, bind: Callable[[int], Bound]
    ) -> None:
        self.take, self._bind = take, bind
        self.copied = copied
        """The feeds that must be copied into the workspace all the same."""
        self.quiet = quiet
        """Whether no call of the program can warn."""
        self.bounds: dict[int, Bound] = {}

    def bound(self, n: int) -> Bound:
        """The program for `n` rows; the table stays as it is."""
        found = self.bounds.get(n)
        if found is None:
            if len(self.bounds) >= BOUND_BATCHES:
                self.bounds.clear()
            found = self.bounds[n] = self._bind(n)
        return found


class Binder:
    """Binds programs to a workspace, and remembers them."""

    def __init__(self, workspace: Workspace, threads: int | None = None) -> None:
        self._workspace, self._threads = workspace, threads
        self._native: dict[tuple[str, frozenset[int]], NativeProgram] = {}
        self._known: OrderedDict[tuple[str, int, frozenset[str]], Bound] = OrderedDict()

    def bound(self, program: Program, n: int, missing: frozenset[str] = frozenset()) -> Bound:
        """The program for `n` rows, without what depends on the feeds that are missing.

        It reads its feeds in the workspace.
        """
        found = self._bound(program, n, missing)
        if found.native is not None:
            found.native.feed_in_place()
        return found

    def direct(self, bound: Bound, names: Collection[str]) -> Direct | None:
        """For runs of a bound program on arrays of these names; None where they are copied."""
        if bound.native is None:
            return None
        from graphc.backends.native.direct import bind_feeds, readable

        if not readable():
            return None
        program, native = bound.program, bound.native
        entries = {name: native.feeds[name] for name in names if name in native.feeds}
        take = bind_feeds(program, names, entries, native.table, self._workspace.written)
        copied = tuple(name for name in program.feeds if name in names and name not in entries)
        missing = frozenset(program.feeds.keys() - set(names))
        return Direct(
            take, copied, native.all_native, lambda n: self._bound(program, n, missing)
        )

    def _bound(self, program: Program, n: int, missing: frozenset[str]) -> Bound:
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
        native = None
        if program.backend == "native":
            native = self._compiled(program, skip, view)
            calls, border = native.calls(n, view)
        else:
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
            native,
        )

    def _compiled(self, program: Program, skip: frozenset[int], view: View) -> NativeProgram:
        """The native code of a program, made when it is first needed."""
        from graphc.backends.native.bind import NativeProgram

        found = self._native.get((program.name, skip))
        if found is None:
            arena = self._workspace.arena
            found = NativeProgram(program, skip, arena, view, self._threads)
            self._native[program.name, skip] = found
        return found
