"""fit(): train an executor on data that fits into memory, epoch by epoch."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from graphc.errors import FeedError, GraphError
from graphc.executor import Executor
from graphc.loc import caller_loc
from graphc.op import Array
from graphc.train.batches import Batches, whole
from graphc.train.history import History
from graphc.train.interrupts import StepBorder
from graphc.train.progress import Progress
from graphc.train.standards import fit_new


def fit(
    ex: Executor,
    data: Any,
    *,
    validation: Any = None,
    epochs: int = 1,
    batch: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
    progress: bool | None = None,
) -> History:
    """Train for some epochs over all rows of `data`, in batches of `batch` (default the plan's).

    `data` and `validation` are a tuple of arrays in the order of the declared inputs, a mapping
    by name, or one array.  Rows are shuffled by `seed` and the number of the epoch, which
    counts from 1 in every call; the last batch of an epoch may be smaller.  `progress` forces
    the bar on or off; otherwise it is shown in terminals and notebooks, and each epoch is
    logged to "graphc" elsewhere.

    Where the net standardises inputs and has no statistics yet, they are fitted to `data` first.

    Ctrl-C takes effect between two steps, so the executor can go on.  Raises FeedError for
    data that does not fit, StateError for a plan without optimizer, GraphError for options
    that make no sense, all before anything is trained.
    """
    rows = _check(ex, epochs, batch, seed)
    arrays, count = ex.rows(data, train=True)
    held = None if validation is None else _held_out(ex, validation)
    types = {name: ex.plan.declared[name].type for name in arrays}
    batches = Batches(arrays, types, count, rows)
    history = History()
    fit_new(ex, arrays)
    with Progress(progress, epochs, count) as shown:
        for epoch in range(1, epochs + 1):
            start = perf_counter()
            if shuffle:
                batches.shuffle(seed, epoch)
            loss = _epoch(ex, batches, shown) / count
            val_loss, metrics = _validate(ex, held)
            history.add(loss, perf_counter() - start, val_loss, metrics)
            shown.epoch(epoch, history.last())
    return history


def _check(ex: Executor, epochs: int, batch: int | None, seed: int) -> int:
    """The rows of a batch; GraphError for options that make no sense."""
    if not isinstance(ex, Executor):
        raise GraphError(
            f"fit trains an executor, not {type(ex).__name__}",
            loc=caller_loc(),
            hint="ex = gc.Executor(plan), then gc.fit(ex, data)",
        )
    if not whole(epochs, 1):
        raise GraphError(
            f"fit: epochs is {epochs!r}, not a whole number from 1 up", loc=caller_loc()
        )
    if not whole(seed, 0):
        raise GraphError(f"fit: seed is {seed!r}, not a whole number from 0 up", loc=caller_loc())
    rows = ex.plan.batch if batch is None else batch
    if not whole(rows, 1) or rows > ex.plan.batch:
        raise GraphError(
            f"fit: batch is {batch!r}, the plan takes 1 to {ex.plan.batch} rows",
            loc=caller_loc(),
            hint="a plan for more rows: gc.compile(net, batch=...)",
        )
    return int(rows)


def _held_out(ex: Executor, validation: Any) -> dict[str, Array]:
    """The validation data, checked; FeedError when a loss cannot be computed from it."""
    arrays, _ = ex.rows(validation, train=False)
    program = ex.plan.programs["infer"]
    losses = [program.graph.outputs[name] for name in ex.plan.losses]
    needed = program.graph.upstream(losses)
    for name in program.feeds:
        if name in needed and name not in arrays:
            raise FeedError(
                f"validation: input {name!r} is missing, which a loss needs",
                loc=caller_loc(),
                hint="validation=(x, y) holds the same inputs as the training data",
            )
    return arrays


def _epoch(ex: Executor, batches: Batches, shown: Progress) -> float:
    """One step for each batch; returns the sum of the losses over the rows."""
    total = 0.0
    with StepBorder() as border:
        for n, feeds in batches:
            total += n * ex.step(feeds)
            shown.rows(n)
            border.check()
    return total


def _validate(ex: Executor, held: dict[str, Array] | None) -> tuple[float | None, dict[str, float]]:
    """The sum of the losses on the validation data, and the other scalars by name."""
    if held is None:
        return None, {}
    found = ex.evaluate(held)
    loss = sum(found.pop(name) for name in ex.plan.losses)
    return loss, found
