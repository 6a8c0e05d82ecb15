"""`graphc verify` without a model: an installation that is right passes, and faults are found."""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.cli import main
from graphc.cli.installation import SECTIONS, calls, formulas
from graphc.cli.installation.bundle import Bundle
from graphc.cli.installation.ops import BATCH, BUNDLE, compare, compare_slopes, run_of
from graphc.cli.installation.tables import LABELS
from graphc.cli.installation.trial import Trial, some
from graphc.ir.build import Builder, Value
from graphc.ir.expr import Axis, Expr, call
from graphc.ops.arithmetic import Quantize
from graphc.ops.elementwise import mul, sub
from graphc.ops.functions import Tanh

FEW = ("gc.tanh(x)", "gc.clip(x, -0.7, 0.9)", "gc.relu(x @ w)", "own_loop(s, u, n, 0.5)")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let sections check few calls."""
    sides = [pair for pair in calls.sides_of(formulas.FORMULAS) if pair[0] in FEW]
    monkeypatch.setattr(calls, "FORMULAS", "\n".join(map(" == ".join, sides)))
    calls.calls.cache_clear()
    yield
    calls.calls.cache_clear()


@pytest.mark.usefixtures("few")
def test_what_is_right_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--only", "ops", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] and found["sections"][0]["text"].startswith(f"{len(FEW)} calls")


@pytest.mark.usefixtures("few")
def test_a_wrong_gradient_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(self: Tanh, b: Builder, ins: Any, out: Value, dout: Value) -> tuple[Value]:
        return (mul(dout, sub(1.0, out)),)

    monkeypatch.setattr(Tanh, "grad", wrong)
    assert main(["verify", "--only", "ops", "--seed", "3"]) == 1
    out = capsys.readouterr().out
    assert "gc.tanh(x): the gradient by 'x0_part'" in out
    assert out.endswith("this shows it again: graphc verify --seed 3 --only ops\n")


def test_some_tables_are_read_as_they_were_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the label in each column, missing cells, and texts that are no numbers."""
    module = sys.modules["graphc.cli.installation.tables"]  # the package has its section instead
    monkeypatch.setattr(module, "LABELS", LABELS[:2])
    assert SECTIONS["tables"](Trial(0, 0.0, tmp_path)).startswith("4 tables")


def test_a_wrong_tie_in_int8_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(self: Quantize, ins: Sequence[Expr], axis: Axis) -> Expr:
        steps = call("floor", ins[0] * (1 / self.step) + 0.5)  # ties up, not to even
        return call("minimum", call("maximum", steps, -127), 127).cast("int8")

    monkeypatch.setattr(Trial, "backends", lambda self: ["numpy"])
    assert main(["verify", "--only", "edges"]) == 0
    monkeypatch.setattr(Quantize, "scalar", wrong)
    assert main(["verify", "--only", "edges"]) == 1
    assert "in the case: int8 of [(1,), (1,)] on numpy" in capsys.readouterr().out


BUNDLES = list(some(calls.calls(), BUNDLE))


@pytest.mark.needs("native")
@pytest.mark.parametrize("number", range(len(BUNDLES)))
def test_native_code_computes_what_the_formulas_do(number: int) -> None:
    """In steps of training; `graphc verify` does so with other rows, threads and backends, too."""
    bundle = Bundle({name: calls.calls()[name] for name in BUNDLES[number]})
    ex = gc.Executor(gc.compile(bundle.net, batch=BATCH, backend="native"))
    arrays = bundle.drawn(np.random.default_rng(number), BATCH)
    compare(bundle, arrays, run_of(ex, arrays, train=True), train=True)
    compare_slopes(bundle, arrays, ex.backward())


ELSEWHERE = {
    *("dropout", "random_normal", "random_uniform", "standardize", "stop_gradient"),
    *("gru_cell", "lstm_cell", "rnn_cell", "multi_head_attention", "mean_absolute_error"),
    *("conv1d", "conv3d", "conv_transpose1d", "conv_transpose2d"),
    *("lengths", "scan", "grad", "eye_like"),
}
"""Functions whose options have no formula: of random numbers or states, or made of others."""
UNSET = {"name", "init", "dropout", "keep_prob", "drop_prob", "running_decay", "dtype"}
"""Options that need draws or a history, or that only name."""


def test_each_option_of_a_function_is_in_a_formula() -> None:
    """What no formula sets to another value than its default, `graphc verify` cannot see."""
    seen: dict[str, set[str]] = {}
    for left in calls.calls():
        for node in ast.walk(ast.parse(left)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("gc."):
                name = ast.unparse(node.func)[3:]
                places = list(inspect.signature(getattr(gc, name)).parameters)
                given = {*places[: len(node.args)], *(str(word.arg) for word in node.keywords)}
                seen.setdefault(name, set()).update(given)
    wanted = {
        name: function
        for name, function in vars(gc).items()
        if inspect.isfunction(function) and function.__module__.startswith("graphc.ops.")
    }
    missing = {
        name: left
        for name, function in wanted.items()
        if name not in ELSEWHERE
        and (left := {*inspect.signature(function).parameters} - seen.get(name, set()) - UNSET)
    }
    assert not missing


@pytest.mark.slow
def test_all_that_is_installed_is_right(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On each backend, whichever the environment asks for."""
    monkeypatch.setenv("GRAPHC_BACKEND", "numpy")
    assert main(["verify", "--seconds", "1"]) == 0, capsys.readouterr().out


def test_a_model_is_asked_for_where_one_must_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--run"]) == 2
    assert "no model is given" in capsys.readouterr().err
