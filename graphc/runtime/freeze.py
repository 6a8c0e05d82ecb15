"""The function `freeze`: an executor for inference with its weights built in."""

from __future__ import annotations

from graphc.base.arguments import takes
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.compiler.compile import compile
from graphc.compiler.freeze import frozen_graph
from graphc.ops.source import Parameter, State
from graphc.runtime.executor import Executor


@takes("gc.freeze(ex, batch=1)")
def freeze(ex: Executor, *, batch: int) -> Executor:
    """Return an executor for inference with the weights of `ex` built in and batchnorm folded.

    Losses are left out.  `frozen.refresh(ex)` takes new weights without compiling.
    """
    if not isinstance(ex, Executor):
        raise GraphError(
            f"freeze takes an executor, not {type(ex).__name__}",
            loc=caller_loc(),
            hint="gc.freeze(ex, batch=1) with ex = gc.Executor(plan)",
        )
    declared = ex.plan.declared
    names = [node.name for node in declared if isinstance(node.op, (Parameter, State))]
    graph = frozen_graph(declared, ex.state.read(names))
    recipe = ex.plan.recipe
    plan = compile(
        graph,
        batch=batch,
        backend=recipe.backend,
        threads=recipe.threads,
        passes=recipe.passes,
    )
    frozen = Executor(plan)
    frozen.state.columns = ex.state.columns
    return frozen
