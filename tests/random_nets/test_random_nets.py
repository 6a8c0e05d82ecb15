"""The random nets themselves: what they draw, that they are right, and that faults are found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graphc.kernels.groups import Grouping
from graphc.runtime.feeds import FeedCheck
from graphc.runtime.means import Count
from graphc.runtime.state import Owner

from .__main__ import main
from .case import Case
from .check import Outcome, check
from .draw import draw
from .report import functions, program
from .shrink import shrunk


def test_every_kind_of_function_is_drawn() -> None:
    drawn: Counter[str] = Counter()
    for seed in range(400):
        drawn.update(functions(draw(seed)))
    assert len(drawn) > 160
    assert len([name for name, many in drawn.items() if name.startswith("gc.") and many > 2]) > 140


def test_a_seed_is_a_net() -> None:
    assert repr(draw(3)) == repr(draw(3))
    assert repr(draw(3)) != repr(draw(4))


def test_some_nets_are_right(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--nets", "6", "--seed", "40", "--only", "saved", "--found", str(tmp_path)]) == 0
    assert "6 nets, 0 wrong" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_many_nets_are_right(part: int, tmp_path: Path) -> None:
    assert (
        main(["--nets", "100", "--seed", str(50_000 + 100 * part), "--found", str(tmp_path)]) == 0
    )


# Planted faults, and in how few nets each is found.


def first_wrong(only: str, fits: Callable[[Case], bool], tries: int = 60) -> tuple[Case, Outcome]:
    """Return the first wrong case among those that fit."""
    for seed in range(100_000, 110_000):
        case = draw(seed)
        if not fits(case):
            continue
        outcome = check(case, only)
        if outcome.wrong:
            return case, outcome
        tries -= 1
        assert tries, f"{only} found nothing wrong"
    raise AssertionError("no net fits")


def calls(case: Case, *names: str) -> bool:
    """Return whether a case calls one of these functions."""
    return any(call.function in names for call in case.calls)


@pytest.mark.slow
def test_rows_remembered_from_an_earlier_call(monkeypatch: pytest.MonkeyPatch) -> None:
    right = FeedCheck.arrays

    def arrays(self: Any, *args: Any, **kwargs: Any) -> Any:
        found, rows = right(self, *args, **kwargs)
        if any(feed.type.batched for feed in self._feeds.values()):
            return found, rows
        return found, self.__dict__.setdefault("remembered", rows)

    monkeypatch.setattr(FeedCheck, "arrays", arrays)

    def fits(case: Case) -> bool:
        return calls(case, "gc.broadcast_to") and len({n for _, n in case.actions}) > 1

    case, outcome = first_wrong("exact_batch", fits)
    small = shrunk(case, outcome, tries=40)
    assert len(small.calls) < len(case.calls)
    assert check(small, outcome.checks[-1]).wrong
    rerun: dict[str, Any] = {"__name__": "found"}
    exec(program(small, outcome), rerun)
    assert check(rerun["case"], outcome.checks[-1]).wrong


@pytest.mark.slow
def test_a_weight_overwritten_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Grouping, "_reads_before", lambda *args: True)

    def fits(case: Case) -> bool:
        return case.optimizer is not None and calls(case, "gc.matmul", "operator.matmul")

    _, outcome = first_wrong("native_proof", fits, 300)
    assert "takes the place of an operand" in outcome.wrong


@pytest.mark.slow
def test_an_evaluation_that_counts_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Count, "__call__", lambda self, feeds, rows, state: float(rows))

    def fits(case: Case) -> bool:
        return "mean" in case.losses.values() and any(
            f.kind == "weights" for f in case.inputs.values()
        )

    assert "evaluate" in first_wrong("evaluated", fits)[1].wrong


@pytest.mark.slow
def test_a_rate_that_two_optimizers_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Owner, "check", lambda *args: None)
    _, outcome = first_wrong("two_optimizers", lambda case: case.optimizer is not None)
    assert "two optimizers on one state" in outcome.wrong


@pytest.mark.slow
def test_a_model_that_onnx_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    from graphc.onnx.export.standard import STANDARD
    from graphc.ops.activations.exponential import Celu

    def plain(w: Any, op: Any, ins: Any, out: str) -> bool:
        w.emit("Celu", ins, out, alpha=op.alpha)  # ONNX has it for float32 alone.
        return True

    monkeypatch.setitem(STANDARD, Celu, plain)

    def fits(case: Case) -> bool:
        return calls(case, "gc.celu") and case.dtype == "float64"

    _, outcome = first_wrong("checked", fits)
    assert outcome.checks[-1] == "checked" and "Celu" in outcome.wrong
