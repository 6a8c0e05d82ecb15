"""The layers of two students in unlike styles are right; the cause of a planted mistake is named.

Right layers stand in `loops.py` and `arrays.py`, mistakes in `wrong_layers.txt`: which function of
which student, the text that is replaced, and what `check_layer` has to say of each wrong result.  A
result with `?` has none, since its numbers are those of no single mistake.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphc.check.check_layer import SPECS, check_layer
from graphc.check.course import sequences
from graphc.check.course.causes import usual_mistakes
from graphc.check.course.compare import matches
from graphc.check.course.spec import results_of
from tests.check.course import arrays, loops

STUDENTS = {"loops": loops, "arrays": arrays}
WRONG = (Path(__file__).parent / "wrong_layers.txt").read_text(encoding="utf-8").split("\n\n")
OWN = "it is the gradient of your own forward function; correct that first"


def functions(layer: str, names: dict[str, Any]) -> list[Any]:
    """A student's functions of a layer: one of a loss, else forward and backward."""
    ends = [""] if SPECS[layer].backward is None else ["_forward", "_backward"]
    return [names[layer + end] for end in ends]


def mutant(student: str, function: str, old: str, new: str) -> dict[str, Any]:
    """A student's file in which `old` is `new` in one function."""
    text = inspect.getsource(STUDENTS[student])
    start = text.index(f"def {function}(")
    end = text.find("\ndef ", start) % (len(text) + 1)
    assert old in text[start:end], f"{function} has no {old!r}"
    changed = text[:start] + text[start:end].replace(old, new) + text[end:]
    names: dict[str, Any] = {"__name__": function}
    exec(compile(changed, function, "exec"), names)
    return names


def parsed(block: str) -> tuple[list[str], str, str, dict[str, str]]:
    """The student, layer and function; the old text, the new one; the causes by result."""
    head, *lines = block.strip().splitlines()
    old, new = ("\n".join(line[2:] for line in lines if line[0] == sign) for sign in "-+")
    causes = {}
    for line in (line for line in lines if line[0] not in "-+"):
        results, _, cause = line.partition(": ")
        causes.update(dict.fromkeys(results.split(), cause.removeprefix("?")))
    return head.split(), old, new, causes


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("layer", "student"), [(layer, student) for layer in SPECS for student in STUDENTS]
)
def test_right_layers_in_unlike_styles(layer: str, student: str) -> None:
    report = check_layer(layer, *functions(layer, vars(STUDENTS[student])), seed=1)
    assert report.ok, str(report)


@pytest.mark.parametrize("layer", SPECS)
def test_the_layers_of_graphc(layer: str) -> None:
    report = check_layer(layer, SPECS[layer].forward, SPECS[layer].backward, seed=2)
    assert report.ok, str(report)


@pytest.mark.filterwarnings("ignore:Degrees of freedom")
@pytest.mark.one_in(20)
@pytest.mark.parametrize("number", range(len(WRONG)))
def test_the_cause_is_right_or_none_is_given(number: int) -> None:
    (student, layer, function), old, new, causes = parsed(WRONG[number])
    np.random.seed(number)  # noqa: NPY002 - what a student draws masks from
    with np.errstate(all="ignore"):
        report = check_layer(layer, *functions(layer, mutant(student, function, old, new)))
    assert {finding.what: finding.cause for finding in report.findings} == causes


def test_there_are_wrong_layers_of_every_kind() -> None:
    layers = [parsed(block)[0][1] for block in WRONG]
    assert {*layers} == {*SPECS} and len(layers) >= 150
    named = [parsed(block)[3] for block in WRONG]
    assert sum(any(causes.values()) for causes in named) >= 130


@pytest.mark.parametrize("layer", SPECS)
def test_the_inputs_of_a_layer_have_names_of_their_own(layer: str) -> None:
    cases = [*SPECS[layer].cases(np.random.Generator(np.random.Philox(0)))]
    assert len({str(case) for case in cases}) == len(cases)


@pytest.mark.parametrize("layer", ["rnn", "lstm"])
def test_the_formulas_of_a_sequence_are_right(layer: str) -> None:
    for case in SPECS[layer].cases(np.random.Generator(np.random.Philox(2))):
        found = sequences._unrolled(case, sequences._Slip())
        right = results_of(SPECS[layer], case)
        assert found.keys() == right.keys()
        for what, array in right.items():
            np.testing.assert_allclose(found[what], array, rtol=1e-10, atol=1e-12)


SAME = {"dprev_c does not flow to the step before", "dnext_c is left out"}
"""Two mistakes that are one in a loop over time."""


