"""`check_layer`: compares a student's layer with that of graphc, and reports likely causes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np

from graphc.base.arguments import checked_whole
from graphc.base.errors import GraphError
from graphc.check.course import dropout, images, losses, rows, sequences
from graphc.check.course.causes import Trial, likely_cause
from graphc.check.course.compare import Finding
from graphc.check.course.spec import Spec, results_of
from graphc.check.course.student import Function, Raised, Student

SPECS = {
    **rows.SPECS,
    "dropout": dropout.SPEC,
    **losses.SPECS,
    **images.SPECS,
    **sequences.SPECS,
}
"""The layers by the names that `check_layer` takes."""


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
        If there is no such layer, if a backward function is given for a loss, if a function cannot
        be called, or if the seed is not a whole number.

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
    spec = _spec_of(layer, forward, backward)
    seed = checked_whole("check_layer: seed", seed, 0)
    cases = list(spec.cases(np.random.Generator(np.random.Philox(seed))))
    students = [
        Student(spec, forward, backward if case.has_gradients else None, case) for case in cases
    ]
    found: dict[str, Finding] = {}
    for finding in _findings(students):
        found.setdefault(finding.what, finding)
    left_out = spec.gradients if backward is None and not spec.is_loss else ()
    compared = tuple(name for name in results_of(spec, cases[0]) if name not in left_out)
    return LayerReport(layer, tuple(found.values()), compared, len(cases))


def _spec_of(layer: str, forward: Function, backward: Function | None) -> Spec:
    """Return the layer of that name; raise GraphError if these are not its functions."""
    if not isinstance(layer, str) or layer not in SPECS:
        raise GraphError(
            f"check_layer: there is no layer {layer!r}", hint=f"there are {', '.join(SPECS)}"
        )
    spec = SPECS[layer]
    if spec.is_loss and backward is not None:
        raise GraphError(f"check_layer: {layer} is one function that returns (loss, dx)")
    given = {"forward": forward} | ({} if backward is None else {"backward": backward})
    for name, function in given.items():
        if not callable(function):
            raise GraphError(f"check_layer: {name} is {function!r}, it must be a function")
    return spec


def _findings(students: Sequence[Student]) -> Iterator[Finding]:
    """Yield the faults of all cases, each with the mistake that explains it in all of them."""
    trials: list[Trial] = []
    faults: list[Finding] = []
    for student in students:
        random = student.spec is dropout.SPEC
        found = dropout.findings(student) if random else _tried(student, trials)
        faults.extend(_guarded(student, found))
    for fault in faults:
        wrong = next((trial for trial in trials if str(trial.case) == fault.case), None)
        if wrong is not None and not fault.cause and fault.what in wrong.theirs:
            yield replace(fault, cause=likely_cause(fault.what, wrong, trials))
        else:
            yield fault


def _tried(student: Student, trials: list[Trial]) -> Iterator[Finding]:
    """Run the functions on one case; yield the faults, and add the results to the trials."""
    theirs: dict[str, Any] = {}
    right = results_of(student.spec, student.case)
    trial = Trial(student, theirs, right)
    raised = None
    try:
        outputs, cache = student.outputs()
        theirs |= outputs
        theirs |= student.backward(cache) if student.has_backward else {}
    except Raised as error:
        raised = error
    if raised is None or not student.must_flatten:
        trials.append(trial)
    yield from filter(None, map(trial.finding, (what for what in right if what in theirs)))
    if raised is not None:
        raise raised
    yield from student.overwritten()


def _guarded(student: Student, findings: Iterator[Finding]) -> Iterator[Finding]:
    """Yield findings, and as the last one the error that a function of the student raised."""
    try:
        yield from findings
    except Raised as raised:
        flatten = "x has more than two dimensions; flatten it: x.reshape(len(x), -1)"
        deep = student.must_flatten and raised.__cause__ is not None
        yield student.finding(raised.what, str(raised), raised.cause or (flatten if deep else ""))
