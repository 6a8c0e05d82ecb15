"""graphc export and graphc import: ONNX files from a shell."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.cli import main
from tests.extras import needs

onnx = needs("onnx")


def test_there_and_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "model.py:net", "-o", "small.onnx"]) == 0
    nbytes = (folder / "small.onnx").stat().st_size
    assert capsys.readouterr().out == f"wrote small.onnx: {nbytes:,} bytes\n"
    onnx.checker.check_model(str(folder / "small.onnx"), full_check=True)
    assert main(["import", "small.onnx", "--batch", "16", "--backend", "numpy"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "wrote small.gc: 610 numbers to train",
        "  input  x float32[N, 64]",
        "  input  y int64[N]",
        "  output scores float32[N, 10]",
        "  output loss float32[]",
    ]
    ex = gc.load(folder / "small.gc")
    assert ex.plan.options.batch == 16
    assert ex.plan.declared.losses == ("loss",)


def test_without_losses_a_model_asks_for_no_labels(folder: Path) -> None:
    assert main(["export", "model.py:net", "-o", "small.onnx", "--no-losses"]) == 0
    graph = onnx.load("small.onnx").graph
    assert [one.name for one in graph.input] == ["x"]
    assert [one.name for one in graph.output] == ["scores"]


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "model.py:no_loss", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"wrote": "no_loss.onnx", "bytes": (folder / "no_loss.onnx").stat().st_size}
    assert main(["import", "no_loss.onnx", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "wrote": "no_loss.gc",
        "inputs": {"x": "float32[N, 2]"},
        "outputs": {"out": "float32[N, 3]"},
        "parameters": 9,
    }


def test_other_commands_take_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "model.py:table"]) == 0
    assert main(["check", "table.onnx"]) == 0
    np.savez(folder / "data.npz", x=np.ones((4, 2)), y=np.ones(4))
    assert main(["train", "table.onnx", "--data", "data.npz", "--epochs", "1"]) == 0


def test_mistakes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.onnx").write_bytes(b"\xff" * 9)
    assert main(["import", "bad.onnx"]) == 1
    assert "error: bad.onnx is not an ONNX model, or is damaged" in capsys.readouterr().err
    assert main(["import", "nix.onnx"]) == 1
    assert "error: cannot read nix.onnx: No such file" in capsys.readouterr().err
    assert main(["import", "nix.onnx", "--dim", "batch"]) == 2
    assert not list(folder.glob("*.gc"))


def test_without_the_package_the_extra_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("graphc.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", "model.py:net"]) == 1
    assert capsys.readouterr().err == (
        "error: ONNX models are read and written by onnx, which is not installed\n"
        "  hint: pip install 'graphc-nn[onnx]'\n"
    )