@pytest.mark.slow
@pytest.mark.parametrize("layer", SPECS)
def test_no_two_mistakes_look_alike(layer: str) -> None:
    """If two did, the first would be named where the second was made."""
    cases = [*SPECS[layer].cases(np.random.Generator(np.random.Philox(0)))]
    right = [results_of(SPECS[layer], case) for case in cases]
    with np.errstate(all="ignore"):
        made = [
            list(usual_mistakes(SPECS[layer], case, ours))
            for case, ours in zip(cases, right, strict=True)
        ]
    for mode in {case.param.get("mode") for case in cases}:
        at = [k for k, case in enumerate(cases) if case.param.get("mode") == mode]
        for what in right[0]:
            outputs = [name for name in ("loss", *SPECS[layer].outputs) if name in right[0]]
            names = dict.fromkeys([what, *outputs])
            tables = [_by_text(what, names, made[k], right[k]) for k in at]
            wrong = [*dict.fromkeys(text for table in tables for text in table)]
            correct = [_joined(names, right[k], right[k]) for k in at]
            wrong = [text for text in wrong if not _alike(text, None, tables, correct)]
            pairs = [(a, b) for i, a in enumerate(wrong) for b in wrong[:i] if {a, b} != SAME]
            found = [pair for pair in pairs if _alike(*pair, tables, correct)]
            assert not found, f"{layer} {what}: {found}"


Shown = list[Any]
"""A result and the outputs, which `check_layer` compares together."""


def _joined(names: Iterable[str], results: Any, right: Any) -> Shown:
    return [np.asarray(results.get(name, right[name])) for name in names]


def _by_text(what: str, names: Iterable[str], mistakes: Any, right: Any) -> dict[str, list[Shown]]:
    found: dict[str, list[Shown]] = {}
    for text, results in mistakes:
        if what in results:
            found.setdefault(text, []).append(_joined(names, results, right))
    return found


def _alike(a: str, b: str | None, tables: list[dict[str, list[Shown]]], correct: Any) -> bool:
    """Whether one student could have made both on all inputs; None is to be right."""
    return all(
        any(
            all(map(matches, x, y))
            for x in table.get(a, [ours])
            for y in (table.get(b, [ours]) if b else [ours])
        )
        for table, ours in zip(tables, correct, strict=True)
    )


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    "layer", [layer for layer, spec in SPECS.items() if not spec.is_loss and layer != "dropout"]
)
def test_any_gradient_may_be_divided_by_the_rows(layer: str) -> None:
    spec = SPECS[layer]
    right: Any = spec.backward

    def backward(*given: Any) -> Any:
        found, rows = right(*given), len(given[0])
        return tuple(g / rows for g in found) if isinstance(found, tuple) else found / rows

    for finding in (findings := check_layer(layer, spec.forward, backward).findings):
        assert finding.cause == f"{finding.what} is divided by N; the loss has done that already"
    assert [finding.what for finding in findings] == list(spec.gradients)


# Kinks.


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_equal_maxima_may_share_the_gradient(share: float) -> None:
    def backward(dout: Any, cache: Any) -> Any:
        return share * last(dout, cache) + (1 - share) * loops.max_pool_backward(dout, cache)

    def last(dout: Any, cache: Any) -> Any:
        x, pool = cache
        turned = loops.max_pool_backward(dout[:, :, ::-1, ::-1], (x[:, :, ::-1, ::-1], pool))
        return turned[:, :, ::-1, ::-1]

    def whole(x: Any, pool: Any) -> bool:  # else the windows begin elsewhere when turned round
        size = pool["pool_height"], pool["pool_width"]
        return not any((n - k) % pool["stride"] for n, k in zip(x.shape[2:], size, strict=True))

    def checked(dout: Any, cache: Any) -> Any:
        return backward(dout, cache) if whole(*cache) else loops.max_pool_backward(dout, cache)

    assert check_layer("max_pool", loops.max_pool_forward, checked).ok


@pytest.mark.parametrize(("slope", "ok"), [(0.0, True), (0.3, True), (1.0, True), (1.5, False)])
def test_any_slope_of_a_margin_that_is_met(slope: float, ok: bool) -> None:
    def loss(x: Any, y: Any) -> Any:
        rows = np.arange(len(x))
        margins = x - x[rows, y][:, None] + 1
        margins[rows, y] = -1
        dx = np.where(margins == 0, slope, margins > 0)
        dx[rows, y] = -dx.sum(axis=1)
        return np.maximum(margins, 0).sum() / len(x), dx / len(x)

    assert check_layer("svm_loss", loss).ok == ok


# Gradients of a wrong forward function.


def test_the_gradient_of_ones_own_wrong_forward() -> None:
    def forward(x: Any, w: Any, b: Any) -> Any:
        flat = x.reshape(len(x), -1)
        return np.sin(flat @ w + b), (x.shape, flat, w, b)

    def backward(dout: Any, cache: Any) -> Any:
        shape, flat, w, b = cache
        da = dout * np.cos(flat @ w + b)
        return (da @ w.T).reshape(shape), flat.T @ da, 2 * da.sum(axis=0)

    report = check_layer("affine", forward, backward)
    causes = {finding.what: finding.cause for finding in report.findings}
    assert causes == {"out": "", "dx": OWN, "dw": OWN, "db": ""}


def test_a_forward_that_cannot_be_run_again() -> None:
    calls = [0]

    def forward(x: Any) -> Any:
        calls[0] += 1
        if calls[0] > 12:
            raise RuntimeError("too often")
        return np.cos(x), x

    report = check_layer("relu", forward, lambda dout, x: -dout * np.sin(x))
    assert {finding.what for finding in report.findings} >= {"out", "dx"}
