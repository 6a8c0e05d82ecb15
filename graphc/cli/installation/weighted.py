"""`gc.fit` with weights of rows and of classes, alone and on folds, by loops in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphc as gc
from graphc.cli.installation.plain import Array, softmax
from graphc.cli.installation.trial import ROUGH, Trial, all_same, near

CLASSES = {0: 0.5, 1: 2.0, 2: 1.25}
FOLDS, EPOCHS, RATE = 3, 3, 0.4


def _line(batch: int) -> gc.Plan:
    """Return the plan of a linear classifier of standardised rows."""
    net = gc.Net("classes", dtype="float64")
    x, y = net.input("x", (gc.N, 3)), net.input("y", (gc.N,), dtype="int64")
    scores = gc.standardize(x, name="s") @ net.parameter("w", (3, 3), init="zeros")
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, y, weight=net.input("share", (gc.N,))))
    return gc.compile(net, batch=batch, optimizer=gc.SGD(lr=RATE))


def _losses(w: Array, x: Array, y: Array) -> Array:
    return np.asarray(-np.log(softmax(x @ w))[np.arange(len(y)), y])


def _trained(
    x: Array, y: Array, share: Array, epochs: list[list[list[int]]]
) -> tuple[Array, list[float], Array, Array]:
    """Return the weights, the losses of epochs, and the mean and scale of the rows."""
    mean, scale = x.mean(0), x.std(0)
    x, w, losses = (x - mean) / scale, np.zeros((3, 3)), list[float]()
    for epoch in epochs:
        total = size = 0.0
        for rows in epoch:
            part = share[rows]
            total += (_losses(w, x[rows], y[rows]) * part).sum()
            size += part.sum()
            slope = softmax(x[rows] @ w) - np.eye(3)[y[rows]]
            w = w - RATE * x[rows].T @ (slope * part[:, None]) / part.sum()
        losses.append(float(total / size))
    return w, losses, mean, scale


def check_weights(trial: Trial, rows: int, batch: int, orders: list[list[list[int]]]) -> None:
    """Check weights of rows, of classes, and both, with validation."""
    rng = trial.rng
    (x, held), (y, labels) = rng.normal(2, 3, (2, rows, 3)), rng.integers(0, 3, (2, rows))
    weight = rng.uniform(0.2, 2, rows)
    factors = np.array(list(CLASSES.values()))
    for of_rows in (None, weight):
        for of_classes in (None, CLASSES):
            share = (1 if of_rows is None else of_rows) * (
                factors[y] if of_classes else np.ones(rows)
            )
            what = f"weights of rows {of_rows is not None}, of classes {of_classes is not None}"
            with trial.case(f"gc.fit with {what}"):
                ex = gc.Executor(_line(batch))
                options: dict[str, Any] = {"sample_weight": of_rows, "class_weight": of_classes}
                history = gc.fit(
                    ex, (x, y), validation=(held, labels), epochs=EPOCHS, seed=trial.seed,
                    progress=False, **options,
                )  # fmt: skip
                w, losses, mean, scale = _trained(x, y, share, orders[:EPOCHS])
                near("weights", w, ex.parameters["w"], ROUGH["float64"])
                near("losses", losses, history.loss, ROUGH["float64"])
                judged = _losses(w, (held - mean) / scale, labels)
                near(
                    "the loss of validation", judged.mean(), history.val_loss[-1], ROUGH["float64"]
                )


def check_folds(trial: Trial, rows: int, batch: int) -> None:
    """Check members on folds with the same nets alone on the rows of each."""
    rng, plan = trial.rng, _line(batch)
    x, y = rng.normal(2, 3, (rows, 3)), rng.integers(0, 3, rows)
    order = rng.permutation(rows)
    held = [order[i::FOLDS] for i in range(FOLDS)]
    pairs = [(np.setdiff1d(order, rest), rest) for rest in held]
    how: dict[str, Any] = {"epochs": EPOCHS, "seed": trial.seed, "progress": False}
    for classes in (None, CLASSES):
        with trial.case(f"folds with weights of classes {classes is not None}"):
            population = gc.Population(plan, members=FOLDS)
            found = gc.fit(population, (x, y), folds=pairs, class_weight=classes, **how)
            for i, (own, rest) in enumerate(pairs):
                ex = gc.Executor(plan, seed=population.seeds[i])
                data: dict[str, Any] = {"validation": (x[rest], y[rest]), "class_weight": classes}
                alone = gc.fit(ex, (x[own], y[own]), **data, **how)
                near(f"losses of member {i}", alone.loss, found[i].loss, 0.0)
                near(f"losses of validation of member {i}", alone.val_loss, found[i].val_loss, 0.0)
                all_same(f"member {i}", ex.snapshot(), population[i].snapshot())
