"""What the events of a case give by the declaration alone: no pass but those that define it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from graphc.compiler.loss_share import divisors, loss_shares
from graphc.declare.optim import Optimizer
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.ops.source import Parameter
from graphc.runtime.reference import initial_state
from passes.backward import Backward
from passes.dead_code import dead_code
from passes.specialize import Specialize
from passes.update import Update, apply_graph
from tests.tools.fuzz.case import Case
from tests.tools.fuzz.copies import of_shards
from tests.tools.fuzz.wide import Noise, Run, WideGraph


class Meaning:
    """The graphs of a case, made by specialize, backward and update and nothing else."""

    def __init__(self, case: Case) -> None:
        self.case, self.declared = case, case.plan.declared
        self._wide: dict[tuple[str, int], WideGraph] = {}

    def wide(self, what: str, n: int) -> WideGraph:
        """One of the graphs for that many rows."""
        key = what, n
        if key not in self._wide:
            self._wide[key] = WideGraph(self._graph(what, n), n, self.case.precision)
        return self._wide[key]

    def _graph(self, what: str, n: int) -> Graph:
        if what.startswith("cotangents "):
            return self.cotangents(what.removeprefix("cotangents "))
        if what == "step" and self.case.shards > 1:
            return self.cut_step(n)
        graph: Graph = getattr(self, what)
        return graph

    @cached_property
    def infer(self) -> Graph:
        """The forward pass of inference."""
        return Specialize(False)(self.declared)

    @cached_property
    def train(self) -> Graph:
        """Forward in training, and the gradients of all losses."""
        options = self.case.plan.options
        required = options.required if self.declared.losses else ()
        backward = Backward(self.declared.losses, options.wrt, required)
        return backward(specialized(self._asking()))

    @cached_property
    def losses(self) -> Graph:
        """Forward in training, as far as the losses need it."""
        names = {name: self.train.outputs[name] for name in self.train.losses}
        return Graph("losses", self.train, outputs=names, losses=list(names)).pruned()

    def cotangents(self, output: str) -> Graph:
        """Forward in training, and the gradients of one output by fed cotangents."""
        wrt = self.case.plan.options.wrt
        return Backward((output,), wrt, fed=True)(specialized(self._asking()))

    def _asking(self) -> Graph:
        names = {name: name for name in self.case.plan.options.required}
        d = self.declared
        return Graph(
            d.name, d, outputs=d.outputs, losses=d.losses, gradients=names, updates=d.updates
        )

    @cached_property
    def step(self) -> Graph:
        """Train, and the optimizer's update or sum."""
        return self._updated(self.train)

    def cut_step(self, n: int) -> Graph:
        """A step that cuts `n` rows into shards."""
        case, declared = self.case, self.declared
        divided, counted = {d.name for d in divisors(declared)}, loss_shares(declared)
        # The norms themselves are looked for: only their statistics may be needed.
        graph = Specialize(True)(declared)
        cut = dead_code(of_shards(graph, n, case.shards, case.synchronised, counted, divided))
        trained = [n for n in case.plan.options.wrt if isinstance(declared[n].op, Parameter)]
        return self._updated(Backward(declared.losses, tuple(trained))(cut))

    @cached_property
    def other(self) -> Graph:
        """Train, and the update of the other plan's optimizer."""
        return self._updated(self.train, self.case.other)

    def _updated(self, graph: Graph, optimizer: Optimizer | None = None) -> Graph:
        optimizer = optimizer or self.case.optimizer
        assert optimizer is not None
        return Update(optimizer)(graph)

    @cached_property
    def apply(self) -> Graph:
        """The update by gradients that are fed or were summed."""
        optimizer = self.case.optimizer
        assert optimizer is not None
        found = [self.declared[name] for name in self.train.gradients]
        return apply_graph([node for node in found if isinstance(node.op, Parameter)], optimizer)


def specialized(graph: Graph) -> Graph:
    """The graph of training, whose loops have what their results need: the rest is not trained."""
    return dead_code(Specialize(True)(graph))


@dataclass
class Outcome:
    """The results of each event, the distances from kinks, and whether all was finite."""

    results: list[dict[str, Array]] = field(default_factory=list)
    kinks: list[dict[str, Array]] = field(default_factory=list)
    before: list[dict[str, Array]] = field(default_factory=list)
    """The state that each event began with."""
    factors: list[Array] = field(default_factory=list)
    """What was rounded to bfloat16, before that, in order."""
    finite: bool = True


