"""A comparison of a student's layer with ours: each wrong result, its place, size and cause."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.check.layer_cases import SPECS, Case, Spec
from graphc.check.layer_causes import likely_cause
from graphc.check.layer_dropout import dropout_findings
from graphc.check.layer_report import Finding, LayerReport, difference
from graphc.check.layer_student import Function, Raised, Student


def check_layer(
    layer: str, forward: Function, backward: Function | None = None, *, seed: int = 0
) -> LayerReport:
    """Try a layer with the course's signatures on random inputs and compare it with ours.

    `layer` is affine, relu, affine_relu, batchnorm, dropout (a forward, and a backward if there is
    one yet), svm_loss or softmax_loss (one function that returns loss and dx).  The inputs have
    several sizes, one row, more than two dimensions and whole numbers; the same `seed` gives the
    same.  Overwritten arguments and caches are found too.  Dropout's own masks are accepted and
    tested for the properties that they must have.  Raise GraphError for another name.
    """
    if layer not in SPECS:
        raise GraphError(
            f"check_layer: there is no layer {layer!r}",
            loc=caller_loc(),
            hint=f"there are {', '.join(SPECS)}",
        )
    spec = SPECS[layer]
    if spec.backward is None and backward is not None:
        raise GraphError(
            f"check_layer: {layer} is one function that returns (loss, dx)", loc=caller_loc()
        )
    found: dict[str, Finding] = {}
    cases = list(spec.cases(np.random.Generator(np.random.Philox(seed))))
    for case in cases:
        for finding in _findings(layer, spec, forward, backward, case):
            found.setdefault(finding.what, finding)
    return LayerReport(layer, tuple(found.values()), _compared(layer, spec, backward), len(cases))


def _compared(layer: str, spec: Spec, backward: Function | None) -> tuple[str, ...]:
    if spec.backward is None:
        return "loss", *spec.gradients
    extra = ("running_mean", "running_var") if layer == "batchnorm" else ()
    return ("out", *extra, *(spec.gradients if backward is not None else ()))


def _findings(
    layer: str, spec: Spec, forward: Function, backward: Function | None, case: Case
) -> Iterator[Finding]:
    if layer == "batchnorm" and case.param["mode"] == "test":
        backward = None  # the course defines batchnorm's backward for training only
    try:
        if layer == "dropout":
            yield from dropout_findings(Student(spec, forward, backward, case))
            return
        student = Student(spec, forward, backward, case)
        theirs = student.results()
        ours = Student(spec, spec.forward, backward and spec.backward, case).results()
        for what, right in ours.items():
            finding = difference(what, theirs[what], right, str(case))
            if finding is not None:
                cause = likely_cause(layer, what, theirs[what], case, ours)
                yield replace(finding, cause=cause)
        yield from student.overwritten()
    except Raised as raised:
        yield Finding(raised.what, str(raised), str(case), _form_cause(case, raised))


def _form_cause(case: Case, raised: Raised) -> str:
    if case.x.ndim > 2 and "raised" in str(raised):
        return "x has more than two dimensions; flatten it: x.reshape(len(x), -1)"
    return ""
