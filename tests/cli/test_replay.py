"""graphc replay and graphc compare: what they print, save and answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run(folder: Path, capsys: Capture) -> str:
    argv = ("train", "model.py:net", "--data", "digits", "--epochs", "2", "--record")
    assert main([*argv, "--out", "a"]) == 0
    assert "a/record" in capsys.readouterr().out
    return "a/record"


def asked(capsys: Capture, *argv: str, status: int = 0) -> str:
    assert main(argv) == status
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refused(capsys: Capture, *argv: str) -> str:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    return err


def test_a_step(run: str, capsys: Capture) -> None:
    lines = asked(capsys, "replay", run, "--step", "3").splitlines()
    replayed = gc.replay(run, step=3)
    assert lines[0] == (
        f"step 3: epoch 1, batch 3, 128 rows, loss {replayed.loss:.6g}, as recorded"
    )
    shown = {line.split()[1] for line in lines[1:]}
    assert shown >= {"x", "y", "scores", "d_scores", "scores.weight", "scores.weight.next"}
    data = json.loads(asked(capsys, "replay", run, "--step", "3", "--json"))
    assert (data["step"], data["loss"], data["as_recorded"]) == (3, replayed.loss, True)
    assert data["nodes"].keys() == shown


def test_a_node_is_saved(run: str, capsys: Capture) -> None:
    argv = ("replay", run, "--step", "5", "--node", "d_scores.weight", "--out", "d.npy")
    out = asked(capsys, *argv)
    assert "backward  d_scores.weight" in out
    assert out.endswith("wrote d.npy\n")
    wanted = gc.replay(run, step=5).value("d_scores.weight")
    assert np.load("d.npy").tobytes() == wanted.tobytes()


@pytest.mark.slow
def test_equal_and_other_runs(run: str, capsys: Capture) -> None:
    assert asked(capsys, "compare", run, run) == "the runs are equal, as far as both go\n"
    argv = (
        "train",
        "model.py:net",
        "--data",
        "digits",
        "--epochs",
        "2",
        "--record",
        "--lr",
        "0.01",
    )
    assert main([*argv, "--out", "b"]) == 0
    capsys.readouterr()
    out = asked(capsys, "compare", run, "b/record", status=1)
    assert out.startswith("the runs differ from step 1 (epoch 1) on, first in state 'hyper.lr'")
    data = json.loads(asked(capsys, "compare", run, "b/record", "--json", status=1))
    assert not data["equal"]
    assert (data["difference"]["step"], data["difference"]["node"]) == (1, "hyper.lr")
    data = json.loads(asked(capsys, "compare", run, run, "--json"))
    assert data == {"equal": True, "difference": None}


def test_a_replay_that_is_not_as_recorded(run: str, capsys: Capture) -> None:
    path = Path(run, "journal")
    content = bytearray(path.read_bytes())
    content[16 + 3] ^= 1
    path.write_bytes(content)
    lines = asked(capsys, "replay", run, "--step", "2", status=1).splitlines()
    assert "NOT as recorded" in lines[0]
    assert lines[1] == "  the first step that is not as recorded is 1"


def test_mistakes(run: str, capsys: Capture) -> None:
    assert "holds no recorded run" in refused(capsys, "compare", run, "nix")
    assert "holds no recorded run" in refused(capsys, "replay", "nix", "--step", "1")
    assert "has no step 99: it has 1 to" in refused(capsys, "replay", run, "--step", "99")
    assert "has no node 'nix'" in refused(capsys, "replay", run, "--step", "1", "--node", "nix")
    assert "name it with --node" in refused(capsys, "replay", run, "--step", "1", "--out", "x.npy")
    argv = ("replay", run, "--step", "1", "--node", "x", "--out", "nix/x.npy")
    assert "No such file" in refused(capsys, *argv)
    assert "the data are not the data of the run" in refused(
        capsys, "replay", run, "--step", "1", "--data", "digits"
    )
