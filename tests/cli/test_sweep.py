"""`graphc sweep` beside runs of `gc.fit`, one after the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.cli import main
from graphc.cli.model import load_model
from graphc.train.members.rows import folds_of
from tests.extras import needs

NUMBERS = np.random.default_rng(0)
X = NUMBERS.normal(size=(40, 2)).astype(np.float32)
Y = (X @ [1.0, -2.0] + 0.5).astype(np.float32)
ARGV = ["sweep", "model.py:table", "--data", "data.npz", "--backend", "numpy", "--batch", "8"]


@pytest.fixture(autouse=True)
def data(folder: Path) -> None:
    np.savez("data.npz", x=X, y=Y)


def swept(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    needs("matplotlib")
    assert main([*ARGV, *argv, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found: dict[str, Any] = json.loads(out)
    return found


def trained(lr: float, seed: int, rows: Any, epochs: int, decay: float = 0.0) -> gc.Executor:
    """Return an executor that `gc.fit` trains alone."""
    optimizer = gc.Adam(lr=lr, weight_decay=decay)
    net = load_model("model.py:table").net
    plan = gc.compile(net, batch=8, optimizer=optimizer, backend="numpy")
    ex = gc.Executor(plan, seed=seed)
    gc.fit(ex, (X[rows], Y[rows]), epochs=epochs, seed=seed)
    return ex


def test_a_sweep_trains_each_setting_with_each_seed(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def made(plan: Any, seeds: Any) -> Any:
        sizes.append(len(seeds))
        return gc.Population(plan, seeds=seeds)

    monkeypatch.setattr("graphc.cli.sweep.Population", made)
    grid = ("--grid", "lr=0.1,1e-9,0.01", "--grid", "weight_decay=0,0.1")
    found = swept(capsys, *grid, "--seeds", "2", "--epochs", "3", "--seed", "5")
    candidates = found["candidates"]
    assert sizes == [12]  # one population
    assert len({(one["lr"], one["weight_decay"]) for one in candidates}) == 6
    means = [float(np.mean(one["loss"])) for one in candidates]
    assert means == sorted(means) and means[0] < means[-1]
    assert all(one["seeds"] == [5, 6] and one["epochs"] == [3, 3] for one in candidates)
    best = candidates[0]
    saved = gc.load(found["files"][0])
    held = _held_out(5)
    losses = []
    for seed in best["seeds"]:
        rows = np.setdiff1d(np.arange(40), held)
        ex = trained(best["lr"], seed, rows, 3, best["weight_decay"])
        losses.append(ex.evaluate(X[held], Y[held])["loss"])
        if losses[-1] == min(losses):
            winner = ex
    assert best["loss"] == pytest.approx(losses, rel=1e-5)
    np.testing.assert_array_equal(saved.parameters.flat(), winner.parameters.flat())
    assert Path(found["files"][1]).name == "sweep.png" and Path(found["files"][1]).exists()


def _held_out(seed: int) -> Any:
    from graphc.cli.data import split

    return split({"at": np.arange(40.0)}, 0.2, seed)[1]["at"].astype(int)


def test_folds_and_patience(capsys: pytest.CaptureFixture[str]) -> None:
    grid = ("--grid", "lr=0.1,0.3", "--grid", "weight_decay=0,1e-4")
    argv = ("--folds", "4", "--seeds", "1", "--epochs", "9")
    found = swept(capsys, *grid, *argv, "--patience", "1")
    best = found["candidates"][0]
    assert len(best["loss"]) == 4 and max(best["epochs"]) <= 9
    for loss, epochs, (rows, held) in zip(
        best["loss"], best["epochs"], folds_of(4, {"x": X, "y": Y}, 40, 0), strict=True
    ):
        alone = trained(best["lr"], 0, rows, epochs, best["weight_decay"])
        assert loss == pytest.approx(alone.evaluate(X[held], Y[held])["loss"], rel=1e-5)
    saved = gc.load(found["files"][0])
    epochs = round(float(np.mean(best["epochs"])))
    whole = trained(best["lr"], 0, np.arange(40), epochs, best["weight_decay"])
    np.testing.assert_array_equal(saved.parameters.flat(), whole.parameters.flat())


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    needs("matplotlib")
    assert main([*ARGV, "--grid", "lr=0.1,1e-9", "--seeds", "2", "--epochs", "2"]) == 0
    head, first, last, *_ = capsys.readouterr().out.splitlines()
    assert head.split() == ["lr", "loss", "epochs"]
    assert (first.split()[0], last.split()[0]) == ("0.1", "1e-09")
    assert first.split()[-1] == "2.0" and first.split()[2] == "±"


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, text in (
        (["--grid", "rate=1"], "Adam has no number 'rate'"),
        (["--grid", "lr=1", "--grid", "lr=2"], "names a setting twice"),
        (["--grid", "lr=-1"], "lr is -1"),
        (["--validation", "0"], "compares validation losses"),
        (["--folds", "41"], "there are only 40 rows"),
    ):
        assert main([*ARGV, *argv]) == 1
        assert text in capsys.readouterr().err
    for wrong in ("lr", "lr=fast", "lr=1,1", "=1"):
        assert main([*ARGV, "--grid", wrong]) == 2
        assert "--grid" in capsys.readouterr().err
    assert not Path("graphc-sweep").exists()
