"""The option contract: where it is kept, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from tests.reproducibility import small_nets


def executor(backend: str, contract: str) -> gc.Executor:
    net = small_nets.net()
    plan = gc.compile(net, batch=8, optimizer=gc.Adam(), backend=backend, contract=contract)
    return gc.Executor(plan, seed=1)


def test_it_is_an_option_of_the_plan_and_of_its_programs(tmp_path: Path) -> None:
    ex = executor("numpy", "unfused")
    gc.save(tmp_path / "model.gc", ex)
    loaded = gc.load(tmp_path / "model.gc", batch=4)
    for plan in (ex.plan, loaded.plan, gc.freeze(ex, batch=2).plan):
        assert plan.options.contract == "unfused"
        assert {program.contract for program in plan.programs.values()} == {"unfused"}


def test_an_unknown_contract_is_refused() -> None:
    with pytest.raises(gc.GraphError, match="contract 'fast' is not one of fused, unfused"):
        gc.compile(small_nets.net(), batch=8, contract="fast")  # type: ignore[arg-type]


@pytest.mark.slow
def test_numpy_agrees_within_rounding() -> None:
    ex = executor("numpy", "unfused")
    native = executor("native", "unfused")
    feeds = small_nets.batch(8, 0)
    assert ex.step(feeds) == pytest.approx(native.step(feeds), rel=1e-5)
    for name, value in ex.parameters.items():
        np.testing.assert_allclose(value, native.parameters[name], rtol=1e-3, atol=3e-3)
