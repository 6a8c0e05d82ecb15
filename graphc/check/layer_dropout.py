"""The check of dropout, which is random: a student's mask is accepted and tested for properties."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from graphc.check.layer_report import Finding, close, difference, matches, numbers
from graphc.check.layer_student import Student
from graphc.ir.op import Array

SIGMAS = 6.0
"""The greatest distance of the share of kept elements from p, in standard deviations."""


def dropout_findings(student: Student) -> Iterator[Finding]:
    """Yield the faults of out, mask and dx on the student's case."""
    case = student.case
    out, cache = student.forward()
    if not np.array_equal(student.given["x"], case.x):
        cause = "cache overwritten: work on a copy, or make a new array by an expression"
        yield Finding("x", "forward overwrites its argument x", str(case), cause)
    array = numbers(out)
    if array is None or array.shape != case.x.shape:
        yield difference("out", out, case.x, str(case)) or Finding("out", "", str(case))
        return
    array = array.copy()
    if case.param["mode"] == "train":
        found = list(_mask(array / case.x, float(case.param["p"]), case, student))
    else:
        found = list(_identity(array, float(case.param["p"]), case))
    yield from found
    if student.has_backward:
        yield from _backward(student, cache, array / case.x)


def _identity(out: Array, p: float, case: Any) -> Iterator[Finding]:
    finding = difference("out", out, case.x, str(case))
    if finding is None:
        return
    cause = ""
    if matches(out, case.x * p):
        cause = "x is scaled by p at test; inverted dropout scales in training only"
    elif matches(out, case.x / p):
        cause = "x is scaled by 1/p at test; inverted dropout scales in training only"
    elif (out == 0).any():
        cause = "elements are dropped in test mode"
    yield Finding("out", finding.text, str(case), cause)


def _mask(ratio: Array, p: float, case: Any, student: Student) -> Iterator[Finding]:
    """Yield the faults of the mask out / x.

    It must be 0 or 1/p, each element kept with probability p, drawn anew each time.
    """
    kept = ratio != 0
    values = ratio[kept]
    wrong = ~close(values, np.full_like(values, 1 / p))
    if wrong.any():
        text = (
            f"out / x is {values[wrong][0]:.6g} where an element is kept, it should be {1 / p:.6g}"
        )
        yield Finding("mask", text, str(case), _scale_cause(values, p))
        return
    slack = SIGMAS * math.sqrt(p * (1 - p) / kept.size)
    if kept.size > 1000 and abs(kept.mean() - p) > slack:
        text = f"{kept.mean():.3f} of the elements are kept, it should be about {p:.3f}"
        turned = abs(kept.mean() - (1 - p)) <= slack
        said = "p is used as the probability to drop; it is the probability to keep"
        cause = said if turned else ""
        yield Finding("mask", text, str(case), cause)
        return
    yield from _independence(kept, case, student)


def _scale_cause(values: Array, p: float) -> str:
    if matches(values, np.ones_like(values)):
        return "mask not scaled: divide it by p in training"
    if matches(values, np.full_like(values, 1 / (1 - p))):
        return "p is used as the probability to drop; it is the probability to keep"
    if matches(values, np.full_like(values, p)):
        return "the mask is multiplied by p; divide it by p"
    return ""


def _independence(kept: Array, case: Any, student: Student) -> Iterator[Finding]:
    if kept.size <= 1000:
        return
    flat = kept.reshape(len(kept), -1)
    if (flat == flat[:1]).all() or (flat == flat[:, :1]).all():
        whole = "row" if (flat == flat[:1]).all() else "feature"
        text = f"the mask is the same for every {whole}"
        yield Finding("mask", text, str(case), "draw a mask of x's own shape")
        return
    again = numbers(student.forward()[0])
    if again is not None and again.shape == kept.shape and ((again != 0) == kept).all():
        text = "two training calls without a seed draw the same mask"
        yield Finding("mask", text, str(case), "the generator is made or seeded in each call")


def _backward(student: Student, cache: Any, mask: Array) -> Iterator[Finding]:
    case = student.case
    dout = case.dout.copy()
    theirs = student.backward(cache, dout)["dx"]
    right = case.dout * mask if case.param["mode"] == "train" else case.dout
    finding = difference("dx", theirs, right, str(case))
    if finding is not None:
        cause = _dx_cause(numbers(theirs), case, mask)
        yield Finding(
            "dx", finding.text, str(case), cause, finding.index, finding.theirs, finding.ours
        )
    if not np.array_equal(dout, case.dout):
        cause = "dout is changed in place; work on a copy"
        yield Finding("dout", "backward overwrites its argument dout", str(case), cause)


def _dx_cause(theirs: Array | None, case: Any, mask: Array) -> str:
    if theirs is None or theirs.shape != mask.shape:
        return ""
    if case.param["mode"] == "test":
        return "in test mode dx is dout" if (theirs == 0).any() else ""
    if matches(theirs, case.dout * (mask != 0)):
        return "mask not scaled: dx is dout times the same mask as in forward, 1/p included"
    if matches(theirs, case.dout):
        return "the mask is left out of the backward pass"
    return "the mask is not the one of forward; keep that in the cache"
