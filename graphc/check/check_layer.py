"""`check_layer`: compares a student's layer with that of graphc, and reports likely causes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, permutations
from typing import Any

import numpy as np

from graphc.base.errors import GraphError
from graphc.check import image_mistakes, layer_mistakes, sequence_mistakes
from graphc.check.layer_cases import (
    SPECS,
    Candidate,
    Case,
    Results,
    Spec,
    close,
    matches,
    numbers,
    results_of,
)
from graphc.check.layer_mistakes import Mistake
from graphc.check.student import NEVER, Finding, Function, Raised, Student, difference
from graphc.ir.op import Array

MISTAKES = {
    **layer_mistakes.MISTAKES,
    **image_mistakes.MISTAKES,
    **sequence_mistakes.MISTAKES,
}
"""The usual mistakes in each layer of SPECS."""


@dataclass(frozen=True)
class LayerReport:
    """The result of `check_layer`, whose text lists each wrong result with its likely cause.

    Examples
    --------
    >>> from graphc import layers
    >>> report = gc.check_layer("relu", layers.relu_forward, layers.relu_backward)
    >>> report.ok, report.compared
    (True, ('out', 'dx'))
    """

    layer: str
    """The name of the layer."""
    findings: tuple[Finding, ...]
    """The faults, one for each result that is wrong."""
    compared: tuple[str, ...]
    """The results that were compared."""
    cases: int
    """The number of inputs on which they were compared."""

    @property
    def ok(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.findings

    def __str__(self) -> str:
        if self.ok:
            return (
                f"check_layer {self.layer}: ok, {_listed(self.compared)} "
                f"{'agrees' if len(self.compared) == 1 else 'agree'} on {self.cases} inputs"
            )
        wrong = _listed([finding.what for finding in self.findings])
        return "\n".join([f"check_layer {self.layer}: wrong in {wrong}", *self._described()])

    def _described(self) -> Iterator[str]:
        """Yield lines about the findings; those of one input and cause share its lines."""
        groups = groupby(self.findings, lambda finding: (finding.case, finding.cause))
        for (case, cause), findings in groups:
            yield from (f"  {finding.text}" for finding in findings)
            yield f"    for {case}"
            if cause:
                yield f"    likely cause: {cause}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# ---------------------------------------------------------------- dropout, which is random

SIGMAS = 6.0
"""The greatest accepted distance of the share of kept elements from p, in standard deviations."""
COUNTED = 1000
"""The number of elements up to which their share is not judged: it may be chance."""


def dropout_findings(student: Student) -> Iterator[Finding]:
    """Yield the faults of dropout's out, mask and dx; the mask itself is random."""
    case = student.case
    (out,), cache = student.forward()
    yield from student.overwritten_arguments()
    array = numbers(out)
    if array is None or array.shape != case.x.shape:
        yield difference("out", out, case.x, str(case)) or student.finding("out", "")
        return
    array = array.copy()
    train = case.param["mode"] == "train"
    yield from _mask(student, array / case.x) if train else _identity(student, array)
    if student.has_backward:
        yield from _backward(student, cache, array / case.x)


def _identity(student: Student, out: Array) -> Iterator[Finding]:
    x, p = student.case.x, float(student.case.param["p"])
    finding = difference("out", out, x, str(student.case))
    if finding is None:
        return
    only = "at test; inverted dropout scales in training only"
    mistakes = ((f"x is scaled by p {only}", x * p), (f"x is scaled by 1/p {only}", x / p))
    dropped = "elements are dropped in test mode" if (out == 0).any() else ""
    yield student.finding("out", finding.text, first_match(out, mistakes) or dropped)


_NO_MASK = "the mask is left out: out is x times the mask"
_DROPS = "p is used as the probability to drop; it is the probability to keep"


