"""The random nets themselves: what they draw, that they are right, and that faults are found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.kernels.groups import Grouping
from graphc.runtime.feeds import FeedCheck
from graphc.runtime.members.states import MemberStates
from graphc.runtime.rows import Count
from graphc.runtime.state import Owner, State
from tests.extras import needs
from tests.images.taps import misses_an_image

from .__main__ import main
from .calls import Call, Ref, Rows
from .case import Case
from .check import Outcome, check
from .draw import draw, step
from .drawer import Drawer, Feed
from .report import functions, program
from .shrink import candidates, shrunk


def test_every_kind_of_function_is_drawn() -> None:
    drawn: Counter[str] = Counter()
    for seed in range(400):
        drawn.update(functions(draw(seed)))
    assert len(drawn) > 160
    assert len([name for name, many in drawn.items() if name.startswith("gc.") and many > 2]) > 140


def test_convolutions_that_miss_their_images_are_drawn() -> None:
    drawn = [Drawer(np.random.default_rng(seed), "float32") for seed in range(100)]
    for d in drawn:
        step(d, "conv1d")
    assert any(misses_an_image(d.net) for d in drawn)


def test_a_seed_is_a_net() -> None:
    assert repr(draw(3)) == repr(draw(3))
    assert repr(draw(3)) != repr(draw(4))


def test_some_nets_are_right(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--nets", "6", "--seed", "40", "--only", "saved", "--found", str(tmp_path)]) == 0
    assert "6 nets, 0 wrong" in capsys.readouterr().out


@pytest.mark.parametrize("only", ["composed", "members", "quantized"])
def test_some_nets_are_right_after_several_changes(only: str, tmp_path: Path) -> None:
    assert main(["--nets", "4", "--seed", "60", "--only", only, "--found", str(tmp_path)]) == 0


@pytest.mark.parametrize("nets", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_checkers_find_nothing_in_right_nets(nets: int, tmp_path: Path) -> None:
    given = ["--nets", str(nets), "--seed", "100", "--only", "alarms", "--found", str(tmp_path)]
    assert main(given) == 0


@pytest.mark.one_in(2)
@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_many_nets_are_right(part: int, tmp_path: Path) -> None:
    assert (
        main(["--nets", "100", "--seed", str(50_000 + 100 * part), "--found", str(tmp_path)]) == 0
    )


def test_labels_that_are_ignored_are_fed() -> None:
    for case in map(draw, range(1000)):
        for name, label in case.ignored.items():
            if label is not None and label < 0:
                assert (case.feeds(40, 0)[name] == label).any()
                return
    raise AssertionError("no net ignores a label")


def test_a_smaller_net_still_says_how_many_rows_there_are() -> None:
    case = case_of(
        WEIGHT,
        Call(("x",), "net.input", ("x", (Rows(), 2))),
        Call(("wide",), "gc.broadcast_to", (Ref("p"), (Rows(), 3))),
        Call(("l",), "gc.mean", (Ref("wide"),)),
        inputs={"x": Feed((Rows(), 2), "normal")},
    )
    assert not check(case, "saved").wrong
    assert all("x" in smaller.inputs for smaller in candidates(case))


# What only rounding, or another meaning of the same words, sets apart from PyTorch.


def case_of(*calls: Call, **known: Any) -> Case:
    """Return a case whose loss is `l`; it trains once, in float32."""
    told: dict[str, Any] = {
        "seed": 0,
        "dtype": "float32",
        "calls": (*calls, Call((), "net.loss", ("l", Ref("l")))),
        "inputs": {},
        "losses": {"l": "mixed"},
        "outputs": {},
        "apart": False,
        "batch": 2,
        "actions": (("train", 2),),
    }
    return Case(**told | known)


WEIGHT = Call(("p",), "net.parameter", ("p", (3,)), {"init": 0.5})
NUMBER = (
    WEIGHT,
    Call(("c",), "net.constant", (np.array([-0.2, 0.3, 1.5], "float32"),)),
    Call(("b",), "gc.not_equal", (Ref("c"), -0.2)),
    Call(("chosen",), "gc.where", (Ref("b"), Ref("p"), 0.5)),
    Call(("l",), "gc.mean", (Ref("chosen"),)),
)
UNDERFLOW = (
    WEIGHT,
    Call(("small",), "gc.mul", (Ref("p"), 1e-30)),
    Call(("square",), "gc.mul", (Ref("small"), Ref("small"))),
    Call(("l",), "gc.sum", (Ref("square"),)),
)
SMOOTH = {"ignore": 0, "label_smoothing": 0.5}
NOT_A_NUMBER = (
    Call(("x",), "net.input", ("x", (Rows(), 5))),
    Call(("scores",), "gc.affine", (Ref("x"), 4), {"name": "fc"}),
    Call(("labels",), "net.input", ("labels", (Rows(),)), {"dtype": "int64"}),
    Call(("l",), "gc.softmax_loss", (Ref("scores"), Ref("labels")), SMOOTH),
)
ALMOST_ZERO = (
    Call(("p",), "net.parameter", ("p", (1,)), {"init": 0.5}),
    Call(("x",), "net.input", ("x", (Rows(), 5))),
    Call(("h",), "gc.add", (Ref("x"), Ref("p"))),
    Call(("mean",), "gc.mean", (Ref("h"), 1, True)),
    Call(("apart",), "gc.sub", (Ref("h"), Ref("mean"))),
    Call(("bent",), "gc.tanh", (Ref("apart"),)),
    Call(("bends",), "gc.sum", (Ref("bent"),)),
    Call(("squares",), "gc.mul", (Ref("apart"), Ref("apart"))),
    Call(("l",), "gc.sum", (Ref("squares"),)),
    Call((), "net.loss", ("m", Ref("bends"))),
)
X = {"x": Feed((Rows(), 5), "normal")}
STEP = {"actions": (("step", 2),), "optimizer": gc.Lion(lr=0.01)}
CASES = {
    "a number has the dtype of what it is compared with": (case_of(*NUMBER), "saved"),
    "a gradient underflows": (case_of(*UNDERFLOW, **STEP), "saved"),
    "a mean of no rows": (
        case_of(*NOT_A_NUMBER, inputs={**X, "labels": Feed((Rows(),), "labels", 1)}, **STEP),
        "saved",
    ),
    "a gradient that is 0 but for rounding": (
        case_of(*ALMOST_ZERO, inputs=X, losses={"l": "mixed", "m": "mixed"}),
        "losses_apart",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_only_rounding_sets_apart_is_not_wrong(name: str) -> None:
    assert check(*CASES[name]).wrong == ""


def test_a_copy_is_a_value_of_its_own_to_pytorch() -> None:
    needs("torch")
    from tests.tools.random_nets import torch_oracle

    case = case_of(
        WEIGHT,
        Call(("again",), "gc.cast", (Ref("p"), "float32")),
        Call(("product",), "gc.mul", (Ref("p"), Ref("again"))),
        Call(("l",), "gc.sum", (Ref("product"),)),
        Call(("slope",), "gc.grad", (Ref("l"), Ref("again"))),
        Call((), "net.output", ("o", Ref("slope"))),
    )
    start = {"p": np.array([1.0, -2.0, 3.0])}
    (found,) = torch_oracle.runs(case, start, ("p",), [{}], None, 0)
    assert found["output o"].tolist() == [1.0, -2.0, 3.0]
    assert found["gradient p"].tolist() == [2.0, -4.0, 6.0]


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
def test_members_that_are_kept_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    right = MemberStates.keep
    monkeypatch.setattr(MemberStates, "keep", lambda self, chosen: right(self, sorted(chosen)))
    _, outcome = first_wrong("members", lambda case: case.optimizer is not None)
    assert "keep" in outcome.wrong


@pytest.mark.slow
def test_a_counter_that_a_copy_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    right = State.restore

    def restore(self: State, values: Any, needed: Any, forget: Any) -> None:
        right(self, {n: a for n, a in values.items() if n != "draws"}, (), forget)

    monkeypatch.setattr(State, "restore", restore)
    _, outcome = first_wrong("composed", lambda case: bool(case.masks) and bool(case.losses))
    assert "step: turn" in outcome.wrong


@pytest.mark.slow
def test_a_model_that_onnx_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("onnx")
    from graphc.onnx.export.standard import STANDARD
    from graphc.ops.activations import Celu

    def plain(w: Any, op: Any, ins: Any, out: str) -> bool:
        w.emit("Celu", ins, out, alpha=op.alpha)  # ONNX has it for float32 alone.
        return True

    monkeypatch.setitem(STANDARD, Celu, plain)

    def fits(case: Case) -> bool:
        return calls(case, "gc.celu") and case.dtype == "float64"

    _, outcome = first_wrong("checked", fits)
    assert outcome.checks[-1] == "checked" and "Celu" in outcome.wrong
