"""The function `compile`: the options of the core and of all features, and the plan of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graphc.base.arguments import checked_whole, plain, takes
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.compiler.driver import Watch
from graphc.compiler.options import CompileOptions
from graphc.compiler.own import Planner, Scheduler, check_own
from graphc.compiler.plan import Plan
from graphc.compiler.request import collector_paused, compiled, request
from graphc.compiler.sharding import Sharding, sharding
from graphc.declare.net import Net
from graphc.declare.optim.optimizer import Optimizer
from graphc.declare.optim.rule import UpdateRule
from graphc.declare.selection import Names
from graphc.features.precision.option import PrecisionChoice, precision_of_layers
from graphc.ir.graph import Graph
from graphc.kernels.program import Contract
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
    batch, budget, shards, ranks = map(plain, (batch, budget, shards, ranks))
    with collector_paused():
        given = request(
            net,
            batch=batch,
            optimizer=optimizer,
            updates=updates,
            losses=losses,
            outputs=outputs,
            wrt=wrt,
            backend=backend,
            threads=threads,
            passes=passes,
            contract=contract,
        )
        check_budget(budget)
        check_own(planner=planner, schedule=schedule)
        cut = sharding(shards, ranks, sync_batchnorm, batch, budget)
        rows = batch if cut is None else _rows(cut, batch, given.rules, schedule)
        trains = bool(given.rules)
        chosen = given.graph, precision, given.passes, rows, trains, given.backend
        options = CompileOptions(
            **{**vars(given), "batch": rows},
            budget=budget,
            rows=batch,
            sharding=cut,
            planner=planner,
            schedule=schedule,
            precision=precision_of_layers(*chosen),
        )
    plan = compiled(options, validate)
    if budget is not None:
        plan.memory.check_budget(budget)
    return plan


def check_budget(budget: int | None) -> None:
    """Raise GraphError unless a budget is a number of bytes."""
    if budget is not None:
        checked_whole("budget", budget, hint="it is in bytes: 8 MB are budget=8_000_000")


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
