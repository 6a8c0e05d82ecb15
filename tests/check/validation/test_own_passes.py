"""graphc's own passes keep what they declare: on the course's nets, the digits, random nets."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

import graphc as gc
from graphc.check.validation import ValidationError
from graphc.check.validation.validate import OPTIMIZERS, Watch, validate_model
from graphc.cli.demo import digits_net as digits
from graphc.ir.graph import Graph
from tests.check.validation.faults import derivative, layers, ops
from tests.tools.generate import random_net, trainable


def course(loss: Callable[..., gc.Value], normalise: bool) -> gc.Net:
    """The nets of the course's assignments: affine, batchnorm, relu and dropout; svm or softmax."""
    net = gc.Net("course")
    x = net.input("x", (gc.N, 3, 4, 2))
    y = net.input("y", (gc.N,), dtype="int64")
    h = x
    for width in (7, 5):
        h = gc.affine(h, width)
        h = gc.relu(gc.batchnorm(h) if normalise else h)
        h = gc.dropout(h, keep_prob=0.7)
    scores = gc.affine(h, 4, name="scores")
    net.output("scores", scores)
    net.loss("loss", loss(scores, y))
    net.loss("decay", 1e-3 * gc.sum(net["scores.weight"] ** 2))
    return net


def joined() -> gc.Net:
    """Residual connections, a concat, and a weight that is read twice."""
    net = gc.Net("joined")
    x, t = net.input("x", (gc.N, 5)), net.input("t", (gc.N, 2))
    w, b = net.parameter("w", (5, 5), init="he"), net.parameter("b", (5,))
    first = gc.relu(gc.affine(x, weight=w, bias=b))
    second = x + gc.relu(gc.affine(first, weight=w, bias=b))
    both = gc.concat([first, gc.dropout(second, keep_prob=0.8), x[:, 1:3]], axis=1)
    guess = gc.affine(both, 2)
    net.output("guess", guess)
    net.loss("loss", gc.mse_loss(guess, t))
    return net


NETS: dict[str, Callable[[], gc.Net]] = {
    "softmax": lambda: course(gc.softmax_loss, normalise=False),
    "svm_batchnorm": lambda: course(gc.svm_loss, normalise=True),
    "digits": digits,
    "joined": joined,
    "layers": layers,
    "ops": ops,
    "derivative": derivative,
}


@pytest.mark.one_in(7)
@pytest.mark.parametrize("name", NETS)
def test_a_net_with_every_optimizer_and_frozen(name: str, tmp_path: Path) -> None:
    judged = validate_model(NETS[name]().graph(), 4, folder=tmp_path).passes
    assert {"specialize", "backward", "update", "apply_update"} <= set(judged)
    assert judged.count("apply_update") == len(OPTIMIZERS)


def judge_random(seed: int, folder: Path) -> list[str]:
    """A random net, in float32 or float64, with one of the optimizers."""
    net = random_net(random.Random(seed), ("float64", "float32")[seed % 2])
    watch = Watch(net.graph(), 4 + seed % 3, folder)
    optimizer = OPTIMIZERS[seed % len(OPTIMIZERS)]
    if optimizer is not None and not trainable(net):
        return []
    gc.compile(net, batch=watch.capacity, optimizer=optimizer, backend="numpy", validate=watch)
    return watch.judged


@pytest.mark.slow
def test_random_nets(tmp_path: Path) -> None:
    judged = [name for seed in (*range(11), 39) for name in judge_random(seed, tmp_path)]
    changing = {"cse", "channels_last", "fold_constants", "share_batchnorm_statistics"}
    changing |= {"fuse_affine_relu"}
    assert changing <= set(judged)


@pytest.mark.one_in(8)
@pytest.mark.slow
@pytest.mark.parametrize("first", range(12, 512, 50))
def test_many_random_nets(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 50):
        judge_random(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("synchronise", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_a_net_cut_into_shards(name: str, synchronise: bool, tmp_path: Path) -> None:
    for optimizer in (gc.SGD(lr=0.1, momentum=0.9), gc.AdamW(accumulate=2, clip_norm=1)):
        judged = judge_sharded(NETS[name](), 4, optimizer, synchronise, tmp_path)
        assert {"shard", "data_parallel", "keep_sends"} <= {*judged}


def judge_sharded(
    net: gc.Net, shards: int, optimizer: gc.optim.Optimizer, synchronise: bool, folder: Path
) -> list[str]:
    """The passes of a step that is cut; none where shards of the net cannot be."""
    watch = Watch(net.graph(), 16, folder)
    options = {"backend": "numpy", "shards": shards, "sync_batchnorm": synchronise}
    try:
        gc.compile(net, batch=16, optimizer=optimizer, validate=watch, **options)
    except ValidationError:
        raise
    except gc.GraphError as error:  # sums beside means, or counters of rows
        assert "shard" in str(error)
        return []
    return watch.judged


@pytest.mark.slow
def test_random_nets_cut_into_shards(tmp_path: Path) -> None:
    judged: list[str] = []
    for seed in range(40):
        net = random_net(random.Random(seed), ("float64", "float32")[seed % 2])
        optimizer = OPTIMIZERS[seed % len(OPTIMIZERS)]
        if trainable(net) and optimizer is not None:
            judged += judge_sharded(net, 2, optimizer, bool(seed % 3), tmp_path)
    assert judged.count("shard") > 25


def test_a_graph_of_one_row_only(tmp_path: Path) -> None:
    graph: Graph = layers().graph()
    assert validate_model(graph, 1, folder=tmp_path).passes
