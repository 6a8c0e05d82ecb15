"""PyTorch agrees where it is installed, and contradicts what is wrong for every backend alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("torch")

from graphc.ops.functions import Tanh
from graphc.ops.losses.labels import SvmRows
from graphc.ops.optim import SgdStep
from tests.fuzz.campaign import cases
from tests.fuzz.check import Verdict, judge
from tests.fuzz.draw import Wishes, draw

WISHES = Wishes(native=0.0, interpreted=0.0, torch=1.0)


def verdicts(seeds: range) -> Iterator[Verdict]:
    return (judge(draw(seed, WISHES)) for seed in seeds)


def test_random_nets_by_torch() -> None:
    findings = cases(range(30_000, 30_060), WISHES, shrunk=0)
    assert not [verdict.message for verdict in findings.failures]


def wrong_gradient(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tanh, "grad", lambda self, b, ins, out, dout: (dout * (1.0 - out),))


def wrong_meaning(patch: pytest.MonkeyPatch) -> None:
    """Kernels that follow a wrong reference rule: only another's word tells."""
    whole = SvmRows.reference

    def reference(self: SvmRows, ins: Any) -> Any:
        return whole(self, ins) + 1

    patch.setattr(SvmRows, "reference", reference)
    patch.setattr(SvmRows, "lower", lambda self, em, ins, out: em.reference(ins, out))


def wrong_update(patch: pytest.MonkeyPatch) -> None:
    whole = SgdStep.reference

    def reference(self: SgdStep, ins: Any) -> Any:
        p, g, rate = ins
        return whole(self, [p, g, rate * 2])

    patch.setattr(SgdStep, "reference", reference)
    patch.setattr(SgdStep, "lower", lambda self, em, ins, out: em.reference(ins, out))


@pytest.mark.parametrize("fault", [wrong_gradient, wrong_meaning, wrong_update])
def test_faults_that_only_another_can_tell(fault: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        told = next(v for v in verdicts(range(200)) if v.failed and "PyTorch" in v.message)
    assert not judge(told.case).failed
