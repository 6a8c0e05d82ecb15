"""`gc.fit`, by loops in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphc as gc
from graphc.cli.installation.plain import Array
from graphc.cli.installation.trial import ROUGH, Trial, Wrong, near, same
from graphc.cli.installation.weighted import check_folds, check_weights

ROWS, BATCH, EPOCHS, RATE = 23, 5, 6, 0.3


def order_of(seed: int, shuffle: bool, epochs: int) -> list[list[list[int]]]:
    """Return the rows of each batch of each epoch: a step of rate 0.5**t tells them by weights."""
    net = gc.Net("order", dtype="float64")
    w = net.parameter("w", (ROWS,), init="zeros")
    rows = net.input("rows", (gc.N,), dtype="int64")
    net.loss("loss", gc.sum(gc.gather(w, rows)))
    steps = -(-ROWS // BATCH)
    rule = gc.SGD(lr=1.0, schedule=gc.Step(1, 0.5))
    ex = gc.Executor(gc.compile(net, batch=BATCH, optimizer=rule))
    found, before = list[list[list[int]]](), np.zeros(ROWS)

    def note(epoch: gc.Epoch) -> None:
        nonlocal before
        after = np.array(ex.parameters["w"])
        turn = np.rint(-np.log2(before - after)).astype(int) - steps * len(found)
        found.append([np.flatnonzero(turn == step).tolist() for step in range(steps)])
        before = after

    data = {"rows": np.arange(ROWS)}
    options: dict[str, Any] = {"seed": seed, "shuffle": shuffle, "progress": False}
    gc.fit(ex, data, epochs=epochs, callbacks=[note], **options)
    return found


def fit(trial: Trial) -> str:
    """Check the rows, losses and weights of epochs, and what is stopped, kept and resumed."""
    orders = order_of(trial.seed, True, EPOCHS)
    with trial.case("orders of gc.fit"):
        for epoch in [*orders, *order_of(0, False, 2)]:
            if sorted(row for rows in epoch for row in rows) != list(range(ROWS)):
                raise Wrong(f"an epoch takes the rows {epoch}, not each one once")
        if order_of(0, False, 1)[0][0] != list(range(BATCH)) or orders[0] == orders[1]:
            raise Wrong(f"rows are taken in the order {orders[:2]}")
        if order_of(trial.seed + 1, True, 1)[0] == orders[0]:
            raise Wrong("two seeds shuffle alike")
    x, y = trial.rng.normal(size=(ROWS, 3)), trial.rng.normal(size=ROWS)
    held = trial.rng.normal(size=(7, 3)), trial.rng.normal(size=7)
    weight = trial.rng.uniform(0.1, 2, ROWS)
    for shares in (None, weight):
        for accumulate in (1, 5):
            with trial.case(f"gc.fit, weights {shares is not None}, accumulate={accumulate}"):
                _epochs(trial, (x, y), held, shares, accumulate, orders)
    check_weights(trial, ROWS, BATCH, orders)
    check_folds(trial, ROWS, BATCH)
    return f"{EPOCHS} epochs by a loop: orders, losses, weights, best and last states, stops"


def _line(accumulate: int, weighted: bool) -> gc.Executor:
    net = gc.Net("line", dtype="float64")
    w = net.parameter("w", (3, 1), init="zeros")
    y = gc.reshape(net.input("x", (gc.N, 3)) @ w, (gc.N,))
    target = net.input("y", (gc.N,))
    more: dict[str, Any] = {"weight": net.input("share", (gc.N,))} if weighted else {}
    net.output("line", y)
    net.loss("loss", gc.mse_loss(y, target, **more))
    rule = gc.SGD(lr=RATE, accumulate=accumulate)
    return gc.Executor(gc.compile(net, batch=BATCH, optimizer=rule))


def _plain(
    data: Any, held: Any, shares: Array | None, accumulate: int, orders: Any
) -> tuple[list[Array], list[float], list[float]]:
    """Return weights, loss and validation loss after each epoch."""
    (x, y), w, kept = data, np.zeros(3), list[Array]()
    every = np.ones(ROWS) if shares is None else shares
    weights, losses, judged = [], [], []
    for epoch in orders:
        total = size = 0.0
        for rows in epoch:
            error, share = x[rows] @ w - y[rows], every[rows]
            total, size = total + (share * error**2).sum(), size + share.sum()
            kept.append(2 * (share * error) @ x[rows] / share.sum())
            if len(kept) == accumulate:
                w, kept = w - RATE * np.mean(kept, 0), []
        weights.append(w)
        losses.append(total / size)
        judged.append(float(np.mean((held[0] @ w - held[1]) ** 2)))
    return weights, losses, judged


def _epochs(
    trial: Trial, data: Any, held: Any, shares: Array | None, accumulate: int, orders: Any
) -> None:
    weighted = shares is not None
    weights, losses, judged = _plain(data, held, shares, accumulate, orders)
    run: dict[str, Any] = {"validation": held, "seed": trial.seed, "progress": False}
    run |= {} if shares is None else {"sample_weight": shares}
    for largest in (False, True):
        folder = trial.folder / f"run-{accumulate}-{shares is None}-{largest}"
        keeper = gc.Checkpoints(folder, largest=largest)
        ex = _line(accumulate, weighted)
        stopping = gc.EarlyStopping(EPOCHS, largest=largest, restore=True)
        history = gc.fit(ex, data, epochs=EPOCHS, checkpoint=keeper, callbacks=[stopping], **run)
        near("losses", losses, history.loss, ROUGH["float64"])
        near("losses of validation", judged, history.val_loss, ROUGH["float64"])
        best = int(np.argmax(judged) if largest else np.argmin(judged))
        near("the best weights", weights[best], ex.parameters["w"][:, 0], ROUGH["float64"])
        kept = gc.load(keeper.best).parameters["w"][:, 0]
        near("the best checkpoint", weights[best], kept, ROUGH["float64"])
    cut, whole = (_line(accumulate, weighted) for _ in range(2))
    gc.fit(whole, data, epochs=EPOCHS, **run)
    near("the last weights", weights[-1], whole.parameters["w"][:, 0], ROUGH["float64"])
    again, other = trial.folder / f"cut-{accumulate}-{shares is None}", _line(accumulate, weighted)
    gc.fit(cut, data, epochs=2, checkpoint=again, **run)
    gc.fit(other, data, epochs=EPOCHS, checkpoint=again, resume=True, **run)
    same("weights of a run that was resumed", whole.parameters["w"], other.parameters["w"])
    patient, stop = _line(accumulate, weighted), gc.EarlyStopping(1)
    ended = gc.fit(patient, data, epochs=EPOCHS, callbacks=[stop], **run)
    worse = [i for i in range(1, EPOCHS) if judged[i] >= min(judged[:i])]
    expected = worse[0] + 1 if worse else EPOCHS
    if len(ended.loss) != expected:
        raise Wrong(f"training stops after {len(ended.loss)} epochs, not after {expected}")
