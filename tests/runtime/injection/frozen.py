"""`refresh` of a frozen executor: it infers with the old weights or with the new ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphc as gc
from tests.runtime.injection.judging import bits
from tests.runtime.injection.subjects import X, plan


class FrozenJudge:
    """Judges an interrupted `refresh`."""

    name = "frozen.refresh"

    def __init__(self, where: str) -> None:
        self.old, self.new = (gc.Executor(plan(where), seed=seed) for seed in (1, 2))
        self.frozen = gc.freeze(self.old, batch=8)
        self.before = bits(self.frozen.forward(x=X))
        self.frozen.refresh(self.new)
        self.after = bits(self.frozen.forward(x=X))

    def prepared(self) -> Callable[[], Any]:
        """The call on an executor with the old weights."""
        self.frozen.refresh(self.old)
        return lambda: self.frozen.refresh(self.new)

    def judge(self) -> str:
        """By what it infers, now and after another call."""
        found = bits(self.frozen.forward(x=X))
        self.frozen.refresh(self.new)
        if found not in (self.before, self.after) or bits(self.frozen.forward(x=X)) != self.after:
            return "wrong"
        return "none" if found == self.before else "all"
