"""Steps cut into shards, on ranks that are threads: the same numbers, and the same bits."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.runtime.distributed.loopback import Loopback, run_ranks
from tests.runtime.distributed.nets import ROWS, bits, classes, executor, feeds, stepped
from tests.tools.generate import random_feeds, random_net, trainable

NATIVE = pytest.mark.needs("native")
OPTIMIZERS = {
    "momentum": gc.SGD(lr=0.1, momentum=0.9),
    "clipped": gc.SGD(lr=0.1, clip_norm=0.1),
    "accumulated": gc.AdamW(accumulate=2),
}


def on_ranks(size: int, net: gc.Net, **options: Any) -> list[tuple[list[float], gc.Executor]]:
    def train(ranks: Loopback) -> tuple[list[float], gc.Executor]:
        ex = executor(net, ranks, **options)
        return stepped(ex, net), ex

    return run_ranks(size, train)


ONE = pytest.param("momentum", "native", marks=NATIVE)
MOST = [pytest.param(name, "native", marks=(NATIVE, pytest.mark.slow)) for name in OPTIMIZERS][1:]


@pytest.mark.one_in(6)
@pytest.mark.parametrize(
    ("optimizer", "backend"), [*((name, "numpy") for name in OPTIMIZERS), ONE, *MOST]
)
def test_any_number_of_ranks_has_the_same_bits(optimizer: str, backend: str) -> None:
    """Dropout, batchnorm, and batches that leave shards with fewer rows or none."""
    net = classes()
    options = {"backend": backend, "shards": 4, "optimizer": OPTIMIZERS[optimizer]}
    alone = executor(net, **options)
    losses = stepped(alone, net)
    for size in (2, 4):
        for others, ex in on_ranks(size, net, **options):
            assert others == losses
            assert bits(ex) == bits(alone)


@pytest.mark.parametrize(
    "backend", ["numpy", pytest.param("native", marks=(NATIVE, pytest.mark.slow))]
)
def test_synchronised_shards_have_the_same_bits_too(backend: str) -> None:
    """A rank with several shards runs them in step."""
    net = classes()
    options = {"backend": backend, "shards": 4, "sync_batchnorm": True}
    alone = executor(net, **options)
    assert alone.plan.verify().ok
    assert alone.nbytes == alone.plan.memory.total - alone.plan.memory.gradients
    losses = stepped(alone, net)
    for size in (2, 4):
        for others, ex in on_ranks(size, net, **options):
            assert others == losses
            assert bits(ex) == bits(alone)
    whole = executor(net, backend=backend)
    np.testing.assert_allclose(stepped(whole, net), losses, rtol=1e-5)
    for name, array in whole.snapshot().items():
        np.testing.assert_allclose(alone.state[name], array, rtol=2e-3, atol=2e-5, err_msg=name)


@pytest.mark.one_in(6)
@pytest.mark.parametrize("loss", ["mean", "weighted", "sum"])
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_do_what_one_process_does(size: int, loss: str) -> None:
    """Within rounding; with synchronised batch normalisation, and masks by whole rows."""
    net = classes(loss=loss)
    lr = 0.003 if loss == "sum" else 0.1
    options = {"backend": "numpy", "optimizer": gc.SGD(lr=lr, momentum=0.9)}
    alone = executor(net, **options)
    losses = stepped(alone, net)
    for others, ex in on_ranks(size, net, sync_batchnorm=True, **options):
        np.testing.assert_allclose(others, losses, rtol=1e-5)
        for name, array in alone.snapshot().items():
            np.testing.assert_allclose(ex.state[name], array, rtol=2e-3, atol=2e-5, err_msg=name)


def test_shards_without_batchnorm_are_the_whole_batch() -> None:
    net = classes(batchnorm=False)
    alone, cut = executor(net, backend="numpy"), executor(net, backend="numpy", shards=8)
    np.testing.assert_allclose(stepped(cut, net), stepped(alone, net), rtol=1e-5)
    for name, array in alone.snapshot().items():
        np.testing.assert_allclose(cut.state[name], array, rtol=1e-3, atol=1e-5, err_msg=name)


def test_batchnorm_takes_the_statistics_of_each_shard() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3))
    net.loss("loss", gc.mean(gc.batchnorm(x, running_decay=0.0, name="bn") ** 2))
    plan = gc.compile(net, batch=8, optimizer=gc.SGD(0.1), shards=2, backend="numpy")
    ex = gc.Executor(plan)
    array = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    ex.step(x=array)
    found = ex.state["bn.running_var"]
    np.testing.assert_allclose(found, (array[:4].var(0) + array[4:].var(0)) / 2, rtol=1e-5)


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("shards", "ranks", "backend"),
    [
        *((*cut, "numpy") for cut in ((4, 1), (4, 2), (2, 2), (3, 3))),
        pytest.param(4, 2, "native", marks=NATIVE),
    ],
)
def test_the_plan_is_proved_and_its_memory_exact(shards: int, ranks: int, backend: str) -> None:
    def nbytes(comm: Loopback) -> tuple[gc.Plan, int]:
        ex = executor(classes(), comm, shards=shards, backend=backend)
        stepped(ex, classes(), 1)
        return ex.plan, ex.nbytes

    plan, found = run_ranks(ranks, nbytes)[0]
    report = plan.verify()
    assert report.ok, report
    assert found == plan.memory.total - plan.memory.gradients
    assert ("exchange" in str(plan.memory)) == (plan.memory.exchange > 0) == (shards != 3)


def test_buckets_are_sent_as_soon_as_they_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last layer's go first, with the backward pass still before them; all arrive after it."""
    monkeypatch.setattr("passes.data_parallel.BUCKET_BYTES", 1024)
    net, sgd = classes(dropout=False), gc.SGD(lr=0.1, momentum=0.9)
    for backend in ("numpy", "native"):
        plan = gc.compile(net, batch=ROWS, optimizer=sgd, shards=2, backend=backend)
        instrs = plan.programs["step"].instrs
        kinds = [i.kind for i in instrs]
        assert kinds.count("send") == kinds.count("receive") > 2
        assert plan.verify().ok
        sends = [i for i, kind in enumerate(kinds) if kind == "send"]
        assert instrs[sends[0]].ins[0].startswith("d_scores")
        assert sends[-1] < kinds.index("receive")
        assert any(kinds[i] not in ("send", "barrier") for i in range(sends[0], sends[-1]))


