"""`check_pass`: tests a pass on random nets that aim at its pattern."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

from graphc.base.arguments import checked_whole
from graphc.base.errors import GraphError, counted, failure_text
from graphc.check.random_net import DRAWS, Ops, listed_ops, random_net
from graphc.check.validation.explain import ValidationError, written
from graphc.check.validation.judge import DEFINING
from graphc.check.validation.reproduce import shrunk
from graphc.check.validation.run import checked_batches, draws_for
from graphc.check.validation.validate import FOLDER, OPTIMIZERS, judged, stages
from graphc.declare.net import Net
from graphc.ir.graph import Graph
from graphc.ir.op import Op
from graphc.ir.text.graph import graph_text
from graphc.ops import OPS
from passes.contract import Pass, bound_of, check_is_pass, name_of
from passes.pipeline import run_pass

ENOUGH = 10
"""The nets on which a pass must have fired, after which no more are drawn."""
ROWS = 32
"""The rows for which bytes and FLOPs are counted."""


@dataclass
class Saved:
    """The nodes, bytes of values and FLOPs that a pass saves, added up over graphs."""

    nodes: int = 0
    bytes: int = 0
    flops: int = 0

    def add(self, graph: Graph, sign: int) -> None:
        """Add the counts of a graph, or take them away."""
        self.nodes += sign * len(graph)
        for node in graph:
            if not node.op.is_source:
                self.bytes += sign * node.type.nbytes(ROWS)
                if not node.op.is_layer:
                    ins = [graph[name].type for name in node.inputs]
                    self.flops += sign * sum(node.op.flops(ins, node.type, ROWS))

    def __str__(self) -> str:
        parts = ((self.nodes, "node"), (self.bytes, "byte"), (self.flops, "FLOP"))
        return f"saved with {ROWS} rows: {', '.join(counted(*part) for part in parts)}"


@dataclass
class PassReport:
    """The result of `check_pass`, whose text says how often the pass fired, or what is wrong.

    Examples
    --------
    >>> report = gc.check_pass(gc.passes.cse)
    >>> report.ok, report.again
    (True, 0)
    """

    name: str
    """The name of the pass."""
    nets: int = 0
    """The random nets that were drawn."""
    graphs: Counter[str] = field(default_factory=Counter)
    """The graphs that the pass ran on, by program."""
    fired: Counter[str] = field(default_factory=Counter)
    """The graphs that it changed, by program."""
    again: int = 0
    """The graphs that a second run of the pass changed again."""
    idle: int = 0
    """The graphs for which it returned a new one in which nothing is changed."""
    saved: Saved = field(default_factory=Saved)
    """The nodes, bytes and FLOPs that it saved in all."""
    fault: str = ""
    """The fault in words; empty if there is none."""
    graph: Graph | None = None
    """The smallest graph found that shows the fault."""
    path: Path | None = None
    """The test that was written, which shows the fault."""

    @property
    def ok(self) -> bool:
        """True if the pass fired, and nothing is wrong."""
        return not self.fault and self.fired.total() > 0

    def __str__(self) -> str:
        on = f"{counted(self.graphs.total(), 'graph')} of {counted(self.nets, 'random net')}"
        if not self.fault and not self.fired:
            lines = [f"check_pass {self.name}: not judged, as it never fired on {on}"]
            lines.append("aim the nets at its pattern by ops=[...]")
            return "\n  ".join([*lines, self.of_idle] if self.idle else lines)
        if self.fault:
            lines = [f"check_pass {self.name}: wrong, on {on}", *self.fault.splitlines()]
            if self.path is not None:
                lines.append(f"this test shows it: python -m pytest {self.path}")
            return "\n  ".join(lines)
        times = ", ".join(f"{name} {self.fired[name]}" for name in self.graphs if self.fired[name])
        second = (
            f"changes {counted(self.again, 'graph')} again" if self.again else "changes nothing"
        )
        lines = [
            f"check_pass {self.name}: ok, it fired on {self.fired.total()} of {on} ({times})",
            f"a second run {second}",
            str(self.saved),
        ]
        return "\n  ".join([*lines, self.of_idle] if self.idle else lines)

    @property
    def of_idle(self) -> str:
        """The advice about new graphs in which nothing is changed."""
        new = counted(self.idle, "new graph")
        return f"it returned {new} in which nothing is changed: return the one it was given"


def check_pass(
    step: Pass,
    *,
    nets: int = 100,
    seed: int = 0,
    ops: Ops | None = None,
    batches: Iterable[int] = (1, 7),
    folder: str | Path | None = FOLDER,
) -> PassReport:
    """Check a pass on random nets, in the graphs of inference, of gradients and of steps.

    Every graph that the pass changes must compute the same, as near as the pass declares; see
    `gc.check.validation.validate_pass`.  Nets are drawn until the pass has fired on ten.  They
    prefer the ops that its code names, and those on which it fired before.  A pass that never
    fires is not judged.

    Parameters
    ----------
    step
        The pass.
    nets
        The most nets that are drawn.
    seed
        The seed of the first net.
    ops
        The ops of the nets, by names such as "mul", or your own; see `gc.check.random_net`.  None
        means those that the pass seems to look for, among all others.
    batches
        The numbers of rows to try.
    folder
        Where a test of pytest is written for a wrong pass, with the smallest graph that shows it;
        None writes none.

    Returns
    -------
    PassReport
        Its text says how often the pass fired, whether a second run changes anything, and what it
        saves; or what is wrong.

    Raises
    ------
    GraphError
        If `step` is not a pass, or does not say what it preserves, or an op is not known.

    Examples
    --------
    >>> @gc.passes.graph_pass(preserves="bitwise")
    ... def lost(graph):
    ...     return graph.with_nodes(graph, outputs={}) if graph.outputs else graph
    >>> report = gc.check_pass(lost, folder=None)
    >>> report.ok
    False
    """
    check_is_pass(step, "check_pass: ")
    if isinstance(step, DEFINING):
        raise GraphError(
            f"check_pass: pass {name_of(step)!r} makes a program, so it has none to change",
            hint="gc.compile(..., validate=True) judges it in its place",
        )
    bound_of(step)
    nets = checked_whole("check_pass: nets", nets)
    seed = checked_whole("check_pass: seed", seed, None)
    rows = checked_batches("check_pass", batches)
    check = _Check(step, rows, seed, None if folder is None else Path(folder))
    check.run(nets, None if ops is None else listed_ops(ops))
    return check.report


class _Check:
    """A pass on one random net after the other."""

    def __init__(
        self, step: Pass, batches: tuple[int, ...], seed: int, folder: Path | None
    ) -> None:
        self.step, self.batches, self.seed, self.folder = step, batches, seed, folder
        self.report = PassReport(name_of(step))
        self.aim = Counter(named_ops(step))
        """The counts of each op: in the code of the pass, and changed by it."""

    def run(self, nets: int, ops: Ops | None) -> None:
        """Run the pass on nets until it has fired on enough of them, or is wrong.

        If it fires on no program, it may look for layers: then run it on the nets as declared.
        """
        report = self.report
        for programs in (self._programs, self._declared):
            hits = 0
            for number in range(nets):
                report.nets = max(report.nets, number + 1)
                before = report.fired.total()
                for name, graph in programs(number, self._net(number, ops)):
                    report.graphs[name] += 1
                    if not self._holds(name, graph):
                        return
                hits += report.fired.total() > before
                if hits == ENOUGH:
                    return
            if hits:
                return

    def _net(self, number: int, ops: Ops | None) -> Net:
        """Return a net: every second one of those ops alone on which the pass may fire."""
        if ops is None and self.aim and number % 2 == 0:
            ops = tuple(name for name, _ in self.aim.most_common(4))
        return random_net(self.seed + number, ops=ops, steps=6 + number % 5)

    def _programs(self, number: int, net: Net) -> Iterator[tuple[str, Graph]]:
        return stages(net.graph(), OPTIMIZERS[number % len(OPTIMIZERS) :][:1])

    def _declared(self, number: int, net: Net) -> Iterator[tuple[str, Graph]]:
        yield "declared", net.graph()

    def _holds(self, program: str, graph: Graph) -> bool:
        """Return whether the pass is right on a graph; otherwise report what is wrong."""
        found = self._wrong(program, graph)
        if found is not None:
            fault, self.report.graph, self.report.path = found
            self.report.fault = f"in program {program!r}: {fault}"
        return found is None

    def _wrong(self, program: str, graph: Graph) -> Wrong | None:
        """Return what is wrong with a run; count what it changes and saves."""
        report = self.report
        made, fault = form_of(self.step, graph)
        if made is None or fault:
            return self._reproduced(graph, fault)
        if alike(graph, made):
            report.idle += made is not graph
            return None
        report.fired[program] += 1
        draws = draws_for(graph, self.batches, seed=self.seed)
        try:
            judged(self.step, graph, made, draws, self.folder)
        except ValidationError as error:
            return _with_reason(error.sentence, error.smallest, error.path, error.hint)
        report.saved.add(graph, 1)
        report.saved.add(made, -1)
        second = form_of(self.step, made)[0]
        report.again += second is None or not alike(made, second)
        for node in graph:
            if made.nodes.get(node.name) is not node:
                self.aim.update(_steps_of(node.op.name))
        return None

    def _reproduced(self, graph: Graph, fault: str) -> Wrong:
        """Return the fault, the smallest graph with it, and the test that was written of it."""
        kind = _kind(fault)
        smallest = shrunk(graph, lambda one: _kind(form_of(self.step, one)[1]) == kind)
        if self.folder is None or fault == UNSTEADY:
            return fault, smallest, None  # validate_pass runs a pass once
        call = "validate_pass({step}, graph)"
        name = self.report.name
        test = written(self.folder, name, self.step, smallest, fault, call)
        return _with_reason(fault, smallest, *test)


def _with_reason(fault: str, smallest: Graph | None, path: Path | None, hint: str) -> Wrong:
    """Return a fault with the reason if no test was written."""
    return fault if path is not None or not hint else f"{fault}\n{hint}", smallest, path


Wrong = tuple[str, Graph | None, Path | None]
"""A fault in words, the smallest graph that shows it, and the test that was written."""
UNSTEADY = "two runs on one graph make different graphs"


def alike(graph: Graph, made: Graph) -> bool:
    """Return whether a pass changed nothing."""
    return made is graph or graph_text(made) == graph_text(graph)


def form_of(step: Pass, graph: Graph) -> tuple[Graph | None, str]:
    """Return the graph that a pass makes, and what is wrong with the run if something is."""
    try:
        made = run_pass(step, graph)
        other = step(graph)
    except GraphError as error:
        return None, f"{error.sentence}{error.hint and f'; {error.hint}'}"
    except Exception as error:
        return None, f"it {failure_text(error)}"
    return made, "" if alike(made, other) else UNSTEADY


def _kind(fault: str) -> str:
    """Return the part of a fault that does not name nodes."""
    return " ".join(word for word in fault.partition("\n")[0].split() if "'" not in word)


# ------------------------------------------------------------------ what a pass looks for


def named_ops(step: Pass) -> Iterator[str]:
    """Yield the steps of random nets for the ops that a pass names, in its code or its fields."""
    yield from _named_in(step, set())


def _named_in(thing: Any, seen: set[int]) -> Iterator[str]:
    """Yield those for what an object names: an op, a text, a function, or parts of it."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, str):
        yield from _steps_of(thing)
    elif isinstance(thing, type) and issubclass(thing, Op):
        yield from _steps_of(thing.name)
    elif inspect.isfunction(thing):
        for part in _parts(thing):
            yield from _named_in(part, seen)
    elif isinstance(thing, (tuple, list, frozenset, set)):
        for part in thing:
            yield from _named_in(part, seen)
    elif callable(thing) and not isinstance(thing, type):
        for part in (vars(type(thing)).get("__call__"), *getattr(thing, "__dict__", {}).values()):
            yield from _named_in(part, seen)


