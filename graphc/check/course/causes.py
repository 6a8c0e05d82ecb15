"""The likely cause of a wrong result: the mistake that gives all of the student's numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Any

import numpy as np

from graphc.check.course.compare import Finding, difference, matches, numbers
from graphc.check.course.spec import Case, Mistake, Results, Spec
from graphc.check.course.student import NEVER, Raised, Student
from graphc.ir.op import Array


@dataclass(frozen=True)
class Trial:
    """The results of a student's layer and of graphc's on one case."""

    student: Student
    theirs: Mapping[str, Any]
    ours: Mapping[str, Any]

    @property
    def spec(self) -> Spec:
        """The layer."""
        return self.student.spec

    @property
    def case(self) -> Case:
        """The case."""
        return self.student.case

    def finding(self, what: str) -> Finding | None:
        """Return what is wrong with a result; at a kink any subgradient is right."""
        theirs, right, nearest = self.theirs[what], self.ours[what], self.spec.nearest
        array = numbers(theirs)
        if nearest and what == "dx" and array is not None and array.shape == right.shape:
            right = nearest(array, self.case, right)
        return difference(what, theirs, right, str(self.case))

    @cached_property
    def mistakes(self) -> list[Mistake]:
        """The usual mistakes of the layer, and those that occur in any layer."""
        with np.errstate(all="ignore"):
            return [*self._swapped(), *usual_mistakes(self.spec, self.case, self.ours)]

    def _swapped(self) -> Iterator[Mistake]:
        """Yield pairs of results that the student has the wrong way round."""
        for first, second in permutations(self.theirs, 2):
            theirs, right = numbers(self.theirs[second]), np.asarray(self.ours[first])
            if theirs is not None and matches(theirs, right):
                a, b = sorted((first, second), key=[*self.theirs].index)
                yield f"{a} and {b} are swapped", {first: self.ours[second]}

    def shows(self, what: str, results: Results) -> bool:
        """Return whether the student has these results: this one, and the outputs."""
        names = {what, *(name for name in self.spec.outputs if name in results)}
        arrays = {name: numbers(self.theirs[name]) for name in names}
        return all(
            array is not None and matches(array, np.asarray(results[name]))
            for name, array in arrays.items()
        )

    def explains(self, what: str, text: str) -> bool:
        """Return whether a mistake gives the student's result here too, be it right or wrong.

        If a function raised an error here, the mistake may not give any result.
        """
        found = [results for name, results in self.mistakes if name == text and what in results]
        if what not in self.theirs:
            return not found
        shown = any(self.shows(what, results) for results in found)
        return shown or (not found and self.finding(what) is None)

    def is_own_gradient(self, what: str) -> bool:
        """Return whether a gradient is that of the student's forward function, which is wrong.

        Along some directions it is compared with the central difference.
        """
        name, gradient = what[1:], numbers(self.theirs[what])
        wrong = any(self.finding(output) for output in self.spec.outputs)
        if not wrong or name not in self.case.arrays or gradient is None:
            return False
        array, rng = self.case.arrays[name], np.random.default_rng(0)
        for _ in range(3):
            step = 1e-5 * rng.standard_normal(array.shape)
            slope = float((gradient * step).sum()) if gradient.shape == array.shape else math.nan
            try:
                up, down = (self._value({name: array + sign * step}) for sign in (1, -1))
            except Raised:
                return False
            if not math.isclose((up - down) / 2, slope, rel_tol=1e-6, abs_tol=1e-12):
                return False
        return True

    def _value(self, changed: Mapping[str, Array]) -> float:
        """Return the sum of the student's outputs times their cotangents, of changed arrays."""
        outputs, _ = self.student.forward({**self.case.arrays, **changed})
        douts = self.student.douts()
        arrays = [numbers(out) for out in outputs[: len(douts)]]
        if any(a is None or a.shape != d.shape for a, d in zip(arrays, douts, strict=True)):
            return math.nan
        return sum(
            float((a * d).sum()) for a, d in zip(arrays, douts, strict=True) if a is not None
        )


def usual_mistakes(spec: Spec, case: Case, ours: Results) -> Iterator[Mistake]:
    """Yield the usual mistakes of the layer, and those that occur in any layer."""
    yield from spec.mistakes(case, ours)
    for what in () if spec.is_loss else spec.gradients:
        text = f"{what} is divided by N; the loss has done that already"
        yield text, {what: ours[what] / len(case.x)}
    for what, result in ours.items():
        yield "the sign is flipped", {what: -np.asarray(result)}
        yield "it is never filled in", {what: np.zeros_like(result)}
        if np.ndim(result) == 2:
            yield "it is transposed", {what: np.asarray(result).T}


def likely_cause(what: str, wrong: Trial, trials: Sequence[Trial]) -> str:
    """Return the mistake that gives all of the student's numbers in one mode, or ""."""
    array, mode = numbers(wrong.theirs[what]), wrong.case.param.get("mode")
    if array is None:
        return NEVER if wrong.theirs[what] is None else ""
    same = [trial for trial in trials if trial.case.param.get("mode") == mode]
    shown = (text for text, found in wrong.mistakes if what in found and wrong.shows(what, found))
    for text in shown:
        if all(trial.explains(what, text) for trial in same):
            return text
    if all(what in trial.theirs for trial in same) and all(
        trial.finding(what) is None or trial.is_own_gradient(what) for trial in same
    ):
        return "it is the gradient of your own forward function; correct that first"
    return ""