def _mask(student: Student, ratio: Array) -> Iterator[Finding]:
    """Yield the faults of the mask out / x.

    It must be 0 or 1/p, each element kept with probability p, drawn anew in each call.
    """
    kept, p = ratio != 0, float(student.case.param["p"])
    values = ratio[kept]
    wrong = ~close(values, np.full_like(values, 1 / p))
    share = float(kept.mean())
    slack = SIGMAS * math.sqrt(p * (1 - p) / kept.size)
    if kept.all() and kept.size > COUNTED:
        text = "no element is dropped in training"
        yield student.finding("mask", text, _NO_MASK if close(ratio, kept * 1.0).all() else "")
    elif wrong.any():
        is_, wanted = f"{values[wrong][0]:.6g}", f"{1 / p:.6g}"
        text = f"out / x is {is_} where an element is kept, it should be {wanted}"
        causes = {
            "mask not scaled: divide it by p in training": 1.0,
            _DROPS: 1 / (1 - p),
            "the mask is multiplied by p; divide it by p": p,
            "the mask is scaled twice; divide it by p once": 1 / p**2,
        }
        scales = ((cause, np.full_like(values, scale)) for cause, scale in causes.items())
        yield student.finding("mask", text, first_match(values, scales))
    elif kept.size > COUNTED and abs(share - p) > slack:
        text = f"{share:.3f} of the elements are kept, it should be about {p:.3f}"
        yield student.finding("mask", text, _DROPS if abs(share - (1 - p)) <= slack else "")
    elif kept.size > COUNTED:
        yield from _dependence(student, kept)


def _dependence(student: Student, kept: Array) -> Iterator[Finding]:
    flat = kept.reshape(len(kept), -1)
    rows, features = (flat == flat[:1]).all(), (flat == flat[:, :1]).all()
    if rows or features:
        text = f"the mask is the same for every {'row' if rows else 'feature'}"
        yield student.finding("mask", text, "draw a mask of x's own shape")
        return
    other = numbers(student.forward()[0][0])
    if other is not None and other.shape == kept.shape and ((other != 0) == kept).all():
        text = "two training calls without a seed draw the same mask"
        yield student.finding("mask", text, "the generator is made or seeded in each call")


def _backward(student: Student, cache: Any, mask: Array) -> Iterator[Finding]:
    case, douts = student.case, student.douts()
    theirs = student.backward(cache, douts)["dx"]
    right, scaled = case.dout, mask
    if case.param["mode"] == "train":  # the scale of a wrong mask is reported once, for the mask
        scaled = (mask != 0) / float(case.param["p"])
        right = case.dout * mask
    finding = difference("dx", theirs, right, str(case))
    if finding is not None and difference("dx", theirs, case.dout * scaled, str(case)) is not None:
        yield replace(finding, cause=_dx_cause(numbers(theirs), case, scaled))
    yield from student.overwritten_douts(douts)


def _dx_cause(theirs: Array | None, case: Case, mask: Array) -> str:
    if theirs is None or theirs.shape != mask.shape:
        return ""
    if case.param["mode"] == "test":
        return "in test mode dx is dout" if (theirs == 0).any() else ""
    dout, p = case.dout, float(case.param["p"])
    mistakes = {
        "mask not scaled: dx is dout times the same mask as in forward, 1/p included": mask != 0,
        "the mask is left out of the backward pass": 1.0,
        "the mask is scaled already; dx divides by p once more": mask / p,
        "the mask is scaled already; dx multiplies by p": mask * p,
        "the mask is applied twice": mask**2,
        "dx takes the elements that were dropped": (mask == 0) / p,
        "dx divides by p, and leaves the mask out": 1 / p,
    }
    if (mask != 0).all():
        return ""  # nothing is known of a mask that drops nothing
    cause = first_match(theirs, ((text, dout * factor) for text, factor in mistakes.items()))
    ratio = theirs / dout
    another = (close(ratio, np.full_like(ratio, 1 / p)) | (ratio == 0)).all()
    return cause or ("the mask is not the one of forward; keep that in the cache" * bool(another))


