"""Rounded products: the fuzzer's own rounding, its bound, and planted faults, by what finds them.

A wrong order of the terms of a sum is a rounding of float32, which no bound forbids: other code has
other bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import graphc as gc
from graphc.backends.c import tile
from graphc.backends.numpy.functions import FUNCTIONS as _FUNCTIONS
from graphc.backends.numpy.functions import Function
from graphc.features.precision.bfloat16 import rounded, widened
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.ops.linalg import OrderedProduct
from passes.backward import Backward
from passes.set_precision import Precision
from tests.tools.fuzz.bound import RUNS, Meant
from tests.tools.fuzz.case import Case, Event
from tests.tools.fuzz.check import Verdict, judge
from tests.tools.fuzz.draw import Wishes, draw
from tests.tools.fuzz.meaning import Meaning
from tests.tools.fuzz.rounded import to_bfloat16
from tests.tools.fuzz.shrink import smaller
from tests.tools.fuzz.test_planted import Plant, planted, written_test
from tests.tools.fuzz.wide import Noise
from tests.tools.fuzz.write import write

FUNCTIONS = cast("dict[str, Function]", _FUNCTIONS)
WISHES = Wishes(native=0.0, interpreted=0.0, precision=1.0, tight=0.0, again=0.0, most=4)
CASES = 40


def test_rounding_is_that_of_graphc() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(5000) * 2.0 ** rng.integers(-70, 30, 5000)).astype(np.float32)
    words = x.view(np.uint32)
    ties = (words & np.uint32(0xFFFF0000) | np.uint32(0x8000)).view(np.float32)
    for numbers in (x, ties):
        assert np.array_equal(to_bfloat16(numbers), widened(rounded(numbers)))


def test_a_factor_rounds_to_either_neighbour_where_rounding_decides() -> None:
    middle = np.full(64, 1 + 2.0**-8, np.float32)
    below, above = middle - np.float32(2.0**-22), middle + np.float32(2.0**-22)
    assert {*Noise(0, [above]).rounded(below)} == {1.0, 1 + 2.0**-7}
    assert {*Noise(0, [below - np.float32(2.0**-12)]).rounded(below - np.float32(2.0**-12))} == {1}
    assert {*Noise(0, [middle]).rounded(middle)} == {1.0}


def net(scores: int = 5) -> gc.Net:
    """An image that is convolved, and scores."""
    made = gc.Net("net")
    x = made.input("x", (gc.N, 3, 5, 4))
    h = gc.relu(gc.conv2d(x, 6, 3, padding=1, name="filters"))
    y = made.output("scores", gc.affine(gc.reshape(h, (gc.N, 120)), scores, name="scores"))
    made.loss("loss", gc.mean(y * y))
    return made


def case(kind: str, to: Precision = "bf16", **options: Any) -> Case:
    every: Any = (("*", to),)
    return Case(net().graph(), 3, (Event(kind, 3),), gc.SGD(lr=0.1), precision=every, **options)


def test_factors_as_they_are_fed_leave_no_more_room_than_float32() -> None:
    made = gc.Net("product")
    made.output("y", gc.affine(made.input("x", (gc.N, 30)), 5))
    found = Meant(Meaning(replace(case("infer"), graph=made.graph(), optimizer=None)))
    found.widen(RUNS[0])
    exact = np.abs(found.exact.results[0]["output y"]).max()
    assert 0 < found.bound(0, "output y").max() < 1e-4 * exact


@pytest.mark.parametrize("kind", ["infer", "train", "step"])
def test_a_net_gives_what_its_precision_means(kind: str) -> None:
    for drawn in range(4):
        verdict = judge(case(kind, draw=drawn))
        assert not verdict.failed, verdict.message


# ------------------------------------------------------------------ faults beyond the bound


def _replaced(patch: pytest.MonkeyPatch, rule: Any) -> None:
    patch.setitem(FUNCTIONS, "to_bfloat16", replace(FUNCTIONS["to_bfloat16"], rule=rule))


def truncated(patch: pytest.MonkeyPatch) -> None:
    """Factors are rounded toward zero."""

    def rule(out: Array, x: Array, words: Array, mask: Array) -> Sequence[Any]:
        shift = np.uint32(16)
        copied = partial(np.copyto, out, words, casting="unsafe")
        return (partial(np.right_shift, x.view(np.uint32), shift, words), copied)

    _replaced(patch, rule)


def rounded_twice(patch: pytest.MonkeyPatch) -> None:
    """Factors are rounded to 12 bits, and then to 8: some that are near a tie go the other way."""

    def again(out: Array, x: Array) -> None:
        words = x.view(np.uint32)
        out[...] = rounded(((words + np.uint32(0x800)) & np.uint32(0xFFFFF000)).view(np.float32))

    _replaced(patch, lambda out, x, words, mask: (partial(again, out, x),))


def stale(patch: pytest.MonkeyPatch) -> None:
    """Factors are rounded in the first run alone."""
    whole = FUNCTIONS["to_bfloat16"].rule

    def rule(*arrays: Array) -> Sequence[Any]:
        calls = list(whole(*arrays))

        def first() -> None:
            while calls:
                calls.pop(0)()

        return (first,)

    _replaced(patch, rule)


def gradients_in_float32(patch: pytest.MonkeyPatch) -> None:
    """The factors of gradients are not rounded."""
    whole = Backward.__call__

    def backward(self: Backward, graph: Graph) -> Graph:
        made = whole(self, graph)
        new = ((n, n.op) for n in made if n.name not in graph)
        products = ((n, op) for n, op in new if isinstance(op, OrderedProduct))
        return made.replace({n.name: replace(n, op=replace(op, order=None)) for n, op in products})

    patch.setattr(Backward, "__call__", backward)


FAULTS = (truncated, rounded_twice, stale, gradients_in_float32)


def failing() -> Verdict:
    """The first case that is wrong."""
    verdicts = (judge(draw(seed, WISHES)) for seed in range(CASES))
    return next(verdict for verdict in verdicts if verdict.failed)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_outside_the_bound(fault: Plant) -> None:
    with planted(fault):
        found = failing()
    assert found.kind == "wrong"
    assert "bound" in found.message
    assert not judge(replace(found.case)).failed  # with a plan of its own


def test_a_fault_becomes_a_test_with_its_precision(tmp_path: Path) -> None:
    with planted(truncated):
        failed = judge(case("train"))
        plainer = next(each for each in smaller(failed.case) if each.events[0].kind == "infer")
        path = write(judge(plainer), tmp_path)
        with pytest.raises(AssertionError, match="bound"):
            written_test(path)()
    assert "precision=(('*', 'bf16'),)" in path.read_text()
    written_test(path)()


# ------------------------------------------------------------------ faults in bits alone


IN_C: dict[str, tuple[Precision, str, str, str]] = {
    "pairs in their plain order": ("bf16", "_PAIRS", "p ^ pairs", "p"),
    "even and odd terms together": ("bf16_blocks", "_BLOCKS", "parts[odd], 0", "parts[0], 0"),
    "blocks of 16": ("bf16_blocks", "_BLOCKS", " 32", " 16"),
    "parts of a block one after the other": (
        *("bf16_blocks", "_BLOCKS", "sums[s] += parts[0][s] + parts[1][s]"),
        "sums[s] = sums[s] + parts[0][s] + parts[1][s]",
    ),
}
"""Faults of exported C: the precision that shows them, and text that is replaced."""


bits = pytest.mark.needs("native", "c")


@bits
@pytest.mark.slow
@pytest.mark.parametrize("to", ["bf16", "bf16_blocks"])
def test_native_code_has_the_bits_of_c(to: Precision) -> None:
    verdict = judge(case("step", to, backend="native"))
    assert verdict.kind == "right", verdict.message


@bits
@pytest.mark.slow
@pytest.mark.parametrize("fault", IN_C)
def test_a_wrong_order_has_other_bits(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    to, name, right, wrong = IN_C[fault]
    text = getattr(tile, name)
    assert right in text
    monkeypatch.setattr(tile, name, text.replace(right, wrong))
    graph = net(60).graph()  # some sums round another way
    verdict = judge(replace(case("infer", to, backend="native"), graph=graph))
    assert verdict.kind == "wrong"
    assert "other bits in C" in verdict.message
