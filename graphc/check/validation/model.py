"""Validates every pass that a model may be compiled with, for each of its uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graphc.check.validation.draws import Draw
from graphc.check.validation.validate import FOLDER, Watch
from graphc.compiler.compile import compile
from graphc.compiler.freeze import frozen_graph
from graphc.declare.optim import SGD, Adam, AdamW, Optimizer
from graphc.declare.schedules import Cosine
from graphc.ir.graph import Graph, Node
from graphc.ops.source import Parameter, State

if TYPE_CHECKING:
    from passes.pass_list import PassList

OPTIMIZERS: tuple[Optimizer, ...] = (
    SGD(lr=0.1, weight_decay=0.1, clip_norm=1.0),
    SGD(lr=0.1, momentum=0.9, weight_decay=0.1),
    SGD(lr=0.1, momentum=0.9, nesterov=True),
    Adam(weight_decay=0.1),
    AdamW(schedule=Cosine(total=20, floor=0.1, warmup=3)),
    SGD(lr=0.1, momentum=0.9, accumulate=4),
)
"""Optimizers that together have each of the options that they have in common."""


@dataclass(frozen=True)
class Judged:
    """The passes that were judged, and the numbers they were judged by."""

    passes: tuple[str, ...]
    """The passes that changed something, one for each run."""
    draws: tuple[Draw, ...]

    def __str__(self) -> str:
        rows = ", ".join(str(draw.rows) for draw in self.draws)
        text = f"ok, {len(self.passes)} runs judged with {rows} rows"
        redrawn = sum(draw.redrawn for draw in self.draws)
        if redrawn:
            text += f"; numbers were drawn again {redrawn} times, for kinks"
        if any(draw.near for draw in self.draws):
            text += ", and some stayed near one"
        return text


def validate_model(
    graph: Graph, rows: int, passes: PassList | None = None, folder: str | Path = FOLDER
) -> Judged:
    """Judge each pass for inference, frozen inference, training and every optimizer.

    Raise ValidationError for the first that fails.
    """
    watch = Watch(graph, rows, folder)
    trains = bool(graph.losses) and any(isinstance(node.op, Parameter) for node in graph)
    optimizers: tuple[Optimizer | None, ...] = OPTIMIZERS if trains else (None,)
    for optimizer in optimizers:
        compile(
            graph, batch=rows, optimizer=optimizer, passes=passes, backend="numpy", validate=watch
        )
    if set(graph.outputs) - set(graph.losses):
        draw = Draw(rows)
        state = {node.name: draw.array(node) for node in graph if _is_state(node)}
        frozen = frozen_graph(graph, state)
        inner = Watch(frozen, rows, folder)
        compile(frozen, batch=rows, passes=passes, backend="numpy", validate=inner)
        watch.judged.extend(inner.judged)
    return Judged(tuple(watch.judged), watch.draws)


def _is_state(node: Node) -> bool:
    return isinstance(node.op, (Parameter, State))
