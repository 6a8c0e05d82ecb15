"""The driver of a compilation: passes, schedule, memory and backend make a plan of a net."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, cast

from graphc.backends.backend import backend
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.compiler.assignment import Planner, Scheduler
from graphc.compiler.plan import Plan
from graphc.compiler.program import build_program
from graphc.declare.optim.optimizer import Optimizer
from graphc.declare.optim.rule import UpdateRule
from graphc.ir.graph import Graph, Node
from graphc.kernels.program import Contract, Program
from graphc.kernels.traits import Forms
from passes.backward import Backward
from passes.dead_code import dead_code
from passes.pipeline import Pass, PassList, PassRecord, run_passes
from passes.specialize import Specialize
from passes.update import Update, apply_graph

if TYPE_CHECKING:
    from graphc.compiler.options import CompileOptions
    from graphc.declare.track import Tracked

Rows = tuple[PassRecord, ...]
"""The records of the passes that lead to a program, in order."""
Records = dict[str, Rows]
"""The records of all programs, by name."""


class Watch(Protocol):
    """A callback after each pass of a compilation, such as its validation."""

    def __call__(self, step: Pass, before: Graph, made: Graph) -> None:
        """Examine the graph that a pass made of another."""

    def apply(self, parameters: Sequence[Node], optimizer: Optimizer, made: Graph) -> None:
        """Examine the graph of an update alone."""


@dataclass(frozen=True)
class Compilation:
    """The declared graph, and the choices of `compile` that every plan has.

    Features override what is marked as a place: see `graphc/compiler/options.py`.
    """

    graph: Graph
    batch: int
    wrt: tuple[str, ...]
    required: tuple[str, ...]
    rules: tuple[UpdateRule, ...]
    """The updates of a step, in order; none if the plan does not train."""
    passes: PassList
    all_outputs: bool
    """True if a training step also computes outputs that no loss depends on."""
    backend: str
    threads: int | None = None
    contract: Contract = "fused"

    # ------------------------------------------------------------------ places of features

    @property
    def step_rows(self) -> int:
        """The most rows of a step (a place)."""
        return self.batch

    @property
    def arena_threads(self) -> int | None:
        """The most threads that have an arena each; None for all cores (a place)."""
        return self.threads

    @property
    def has_more_barriers(self) -> bool:
        """True if programs have the barriers that keep less memory (a place)."""
        return backend(self.backend).threads(self.threads) == 1

    @property
    def declared(self) -> Graph:
        """The graph that passes begin with (a place)."""
        return self.graph

    @property
    def follows(self) -> tuple[Tracked, ...]:
        """The parameters that follow others (a place)."""
        return ()

    @property
    def own_planner(self) -> Planner | None:
        """The planner in place of graphc's, if there is one (a place)."""
        return None

    @property
    def own_scheduler(self) -> Scheduler | None:
        """The schedule in place of graphc's, if there is one (a place)."""
        return None

    def slots(self) -> dict[str, Pass]:
        """Return passes for the slots of the pass list, in all programs (a place)."""
        return {}

    def last_passes(self, name: str) -> tuple[Pass, ...]:
        """Return the passes after all others of a program, recorded if they change it (a place)."""
        return ()

    def step_records(
        self, name: str, slots: dict[str, Pass], common: Graph, first: Rows, watch: Watch | None
    ) -> Records:
        """Return the records of the programs of a step, from the differentiated graph (a place).

        `first` are the records that led to that graph, by the passes with these slots.
        """
        backward, *later = self.backwards()
        follow = self.follows
        updates = [Update(rule.optimizer, rule.wrt, follow) for rule in self.rules]
        trained = common if self.all_outputs else only_losses(common)
        _, tail = split(self.filled(**slots, update=updates[0]), backward)
        chain = _each_rule(tail, updates, later)
        return {name: first + run_passes(trained, chain, watch, verified=True)[1]}

    def fitted(self, plan: Plan, watch: Watch | None) -> Plan:
        """Return the plan, or one that needs less memory (a place)."""
        return plan

    # ------------------------------------------------------------------ the plan

    def plan(self, watch: Watch | None = None) -> Plan:
        """Compile all programs, and fit them to what was asked for; call `watch` after passes."""
        records = {"infer": self._infer(watch)}
        if self.wrt:
            records.update(self._training(watch))
        records = {name: self._with_last(name, rows, watch) for name, rows in records.items()}
        last = {name: rows[-1].graph for name, rows in records.items()}
        programs = self.programs(last, Forms())
        trained = tuple(programs["grad"].gradients) if "grad" in programs else ()
        options = cast("CompileOptions", self)
        plan = Plan(self.graph, self.batch, self.rules, programs, records, trained, options)
        return self.fitted(plan, watch)

    def _with_last(self, name: str, rows: Rows, watch: Watch | None) -> Rows:
        """Return the records of a program with those of its last passes that change something."""
        graph, more = run_passes(rows[-1].graph, self.last_passes(name), watch, verified=True)
        return rows if graph is rows[-1].graph else rows + more

    def programs(self, graphs: Mapping[str, Graph], forms: Forms) -> dict[str, Program]:
        """Return the programs of graphs by name (a place)."""
        return {name: self.program(name, graph, forms) for name, graph in graphs.items()}

    def program(
        self, name: str, graph: Graph, forms: Forms | None = None, rows: int | None = None
    ) -> Program:
        """Return the program of a graph for up to `rows` rows, or those of a run (a place)."""
        return build_program(
            name,
            graph,
            self.batch if rows is None else rows,
            self.backend,
            forms,
            planner=self.own_planner,
            scheduler=self.own_scheduler,
            contract=self.contract,
            sparing=self.has_more_barriers,
            threads=backend(self.backend).threads(self.threads),
        )

    def _infer(self, watch: Watch | None) -> Rows:
        passes = self.filled(specialize=Specialize(train=False))
        return run_passes(self.declared, passes, watch)[1]

    def filled(self, **made: Pass) -> tuple[Pass, ...]:
        """Return the pass list with its slots filled; slots without a pass are left out."""
        return self.passes.fill({**made, **self.slots()})

    def _training(self, watch: Watch | None) -> Records:
        """Return the pass records of programs that train; passes up to backward run only once."""
        backward, *later = self.backwards()
        slots: dict[str, Pass] = {"specialize": Specialize(train=True), "backward": backward}
        common, first, tail = self.differentiate(slots, watch)
        if self.graph.losses and not common.gradients:
            raise self._no_gradient()
        records = {"grad": first + run_passes(common, (*later, *tail), watch, verified=True)[1]}
        if not self.rules:
            return records
        name = "accumulate" if self.rules[0].optimizer.accumulate > 1 else "step"
        records |= self.step_records(name, slots, common, first, watch)
        apply = self._apply(records["grad"][-1].graph.gradients, watch)
        _, tail = split(self.filled(backward=backward), backward)
        records["apply"] = run_passes(apply, tail, watch)[1]
        return records

    def differentiate(
        self, slots: Mapping[str, Pass], watch: Watch | None
    ) -> tuple[Graph, Rows, tuple[Pass, ...]]:
        """Run the passes up to backward; return the graph, their records and the passes left."""
        head, tail = split(self.filled(**slots), slots["backward"])
        declared = _keeping(self.declared, self.required)  # verified for inference
        return *run_passes(declared, head, watch, verified=True), tail

    def backwards(self) -> list[Backward]:
        """Return the pass that differentiates for each rule, or for all losses without rules."""
        if not self.rules:
            required = self.required if self.graph.losses else ()
            return [Backward(self.graph.losses, self.wrt, required)]
        found: list[Backward] = []
        for i, rule in enumerate(self.rules):
            asked = tuple(name for name in self.required if name in rule.wrt)
            wrt, before = self._differentiated(rule), self.rules[:i]
            found.append(Backward(rule.losses, wrt, asked, before=before))
        return found

    def _differentiated(self, rule: UpdateRule) -> tuple[str, ...]:
        """Return the names to differentiate by: frozen ones only if they were asked for by name."""
        trains = rule.optimizer.trains
        names = tuple(name for name in rule.wrt if name in self.required or trains(name))
        if not any(map(trains, names)):
            raise GraphError(
                f"every parameter of net {self.graph.name!r} that could be trained is frozen",
                loc=caller_loc(),
                hint='freeze a part of them: groups=[gc.Group("body.*", frozen=True)]',
            )
        return names

    def _apply(self, gradients: Iterable[str], watch: Watch | None) -> Graph:
        """Return the graph of all updates by fed gradients, or by accumulated ones."""
        graph, follow = Graph("apply", ()), self.follows
        for rule in self.rules:
            names = (n for n in gradients if n in rule.wrt and self.graph[n].op.is_parameter)
            nodes = [self.graph[name] for name in names if rule.optimizer.trains(name)]
            if watch is not None:
                watch.apply(nodes, rule.optimizer, apply_graph(nodes, rule.optimizer))
            graph = apply_graph(nodes, rule.optimizer, graph, follow)
        return graph

    def _no_gradient(self) -> GraphError:
        losses = [self.graph[self.graph.outputs[name]] for name in self.graph.losses]
        what = ", ".join(self.wrt[:3]) + (", ..." if len(self.wrt) > 3 else "")
        return GraphError(
            f"no gradient flows from {' or '.join(map(repr, self.graph.losses))} to {what}",
            operands=[node.described("loss") for node in losses],
            loc=caller_loc(),
            hint="argmax, comparisons, casts to integers and gc.stop_gradient pass none",
        )

    def cotangent_program(self, outputs: tuple[str, ...]) -> Program:
        """Compile the program that differentiates outputs by cotangents that are fed."""
        for name in outputs:
            if name not in self.graph.outputs:
                known = ", ".join(self.graph.outputs)
                raise GraphError(
                    f"backward: there is no output {name!r}",
                    loc=caller_loc(),
                    hint=f"there are {known}",
                )
        chosen = {name: self.graph.outputs[name] for name in outputs}
        graph = _keeping(Graph(self.graph.name, self.graph, outputs=chosen), self.required)
        passes = self.filled(
            specialize=Specialize(train=True),
            backward=Backward(outputs, self.wrt, fed=True),
        )
        result = run_passes(graph, passes)[0]
        bare = Graph(result.name, result, gradients=result.gradients)
        return self.program("cotangent", dead_code(bare))


