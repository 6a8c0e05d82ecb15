"""Commands among others of a shell: readers that go away, and Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.cli import main, train
from graphc.runtime.executor import Executor

POSIX = pytest.mark.needs("POSIX")


def piped(argv: Sequence[str]) -> tuple[int, str]:
    """The status and the errors of a command whose reader closes its end at once."""
    command = [sys.executable, "-m", "graphc", *argv]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert writer.stdout is not None and writer.stderr is not None
    writer.stdout.close()
    errors = writer.stderr.read()
    writer.stderr.close()
    return writer.wait(), errors


@POSIX
@pytest.mark.parametrize(
    "argv",
    [
        ["plan", "model.py:net"],
        ["render", "model.py:net", "-o", "net.html"],
        ["predict", "table.gc", "--data", "t.csv"],
    ],
    ids=lambda argv: argv[0],
)
@pytest.mark.one_in(3)
def test_a_reader_that_goes_away_ends_a_command_quietly(argv: list[str], folder: Path) -> None:
    if argv[0] == "predict":
        net = gc.Net("table")
        net.output("guess", gc.affine(net.input("x", (gc.N, 2)), 1))
        gc.save("table.gc", gc.Executor(gc.compile(net, batch=8, backend="numpy")))
        Path("t.csv").write_text("a,b\n" + "1,2\n" * 40_000)
    assert piped(argv) == (141, "")  # 128 + SIGPIPE, as shells say of other programs


@POSIX
def test_help_may_go_unread(folder: Path) -> None:
    status, errors = piped(["--help"])  # argparse does not say whether it was read
    assert status in (0, 141) and errors == ""


class Interrupted(Executor):
    """Gets Ctrl-C before step number `left`."""

    left = 0

    def step(self, *args, **kwargs) -> float:
        type(self).left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)
        return super().step(*args, **kwargs)


def stopped(monkeypatch: pytest.MonkeyPatch, step: int, *more: str) -> int:
    monkeypatch.setattr(train, "Executor", Interrupted)
    monkeypatch.setattr(Interrupted, "left", step)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return main(["train", "model.py:net", "--data", "digits", "--epochs", "2", *more])
    finally:
        signal.signal(signal.SIGINT, before)
        monkeypatch.setattr(train, "Executor", Executor)


def test_ctrl_c_saves_the_model_and_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path("graphc-run") / "small.gc"
    assert stopped(monkeypatch, 5) == 130
    said = f"interrupted after 5 updates: wrote {path}, from which graphc train continues\n"
    assert capsys.readouterr() == ("", said)
    ex = gc.load(path)
    assert int(ex.state["updates"]) == 5
    assert main(["train", str(path), "--data", "digits", "--epochs", "1"]) == 0


def test_ctrl_c_before_the_first_update_leaves_a_model_as_it_was(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", "model.py:net", "--data", "digits", "--epochs", "1"]) == 0
    before = Path("graphc-run/small.gc").read_bytes()
    capsys.readouterr()

    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "fit", interrupted)
    assert main(["train", "model.py:net", "--data", "digits"]) == 130
    assert capsys.readouterr() == ("", "interrupted after 0 updates: nothing is saved\n")
    assert Path("graphc-run/small.gc").read_bytes() == before


def test_ctrl_c_with_checkpoints_names_the_one_to_go_on_from(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    last = Path("graphc-run") / "checkpoints" / "step-000000005.gc"
    assert stopped(monkeypatch, 5, "--checkpoint") == 130
    said = f"interrupted after 5 updates: --resume continues from {last}\n"
    assert capsys.readouterr() == ("", said)
    assert main(["train", "model.py:net", "--data", "digits", "--epochs", "2", "--resume"]) == 0
    once = gc.load("graphc-run/small.gc").parameters.flat()
    assert main(["train", "model.py:net", "--data", "digits", "--epochs", "2", "--out", "o"]) == 0
    assert np.array_equal(gc.load("o/small.gc").parameters.flat(), once)


def test_a_foreign_passes_in_the_way_is_an_error_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "passes.py").write_text("MINE = True\n")
    run = subprocess.run(
        [sys.executable, "-m", "graphc", "demo"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert run.stderr == (
        f"error: {tmp_path / 'passes.py'} hides graphc's own package 'passes'\n"
        "  hint: rename it: graphc imports that name\n"
    )
