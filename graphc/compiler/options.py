"""The options of `compile` that features add, and how they take their places in a compilation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from graphc.compiler.assignment import Planner as AnyPlanner
from graphc.compiler.assignment import Scheduler as AnyScheduler
from graphc.compiler.blocks import block_rows
from graphc.compiler.driver import Compilation, Records, Rows, Watch, only_losses, split
from graphc.compiler.loss_share import divisors, loss_shares
from graphc.compiler.own import Planner, Scheduled, Scheduler, planned
from graphc.compiler.plan import Plan
from graphc.compiler.prepare import given, keeping, prepare_graph, prepared
from graphc.compiler.remat.fit import fitted, sparing
from graphc.compiler.sharding import Sharding
from graphc.declare.track import Tracked, tracked, untracked
from graphc.ir.graph import Graph
from graphc.kernels.program import PREPARE, Program
from graphc.kernels.traits import Forms
from passes.data_parallel import DataParallel
from passes.keep_sends import keep_sends
from passes.pipeline import Pass, run_passes
from passes.recompute_scans import has_long_loops, recompute_scans
from passes.repeat_elements import repeat_elements
from passes.round_products import round_products
from passes.set_precision import Precision, SetPrecision
from passes.shard import Shard
from passes.update import Update


@dataclass(frozen=True)
class CompileOptions(Compilation):
    """The compile options of a plan: the declared graph and the choices of compile()."""

    budget: int | None = None
    rows: int = 0
    """The rows of a step: those of all its shards; 0 means those of a run."""
    sharding: Sharding | None = None
    planner: Planner | None = None
    schedule: Scheduler | None = None
    precision: tuple[tuple[str, Precision], ...] = ()
    """Patterns of layers' names, and the precision of their products."""
    sparing: bool = False
    """True if programs have more barriers, so that they keep less memory: see `remat/fit.py`."""
    recompute_loops: bool = False
    """True if gradients recompute long loops, a segment at a time."""
    blocks: bool = True
    """True if inference may run its rows in blocks, see `blocks.py`."""
    keeps: bool = True
    """True if inference may keep what depends on parameters alone, see `prepare.py`."""

    @property
    def step_rows(self) -> int:
        """The most rows of a step: those of all shards together."""
        return self.rows or self.batch

    def of_rows(self, rows: int) -> CompileOptions:
        """Return the options for steps of `rows` rows."""
        cut = self.sharding
        return replace(self, rows=rows, batch=rows if cut is None else cut.rows(rows))

    # ------------------------------------------------------------------ passes

    @property
    def declared(self) -> Graph:
        """The graph without what follows: passes begin with it."""
        return untracked(self.graph)

    @property
    def follows(self) -> tuple[Tracked, ...]:
        """The parameters that follow others, as `gc.track` declares."""
        return tracked(self.graph)

    def slots(self) -> dict[str, Pass]:
        """Return the passes of precision, and the one that cuts loops that are recomputed."""
        rounds = (SetPrecision(self.precision), round_products) if self.precision else ()
        cuts = (recompute_scans,) if self.recompute_loops else ()
        return {step.name: step for step in (*rounds, *cuts)}

    def last_passes(self, name: str) -> tuple[Pass, ...]:
        """Return the pass that repeats cheap elements, unless the list lacks it."""
        return (repeat_elements,) if repeat_elements.name in self.passes.names else ()

    def step_records(
        self, name: str, slots: dict[str, Pass], common: Graph, first: Rows, watch: Watch | None
    ) -> Records:
        """Return the pass records of a step, or of a rank's last shard and of those before it."""
        cut = self.sharding
        if cut is None:
            return super().step_records(name, slots, common, first, watch)
        named = tuple(divisor.name for divisor in divisors(self.graph))
        slots = slots | {
            "shard": Shard(loss_shares(self.graph), named, cut.sync_batchnorm),
            "data_parallel": DataParallel(),
        }
        (rule,) = self.rules
        update = Update(rule.optimizer, rule.wrt, self.follows)
        common, first, tail = self.differentiate(slots | {"update": update}, watch)
        trained = only_losses(common)
        records = {name: first + run_passes(trained, tail, watch, verified=True)[1]}
        if cut.lanes > 1:
            passes = self.filled(**slots, update=keep_sends)
            _, tail = split(passes, slots["backward"])
            records["shard"] = first + run_passes(trained, tail, watch, verified=True)[1]
        return records

    # ------------------------------------------------------------------ memory

    @property
    def prepares(self) -> bool:
        """True if inference keeps what depends on parameters alone: it takes more memory."""
        return self.keeps and not self.sparing

    def programs(self, graphs: Mapping[str, Graph], forms: Forms) -> dict[str, Program]:
        """Return the programs of graphs by name, `prepare` included if inference needs it."""
        made = super().programs(graphs, forms)
        first = prepare_graph(graphs["infer"]) if self.prepares else None
        return made if first is None else {**made, PREPARE: self.program(PREPARE, first, forms)}

    def program(
        self, name: str, graph: Graph, forms: Forms | None = None, rows: int | None = None
    ) -> Program:
        """Return the program of a graph for up to `rows` rows, or those of a run or of a block."""
        if rows is None:
            made = self.program(name, graph, forms, self.batch)
            block = block_rows(made) if self.blocks and name == "infer" else self.batch
            return made if block == self.batch else self.program(name, graph, forms, block)
        if not self.prepares or name != "infer":
            return super().program(name, graph, forms, rows)
        names = prepared(graph)
        made = super().program(name, given(graph, names), forms, rows)
        return keeping(made, graph, names, trains=bool(self.rules))

    @property
    def arena_threads(self) -> int | None:
        """The most threads that have an arena each; None for all cores."""
        return 1 if self.sparing else self.threads

    @property
    def has_more_barriers(self) -> bool:
        """True if programs have the barriers that keep less memory, as those of one thread do."""
        return self.sparing or super().has_more_barriers

    def fitted(self, plan: Plan, watch: Watch | None) -> Plan:
        """Return the plan, or one that recomputes values to fit the budget."""
        if self.budget is None or plan.memory.total <= self.budget:
            return plan
        plan = plan.without_kept
        if plan.memory.total <= self.budget:
            return plan
        if not self.recompute_loops and has_long_loops(self.graph):
            return replace(self, recompute_loops=True).plan(watch)
        return fitted(plan, self.budget) or sparing(plan)

    # ------------------------------------------------------------------ the user's own functions

    @property
    def own(self) -> tuple[str, ...]:
        """The options that are functions of the user's own: "planner", "schedule"."""
        given = {"planner": self.planner, "schedule": self.schedule}
        return tuple(name for name, function in given.items() if function is not None)

    @property
    def own_planner(self) -> AnyPlanner | None:
        """The user's planner, with checks of what it returns."""
        return None if self.planner is None else partial(planned, self.planner)

    @property
    def own_scheduler(self) -> AnyScheduler | None:
        """The user's schedule, with checks of what it returns."""
        return None if self.schedule is None else partial(Scheduled, self.schedule)
