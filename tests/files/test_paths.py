"""An impossible path is refused in one sentence, wherever it is given."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.data import load_data
from tests.extras import needs

X = np.zeros((4, 2), np.float32)


def small() -> gc.Executor:
    net = gc.Net("small")
    x, y = net.input("x", (gc.N, 2)), net.input("y", (gc.N, 1))
    scores = gc.affine(x, 1, name="scores")
    net.output("scores", scores)
    net.loss("loss", gc.mse_loss(scores, y))
    return gc.Executor(gc.compile(net, batch=4, optimizer=gc.SGD(0.1), backend="numpy"))


def fit(**options: Any) -> gc.History:
    return gc.fit(small(), (X, X[:, :1]), progress=False, **options)


CALLS: dict[str, Callable[[Path], Any]] = {
    "save": lambda path: gc.save(path, small()),
    "load": gc.load,
    "save_torch_state": lambda path: gc.save_torch_state(path, small()),
    "load_torch_state": lambda path: gc.load_torch_state(small(), path),
    "checkpoint": lambda path: fit(checkpoint=path),
    "record": lambda path: fit(record=path),
    "log": lambda path: fit(callbacks=[gc.CsvLog(path)]),
    "shards": lambda path: gc.fit(small(), path),
    "replay": lambda path: gc.replay(path, step=1),
    "picture": lambda path: small().plan.render(path.with_name(path.name + ".dot")),
    "arrays": lambda path: load_data(f"{path}.npz"),
    "table": lambda path: load_data(f"{path}.csv"),
}


@pytest.mark.one_in(5)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", ["a\0b", "a" * 300, "\ud800", "file/below"])
def test_names_that_no_file_can_have(tmp_path: Path, call: str, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(gc.GraphError) as caught:
        CALLS[call](tmp_path / name)
    assert "\0" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("call", ["onnx.save", "onnx.load"])
@pytest.mark.parametrize("name", ["a\0b.onnx", "a" * 300])
def test_names_that_no_onnx_file_can_have(tmp_path: Path, call: str, name: str) -> None:
    needs("onnx")
    with pytest.raises(gc.ModelFileError, match=r"cannot (read|write)"):
        if call == "onnx.load":
            gc.onnx.load(tmp_path / name)
        else:
            gc.onnx.save(small(), tmp_path / name)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", ["a\0b.png", "a" * 300 + ".png", "nowhere/a.png", "folder.png"])
def test_names_that_no_curve_can_have(tmp_path: Path, name: str) -> None:
    needs("matplotlib")
    (tmp_path / "folder.png").mkdir()
    history = gc.History([1, 2], [0.5, 0.25], seconds=[1.0, 1.0])
    with pytest.raises(gc.GraphError, match="cannot write"):
        history.plot(tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_curve_without_a_suffix_is_a_png_file(tmp_path: Path) -> None:
    needs("matplotlib")
    history = gc.History([1, 2], [0.5, 0.25], seconds=[1.0, 1.0])
    found = history.plot(tmp_path / "curve")
    assert found == tmp_path / "curve.png"
    assert found.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("given", [None, 3, b"m.gc"])
def test_other_types_than_paths_are_refused(given: Any) -> None:
    with pytest.raises(gc.GraphError, match="is not a path"):
        gc.save(given, small())
    with pytest.raises(gc.GraphError, match="is not a path"):
        gc.load(given)


@pytest.mark.needs("POSIX")
def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    for name in ("pipe", "pipe.npz"):
        os.mkfifo(tmp_path / name)
    for call in ("load", "load_torch_state", "arrays", "shards"):
        path = tmp_path if call == "shards" else tmp_path / "pipe"
        with pytest.raises(gc.GraphError, match="it is not a regular file"):
            CALLS[call](path)
