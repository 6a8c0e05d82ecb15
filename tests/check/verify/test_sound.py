"""Every plan that is made is proved: random nets, the nets of the native tests, the workloads."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.cli.model import load_model
from graphc.declare.optim import Optimizer
from tests.backends.native import nets
from tests.tools.benchmarks.compile_scale import compiled
from tests.tools.benchmarks.peers.sides.graphc_side import Declare
from tests.tools.benchmarks.peers.workloads import MAIN
from tests.tools.generate import trainable_net

ROOT = Path(__file__).resolve().parents[3]
NETS = {
    name: make
    for name, make in vars(nets).items()
    if inspect.isfunction(make) and list(inspect.signature(make).parameters) == ["dtype"]
}
OPTIMIZERS = (
    None,
    gc.SGD(lr=0.1, momentum=0.9),
    gc.Adam(clip_norm=1.0),
    gc.AdamW(accumulate=2),
    gc.AdamW(accumulate=3, clip_norm=1.0),
)
BACKENDS = ("numpy", "native")


def prove(net: gc.Net | gc.Graph, batch: int, optimizer: Optimizer | None, backend: str) -> None:
    """All programs of a plan, and those that differentiate each output by a cotangent."""
    plan = gc.compile(net, batch=batch, optimizer=optimizer, backend=backend)
    report = plan.verify()
    assert report.ok, report
    for output in plan.declared.outputs:
        program = plan.cotangent_program((output,))
        assert program.verify().ok, program.verify()


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 10_000),
    batch=st.sampled_from((1, 5, 32, 100)),
    optimizer=st.sampled_from(OPTIMIZERS),
    backend=st.sampled_from(BACKENDS),
)
def test_random_nets(
    seed: int,
    batch: int,
    optimizer: Optimizer | None,
    backend: str,
) -> None:
    prove(trainable_net(seed), batch, optimizer, backend)


@pytest.mark.one_in(8)
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(150))
@pytest.mark.parametrize("backend", BACKENDS)
def test_many_random_nets(seed: int, backend: str) -> None:
    net = trainable_net(seed, "float32")
    for batch in (3, 70):
        prove(net, batch, OPTIMIZERS[seed % len(OPTIMIZERS)], backend)


@pytest.mark.one_in(14)
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_nets_of_the_native_tests(name: str, backend: str) -> None:
    for batch, optimizer in ((5, gc.SGD(lr=0.1)), (100, gc.Adam(accumulate=2))):
        prove(NETS[name]("float32"), batch, optimizer, backend)


@pytest.mark.one_in(14)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("workload", ["tiny", "mnist", "seed", "deep"])
def test_workloads(workload: str, backend: str) -> None:
    """The nets whose speed is measured."""
    made = Declare(dropout=True)
    MAIN[workload].declare(made)
    for optimizer in (gc.SGD(lr=0.1), gc.Adam(lr=0.1)):
        prove(made.net, MAIN[workload].batch, optimizer, backend)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("example", ["course", "digits", "edge", "tabular"])
def test_examples(example: str, backend: str) -> None:
    """The nets of the course and of the other examples."""
    net = load_model(f"{ROOT}/docs/examples/{example}.py:net").net
    losses = net.graph().losses
    for optimizer in (gc.SGD(lr=0.1, momentum=0.9), gc.Adam(accumulate=2)):
        prove(net, 128, optimizer if losses else None, backend)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_batch_of_a_small_plan(backend: str) -> None:
    """What is proved for all batches at once holds for each by itself."""
    for batch in (1, 16, 17, 31, 32, 65):
        prove(nets.gated("float32"), batch, None, backend)


@pytest.mark.one_in(2)
@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hundred_thousand_nodes(backend: str) -> None:
    assert compiled(8_400, backend).programs["step"].verify().ok
