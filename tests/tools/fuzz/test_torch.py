"""PyTorch agrees where it is installed, and contradicts what is wrong for every backend alike."""

from __future__ import annotations

from typing import Any

import pytest

from graphc.ops.functions import Tanh
from graphc.ops.losses.labels import SvmRows
from graphc.ops.optim import SgdStep
from tests.extras import needs
from tests.tools.fuzz.campaign import cases
from tests.tools.fuzz.check import judge
from tests.tools.fuzz.draw import Wishes, draw

needs("torch")

WISHES = Wishes(native=0.0, interpreted=0.0, torch=1.0)


def differs(seed: int) -> bool:
    """Whether PyTorch computes another result for the net of that seed."""
    verdict = judge(draw(seed, WISHES))
    return verdict.failed and "PyTorch" in verdict.message


def test_random_nets_by_torch() -> None:
    findings = cases(range(30_000, 30_060), WISHES, shrunk=0)
    assert not [verdict.message for verdict in findings.failures]


def wrong_gradient(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tanh, "grad", lambda self, b, ins, out, dout: (dout * (1.0 - out),))


def wrong_meaning(patch: pytest.MonkeyPatch) -> None:
    """A reference rule is wrong and runs everywhere, so that only another library differs."""
    whole = SvmRows.reference

    def reference(self: SvmRows, ins: Any) -> Any:
        return whole(self, ins) + 1

    patch.setattr(SvmRows, "reference", reference)
    patch.setattr(SvmRows, "iteration", lambda self, ins: "call")


def wrong_update(patch: pytest.MonkeyPatch) -> None:
    whole = SgdStep.reference

    def reference(self: SgdStep, ins: Any) -> Any:
        p, g, rate = ins
        return whole(self, [p, g, rate * 2])

    patch.setattr(SgdStep, "reference", reference)
    patch.setattr(SgdStep, "iteration", lambda self, ins: "call")


@pytest.mark.parametrize("fault", [wrong_gradient, wrong_meaning, wrong_update])
def test_faults_that_only_another_library_finds(fault: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        seed = next(filter(differs, range(200)))
    assert not judge(draw(seed, WISHES)).failed  # drawn again: a case keeps its plans
