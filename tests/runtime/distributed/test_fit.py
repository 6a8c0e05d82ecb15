"""Training on ranks that are threads: one history, files of rank 0 alone, and going on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.runtime.distributed.loopback import Loopback, run_ranks
from graphc.train.ranks import Ranks
from tests.runtime.distributed.nets import bits, classes, executor, table

DATA, HELD = table(90), table(30, seed=1)
OPTIONS: dict[str, Any] = {"shards": 4, "backend": "numpy"}


def fit(ranks: Loopback | None, epochs: int = 3, **choices: Any) -> tuple[gc.History, gc.Executor]:
    ex = executor(classes(), ranks, **OPTIONS)
    history = gc.fit(ex, DATA, validation=HELD, epochs=epochs, progress=False, **choices)
    return history, ex


def numbers(history: gc.History) -> list[Any]:
    return [history.loss, history.val_loss, history.metrics]


@pytest.mark.parametrize("size", [2, 4])
def test_any_number_of_ranks_has_one_history_and_state(size: int) -> None:
    history, alone = fit(None)
    for other, ex in run_ranks(size, fit):
        assert numbers(other) == numbers(history)
        assert bits(ex) == bits(alone)


def test_ranks_start_with_the_state_of_the_first() -> None:
    def main(ranks: Loopback) -> dict[str, bytes]:
        ex = executor(classes(), ranks, **OPTIONS)
        ex.parameters["scores.bias"] = np.full(5, ranks.rank, np.float32)
        gc.fit(ex, DATA, epochs=1, progress=False)
        return bits(ex)

    first, second = run_ranks(2, main)
    assert first == second


def other(part: str) -> tuple[Any, Any, dict[str, Any]]:
    """A net, data and choices of fit, of which one part is another than on the other ranks."""
    x, y = table(90)
    if part == "numbers":
        x = x[::-1].copy()
    rows = 80 if part == "rows" else 90
    net = classes(dropout=part != "net")
    choices: dict[str, Any] = {
        "validation": None if part == "validation" else HELD,
        "seed": 5 if part == "seed" else 0,
        "shuffle": part != "shuffle",
        "epochs": 2 if part == "epochs" else 1,
        "batch": 16 if part == "batch" else 32,
    }
    return net, (x[:rows], y[:rows]), choices


@pytest.mark.one_in(6)
@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("net", "net$"),
        ("numbers", "numbers of data$"),
        ("rows", r"rows \(80, not 90\), data \(x float32\[80, 20\], y .*, not x float32\[90, 20\]"),
        ("validation", r"validation \(None, not x float32\[30, 20\], y int64\[30\]\)$"),
        ("seed", r"seed \(5, not 0\)"),
        ("shuffle", r"shuffle \(False, not True\)"),
        ("epochs", r"epochs \(2, not 1\)"),
        ("batch", r"batch \(16, not 32\)"),
        ("rate", r"hyper lr \(0\.5, not 0\.1"),
        ("weights", r"seed of the executor \(7, not 1\)"),
    ],
)
def test_a_rank_that_would_train_something_else_is_named_on_all(part: str, told: str) -> None:
    def main(ranks: Loopback) -> str:
        net, data, choices = other(part if ranks.rank == 2 else "")
        seed = 7 if (part, ranks.rank) == ("weights", 2) else 1
        ex = executor(net, ranks, seed=seed, **OPTIONS)
        if (part, ranks.rank) == ("rate", 2):
            ex.hyper["lr"] = 0.5
        before = bits(ex)
        with pytest.raises(gc.RankError) as caught:
            gc.fit(ex, data, progress=False, **choices)
        assert bits(ex) == before
        return caught.value.sentence

    sentences = run_ranks(4, main)
    assert len(set(sentences)) == 1
    assert re.match(f"rank 2 differs from rank 0 in {told}", sentences[0]), sentences[0]


def test_a_state_that_differs_is_found() -> None:
    def main(ranks: Loopback) -> None:
        ex = executor(classes(), ranks, **OPTIONS)
        together = Ranks(ex)
        together.begin()
        position = gc.train.history.Position(steps=7)
        together.check(position)
        if ranks.rank == 2:
            ex.state.arrays["scores.bias"][1] = 0.5  # a bit has flipped
        together.check(position)

    with pytest.raises(gc.RankError, match=r"after step 7 'scores.bias' is not the same on rank 2"):
        run_ranks(4, main)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("after", [1, 4])
def test_a_run_goes_on_with_another_number_of_ranks(after: int, tmp_path: Path) -> None:
    history, straight = fit(None)

    def begin(ranks: Loopback) -> None:
        run = gc.Checkpoints(tmp_path / "run", every=4)
        callbacks = [gc.CsvLog(tmp_path / f"{ranks.rank}.csv"), gc.EarlyStopping(9)]
        fit(ranks, epochs=2, checkpoint=run, callbacks=callbacks)

    run_ranks(2, begin)
    assert [path.name for path in tmp_path.glob("*.csv")] == ["0.csv"]

    def go_on(ranks: Loopback) -> tuple[gc.History, gc.Executor]:
        stopping = [gc.EarlyStopping(9)]
        return fit(ranks, checkpoint=tmp_path / "run", resume=True, callbacks=stopping)

    for other, ex in run_ranks(after, go_on):
        assert numbers(other) == numbers(history)
        assert bits(ex) == bits(straight)


def test_a_checkpoint_is_read_without_ranks(tmp_path: Path) -> None:
    run = gc.Checkpoints(tmp_path)
    found = run_ranks(4, lambda ranks: fit(ranks, checkpoint=gc.Checkpoints(tmp_path)))
    assert run.last is not None
    assert bits(gc.load(run.last)) == bits(found[0][1])


def test_all_ranks_tell_of_a_number_that_is_not_finite() -> None:
    """Row 70 of the second rank's part overflows; the others trace it there, too."""
    x, y = table(90)
    x[70] = 3e38

    def main(ranks: Loopback) -> str:
        ex = executor(classes(batchnorm=False), ranks, **OPTIONS)
        with pytest.raises(gc.NotFiniteError) as caught:
            gc.fit(ex, (x, y), epochs=1, shuffle=False, progress=False)
        return caught.value.sentence

    told = run_ranks(2, main)
    assert told[0] == told[1]
    assert "affine_1" in told[0]


def test_generators_and_shards_of_files_are_cut_too(tmp_path: Path) -> None:
    x, y = DATA
    for i, start in enumerate((0, 40)):
        np.savez(tmp_path / f"part-{i}.npz", x=x[start : start + 50], y=y[start : start + 50])

    def batches(epoch: int) -> Any:
        for start in range(0, 90, 30):
            yield x[start : start + 30], y[start : start + 30]

    for data in (tmp_path, batches):

        def main(ranks: Loopback | None, data: Any = data) -> dict[str, bytes]:
            ex = executor(classes(), ranks, **OPTIONS)
            gc.fit(ex, data, epochs=2, progress=False)
            return bits(ex)

        alone = main(None)
        assert run_ranks(2, main) == [alone, alone]


def test_weights_count_over_all_ranks() -> None:
    def main(ranks: Loopback | None) -> tuple[list[float], dict[str, bytes]]:
        ex = executor(classes(loss="weighted"), ranks, **OPTIONS)
        weight = np.linspace(0, 2, 90)
        history = gc.fit(ex, DATA, sample_weight=weight, class_weight={1: 3.0}, progress=False)
        return history.loss, bits(ex)

    assert run_ranks(2, main) == [main(None)] * 2
