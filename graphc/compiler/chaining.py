"""Kernels of stacks of matrices become chains, which run one matrix after the other."""

from __future__ import annotations

from graphc.compiler.lowering import Lowering
from graphc.kernels.chains import Stacks, chained


def chain_kernels(low: Lowering, threads: int) -> None:
    """Join kernels of stacks to chains, which up to so many threads share."""
    aside = {*low.roots, *low.roots.values(), *low.graph.roots, *low.given}
    parts = {*low.views, *low.given}
    places = aside.__contains__, parts.__contains__
    stacks = Stacks(low.type, *places, low.capacity, threads)
    low.instrs, workspaces, low.boundary = chained(low.instrs, low.boundary, stacks)
    low.types.update(workspaces)
