"""The function `freeze`: an executor for inference with its weights built in."""

from __future__ import annotations

from graphc.base.arguments import takes
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.compiler.compile import compile
from graphc.compiler.freeze import frozen_graph
from graphc.runtime.executor import Executor


@takes("gc.freeze(ex, batch=1)")
def freeze(ex: Executor, *, batch: int) -> Executor:
    """Build the weights of an executor into a new one that only infers.

    Batch normalisation is folded into the layers before it, and losses are left out.
    `frozen.refresh(ex)` takes new weights without compiling.

    Parameters
    ----------
    ex
        The trained executor, which stays as it is.
    batch
        The largest number of rows of one run.

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
    if not isinstance(ex, Executor):
        raise GraphError(
            f"freeze takes an executor, not {type(ex).__name__}",
            loc=caller_loc(),
            hint="gc.freeze(ex, batch=1) with ex = gc.Executor(plan)",
        )
    declared = ex.plan.declared
    names = [node.name for node in declared if node.op.persistent]
    graph = frozen_graph(declared, ex.state.read(names))
    options = ex.plan.options
    plan = compile(
        graph,
        batch=batch,
        backend=options.backend,
        threads=options.threads,
        passes=options.passes,
        planner=options.planner,
        schedule=options.schedule,
        contract=options.contract,
    )
    frozen = Executor(plan)
    frozen.state.columns = ex.state.columns
    return frozen
