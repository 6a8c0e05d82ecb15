"""The function `compile`: checks its options, chooses the defaults, returns an immutable plan."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from graphc.backends.backend import chosen_backend
from graphc.base.arguments import check_choice, checked_whole, plain, takes
from graphc.base.door import higher
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc, warn
from graphc.compiler.options import CompileOptions, Watch
from graphc.compiler.own import Planner, Scheduler, check_own
from graphc.compiler.plan import Plan
from graphc.compiler.precision import PrecisionChoice, precision_of_layers
from graphc.compiler.sharding import Sharding, sharding
from graphc.declare.net import Net, declared_graph
from graphc.declare.optim import Optimizer
from graphc.declare.optim.rule import Training, UpdateRule, one_rule, several_rules
from graphc.declare.selection import Names
from graphc.ir.graph import Graph
from graphc.ir.tensor_type import LARGEST
from graphc.kernels.program import Contract
from passes import DEFAULT
from passes.pipeline import PassList


@takes(
    "gc.compile(net, batch=128, optimizer=gc.Adam())",
    loss='it is declared: net.loss("loss", gc.softmax_loss(scores, y))',
    metrics='they are outputs: net.output("accuracy", gc.accuracy(scores, y))',
    batch_size="it is batch",
)
def compile(
    net: Net | Graph,
    *,
    batch: int,
    optimizer: Optimizer | None = None,
    updates: Sequence[UpdateRule] | None = None,
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
    planner: Planner | None = None,
    schedule: Scheduler | None = None,
    contract: Contract = "fused",
    precision: PrecisionChoice = None,
) -> Plan:
    """Compile a net for any batch from 1 to `batch` rows.

    Parameters
    ----------
    net
        A `gc.Net`, or the graph of one.
    batch
        The largest number of rows of a run.
    optimizer
        The optimizer, for a plan that trains.
    updates
        The update rules of a step, in place of `optimizer`, `losses` and `wrt`.
    losses
        The losses to minimise, by name, value or pattern such as "actor/*"; None means all.
    outputs
        The outputs to return; None means all.
    wrt
        The values to differentiate by and train; None means every parameter that a loss depends on.
    backend
        "native", "c" or "numpy"; None means native if it is available.
    threads
        The most threads of the native backend; None means all that the process may run on, or
        GRAPHC_THREADS or OMP_NUM_THREADS.  Results do not depend on it.
    passes
        The passes to run; None means `gc.passes.DEFAULT`.
    budget
        The most bytes of the plan.  A plan that needs more recomputes values.
    shards
        The number of shards into which a step cuts its batch.  Their results are added up in a
        fixed order, so results depend on this number, but not on `ranks`.
    ranks
        The number of processes that share the shards; each executor has a communicator.  See
        docs/distributed.md.
    sync_batchnorm
        Whether batch normalisation takes the statistics of the whole batch, not of a shard.
    validate
        Whether every pass is judged on random inputs by what it declares to preserve, and every
        program is run and compared with the reference rules.  A test of a pass that fails is
        written to the folder `graphc-failures`, or to the one named here; see
        docs/validation.md.
    planner
        A memory planner of your own.  For each program it gets the live ranges of the arena, and
        returns a dict from their names to offsets; see docs/writing_a_planner.md.
    schedule
        A schedule of your own.  For the forward and the backward part of each program it gets the
        instructions in a right order, and returns a list of epochs, each a list of instructions;
        threads wait for each other between two.  Whether the plan is right, `plan.verify()` says.
    contract
        "fused": the multiply-adds of matrix products and of functions such as exp round once.
        "unfused": they round twice, for processors without that instruction.  Each has the same
        bits on every target, see docs/reproducibility.md; the numpy backend ignores it.
    precision
        The precision of products, by names or patterns of layers; a later pattern overrides those
        before: `{"*": "bf16", "scores": "float32"}`.  "bf16" rounds factors to bfloat16 and adds
        in float32; "bf16_blocks" adds in another order, see docs/precision.md; None leaves all at
        float32.  "bf16" instead of a mapping lets the compiler take either for the layers that it
        makes faster on this processor: the plan's `precision` has them, and gives the same bits on
        others.

    Returns
    -------
    Plan
        The plan, for any number of executors.

    Raises
    ------
    GraphError
        If the graph, a name or an option does not fit.
    BudgetError
        If the plan needs more bytes than `budget`.
    ValidationError
        If a pass is wrong, or what was compiled.

    Examples
    --------
    >>> net = gc.Net("digits")
    >>> h = gc.relu(gc.affine(net.input("x", (gc.N, 64)), 32))
    >>> y = net.input("y", (gc.N,), dtype="int64")
    >>> loss = net.loss("loss", gc.softmax_loss(gc.affine(h, 10), y))
    >>> plan = gc.compile(net, batch=128, optimizer=gc.Adam())
    >>> list(plan.programs)
    ['infer', 'grad', 'step', 'apply']
    """
    batch, threads, budget, shards, ranks = map(plain, (batch, threads, budget, shards, ranks))
    with collector_paused():
        hint = "gc.compile(net, batch=128); what to return is chosen by outputs="
        graph = declared_graph("compile", net, hint)
        check_options(graph, batch, optimizer, threads, budget, contract)
        check_own(planner=planner, schedule=schedule)
        backend = chosen_backend(backend)
        cut = sharding(shards, ranks, sync_batchnorm, batch, budget)
        training = _training(graph, losses, outputs, wrt, optimizer, updates)
        if training.rules and isinstance(net, Net) and net.for_inference:
            warn(f"compile: net {net.name!r} may not train as it should: {net.for_inference}")
        rows = batch if cut is None else _rows(cut, batch, training.rules, schedule)
        passes = _passes(passes)
        graph, names, required, rules = training
        given = precision_of_layers(graph, precision, passes, rows, bool(rules), backend)
        chosen, full = _limited(passes), outputs is not None
        run = backend, threads, budget, batch, cut, planner, schedule, contract, given
        options = CompileOptions(graph, rows, names, required, rules, chosen, full, *run)
        plan = options.plan(_watch(graph, batch, validate))
    if budget is not None:
        plan.memory.check_budget(budget)
    plan.memory.check_machine(LARGEST)
    if validate is not False and not callable(validate):
        higher("compile.run")(plan)
    return plan


def _training(
    graph: Graph,
    losses: Names,
    outputs: Names,
    wrt: Names,
    optimizer: Optimizer | None,
    updates: Sequence[UpdateRule] | None,
) -> Training:
    """Return what a plan trains; raise GraphError for losses or rules that make no sense."""
    if updates is None:
        training = one_rule(graph, losses, outputs, wrt, optimizer)
        check_losses(training.graph, optimizer)
        return training
    _check_alone(losses=losses, wrt=wrt, optimizer=optimizer)
    training = several_rules(graph, outputs, updates)
    for rule in training.rules:
        check_losses(training.graph, rule.optimizer)
    return training


def _rows(
    cut: Sharding, batch: int, rules: Sequence[UpdateRule], schedule: Scheduler | None
) -> int:
    """Return the rows of a shard; raise GraphError for what does not go with shards."""
    if schedule is not None:
        raise GraphError(
            "schedule= does not go with shards=",
            loc=caller_loc(),
            hint="shards wait for each other in one order, which graphc chooses",
        )
    if len(rules) > 1:
        raise GraphError(
            f"{len(rules)} update rules do not go with shards or ranks",
            loc=caller_loc(),
            hint="a later rule waits for all shards of those before it; compile without "
            "shards= and ranks=",
        )
    return cut.rows(batch)


def _check_alone(**others: object) -> None:
    """Raise GraphError for an option of compile() that `updates` replaces."""
    for name, given in others.items():
        if given is not None:
            raise GraphError(
                f"compile: {name}= does not go with updates=",
                loc=caller_loc(),
                hint="each gc.UpdateRule(losses, wrt, optimizer) has its own",
            )


def _watch(graph: Graph, batch: int, validate: bool | str | Path | Watch) -> Watch | None:
    if validate is False:
        return None
    if callable(validate):
        return validate
    folder = () if validate is True else (validate,)
    watch: Watch = higher("compile.validate")(graph, batch, *folder)
    return watch


def _passes(given: PassList | None) -> PassList:
    """Return the pass list that was given or the default; raise GraphError for anything else."""
    if given is None:
        return DEFAULT
    if isinstance(given, PassList):
        return given
    raise GraphError(
        f"passes is {given!r}, not a list of passes",
        loc=caller_loc(),
        hint='gc.passes.without("cse"), or gc.passes.after("cse", my_pass)',
    )


def _limited(passes: PassList) -> PassList:
    """Return the pass list, limited by the variables that `graphc bisect` sets."""
    if "GRAPHC_PASS_LIMIT" not in os.environ and "GRAPHC_PASS_LOG" not in os.environ:
        return passes
    limited: PassList = higher("compile.limit")(passes)
    return limited


def check_losses(graph: Graph, optimizer: Optimizer | None) -> None:
    """Raise GraphError for an optimizer with nothing to minimise or train, or an empty group."""
    if optimizer is not None and not graph.losses:
        raise GraphError(
            f"net {graph.name!r} has no loss for the optimizer to minimise",
            loc=caller_loc(),
            hint='declare one: net.loss("loss", gc.softmax_loss(scores, y))',
        )
    parameters = [node.name for node in graph if node.op.is_parameter]
    if optimizer is not None and not parameters:
        raise GraphError(
            f"net {graph.name!r} has no parameter for the optimizer to train",
            loc=caller_loc(),
            hint="layers such as gc.affine(x, 10) make them, and net.parameter(name, shape)",
        )
    if optimizer is not None:
        optimizer.check_groups(parameters)
        dtypes = sorted({graph[name].type.dtype for name in parameters})
        for made in (optimizer, *optimizer.groups):
            made.check_held(dtypes)


def check_options(
    graph: Graph,
    batch: int,
    optimizer: Optimizer | None = None,
    threads: int | None = None,
    budget: int | None = None,
    contract: str = "fused",
) -> None:
    """Raise GraphError for an impossible batch, optimizer, threads, budget or contract."""
    check_choice("contract", contract, get_args(Contract))
    checked_whole("batch", batch, hint="it is the largest number of rows of a run")
    if threads is not None:
        hint = "leave it out to use every core that the process may run on"
        checked_whole("threads", threads, hint=hint)
    if budget is not None:
        checked_whole("budget", budget, hint="it is in bytes: 8 MB are budget=8_000_000")
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


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the search for reference cycles: a plan is many small objects that are all kept.

    The search would take a third of the compile time of a large net, and grow faster than the net.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
