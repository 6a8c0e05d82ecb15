"""Which ops, passes and pairs of passes have done something, and in how many cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import graphc as gc
from graphc.compiler.plan import Plan
from graphc.ir.graph import Graph
from graphc.ir.op import Layer, Op
from graphc.ops import OPS
from passes.pipeline import PassRecord


@dataclass
class Coverage:
    """Counts of cases, by what became of them and by what took part in them."""

    verdicts: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    ops: Counter[str] = field(default_factory=Counter)
    passes: Counter[str] = field(default_factory=Counter)
    pairs: Counter[str] = field(default_factory=Counter)
    """Of passes that changed the same program."""

    def add(self, plans: Iterable[Plan]) -> None:
        """Count what the plans of one case are made of."""
        ops: set[str] = set()
        fired: set[str] = set()
        pairs: set[str] = set()
        for plan in plans:
            ops |= _ops(plan.declared)
            for records in plan.graphs.values():
                ops.update(*map(_ops, {record.graph for record in records}))
                together = sorted(set(_fired(plan.declared, records)))
                fired.update(together)
                pairs.update(f"{a} + {b}" for a, b in combinations(together, 2))
        self.ops.update(ops)
        self.passes.update(fired)
        self.pairs.update(pairs)

    def merge(self, other: Coverage) -> None:
        """Add the counts of another process."""
        for name, counts in vars(self).items():
            counts.update(vars(other)[name])

    def missing(self, least: int) -> dict[str, int]:
        """The ops and passes that took part in fewer cases than that."""
        wanted = [(f"op {name}", self.ops[name]) for name in OPS]
        wanted += [(f"pass {name}", self.passes[name]) for name in gc.passes.DEFAULT.names]
        return {name: number for name, number in wanted if number < least}

    def as_json(self) -> dict[str, Any]:
        """Everything, largest counts first; ops and passes that never took part with 0."""
        found = {k: dict(counts.most_common()) for k, counts in vars(self).items()}
        for kind, names in (("ops", OPS), ("passes", gc.passes.DEFAULT.names)):
            found[kind].update({name: 0 for name in names if name not in found[kind]})
        return found

    def text(self) -> str:
        """A few lines for people."""
        return "\n".join(
            f"{title}: {_counts(counts)}"
            for title, counts in (
                ("verdicts", self.verdicts),
                ("events", self.events),
                ("passes", self.passes),
                ("rarest ops", dict(self.ops.most_common()[:-11:-1])),
                ("rarest pairs", dict(self.pairs.most_common()[:-11:-1])),
            )
        )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counts.items())


def _fired(declared: Graph, records: Iterable[PassRecord]) -> Iterable[str]:
    """The passes that gave another graph than they were given."""
    before = declared
    for record in records:
        if record.graph is not before:
            yield record.name
        before = record.graph


def _ops(graph: Graph) -> set[str]:
    return set(map(_key, {type(node.op) for node in graph}))


def _key(cls: type[Op]) -> str:
    return f"layer {cls.name}" if issubclass(cls, Layer) else cls.name