def outcome(meaning: Meaning, noise: Noise | None = None) -> Outcome:
    """Run all events in turn."""
    return _Trajectory(meaning, noise).run()


class _Trajectory:
    """The state as it goes from event to event."""

    def __init__(self, meaning: Meaning, noise: Noise | None) -> None:
        self.meaning, self.noise, self.case = meaning, noise, meaning.case
        self.state: dict[str, Array] = dict(self.case.state())
        self.out = Outcome()

    def run(self) -> Outcome:
        for number, event in enumerate(self.case.events):
            found: dict[str, Array] = {}
            kinks: dict[str, Array] = {}
            self.out.before.append(dict(self.state))
            self.out.results.append(found)
            self.out.kinks.append(kinks)
            for name, run, graph in self._runs(number, event.kind, event.n):
                kinks.update({f"{name} {node}": value for node, value in run.kinks.items()})
                found.update(_roots(graph, run))
                self.state.update({k: run.values[v] for k, v in graph.updates.items()})
            found.update({f"state {k}": v for k, v in self.state.items()})
            if any(v.dtype.kind == "f" and not np.isfinite(v).all() for v in found.values()):
                self.out.finite = False
                break
        return self.out

    def _runs(self, number: int, kind: str, n: int) -> Any:
        """Each graph that an event runs, with its run; the state changes in between."""
        feeds = self.case.feeds(number)
        if kind in ("infer", "unlabelled", "frozen"):
            yield self._run("infer", n, feeds)
        elif kind == "cotangents":
            output = cotangent_output(self.case)
            feeds[f"cotangent:{output}"] = self.case.cotangent(number, output)
            yield self._run(f"cotangents {output}", n, feeds)
        elif kind == "evaluate":
            yield self._run("infer", n, feeds)
        elif kind == "other":
            made = self._run("other", n, feeds)
            self.out.results[-1]["loss"] = self._loss(made[1], made[2])
            yield made
        elif kind in ("train", "forward", "update"):
            made = self._run("train", n, feeds)
            yield made
            if kind == "update":
                gradients = made[2].gradients.items()
                fed = {f"gradient:{k}": made[1].values[v] for k, v in gradients}
                yield self._run("apply", 1, fed)
        else:
            made = self._run("step", n, feeds)
            self.out.results[-1]["loss"] = self._loss(made[1], made[2])
            yield made
            every = self.case.plan.accumulate
            if every > 1 and int(self.state["accumulated"]) >= every:
                yield self._run("apply", 1, {})

    def _loss(self, run: Run, graph: Graph) -> Array:
        """The sum of the losses, which is rounded at each of them."""
        names = [graph.outputs[name] for name in graph.losses]
        parts = [run.values[name] for name in names]
        if self.noise is not None:
            noise = self.noise
            eps = [float(np.finfo(graph[name].type.dtype).eps) for name in names]
            parts = [noise.on(x, e * len(names)) for x, e in zip(parts, eps, strict=True)]
        return np.asarray(sum(parts))

    def _run(self, what: str, n: int, feeds: Mapping[str, Any]) -> tuple[str, Run, Graph]:
        wide = self.meaning.wide(what, n)
        for name, array in initial_state_of(wide.graph, self.state).items():
            self.state[name] = array
        run = wide.run(feeds, self.state, self.noise)
        self.out.factors += run.factors
        return what, run, wide.graph


def initial_state_of(graph: Graph, known: Mapping[str, Array]) -> dict[str, Array]:
    """States that the plan does not need, such as the counter of draws in a net without any."""
    if all(node.name in known for node in graph if node.op.name in ("state", "parameter")):
        return {}
    return {k: v for k, v in initial_state(graph, 0).items() if k not in known}


def _roots(graph: Graph, run: Run) -> dict[str, Array]:
    found = {f"output {k}": run.values[v] for k, v in graph.outputs.items()}
    found.update({f"gradient {k}": run.values[v] for k, v in graph.gradients.items()})
    return found


def cotangent_output(case: Case) -> str:
    """The output that gradients are taken of by cotangents."""
    return next(iter(case.plan.declared.outputs))
