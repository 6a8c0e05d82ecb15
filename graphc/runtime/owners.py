"""The optimizers that own the rates, counters and slots in a state that several plans share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from graphc.base.errors import StateError
from graphc.base.loc import caller_loc
from graphc.declare.optim import Optimizer
from graphc.ir.plan import Plan
from graphc.ops.source import Parameter


@dataclass(frozen=True, slots=True)
class Owner:
    """An optimizer, and the parameters that it trains."""

    optimizer: Optimizer
    trained: frozenset[str]

    @classmethod
    def of(cls, plan: Plan) -> Owner | None:
        """Return the owner of a plan's slots, or None if the plan has no optimizer."""
        if plan.optimizer is None:
            return None
        graph = plan.programs["apply"].graph
        names = (name for name in graph.updates if isinstance(graph[name].op, Parameter))
        return cls(plan.optimizer, frozenset(names))

    def check(self, others: Iterable[Owner]) -> None:
        """Raise StateError if another optimizer of this name has other settings or parameters."""
        for other in others:
            if other.optimizer.name != self.optimizer.name or other == self:
                continue
            kind = type(self.optimizer).__name__
            raise StateError(
                f"plans that share a state share the rate, the counter and the slots of an "
                f"optimizer, and these two differ: {self._difference(other)}",
                loc=caller_loc(),
                hint=f"give one a name, so that it has its own numbers: gc.{kind}(..., name="
                f'"{"second" if not self.optimizer.name else self.optimizer.name + "2"}")',
            )

    def _difference(self, other: Owner) -> str:
        mine, known = self.optimizer, other.optimizer
        if type(mine) is not type(known):
            return f"this plan has {mine}, the other {known}"
        for field in fields(mine):
            here, there = getattr(mine, field.name), getattr(known, field.name)
            if here != there:
                return f"this plan's has {field.name}={here!r}, the other's {field.name}={there!r}"
        name = min(self.trained ^ other.trained)
        return (
            f"{name!r} is trained by {'this plan' if name in self.trained else 'the other'} alone"
        )