@pytest.mark.slow
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10_000), backend=st.sampled_from(("numpy", "native")))
def test_random_nets_have_the_same_bits_on_two_ranks(seed: int, backend: str) -> None:
    net = random_net(random.Random(seed), "float32")
    if not trainable(net):
        return
    options = {"batch": 6, "shards": 2, "backend": backend, "optimizer": gc.SGD(0.01)}
    try:
        alone = executor(net, **options)
    except gc.GraphError as error:  # sums beside means, or counters of rows
        assert "shard" in str(error)
        return
    assert alone.plan.verify().ok
    batch = random_feeds(net.graph(), 5, seed)
    loss = alone.step(batch)

    def train(ranks: Loopback) -> tuple[float, dict[str, bytes]]:
        ex = executor(net, ranks, **options)
        return ex.step(batch), bits(ex)

    for other, state in run_ranks(2, train):
        assert np.array(other).tobytes() == np.array(loss).tobytes() or np.isnan(loss)
        assert np.isnan(loss) or state == bits(alone)


def test_a_saved_model_keeps_its_shards() -> None:
    import pickle

    net = classes()
    ex = executor(net, shards=4, backend="numpy")
    other = pickle.loads(pickle.dumps(ex))
    assert (other.plan.shards, other.plan.rows, other.plan.batch) == (4, ROWS, ROWS // 4)
    assert stepped(other, net) == stepped(ex, net)
    assert bits(other) == bits(ex)


def test_what_cannot_be_is_refused() -> None:
    net = classes()
    for options, told in (
        ({"shards": 3, "ranks": 1}, "3 shards on 1 ranks: both must be powers of two"),
        ({"shards": 6, "ranks": 3}, "6 shards on 3 ranks: both must be powers of two"),
        ({"shards": 2, "ranks": 4}, "4 ranks cannot share 2 shards"),
        ({"shards": 64}, "a batch of 32 rows is too small to be cut into 64 shards"),
        ({"shards": 0}, "shards is 0, it must be a whole number from 1 up"),
        ({"ranks": True}, "ranks is True, it must be a whole number from 1 up"),
        ({"shards": 2, "budget": 10**9}, "a plan with shards takes no budget yet"),
    ):
        with pytest.raises(gc.GraphError) as caught:
            gc.compile(net, batch=ROWS, optimizer=gc.SGD(0.1), **options)
        assert caught.value.sentence.startswith(told)
    plan = gc.compile(net, batch=ROWS, optimizer=gc.SGD(0.1), ranks=2, backend="numpy")
    with pytest.raises(gc.StateError, match="the plan is for 2 ranks, the communicator has 1"):
        gc.Executor(plan)


def test_a_batch_that_does_not_fit_changes_nothing() -> None:
    net = classes()
    ex = executor(net, shards=4, backend="numpy")
    before = bits(ex)
    with pytest.raises(gc.FeedError, match="the batch has 33 rows, a step of the plan takes 1 to"):
        ex.step(feeds(net, 33, 0))
    wrong = feeds(net, 32, 0)
    wrong["y"][20] = 5
    with pytest.raises(gc.FeedError, match="label 5"):
        ex.step(wrong)
    assert bits(ex) == before


def test_a_step_in_shards_without_an_optimizer_is_refused() -> None:
    net = classes()
    ex = gc.Executor(gc.compile(net, batch=8, shards=2, backend="numpy"))
    with pytest.raises(gc.StateError, match="step: the plan has no optimizer"):
        ex.step(feeds(net, 8, 0))