def _each_rule(
    passes: tuple[Pass, ...], updates: Sequence[Update], backwards: Sequence[Backward]
) -> tuple[Pass, ...]:
    """Return the passes after the first backward, with those up to update for each other rule."""
    own, rest = split(passes, updates[0])
    found = [*own]
    for update, backward in zip(updates[1:], backwards, strict=True):
        parameters = replace(backward, required=())  # the program of gradients has checked them
        found += [parameters, *own[:-1], update]
    return (*found, *rest)


def split(passes: tuple[Pass, ...], last: Pass) -> tuple[tuple[Pass, ...], tuple[Pass, ...]]:
    """Return the passes up to `last`, itself included, and those after it."""
    position = passes.index(last) + 1
    return passes[:position], passes[position:]


def _keeping(graph: Graph, names: Iterable[str]) -> Graph:
    """Return the graph with these nodes as gradients of themselves, so that passes keep them."""
    return graph.with_nodes(graph, gradients={name: name for name in names})


def only_losses(graph: Graph) -> Graph:
    """Return the graph without the outputs that no loss depends on."""
    needed = graph.upstream(graph.outputs[name] for name in graph.losses)
    outputs = {name: value for name, value in graph.outputs.items() if value in needed}
    return graph.with_nodes(graph, outputs=outputs)