def _parts(function: Any) -> Iterator[Any]:
    """Yield the constants of a function, and the ops and functions of its module that it names."""
    known = {**function.__globals__, **inspect.getclosurevars(function).nonlocals}
    for code in _codes(function.__code__):
        yield from (text for text in code.co_consts if isinstance(text, str))
        for name in code.co_names + code.co_freevars:
            thing = known.get(name)
            foreign = inspect.isfunction(thing) and thing.__module__ != function.__module__
            if not foreign and (name in code.co_freevars or callable(thing)):
                yield thing


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _codes(part)


def _steps_of(name: str) -> tuple[str, ...]:
    """Return the steps of random nets that lead to an op: its own, or at most two that need it."""
    if name in DRAWS:
        return (name,)
    return _makers().get(name, ())[:2] if name in OPS else ()


@cache
def _makers() -> Mapping[str, tuple[str, ...]]:
    """Return the steps whose expansion or gradients have each op, but for those of every net."""
    found: dict[str, tuple[str, ...]] = {}
    for name in DRAWS:
        net = random_net(0, ops=[name], steps=1)
        ops = {node.op.name for _, graph in stages(net.graph(), ()) for node in graph}
        found.update({op: (*found.get(op, ()), name) for op in ops})
    return {op: names for op, names in found.items() if len(names) < len(DRAWS) // 2}
