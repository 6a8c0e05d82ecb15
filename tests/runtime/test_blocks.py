"""Inference in blocks of rows: the same bits in a part of the memory, or no blocks at all."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.backends.writers import model_writer
from graphc.check.certificate.export import certify
from graphc.check.verify import verify
from graphc.compiler import blocks
from graphc.compiler.plan import Plan
from graphc.files.code.interface import Options, interface
from graphc.ir.op import Array

CHANNELS, SIDE = 16, 96
"""The maps of one row take 0.6 MB each, and three of them are needed at once."""


def convolutions(x: gc.Value, name: str) -> gc.Value:
    """Return class scores of images, by maps of which a batch takes more than a cache."""
    h = gc.relu(gc.conv2d(x, CHANNELS, 3, padding=1, name=f"{name}_a"))
    h = h + gc.relu(gc.conv2d(h, CHANNELS, 3, padding=1, name=f"{name}_b"))
    return gc.affine(gc.mean(h, axis=(2, 3)), 5, name=f"{name}_c")


def images(net: gc.Net, side: int = SIDE) -> gc.Value:
    return net.input("x", (gc.N, 3, side, side))


def classifier(trains: bool = False, side: int = SIDE) -> gc.Net:
    """Return a net of two inputs and three outputs, one of them of both inputs."""
    net = gc.Net("net")
    x, z = images(net, side), net.input("z", (gc.N, 5))
    scores = net.output("scores", convolutions(x, "conv"))
    net.output("best", gc.softmax(scores))
    net.output("sum", scores + gc.relu(z))
    if trains:
        net.loss("loss", gc.mean(scores**2))
    return net


def batch_of(n: int) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 3, SIDE, SIDE), np.float32)
    return {"x": x, "z": rng.standard_normal((n, 5), np.float32)}


def bits(outputs: dict[str, Array]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in outputs.items()}


def rows_at_once(plan: Plan) -> int:
    return plan.programs["infer"].capacity


@pytest.fixture(scope="module")
def ex() -> gc.Executor:
    return gc.Executor(gc.compile(classifier(), batch=8, backend="native"), seed=1)


def test_a_block_is_smaller_than_the_batch(ex: gc.Executor) -> None:
    assert 1 <= rows_at_once(ex.plan) < ex.plan.batch == 8
    one, row = (gc.compile(classifier(), batch=n, backend="native", threads=1) for n in (8, 1))
    assert one.memory.arena < 8 * row.memory.arena


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 8])
def test_rows_have_the_bits_of_each_alone(ex: gc.Executor, n: int) -> None:
    feeds = batch_of(n)
    found = ex.forward(feeds)
    for i in range(n):
        alone = ex.forward({name: array[i : i + 1] for name, array in feeds.items()})
        assert bits(alone) == bits({name: array[i : i + 1] for name, array in found.items()})


def test_a_plan_that_trains_has_the_same_bits_without_blocks(ex: gc.Executor) -> None:
    whole = gc.Executor(
        gc.compile(classifier(trains=True), batch=8, backend="native"), state=ex.state
    )
    assert rows_at_once(whole.plan) == 8
    expected = whole.forward(batch_of(8))
    del expected["loss"]
    assert bits(ex.forward(batch_of(8))) == bits(expected)


def test_blocks_read_weights_that_were_set_last() -> None:
    plan, feeds = gc.compile(classifier(), batch=8, backend="native"), batch_of(8)
    ex, other = gc.Executor(plan, seed=1), gc.Executor(plan, seed=2)
    assert rows_at_once(plan) < 8
    first = bits(ex.forward(feeds))
    ex.parameters.update(other.parameters)
    assert first != bits(ex.forward(feeds)) == bits(other.forward(feeds))


def test_views_of_a_run_are_whole_and_read_only(ex: gc.Executor) -> None:
    expected = bits(ex.forward(batch_of(7)))
    found = ex.forward(batch_of(7), copy=False)
    assert bits(found) == expected == bits(dict(ex.values))
    assert not any(array.flags.writeable for array in found.values())


def test_outputs_fed_again_are_read_before_they_are_overwritten(ex: gc.Executor) -> None:
    feeds = batch_of(8)
    scores = ex.forward(feeds, copy=False)["scores"]
    shifted = scores[::-1]
    expected = ex.forward(x=feeds["x"], z=shifted.copy())
    scores = ex.forward(feeds, copy=False)["scores"]
    assert bits(ex.forward(x=feeds["x"], z=scores[::-1])) == bits(expected)


def test_an_output_whose_feed_is_missing_is_left_out(ex: gc.Executor) -> None:
    feeds = batch_of(8)
    expected = ex.forward(feeds)
    found = ex.forward(x=feeds["x"])
    assert bits(found) == bits({name: expected[name] for name in ("scores", "best")})
    with pytest.raises(gc.FeedError):
        ex.forward(z=feeds["z"])


def test_predict_takes_any_number_of_rows(ex: gc.Executor) -> None:
    feeds = batch_of(11)
    found = ex.predict(feeds)
    assert bits({k: v[8:] for k, v in found.items()}) == bits(
        ex.forward({k: v[8:] for k, v in feeds.items()})
    )


def test_more_rows_than_the_batch_are_refused(ex: gc.Executor) -> None:
    before = bits(ex.forward(batch_of(8), copy=False))
    with pytest.raises(gc.FeedError, match="8"):
        ex.forward(batch_of(9))
    assert bits(dict(ex.values)) == before


def test_the_report_is_exact(ex: gc.Executor) -> None:
    memory = ex.plan.memory
    assert ex.nbytes == memory.total
    assert memory.results == 3 * 8 * 5 * 4 + 64 + 3 * (-8 * 5 * 4 % 64)
    assert "results" in str(memory)
    assert (
        memory.at(1).results
        == 0
        == gc.compile(classifier(), batch=1, backend="native").memory.results
    )
    assert ex.plan.verify().ok


@pytest.mark.parametrize("n", [1, 3, 8, 11])
def test_the_report_for_another_batch_is_that_of_its_plan(ex: gc.Executor, n: int) -> None:
    plan = gc.compile(classifier(), batch=n, backend="native")
    assert str(ex.plan.memory.at(n)) == str(plan.memory)
    assert gc.Executor(plan).nbytes == plan.memory.total


def test_a_certificate_with_other_results_is_refuted(ex: gc.Executor) -> None:
    certificate = certify(ex.plan)
    less = replace(certificate.memory, results=certificate.memory.results - 64)
    assert not verify(replace(certificate, memory=less)).ok


@pytest.mark.slow
def test_the_profile_is_of_a_block(ex: gc.Executor) -> None:
    profile = ex.profile(batch_of(8), rounds=1)
    assert profile.n == rows_at_once(ex.plan)


def test_frozen_and_saved_plans_run_in_blocks(ex: gc.Executor, tmp_path: Path) -> None:
    feeds = batch_of(5)
    expected = bits(ex.forward(feeds))
    gc.save(tmp_path / "model.npz", ex)
    loaded = gc.load(tmp_path / "model.npz")
    assert rows_at_once(loaded.plan) == rows_at_once(ex.plan)
    assert bits(loaded.forward(feeds)) == expected
    frozen = gc.freeze(ex, batch=8)
    assert rows_at_once(frozen.plan) < 8
    whole = frozen.forward(feeds)
    for i in range(5):
        alone = frozen.forward({name: array[i : i + 1] for name, array in feeds.items()})
        assert bits(alone) == bits({name: array[i : i + 1] for name, array in whole.items()})


def test_an_exported_model_takes_the_whole_batch(ex: gc.Executor) -> None:
    writer = model_writer("c")
    model, _ = interface(ex, writer, Options(infer_only=True))
    assert model.batch == 8


def test_what_does_not_grow_with_the_batch_is_not_counted_as_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks, "ARENA", 2**16)
    monkeypatch.setattr(blocks, "ROW", 2**12)
    net = gc.Net("net")
    h = gc.relu(gc.conv2d(net.input("x", (gc.N, 16, 8, 8)), 128, 3, padding=1))
    net.output("y", gc.mean(gc.conv2d(h, 128, 3, padding=1), axis=(2, 3)))
    plan = gc.compile(net, batch=8, backend="native", threads=1)
    frozen = gc.freeze(gc.Executor(plan), batch=8).plan
    assert rows_at_once(plan) == rows_at_once(frozen) < 8
    assert rows_at_once(plan.without_kept) == 8  # 0.7 MB of filters, whose order each block makes


def test_validation_compares_blocks_with_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "ARENA", 2**16)
    monkeypatch.setattr(blocks, "ROW", 2**12)
    plan = gc.compile(classifier(side=12), batch=4, backend="native", validate=True)
    assert rows_at_once(plan) < 4


def mean_loss(net: gc.Net, h: gc.Value) -> None:
    net.output("scores", h)
    net.loss("loss", gc.softmax_loss(h, net.input("y", (gc.N,), dtype="int64")))


def pairs(net: gc.Net, h: gc.Value) -> None:
    net.output("similar", gc.matmul(h, gc.transpose(h)))


def centred(net: gc.Net, h: gc.Value) -> None:
    net.output("centred", h - gc.mean(h, axis=0, keepdims=True))


def over_rows(net: gc.Net, h: gc.Value) -> None:
    net.output("shares", gc.softmax(h, axis=0))


def summed_up(net: gc.Net, h: gc.Value) -> None:
    net.output("sums", gc.cumsum(h, axis=0))


def twice(net: gc.Net, h: gc.Value) -> None:
    both = gc.concat([h, -h], axis=0)
    net.output("pairs", gc.reshape(both, (gc.N, 10)))


def shared_feed(net: gc.Net, h: gc.Value) -> None:
    net.output("shifted", h + net.input("shift", (5,)))


@pytest.mark.parametrize(
    "ending",
    [mean_loss, pairs, centred, over_rows, summed_up, twice, shared_feed],
)
def test_a_net_whose_rows_meet_runs_its_batch_at_once(
    ending: Callable[[gc.Net, gc.Value], None],
) -> None:
    net = gc.Net("net")
    ending(net, convolutions(images(net), "conv"))
    plan = gc.compile(net, batch=8, backend="native")
    assert rows_at_once(plan) == 8
    assert plan.memory.results == 0
    assert "results" not in str(plan.memory)


def test_a_net_that_caches_hold_runs_its_batch_at_once() -> None:
    net = gc.Net("net")
    net.output("y", gc.relu(gc.affine(net.input("x", (gc.N, 64)), 256)))
    assert rows_at_once(gc.compile(net, batch=512, backend="native")) == 512


def test_numpy_whose_products_depend_on_the_batch_runs_it_at_once() -> None:
    assert rows_at_once(gc.compile(classifier(), batch=8, backend="numpy")) == 8
