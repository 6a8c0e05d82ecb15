"""The request for a plan: what every compilation is given, checked, and the defaults chosen."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from graphc.backends.backend import chosen_backend
from graphc.base.arguments import check_choice, checked_whole, plain
from graphc.base.door import higher, optional
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc, warn
from graphc.compiler.driver import Compilation, Watch
from graphc.compiler.plan import Plan
from graphc.declare.net import Net, declared_graph
from graphc.declare.optim.optimizer import Optimizer
from graphc.declare.optim.rule import Training, UpdateRule, one_rule, several_rules
from graphc.declare.selection import Names
from graphc.ir.graph import Graph
from graphc.ir.tensor_type import LARGEST
from graphc.kernels.program import Contract
from passes.core import CORE
from passes.pipeline import PassList


def request(
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
    contract: Contract = "fused",
) -> Compilation:
    """Return the compilation of a net, with the options of `compile` that the core has.

    Raise GraphError if the graph, a name or an option does not fit.
    """
    batch, threads = plain(batch), plain(threads)
    hint = "gc.compile(net, batch=128); what to return is chosen by outputs="
    graph = declared_graph("compile", net, hint)
    check_options(graph, batch, optimizer, threads, contract)
    made = chosen_backend(backend)
    training = _training(graph, losses, outputs, wrt, optimizer, updates)
    if training.rules and isinstance(net, Net) and net.for_inference:
        warn(f"compile: net {net.name!r} may not train as it should: {net.for_inference}")
    chosen = _limited(_passes(passes))
    return Compilation(
        training.graph,
        batch,
        training.wrt,
        training.required,
        training.rules,
        chosen,
        outputs is not None,
        made,
        threads,
        contract,
    )


def compiled(options: Compilation, validate: bool | str | Path | Watch = False) -> Plan:
    """Return the plan of a compilation, validated if that is asked for.

    Raise BudgetError for a plan that no machine can hold, and ValidationError if a pass is wrong,
    or what was compiled.
    """
    with collector_paused():
        plan = options.plan(_watch(options.graph, options.step_rows, validate))
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
        found: PassList = optional("passes") or CORE
        return found
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
    contract: str = "fused",
) -> None:
    """Raise GraphError for an impossible batch, optimizer, number of threads or contract."""
    check_choice("contract", contract, get_args(Contract))
    checked_whole("batch", batch, hint="it is the largest number of rows of a run")
    if threads is not None:
        hint = "leave it out to use every core that the process may run on"
        checked_whole("threads", threads, hint=hint)
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
