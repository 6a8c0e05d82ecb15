"""`graphc quantize`: from a trained model to a file that predicts."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.cli import main
from graphc.cli.model import load_model
from graphc.data import load_digits


@pytest.fixture
def trained(folder: Path) -> Path:
    """A model with random weights, as train would write it."""
    net = load_model("model.py:net").net
    gc.save(folder / "small.gc", gc.Executor(gc.compile(net, batch=64, backend="numpy")))
    return folder / "small.gc"


def test_a_trained_model(trained: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["quantize", str(trained), "--data", "digits"]) == 0
    text = capsys.readouterr().out
    assert "'small' in int8, compared on 359 rows" in text
    assert "weights: 2,368 bytes in float, 592 in int8" in text
    assert "accuracy:" in text
    x, _ = load_digits()
    found = gc.load(folder / "small.int8.gc").predict(x)
    wanted = gc.load(trained).predict(x)
    assert np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()


def test_the_commands_of_the_guide(folder: Path) -> None:
    (folder / "graphc-run").mkdir()
    net = load_model("model.py:net").net
    ex = gc.Executor(gc.compile(net, batch=64, backend="numpy"))
    gc.save(folder / "graphc-run" / "digits.gc", ex)
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text()
    lines = [line for line in guide.splitlines() if ".int8.gc" in line and line[:6] == "graphc"]
    assert [line.split()[1] for line in lines] == ["quantize", "predict"]
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0
    assert len((folder / "predicted.csv").read_text().splitlines()) == 1798


@pytest.mark.slow
def test_json_and_a_file_of_another_name(
    trained: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    argv = ["quantize", str(trained), "--data", "digits", "-o", "q.gc", "--validation", "0"]
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["report"]["rows"] == 1797
    assert found["bytes"] == (folder / "q.gc").stat().st_size


def test_a_declared_net_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "model.py:net", "--data", "digits"]) == 1
    assert "declares a net without trained weights" in capsys.readouterr().err
