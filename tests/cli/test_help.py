"""Every command: its help ends with an example, and the example runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import graphc.cli
from graphc.cli import command_line, main
from graphc.view.measure import Peak
from tests.extras import needs

NET = """\
import graphc as gc


def net():
    net = gc.Net("iris")
    x = net.input("features", (gc.N, 4))
    y = net.input("species", (gc.N,), dtype="int64")
    h = gc.relu(gc.affine(x, WIDTH))
    net.output("scores", gc.affine(h, 3, name="scores"))
    net.loss("loss", gc.softmax_loss(net["scores"], y))
    return net
"""

COMMANDS = (
    *("demo", "train", "sweep", "launch", "predict", "render", "plan", "diff", "check", "bisect"),
    *("verify", "prove", "bench", "replay", "compare", "export", "quantize", "import"),
)
MACHINE = tuple(name for name in COMMANDS if name not in ("demo", "render", "launch"))
"""Those whose output programs read."""


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def examples(text: str) -> list[list[str]]:
    lines = text.partition("\nexample:\n")[2].splitlines()
    return [shlex.split(line) for line in lines]


def test_all_commands_are_known_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert tuple(re.findall(r"^    (\w+)  ", capsys.readouterr().out, re.M)) == COMMANDS


def test_a_file_is_all_that_a_command_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "greet.py").write_text(GREET)
    monkeypatch.setattr(graphc.cli, "__path__", [*graphc.cli.__path__, str(tmp_path)])
    monkeypatch.setattr(command_line, "COMMANDS", command_line.find_commands())
    assert main(["greet"]) == 0
    assert capsys.readouterr().out == "hello\n"


GREET = """\
from graphc.cli.arguments import Command

COMMAND = Command("greet", help="greet", description="Greet.", example="graphc greet")


def declare(parser):
    pass


def run(args):
    print("hello")
    return 0
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_narrow_and_has_an_example(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = help_of(command, capsys)
    assert max(map(len, text.splitlines())) < 80
    assert examples(text)
    for words in examples(text):
        assert words[:2] == ["graphc", command]
    assert ("--json" in text) == (command in MACHINE)


@pytest.mark.slow
def test_the_examples_run(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other in one folder, with the files that they name."""
    needs("matplotlib")
    needs("z3")
    monkeypatch.setattr("graphc.cli.bench.TURN_SECONDS", 1e-9)
    monkeypatch.setattr("graphc.cli.bench.measure_peak", lambda threads: Peak(threads, 1e9, 1e9))
    monkeypatch.setattr("graphc.runtime.distributed.predict.MEASURED", 1e-9)
    (folder / "net.py").write_text(NET.replace("WIDTH", "16"))
    (folder / "other.py").write_text(NET.replace("WIDTH", "8"))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
    rows = ["a,b,c,d,species", *(f"{','.join(map(str, r))},{k}" for r, k in zip(x, y, strict=True))]
    (folder / "train.csv").write_text("\n".join(rows))
    (folder / "train.py").write_text("print('trained')")
    (folder / "new.csv").write_text("\n".join(row.rpartition(",")[0] for row in rows[:9]))
    for command in COMMANDS:
        if command == "launch":
            continue  # it starts processes: see tests/runtime/distributed
        for words in examples(help_of(command, capsys)):
            assert main(words[1:]) == 0, words
            assert capsys.readouterr().out
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert left >= {
        "graphc-demo/digits.gc",
        "graphc-run/iris.gc",
        "graphc-run/confusion_matrix.png",
        "predicted.csv",
        "net.svg",
        "difference.svg",
        "trace.json",
    }
    assert len((folder / "predicted.csv").read_text().splitlines()) == 9


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (OSError(28, "No space left on device", "a/b"), "a/b: No space left on device"),
        (OSError("odd"), "odd"),
        (MemoryError("Unable to allocate 9 TiB"), "there is not enough memory: Unable to "),
    ],
)
def test_what_the_system_refuses_is_reported_in_a_line(
    error: Exception,
    shown: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(path: str) -> None:
        raise error

    monkeypatch.setattr("graphc.cli.plan.load_model", fails)
    assert main(["plan", "model.py:net"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {shown}")
    assert err.count("\n") == 1
