"""`graphc bench`: its tables have every instruction, and their sums are right.  Times are not."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import graphc as gc
from graphc.backends import backend as table
from graphc.cli import main
from graphc.cli.model import load_model
from graphc.compiler.cost import program_cost
from graphc.view.measure import Peak

pytestmark = pytest.mark.usefixtures("quick")
native = pytest.mark.needs("native")
PEAK = Peak(threads=1, flops=1e9, bytes=1e9)
SGD = gc.SGD(lr=0.01, momentum=0.9)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call a turn, and a machine of round numbers."""
    monkeypatch.setattr("graphc.cli.bench.TURN_SECONDS", 1e-9)
    monkeypatch.setattr("graphc.cli.bench.measure_peak", lambda threads: PEAK)


@dataclass
class Table:
    """What bench printed: the lines before, a row for each instruction, and their sum."""

    head: list[str]
    rows: list[list[str]]
    total: list[str]


def bench(capsys: pytest.CaptureFixture[str], *options: str) -> Table:
    assert main(["bench", *options, "--rounds", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if "time us" in line)
    rows = lines[start + 1 : lines.index("", start)]
    cells = [re.split(r"\s{2,}", line.strip()) for line in rows]
    return Table(lines[:start], cells[:-1], cells[-1])


def column(rows: list[list[str]], number: int) -> list[float]:
    return [float(row[number].rstrip("%")) for row in rows]


def step(backend: str) -> gc.Plan:
    graph = load_model("model.py:net").graph
    return gc.compile(graph, batch=8, optimizer=SGD, backend=backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numpy", pytest.param("native", marks=native)])
def test_each_instruction_has_a_row_with_its_node_and_line(
    backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = bench(capsys, "model.py:net", "--batch", "8", "--backend", backend)
    instrs = [i for i in step(backend).programs["step"].instrs if i.kind != "barrier"]
    assert len(found.rows) == len(instrs)
    for row, instr in zip(found.rows, instrs, strict=True):
        assert instr.node in row
    assert any("scores" in row and "model.py:9 in net" in row for row in found.rows)


@pytest.mark.parametrize("backend", ["numpy", pytest.param("native", marks=native)])
def test_the_last_row_is_the_sum(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = bench(capsys, "model.py:net", "--batch", "8", "--backend", backend)
    rounding = 0.06 * len(found.rows)
    for number in (0, 1, 2, 4):
        total = float(found.total[number].rstrip("%"))
        assert sum(column(found.rows, number)) == pytest.approx(total, abs=rounding)
    whole = program_cost(step(backend).programs["step"], 8)
    assert float(found.total[2]) == pytest.approx(whole.flops / 1e3, abs=0.06)
    assert float(found.total[4]) == pytest.approx(whole.bytes / 1e3, abs=0.06)


@native
def test_both_backends_are_timed_beside_the_bound(capsys: pytest.CaptureFixture[str]) -> None:
    head = bench(capsys, "model.py:net", "--batch", "8").head
    assert head[0].startswith("'step' of 'small' at 8 rows: ")
    products = 2 * 8 * 8 * (64 + 10 + 64 + 10 + 10)
    assert f"the products take {products / 1e9 * 1e6:.1f} us at least" in head[1]
    sides = [line.split()[0] for line in head if "of the bound" in line]
    assert sides == ["native", "numpy"]
    assert head[4].startswith("native is ")
    assert "each instruction of 'step' on native, called by itself:" in head


def test_a_net_without_loss_infers(capsys: pytest.CaptureFixture[str]) -> None:
    found = bench(capsys, "model.py:no_loss", "--batch", "3", "--backend", "numpy")
    assert found.head[0].startswith("'infer' of 'no_loss' at 3 rows: ")
    assert [row[8:10] for row in found.rows] == [["gemm", "affine_1"]]


@pytest.mark.slow
def test_the_optimizer_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--batch", "3", "--backend", "numpy", "--optimizer", "adam")
    found = bench(capsys, "model.py:net", *options)
    graph = load_model("model.py:net").graph
    plan = gc.compile(graph, batch=3, optimizer=gc.Adam(lr=0.01), backend="numpy")
    instrs = [i for i in plan.programs["step"].instrs if i.kind != "barrier"]
    assert [row[8].split()[0] for row in found.rows] == [i.kernel for i in instrs]
    assert [row[9] for row in found.rows] == [i.node for i in instrs]
    whole = program_cost(plan.programs["step"], 3).flops / 1e3
    assert float(found.total[2]) == pytest.approx(whole, abs=0.06)
    momentum = program_cost(step("numpy").programs["step"], 3).flops / 1e3
    assert whole > momentum + 0.1


def test_products_have_the_precision_that_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ("--batch", "3", "--backend", "numpy", "--precision", "*=bf16,scores=float32")
    found = bench(capsys, "model.py:net", *options)
    precision = {"*": "bf16", "scores": "float32"}
    graph = load_model("model.py:net").graph
    plan = gc.compile(graph, batch=3, optimizer=SGD, backend="numpy", precision=precision)
    instrs = [i for i in plan.programs["step"].instrs if i.kind != "barrier"]
    assert [row[9] for row in found.rows] == [i.node for i in instrs]
    assert any(i.node.endswith(".bf16") for i in instrs)


def test_without_native_numpy_alone_is_timed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = {"native": "llvmlite is missing"}
    monkeypatch.setattr(table, "_missing", reasons.get)
    found = bench(capsys, "model.py:net", "--batch", "3")
    assert found.head[0] == "there is no native backend here: llvmlite is missing"
    assert not any("native is" in line for line in found.head)
    assert "each instruction of 'step' on numpy, called by itself:" in found.head
    assert main(["bench", "model.py:net", "--backend", "native"]) == 1
    assert "there is no native backend here" in capsys.readouterr().err


def test_pictures_and_traces_are_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    files = {name: tmp_path / f"times.{name}" for name in ("svg", "json")}
    options = ("--backend", "numpy", "--picture", str(files["svg"]), "--trace", str(files["json"]))
    found = bench(capsys, "model.py:net", "--batch", "3", *options)
    assert "scores" in files["svg"].read_text(encoding="utf-8")
    events = json.loads(files["json"].read_text(encoding="utf-8"))["traceEvents"]
    assert sum(event["ph"] == "X" for event in events) == len(found.rows)
