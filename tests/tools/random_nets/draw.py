"""A case drawn from a seed."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

import graphc as gc

from . import draw_elements, draw_layers, draw_losses, draw_shapes
from .calls import Call, Ref, Rows
from .case import Case
from .drawer import Drawer, Skip, Var

DRAWS = {
    **draw_elements.DRAWS,
    **draw_shapes.DRAWS,
    **draw_layers.DRAWS,
    **draw_losses.DRAWS,
}
NAMES = tuple(DRAWS)
FIRST = (
    "affine",
    "matmul",
    "embedding",
    "conv2d",
    "add",
    "broadcast_to",
    "layernorm",
    "mul",
    "concat",
)


def draw(seed: int) -> Case:
    """Return the case of a seed."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(["whole", "bare", "fixed"], p=[0.88, 0.07, 0.05])
    d = Drawer(rng, "float32" if rng.random() < 0.5 else "float64", mode=str(kind))
    for _ in range(d.whole(2, 9)):
        step(d, d.one(FIRST) if d.chance(0.2) else d.one(NAMES))
    return finished(d, seed)


def finished(d: Drawer, seed: int) -> Case:
    """Return the case of a net whose layers are drawn: what it is asked for, and how it is run."""
    while not any(v.trained for v in d.pool):
        step(d, "broadcast_to" if d.mode == "bare" else "matmul")
    losses = chosen_losses(d)
    outputs = chosen_outputs(d)
    if d.mode != "fixed" and not any(
        isinstance(dim, Rows) for f in d.inputs.values() for dim in f.shape
    ):
        d.mode = "whole"
        d.input((Rows(), 2))
    optimizer = drawn_optimizer(d, losses) if losses and d.chance(0.85) else None
    batch = d.whole(1, 9) if d.chance(0.85) else d.whole(10, 40)
    reached = sorted({d.owners[n] for v in losses for n in v.smooth if n in d.owners})
    grouped = optimizer is not None and optimizer.groups
    wrt = tuple(p for p in reached if d.chance(0.5)) if d.chance(0.2) and not grouped else ()
    apart = not any(v.mixed for v in d.pool if v.name in d.public) and not d.pooled
    return Case(
        seed,
        d.dtype,
        tuple(d.calls),
        dict(d.inputs),
        {f"l{i}": d.losses[v.name] for i, v in enumerate(losses)},
        {f"o{i}": any(isinstance(dim, Rows) for dim in v.shape) for i, v in enumerate(outputs)},
        apart,
        batch,
        tuple(actions(d, losses, optimizer, batch)),
        optimizer,
        wrt or None,
        dict(d.masks),
        dict(d.ignored),
        {v.name: v.dtype for v in d.pool},
        {f"o{i}": v.shape for i, v in enumerate(outputs) if v.trained and v.real},
    )


def step(d: Drawer, name: str) -> None:
    """Draw some calls of a kind; nothing where the net has no place for them."""
    with suppress(Skip):
        DRAWS[name](d)


def chosen_losses(d: Drawer) -> list[Var]:
    """Choose and declare losses, and make one where there is none."""
    if d.chance(0.05):
        return []
    known = [v for v in d.pool if v.name in d.losses and v.trained]
    losses = [v for v in known if d.chance(0.8)][:3]
    if not losses or d.chance(0.3):
        found = [v for v in d.pool if v.trained and v.real]
        v = found[-1] if d.chance(0.6) else d.one(found)
        if d.chance(0.6):
            v = d.call("gc.mul", v, v) if d.chance(0.5) else d.call("gc.power", v, 2)
        how = d.one(["sum", "mean"])
        made = d.call(f"gc.{how}", v)
        rows = any(isinstance(dim, Rows) for dim in v.shape)
        d.losses[made.name] = "mixed" if v.mixed else how if rows else "mean"
        losses.append(made)
    for i, v in enumerate(losses):
        d.calls.append(Call((), "net.loss", (f"l{i}", Ref(v.name))))
        d.public.add(v.name)
    return losses


def chosen_outputs(d: Drawer) -> list[Var]:
    """Choose and declare outputs: what nothing reads, and a few others, inputs too."""
    read = {name for call in d.calls for name in call.reads}
    ends = [v for v in d.pool if v.name not in read]
    rest = [v for v in d.pool if v.name in read and d.chance(0.08)]
    outputs = (ends[-3:] + rest)[:5] or d.pool[-1:]
    for i, v in enumerate(outputs):
        d.calls.append(Call((), "net.output", (f"o{i}", Ref(v.name))))
        d.public.add(v.name)
    return outputs


def actions(d: Drawer, losses: list[Var], optimizer: Any, batch: int) -> list[tuple[str, int]]:
    """Draw what is done in turn, on how many rows each time."""
    kinds = (
        ["infer"] + ["train"] * bool(losses) + ["step", "step", "step"] * (optimizer is not None)
    )
    if optimizer is not None and optimizer.accumulate == 1:
        kinds.append("parts")
    sizes = [d.one([1, batch, d.whole(1, batch)]) for _ in range(d.whole(2, 5))]
    return [(d.one(kinds), rows) for rows in sizes]


CLASSES = {
    gc.SGD: (0.01, 0.1),
    gc.Adam: (0.001, 0.05),
    gc.AdamW: (0.001, 0.05),
    gc.NAdam: (0.001, 0.05),
    gc.Adamax: (0.001, 0.05),
    gc.RMSprop: (0.001, 0.02),
    gc.Adagrad: (0.01, 0.1),
    gc.Adadelta: (0.1, 1.0),
    gc.Lion: (0.0005, 0.01),
}


def drawn_optimizer(d: Drawer, losses: list[Var]) -> gc.optim.Optimizer:
    """Draw an optimizer with any of its options."""
    kind: Any = d.one(list(CLASSES))
    options: dict[str, Any] = {"lr": round(float(d.rng.uniform(*CLASSES[kind])), 4)}
    drawn = {
        "weight_decay": d.number(0.01, 0.3),
        "schedule": schedule(d),
        "clip_norm": d.number(0.1, 3),
        "clip_value": d.number(0.1, 2),
        "accumulate": d.whole(1, 3),
        "ema": d.one([0.5, 0.9]),
    }
    options |= {name: value for name, value in drawn.items() if d.chance(0.2)}
    if kind in (gc.SGD, gc.RMSprop) and d.chance(0.5):
        options["momentum"] = 0.9
        if kind is gc.SGD:
            options["nesterov"] = d.chance(0.4)
    if "weight_decay" in options and d.chance(0.3):
        options["decay"] = ("*bias", "p*")
    reached = sorted({d.owners[n] for v in losses for n in v.smooth if n in d.owners})
    if len(reached) > 1 and d.chance(0.2):
        options["groups"] = (group(d, d.one(reached)),)
    return kind(**options)  # type: ignore[no-any-return]


def group(d: Drawer, pattern: str) -> gc.Group:
    """Draw what holds for some parameters alone."""
    kind = d.rng.random()
    if kind < 0.4:
        return gc.Group(pattern, frozen=True)
    return (
        gc.Group(pattern, lr=0.01) if kind < 0.7 else gc.Group(pattern, lr=0.003, weight_decay=0.1)
    )


def schedule(d: Drawer) -> Any:
    """Draw a schedule."""
    made = [
        gc.Cosine(total=4),
        gc.Cosine(total=6, floor=0.1, warmup=2),
        gc.Step(every=2, factor=0.5),
    ]
    return d.one([*made, gc.WarmUp(3), gc.WarmUp(2, then=gc.Step(every=1, factor=0.3))])