# ---------------------------------------------------------------- likely causes


@dataclass(frozen=True)
class Trial:
    """The results of a student's layer and of graphc's on one case."""

    layer: str
    student: Student
    theirs: Mapping[str, Any]
    ours: Mapping[str, Any]

    @property
    def case(self) -> Case:
        """The case."""
        return self.student.case

    def finding(self, what: str) -> Finding | None:
        """Return what is wrong with a result; at a kink any subgradient is right."""
        theirs, right, nearest = self.theirs[what], self.ours[what], SPECS[self.layer].nearest
        array = numbers(theirs)
        if nearest and what == "dx" and array is not None and array.shape == right.shape:
            right = nearest(array, self.case, right)
        return difference(what, theirs, right, str(self.case))

    @cached_property
    def mistakes(self) -> list[Mistake]:
        """The usual mistakes of the layer, and those that occur in any layer."""
        with np.errstate(all="ignore"):
            own = list(MISTAKES[self.layer](self.case, self.ours))
        return [*self._swapped(), *own, *_general(self.ours)]

    def _swapped(self) -> Iterator[Mistake]:
        """Yield pairs of results that the student has the wrong way round."""
        for first, second in permutations(self.theirs, 2):
            theirs, right = numbers(self.theirs[second]), np.asarray(self.ours[first])
            if theirs is not None and matches(theirs, right):
                a, b = sorted((first, second), key=[*self.theirs].index)
                yield f"{a} and {b} are swapped", {first: self.ours[second]}

    def shows(self, what: str, results: Results) -> bool:
        """Return whether the student has these results: this one, and the outputs."""
        names = {what, *(name for name in self._values if name in results)}
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
        wrong = any(self.finding(output) for output in self._values)
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

    @property
    def _values(self) -> tuple[str, ...]:
        """The names of what is differentiated."""
        spec = self.student.spec
        return spec.outputs if spec.backward is not None else ("loss",)

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


def _general(right: Results) -> Iterator[Mistake]:
    for what, result in right.items():
        yield "the sign is flipped", {what: -np.asarray(result)}
        yield "it is never filled in", {what: np.zeros_like(result)}
        if np.ndim(result) == 2:
            yield "it is transposed", {what: np.asarray(result).T}


def first_match(theirs: Array, mistakes: Iterable[Candidate]) -> str:
    """Return the first of the mistakes whose result equals `theirs`, or ""."""
    return next((text for text, result in mistakes if matches(theirs, np.asarray(result))), "")


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


# ---------------------------------------------------------------- the comparison


def check_layer(
    layer: str, forward: Function, backward: Function | None = None, *, seed: int = 0
) -> LayerReport:
    """Compare your layer, with the course's signatures, with that of graphc on random inputs.

    The inputs have several sizes, one row, more than two dimensions, and whole numbers.  Arguments
    and caches that a function overwrites are reported too.  Any mask of dropout is accepted that
    has the right scale and share of kept elements, and any subgradient at a kink: of relu at 0, of
    equal maxima, of a margin that is met exactly.  A likely cause is named only if graphc's layer
    with that mistake gives your numbers on all inputs.

    Parameters
    ----------
    layer
        One of affine, relu, affine_relu, batchnorm, layernorm, dropout, svm_loss, softmax_loss;
        conv, max_pool, spatial_batchnorm, spatial_groupnorm; rnn_step, rnn, lstm_step, lstm,
        word_embedding, temporal_affine and temporal_softmax_loss.
    forward
        The forward function.  Of a loss, the one function, which returns (loss, dx).
    backward
        The backward function, or None if you have none yet.
    seed
        The seed of the inputs.

    Returns
    -------
    LayerReport
        Its text says which results are wrong, where, by how much, and the likely cause.

    Raises
    ------
    GraphError
        If there is no such layer, or if a backward function is given for a loss.

    Examples
    --------
    >>> def forward(x):
    ...     return np.maximum(x, 0), x
    >>> def backward(dout, x):
    ...     return (x > 0) * 1.0
    >>> print(gc.check_layer("relu", forward, backward))
    check_layer relu: wrong in dx
      dx[3, 2] is 1, it should be -1.87778 (off by 2.88)
        for x (4, 5)
        likely cause: dout is left out; the chain rule multiplies by it
    """
    if layer not in SPECS:
        raise GraphError(
            f"check_layer: there is no layer {layer!r}", hint=f"there are {', '.join(SPECS)}"
        )
    spec = SPECS[layer]
    if spec.backward is None and backward is not None:
        raise GraphError(f"check_layer: {layer} is one function that returns (loss, dx)")
    cases = list(spec.cases(np.random.Generator(np.random.Philox(seed))))
    students = [
        # the course defines batchnorm's backward for training only
        Student(spec, forward, backward if _differentiable(layer, case) else None, case)
        for case in cases
    ]
    findings = _of_dropout if layer == "dropout" else _findings
    found: dict[str, Finding] = {}
    for finding in findings(layer, students):
        found.setdefault(finding.what, finding)
    return LayerReport(layer, tuple(found.values()), _compared(layer, spec, backward), len(cases))


