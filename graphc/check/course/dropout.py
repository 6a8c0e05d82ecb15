"""The check of dropout, whose mask is random: any that is scaled and drawn rightly is right."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from graphc.check.course.compare import Finding, close, difference, first_match, numbers
from graphc.check.course.spec import Case, Mistake, Results, Rng, Spec, pair
from graphc.check.course.student import Student
from graphc.ir.op import Array


def _cases(rng: Rng) -> Iterator[Case]:
    for shape, p in (((200, 50), 0.3), ((100, 10, 10), 0.8), ((1, 3), 0.5)):
        for mode in ("train", "test"):
            x = rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)
            yield Case({"x": x}, rng.uniform(0.5, 1.5, shape), {"mode": mode, "p": p}, f"p {p}")


def _no_mistakes(case: Case, ours: Results) -> Iterator[Mistake]:
    """Yield nothing: no result is that of a mistake, as the mask is random."""
    yield from ()


SPEC = Spec(*pair("dropout"), ("dx",), _cases, _no_mistakes, flattens=True)
"""Dropout."""
SIGMAS = 6.0
"""The greatest accepted distance of the share of kept elements from p, in standard deviations."""
COUNTED = 1000
"""The number of elements up to which their share is not judged: it may be chance."""


def findings(student: Student) -> Iterator[Finding]:
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
    """Yield faults of the mask out / x: 0 or 1/p, kept with probability p, drawn in each call."""
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
    other = numbers(student.forward(param=student.param)[0][0])  # it may count its draws there
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
