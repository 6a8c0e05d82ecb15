"""Training has the same bits in native code, in C and in objects, on every target."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphc as gc
from tests.backends.c.trained import (
    OBJECTS,
    SANITIZED,
    TARGETS,
    Target,
    Trained,
    executor_of,
    trained,
    unlike,
)
from tests.extras import needs
from tests.onnx import zoo
from tests.reproducibility import small_nets

CONTRACTS = pytest.mark.parametrize("contract", ["fused", "unfused"])


def check(target: Target, net: gc.Net, contract: str, steps: int, folder: Path) -> None:
    """Train a digits-like net by a target's program and by native code."""
    needs(*target.programs)
    batches = [small_nets.batch(8, seed) for seed in range(steps)]
    ex = executor_of(net, 8, contract=contract)
    found = Trained(ex, folder, batches, 8).state(target)
    assert not unlike(trained(ex, batches), found)


@pytest.mark.one_in(8)
@CONTRACTS
@pytest.mark.slow
@pytest.mark.parametrize("name", list(TARGETS))
def test_a_small_net_on_each_target(name: str, contract: str, tmp_path: Path) -> None:
    check(TARGETS[name], small_nets.net(), contract, 20, tmp_path)


@CONTRACTS
@pytest.mark.slow
@pytest.mark.parametrize("cc", list(SANITIZED))
def test_a_small_net_under_the_sanitizers(cc: str, contract: str, tmp_path: Path) -> None:
    check(SANITIZED[cc], small_nets.net(), contract, 20, tmp_path)


@pytest.mark.one_in(3)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["gcc -O2, nothing but C", "arm, soft float", "aarch64", *OBJECTS])
def test_float64_on_some_targets(name: str, tmp_path: Path) -> None:
    check(TARGETS[name], small_nets.net("float64"), "fused", 5, tmp_path)


@CONTRACTS
@pytest.mark.slow
def test_the_c_backend_has_the_bits_of_native_code(contract: str) -> None:
    needs("cc")
    batches = [small_nets.batch(8, seed) for seed in range(3)]
    one, other = (
        trained(executor_of(small_nets.net(), 8, backend, contract), batches)
        for backend in ("native", "c")
    )
    assert not unlike(one, other)


@pytest.mark.slow
def test_contracts_differ_in_bits() -> None:
    batches = [small_nets.batch(8, seed) for seed in range(3)]
    one, other = (
        trained(executor_of(small_nets.net(), 8, contract=contract), batches)
        for contract in ("fused", "unfused")
    )
    assert unlike(one, other)


@pytest.mark.one_in(3)
@CONTRACTS
@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.NAMES)
def test_nets_of_the_zoo(name: str, contract: str) -> None:
    needs("cc")
    batches = [zoo.batch(name, 4, seed) for seed in range(3)]
    one, other = (
        trained(executor_of(zoo.declared_net(name), 4, backend, contract), batches)
        for backend in ("native", "c")
    )
    assert not unlike(one, other)