def _differentiable(layer: str, case: Case) -> bool:
    return layer == "dropout" or case.param.get("mode") != "test"


def _compared(layer: str, spec: Spec, backward: Function | None) -> tuple[str, ...]:
    if spec.backward is None:
        return "loss", *spec.gradients
    extra = ("running_mean", "running_var") if layer.endswith("batchnorm") else ()
    return (*spec.outputs, *extra, *(spec.gradients if backward is not None else ()))


def _of_dropout(layer: str, students: Sequence[Student]) -> Iterator[Finding]:
    for student in students:
        yield from _guarded(student, dropout_findings(student))


def _findings(layer: str, students: Sequence[Student]) -> Iterator[Finding]:
    """Yield the faults of all cases, each with the mistake that explains it in all of them."""
    trials: list[Trial] = []
    faults: list[Finding] = []
    for student in students:
        faults.extend(_guarded(student, _tried(layer, student, trials)))
    for fault in faults:
        wrong = next((trial for trial in trials if str(trial.case) == fault.case), None)
        if wrong is not None and not fault.cause and fault.what in wrong.theirs:
            yield replace(fault, cause=likely_cause(fault.what, wrong, trials))
        else:
            yield fault


def _tried(layer: str, student: Student, trials: list[Trial]) -> Iterator[Finding]:
    """Run the functions on one case; yield the faults, and add the results to the trials."""
    theirs: dict[str, Any] = {}
    right = results_of(student.spec, student.case)
    trial = Trial(layer, student, theirs, right)
    raised = None
    try:
        outputs, cache = student.outputs()
        theirs |= outputs
        theirs |= student.backward(cache) if student.has_backward else {}
    except Raised as error:
        raised = error
    if raised is None or not _flattened(student):
        trials.append(trial)
    yield from filter(None, map(trial.finding, (what for what in right if what in theirs)))
    if raised is not None:
        raise raised
    yield from student.overwritten()


def _flattened(student: Student) -> bool:
    """Return whether the samples have dimensions that the function has to flatten."""
    return student.spec in _FLATTENS and student.case.x.ndim > 2


def _guarded(student: Student, findings: Iterator[Finding]) -> Iterator[Finding]:
    """Yield findings, and as the last one the error that a function of the student raised."""
    try:
        yield from findings
    except Raised as raised:
        flatten = "x has more than two dimensions; flatten it: x.reshape(len(x), -1)"
        deep = _flattened(student) and "raised" in str(raised)
        yield student.finding(raised.what, str(raised), raised.cause or (flatten if deep else ""))


_FLATTENS = [SPECS[name] for name in ("affine", "relu", "affine_relu", "dropout")]
"""The layers whose samples may have more than one dimension."""
