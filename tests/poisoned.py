"""Memory that holds NaN wherever nothing has been written: no result may depend on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import Any

import pytest

from graphc.ir.op import Array
from graphc.kernels.program import Program
from graphc.runtime import workspace
from graphc.runtime.bound import Binder, Bound
from graphc.runtime.members import states
from graphc.runtime.members.runs import MemberRuns
from graphc.runtime.row_axis import RowAxis
from graphc.runtime.workspace import poison


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Poison what executors, populations and fit allocate, and what is dead before each run.

    Otherwise memory is zeroed, and what one run has left there hides what the next does not write.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspace, "block", _poisoned(workspace.block))
        patch.setattr(workspace, "large_block", _poisoned(workspace.large_block))
        patch.setattr(states, "large_block", _poisoned(states.large_block))
        patch.setattr(RowAxis, "buffer", _poisoned(RowAxis.buffer))
        patch.setattr(Binder, "_bind", _poisoning(Binder._bind))
        patch.setattr(MemberRuns, "side_by_side", _on_poison(MemberRuns.side_by_side))
        yield


def _poisoned(block: Callable[..., Array]) -> Callable[..., Array]:
    @wraps(block)
    def allocated(*given: Any) -> Array:
        memory = block(*given)
        poison(memory)
        return memory

    return allocated


def _poisoning(bind: Callable[..., Bound]) -> Callable[..., Bound]:
    """Return `Binder._bind`, but for a first call that poisons the memory of the run."""

    @wraps(bind)
    def bound(binder: Binder, program: Program, n: int, missing: frozenset[str]) -> Bound:
        made, first = bind(binder, program, n, missing), binder._workspace.poison
        only = made.only_call

        def both() -> None:
            assert only is not None, "there is one call"
            first()
            only()

        return replace(
            made,
            calls=[first, *made.calls],
            forward_calls=made.forward_calls + 1,
            only_call=None if only is None else both,
        )

    return bound


def _on_poison(side_by_side: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(side_by_side)
    def ready(runs: MemberRuns, *given: Any, **train: bool) -> Any:
        runs._workspace.poison()
        return side_by_side(runs, *given, **train)

    return ready
