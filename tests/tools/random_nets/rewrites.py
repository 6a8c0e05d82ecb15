"""The same net declared in other words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .calls import Call, Ref, Rows, change
from .case import Case

Calls = tuple[Call, ...]


def other_order(case: Case, rng: np.random.Generator) -> tuple[str, Calls]:
    """Declare in another order, as operands allow.  Dropouts keep theirs by their names."""
    left, known, found = list(case.calls), set(), []
    while left:
        ready = [c for c in left if known.issuperset(c.reads)]
        call = ready[int(rng.integers(len(ready)))]
        left.remove(call)
        known |= set(call.results)
        found.append(call)
    return "other order", tuple(found)


def neutral(case: Case, rng: np.random.Generator) -> tuple[str, Calls]:
    """Put an operation that changes nothing behind a result."""
    floats = [n for n, dtype in case.dtypes.items() if dtype == case.dtype and n not in case.raw]
    if not floats:
        return other_order(case, rng)
    name = floats[int(rng.integers(len(floats)))]
    function, *rest = NEUTRAL[int(rng.integers(len(NEUTRAL)))]
    at = next(i for i, call in enumerate(case.calls) if name in call.results)

    def again(leaf: Any) -> Any:
        return Ref("again") if isinstance(leaf, Ref) and leaf.name == name else leaf

    made = [Call(("again",), function, (Ref(name), *rest))]
    if function in ("gc.neg",):
        made = [Call(("once",), function, (Ref(name),)), Call(("again",), function, (Ref("once"),))]
    later = [
        Call(c.results, c.function, *change((c.args, dict(c.kwargs)), again))
        for c in case.calls[at + 1 :]
    ]
    return f"{function} behind {name}", (*case.calls[: at + 1], *made, *later)


NEUTRAL: tuple[tuple[Any, ...], ...] = (
    ("gc.add", 0),
    ("gc.mul", 1),
    ("gc.div", 1.0),
    ("gc.power", 1),
    ("gc.neg",),
    ("gc.sub", 0.0),
)


def unread(case: Case, rng: np.random.Generator) -> tuple[str, Calls]:
    """Declare, first of all, an input and a parameter that nothing needs."""
    more = (
        Call(("n1",), "net.input", ("unread", (3, 2))),
        Call(("n2",), "net.parameter", ("idle", (2, 5)), {"init": 0.5}),
        Call(("n3",), "gc.matmul", (Ref("n1"), Ref("n2"))),
        Call(("n4",), "gc.broadcast_to", (Ref("n2"), (Rows(), 2, 5))),
    )
    return "what nothing reads", (*more, *case.calls)


ALL: tuple[Callable[[Case, np.random.Generator], tuple[str, Calls]], ...] = (
    other_order,
    neutral,
    unread,
)
