"""The contract of passes: how one is made, what it preserves, and which nodes it must leave.

A pass is a function `Graph -> Graph`, or a frozen dataclass with `__call__` if it has
options.  It returns the same object if it changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from graphc.base.arguments import checked_number, takes_one
from graphc.base.errors import GraphError, shown
from graphc.ir.graph import Graph

Pass = Callable[[Graph], Graph]
Preserves = Literal["bitwise", "reassociated", "approximate"]
"""Results that keep every bit, are the same mathematics with other rounding, or are close."""


@dataclass(frozen=True)
class FunctionPass:
    """A pass without options: a function, and what it preserves."""

    run: Pass
    preserves: Preserves
    bound: float | None = None
    """For an approximate pass: the largest error of a result, as a part of its largest number."""
    on_steps: bool = True
    """True if it also runs on the steps of loops."""

    @property
    def of_step(self) -> FunctionPass | None:
        """The pass for the steps of loops."""
        return self if self.on_steps else None

    @property
    def name(self) -> str:
        """The function's name."""
        return self.run.__name__

    def __call__(self, graph: Graph) -> Graph:
        """Return the graph that the function makes."""
        return self.run(graph)


def graph_pass(
    preserves: Preserves, bound: float | None = None, *, on_steps: bool = True
) -> Callable[[Pass], FunctionPass]:
    """Return a decorator that makes a pass of a function from graph to graph.

    Parameters
    ----------
    preserves
        Whether results keep every bit ("bitwise"), are rounded otherwise ("reassociated"), or are
        only close ("approximate").
    bound
        For an approximate pass: the most that a number of a result may change, as a part of the
        result's largest number.
    on_steps
        Whether the pass also runs on the steps of loops.

    Returns
    -------
    Callable
        The decorator.

    Raises
    ------
    GraphError
        If `preserves` is none of these, `bound` is not a number from 0 up, or the function cannot
        be called with a graph alone.

    Examples
    --------
    >>> @gc.passes.graph_pass("bitwise")
    ... def unchanged(graph):
    ...     return graph
    >>> unchanged.name
    'unchanged'
    """
    _check_preserves("graph_pass", preserves)
    if bound is not None:
        _checked_bound("graph_pass", bound)

    def decorate(run: Pass) -> FunctionPass:
        check_is_pass(run, "graph_pass: ")
        return FunctionPass(run, preserves, bound, on_steps)

    return decorate


def _check_preserves(what: str, preserves: object) -> None:
    if preserves not in get_args(Preserves):
        raise GraphError(
            f"{what} has preserves={preserves!r}, which is not one of "
            f"{', '.join(map(repr, get_args(Preserves)))}",
            hint='@gc.passes.graph_pass(preserves="bitwise") promises that every bit stays',
        )


def _checked_bound(what: str, bound: object) -> float:
    hint = "it is a part of the result's largest number, such as 1e-3"
    return checked_number(f"{what}: bound", bound, least=0, hint=hint)


def check_is_pass(step: object, where: str = "") -> None:
    """Raise GraphError unless something is not a class and can be called with a graph alone."""
    if isinstance(step, type) or not callable(step) or not takes_one(step):
        raise GraphError(
            f"{where}{shown(step)} is not a pass",
            hint="a pass is a function that takes and returns a Graph",
        )


def name_of(step: Pass) -> str:
    """Return the `name` of a pass, or else the name of the function or class.

    Parameters
    ----------
    step
        The pass.

    Returns
    -------
    str
        The name.

    Examples
    --------
    >>> gc.passes.name_of(lambda graph: graph)
    '<lambda>'
    """
    name = getattr(step, "name", None) or getattr(step, "__name__", None)
    return str(name or type(step).__name__)


def preserves_of(step: Pass) -> Preserves:
    """Return what a pass declares to preserve.

    Parameters
    ----------
    step
        The pass; a plain function counts as approximate.

    Returns
    -------
    str
        "bitwise", "reassociated" or "approximate".

    Raises
    ------
    GraphError
        If it declares something else.

    Examples
    --------
    >>> gc.passes.preserves_of(lambda graph: graph)
    'approximate'
    """
    found: Preserves = getattr(step, "preserves", "approximate")
    _check_preserves(f"pass {name_of(step)!r}", found)
    return found


def bound_of(step: Pass) -> float:
    """Return the bound of an approximate pass, 0 of another; raise GraphError if it has none."""
    if preserves_of(step) != "approximate":
        return 0.0
    what, bound = f"pass {name_of(step)!r}", getattr(step, "bound", None)
    if bound is not None:
        return _checked_bound(what, bound)
    near = "is approximate, but does not say how near"
    raise GraphError(
        f"{what} {near if hasattr(step, 'preserves') else 'does not say what it preserves'}",
        hint='@gc.passes.graph_pass(preserves="approximate", bound=1e-3), or declare '
        '"bitwise" or "reassociated"',
    )


def pinned(graph: Graph) -> frozenset[str]:
    """Return the nodes that must stay as they are until Backward, which differentiates by them.

    Before Backward, `graph.gradients` maps such a node to itself.  If the node were merged with
    another, its gradient would be the sum of both; if users read another, it would have none.
    """
    return frozenset(name for name, node in graph.gradients.items() if name == node)
