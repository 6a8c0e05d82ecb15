"""The function `freeze`: an executor for inference with its weights built in."""

from __future__ import annotations

from graphc.base.arguments import takes
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.compiler.compile import compile
from graphc.compiler.freeze import frozen_graph
from graphc.features.precision.option import PrecisionChoice, known_layers
from graphc.ir.graph import Graph
from graphc.runtime.executor import Executor
from passes.contract import name_of
from passes.pipeline import run_passes
from passes.specialize import Specialize


@takes("gc.freeze(ex, batch=1)")
def freeze(
    ex: Executor,
    *,
    batch: int,
    precision: PrecisionChoice = None,
) -> Executor:
    """Build the weights of an executor into a new one that only infers.

    Batch normalisation is folded into the layers before it, and losses are left out.
    `frozen.refresh(ex)` takes new weights without compiling.

    Parameters
    ----------
    ex
        The trained executor, which stays as it is.
    batch
        The largest number of rows of one run.
    precision
        The precision of products, as `gc.compile` takes it; that of the executor's plan if None.
        Weights that are rounded to bfloat16 take half the memory.

    Returns
    -------
    Executor
        One whose plan has constants for weights.

    Raises
    ------
    GraphError
        If `ex` is not an executor, or `batch` not a whole number from 1 up.

    Examples
    --------
    >>> net = gc.Net("line")
    >>> line = net.output("line", gc.affine(net.input("x", (gc.N, 2)), 3))
    >>> frozen = gc.freeze(gc.Executor(gc.compile(net, batch=32)), batch=1)
    >>> frozen.predict(np.ones((1, 2))).shape
    (1, 3)
    """
    check_executor("freeze", ex, "gc.freeze(ex, batch=1) with ex = gc.Executor(plan)")
    return built(ex, frozen(ex), batch, precision)


def check_executor(what: str, ex: object, hint: str) -> None:
    """Raise GraphError unless `ex` is an executor."""
    if not isinstance(ex, Executor):
        message = f"{what} takes an executor, not {type(ex).__name__}"
        raise GraphError(message, loc=caller_loc(), hint=hint)


def frozen(ex: Executor) -> Graph:
    """Return the declared graph with the weights of an executor built in."""
    declared = ex.plan.declared
    names = [node.name for node in declared if node.op.persistent]
    return frozen_graph(declared, ex.state.read(names))


def frozen_ops(ex: Executor) -> Graph:
    """Return the frozen graph after all passes that run before ops are fused."""
    passes = ex.plan.options.passes.fill({"specialize": Specialize(train=False)})
    kept = [step for step in passes if name_of(step) != "fuse_affine_relu"]
    return run_passes(frozen(ex), kept)[0]


def built(
    ex: Executor,
    graph: Graph,
    batch: int,
    precision: PrecisionChoice = None,
) -> Executor:
    """Return an executor of a graph without state, compiled as `ex` is, with its inputs.

    A `precision` replaces that of the plan of `ex`.
    """
    options = ex.plan.options
    inputs = [node for node in ex.plan.declared if node.op.is_input]
    if any(node.name not in graph for node in inputs):  # labels may be fed as before
        graph = graph.with_nodes([*inputs, *(node for node in graph if not node.op.is_input)])
    plan = compile(
        graph,
        batch=batch,
        backend=options.backend,
        threads=options.threads,
        passes=options.passes,
        planner=options.planner,
        schedule=options.schedule,
        contract=options.contract,
        precision=known_layers(graph, options.precision) if precision is None else precision,
    )
    made = Executor(plan)
    made.state.columns = ex.state.columns
    return made
