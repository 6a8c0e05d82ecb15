"""compile(): passes, schedule, memory, backend; the result is an immutable plan."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from graphc.backends.choice import chosen_backend
from graphc.collector import collector_paused
from graphc.errors import GraphError
from graphc.graph import Graph
from graphc.loc import caller_loc
from graphc.loss_share import loss_shares
from graphc.net import Net
from graphc.ops.source import Parameter
from graphc.optim import Optimizer
from graphc.plan import Plan, Program
from graphc.program import build_program
from graphc.selection import Names, select_outputs, select_wrt
from graphc.sharding import Sharding, sharding

if TYPE_CHECKING:
    from graphc.validation.validate import Watch
    from passes.pass_list import PassList
    from passes.pipeline import Pass, PassRecord


def compile(
    net: Net | Graph,
    *,
    batch: int,
    optimizer: Optimizer | None = None,
    losses: Names = None,
    outputs: Names = None,
    wrt: Names = None,
    backend: str | None = None,
    threads: int | None = None,
    passes: PassList | None = None,
    budget: int | None = None,
    shards: int | None = None,
    ranks: int = 1,
    sync_batchnorm: bool = False,
    validate: bool | str | Path | Watch = False,
) -> Plan:
    """Compile a net for any batch from 1 to `batch` rows.

    `losses`, `outputs` and `wrt` are names, values or patterns such as "actor/*": which losses
    to minimise (default all), what to return (default every output), what to differentiate by
    and train (default every parameter that a loss depends on).  `budget` is in bytes.

    `backend` is "native" or "numpy"; None is native where it can be had.  `threads` is how many
    the native backend may use, at most those that the process may run on (default all of them,
    or GRAPHC_THREADS or OMP_NUM_THREADS); results do not depend on it.

    With `shards` a step cuts its batch into so many, and adds up what it finds on each in a fixed
    order; `ranks` processes share them, whose executors have a communicator each.  Results depend
    on the number of shards, but not on that of ranks.  Batch normalisation takes the statistics of
    a shard, or with `sync_batchnorm` those of the whole batch.  See docs/distributed.md.

    With `validate` every pass is judged on random inputs by what it declares to preserve, and a
    test of one that fails is written to the folder `graphc-failures`, or to the one named; see
    docs/validation.md.

    Raises GraphError when the graph, a name or an option does not fit, BudgetError when the
    plan needs more than `budget`, ValidationError when a pass is wrong.
    """
    with collector_paused():
        graph = _graph(net)
        check_options(graph, batch, optimizer, threads)
        backend = chosen_backend(backend)
        cut = sharding(shards, ranks, sync_batchnorm, batch, budget)
        graph = select_outputs(graph, losses, outputs)
        trained, required = select_wrt(graph, wrt)
        check_losses(graph, optimizer)
        chosen = _limited(passes or _default())
        full = outputs is not None
        recipe = Recipe(
            graph,
            cut.rows(batch) if cut else batch,
            trained,
            required,
            optimizer,
            chosen,
            full,
            backend,
            threads,
            budget,
            batch,
            cut,
        )
        plan = recipe.plan(_watch(graph, batch, validate))
    if budget is not None:
        plan.memory.check_budget(budget)
    return plan


def _watch(graph: Graph, batch: int, validate: bool | str | Path | Watch) -> Watch | None:
    if validate is False:
        return None
    from graphc.validation.validate import FOLDER, Watch

    if isinstance(validate, Watch):
        return validate
    return Watch(graph, batch, FOLDER if validate is True else validate)


def _graph(net: Net | Graph) -> Graph:
    if isinstance(net, Graph):
        return net
    if isinstance(net, Net):
        return net.graph()
    raise GraphError(
        f"compile takes a net, not {type(net).__name__}",
        hint="gc.compile(net, batch=128); what to return is chosen by outputs=",
    )


def _default() -> PassList:
    from graphc.own_passes import own_passes

    own_passes()
    from passes import DEFAULT

    return DEFAULT


def _limited(passes: PassList) -> PassList:
    """The list as the environment limits it, which `graphc bisect` makes use of."""
    if "GRAPHC_PASS_LIMIT" not in os.environ and "GRAPHC_PASS_LOG" not in os.environ:
        return passes
    from graphc.validation.limit import from_environment

    return from_environment(passes)


def check_losses(graph: Graph, optimizer: Optimizer | None) -> None:
    """GraphError for an optimizer without anything to minimise, or with a group of nothing."""
    if optimizer is not None and not graph.losses:
        raise GraphError(
            f"net {graph.name!r} has no loss for the optimizer to minimise",
            loc=caller_loc(),
            hint='declare one: net.loss("loss", gc.softmax_loss(scores, y))',
        )
    parameters = [node.name for node in graph if isinstance(node.op, Parameter)]
    if optimizer is not None and not parameters:
        raise GraphError(
            f"net {graph.name!r} has no parameter for the optimizer to train",
            loc=caller_loc(),
            hint="layers such as gc.affine(x, 10) make them, and net.parameter(name, shape)",
        )
    if optimizer is not None:
        optimizer.check_groups(parameters)


def check_options(
    graph: Graph, batch: int, optimizer: Optimizer | None = None, threads: int | None = None
) -> None:
    """GraphError for a batch, an optimizer or a number of threads that cannot be."""
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise GraphError(
            f"batch is {batch!r}, it must be a whole number from 1 up",
            loc=caller_loc(),
            hint="it is the largest number of rows of a run",
        )
    if threads is not None and (type(threads) is not int or threads < 1):
        raise GraphError(
            f"threads is {threads!r}, it must be a whole number from 1 up",
            loc=caller_loc(),
            hint="leave it out to use every core that the process may run on",
        )
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise GraphError(
            f"optimizer is {optimizer!r}, not an optimizer of graphc",
            loc=caller_loc(),
            hint="gc.SGD(lr=0.1, momentum=0.9), gc.Adam() or gc.AdamW()",
        )
    if not graph.outputs:
        raise GraphError(
            f"net {graph.name!r} has no output and no loss",
            loc=caller_loc(),
            hint='declare one: net.output("scores", scores)',
        )


@dataclass(frozen=True)
class Recipe:
    """What a plan is made of: the declared graph and the choices of compile()."""

    graph: Graph
    batch: int
    wrt: tuple[str, ...]
    required: tuple[str, ...]
    optimizer: Optimizer | None
    passes: PassList
    all_outputs: bool
    """Whether a training step, too, computes outputs that no loss depends on."""
    backend: str
    threads: int | None = None
    budget: int | None = None
    rows: int = 0
    """The rows of a step: those of all its shards; 0 for those of a run."""
    sharding: Sharding | None = None

    def of_rows(self, rows: int) -> Recipe:
        """The recipe for steps of so many rows."""
        cut = self.sharding
        return replace(self, rows=rows, batch=rows if cut is None else cut.rows(rows))

    def plan(self, watch: Watch | None = None) -> Plan:
        """Compile every program, with values computed again where that makes the budget fit.

        `watch` judges each pass.
        """
        records = {"infer": self._infer(watch)}
        if self.wrt:
            records.update(self._training(watch))
        if self.backend == "native" and self.budget is None:
            records = {name: _repeating(rows, watch) for name, rows in records.items()}
        programs = {name: self._program(name, rows[-1].graph) for name, rows in records.items()}
        graphs = dict(records)
        trained = tuple(programs["grad"].gradients) if "grad" in programs else ()
        plan = Plan(self.graph, self.batch, self.optimizer, programs, graphs, trained, self)
        if self.budget is None or plan.memory.total <= self.budget:
            return plan
        from graphc.remat.fit import fitted

        return fitted(plan, self.budget) or plan

    def _program(self, name: str, graph: Graph) -> Program:
        return build_program(name, graph, self.batch, self.backend)

    def _infer(self, watch: Watch | None) -> tuple[PassRecord, ...]:
        own = _own()
        passes = self._passes(specialize=own.Specialize(train=False))
        return own.run_passes(self.graph, passes, watch)[1]

    def _passes(self, **made: Pass) -> tuple[Pass, ...]:
        """The pass list with its slots filled; those that are not made are left out."""
        return self.passes.fill(made)

    def _training(self, watch: Watch | None) -> dict[str, tuple[PassRecord, ...]]:
        """The programs that train; what they have in common, up to backward, runs once."""
        own = _own()
        required = self.required if self.graph.losses else ()
        backward = own.Backward(self.graph.losses, self._differentiated(), required)
        slots: dict[str, Pass] = {"specialize": own.Specialize(train=True), "backward": backward}
        head, tail = _split(self._passes(**slots), backward)
        common, first = own.run_passes(_asking(self.graph, self.required), head, watch)
        if self.graph.losses and not common.gradients:
            raise self._no_gradient()
        records = {"grad": first + own.run_passes(common, tail, watch, verified=True)[1]}
        if self.optimizer is None:
            return records
        many = self.optimizer.accumulate > 1
        slots["update"] = own.Accumulate(self.optimizer) if many else own.Update(self.optimizer)
        name = "accumulate" if many else "step"
        if self.sharding is None:
            trained = common if self.all_outputs else _only_losses(common)
            _, tail = _split(self._passes(**slots), backward)
            records[name] = first + own.run_passes(trained, tail, watch, verified=True)[1]
        else:
            records.update(self._sharded(name, slots, self.sharding))
        gradients = records["grad"][-1].graph.gradients
        nodes = [self.graph[n] for n in gradients if self._is_parameter(n) and self._trains(n)]
        apply = own.apply_graph(nodes, self.optimizer)
        if watch is not None:
            watch.apply(nodes, self.optimizer, apply)
        _, tail = _split(self._passes(backward=backward), backward)
        records["apply"] = own.run_passes(apply, tail, watch)[1]
        return records

    def _differentiated(self) -> tuple[str, ...]:
        """What to differentiate by: not by what is frozen, unless it was asked for by name."""
        asked = self.required
        names = tuple(n for n in self.wrt if n in asked or self._trains(n))
        if self.optimizer is not None and not any(map(self._trains, names)):
            raise GraphError(
                f"every parameter of net {self.graph.name!r} that could be trained is frozen",
                loc=caller_loc(),
                hint='freeze a part of them: groups=[gc.Group("body.*", frozen=True)]',
            )
        return names

    def _trains(self, name: str) -> bool:
        """Whether the optimizer does not have this parameter frozen."""
        return self.optimizer is None or self.optimizer.trains(name)

    def _sharded(
        self, name: str, slots: dict[str, Pass], cut: Sharding
    ) -> dict[str, tuple[PassRecord, ...]]:
        """The step of a shard that is the last of its rank, and what those before it run."""
        own, backward = _own(), slots["backward"]
        slots = slots | {
            "shard": own.Shard(loss_shares(self.graph), cut.sync_batchnorm),
            "data_parallel": own.DataParallel(),
        }
        head, tail = _split(self._passes(**slots), backward)
        common, first = own.run_passes(_asking(self.graph, self.required), head)
        trained = _only_losses(common)
        records = {name: first + own.run_passes(trained, tail, verified=True)[1]}
        if cut.lanes > 1:
            _, tail = _split(self._passes(**(slots | {"update": own.hold_back})), backward)
            records["shard"] = first + own.run_passes(trained, tail, verified=True)[1]
        return records

    def _no_gradient(self) -> GraphError:
        losses = [self.graph[self.graph.outputs[name]] for name in self.graph.losses]
        what = ", ".join(self.wrt[:3]) + (", ..." if len(self.wrt) > 3 else "")
        return GraphError(
            f"no gradient flows from {' or '.join(map(repr, self.graph.losses))} to {what}",
            operands=[node.described("loss") for node in losses],
            loc=caller_loc(),
            hint="argmax, comparisons, casts to integers and gc.stop_gradient pass none",
        )

    def _is_parameter(self, name: str) -> bool:
        return isinstance(self.graph[name].op, Parameter)

    def cotangent_program(self, outputs: tuple[str, ...]) -> Program:
        """The program that differentiates outputs by cotangents that are fed."""
        for name in outputs:
            if name not in self.graph.outputs:
                known = ", ".join(self.graph.outputs)
                raise GraphError(
                    f"backward: there is no output {name!r}",
                    loc=caller_loc(),
                    hint=f"there are {known}",
                )
        own = _own()
        chosen = {name: self.graph.outputs[name] for name in outputs}
        graph = _asking(Graph(self.graph.name, self.graph, outputs=chosen), self.required)
        passes = self._passes(
            specialize=own.Specialize(train=True),
            backward=own.Backward(outputs, self.wrt, fed=True),
        )
        result = own.run_passes(graph, passes)[0]
        bare = Graph(result.name, result, gradients=result.gradients)
        return self._program("cotangent", own.dead_code(bare))


def _repeating(rows: tuple[PassRecord, ...], watch: Watch | None) -> tuple[PassRecord, ...]:
    """The passes of a program that has kernels, with one more where it changes something."""
    own = _own()
    graph, more = own.run_passes(rows[-1].graph, (own.repeat_elements,), watch, verified=True)
    return rows if graph is rows[-1].graph else rows + more


def _split(passes: tuple[Pass, ...], last: Pass) -> tuple[tuple[Pass, ...], tuple[Pass, ...]]:
    """The passes up to `last`, itself included, and those after it."""
    position = passes.index(last) + 1
    return passes[:position], passes[position:]


def _asking(graph: Graph, names: Iterable[str]) -> Graph:
    """The graph in which the passes before Backward keep these nodes (see passes/pins.py)."""
    gradients = {name: name for name in names}
    return Graph(
        graph.name,
        graph,
        outputs=graph.outputs,
        losses=graph.losses,
        gradients=gradients,
        updates=graph.updates,
    )


def _only_losses(graph: Graph) -> Graph:
    """The graph without the outputs that no loss depends on."""
    needed = graph.upstream(graph.outputs[name] for name in graph.losses)
    outputs = {name: value for name, value in graph.outputs.items() if value in needed}
    return Graph(
        graph.name,
        graph,
        outputs=outputs,
        losses=graph.losses,
        gradients=graph.gradients,
        updates=graph.updates,
    )


class _Own:
    """graphc's own passes, reached when first needed since they import this package."""

    def __init__(self) -> None:
        from graphc.own_passes import own_passes

        own_passes()
        from passes.accumulate import Accumulate
        from passes.apply_update import apply_graph
        from passes.backward import Backward
        from passes.data_parallel import DataParallel
        from passes.dead_code import dead_code
        from passes.hold_back import hold_back
        from passes.pipeline import run_passes
        from passes.repeat_elements import repeat_elements
        from passes.shard import Shard
        from passes.specialize import Specialize
        from passes.update import Update

        self.Specialize, self.Backward, self.Update = Specialize, Backward, Update
        self.Accumulate, self.apply_graph = Accumulate, apply_graph
        self.Shard, self.DataParallel, self.hold_back = Shard, DataParallel, hold_back
        self.dead_code, self.run_passes = dead_code, run_passes
        self.repeat_elements = repeat_elements


def _own() -> _Own:
    return _Own()
