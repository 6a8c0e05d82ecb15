"""What shards exchange: every gradient, loss and statistic once, in buckets of one buffer."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.graph import Graph, verify
from graphc.loss_share import loss_shares
from graphc.memory import align
from graphc.ops.exchange import Receive, Send, Total
from graphc.ops.source import state as state_of
from graphc.reference import evaluate
from graphc.tensor_type import TensorType
from passes import data_parallel
from passes.backward import Backward
from passes.data_parallel import DataParallel
from passes.fold_constants import fold_constants
from passes.hold_back import hold_back
from passes.shard import Shard
from passes.specialize import Specialize
from passes.update import Update
from tests.generate import random_feeds, random_state
from tests.passes.same import parameters


def sharded(net: gc.Net, synchronise: bool = False) -> Graph:
    graph = Shard(loss_shares(net.graph()), synchronise)(Specialize(True)(net.graph()))
    return Backward(graph.losses, parameters(graph))(graph)


def net(dtype: str = "float32") -> gc.Net:
    made = gc.Net("net", dtype=dtype)
    x, y = made.input("x", (gc.N, 6)), made.input("y", (gc.N,), dtype="int64")
    h = gc.relu(gc.batchnorm(gc.affine(x, 8, name="first"), name="bn"))
    made.loss("loss", gc.softmax_loss(gc.affine(h, 3, name="last"), y))
    return made


def sends(graph: Graph) -> dict[str, Send]:
    return {node.inputs[0]: node.op for node in graph if isinstance(node.op, Send)}


def test_everything_that_depends_on_rows_is_exchanged_once() -> None:
    before = sharded(net())
    after = DataParallel()(before)
    verify(after)
    gradients = [before.gradients[name] for name in before.gradients]
    states = ["bn.running_mean.next.part", "bn.running_var.next.part"]
    assert sorted(sends(after)) == sorted([*gradients, before.outputs["loss"], *states])
    for roots in (after.gradients, after.outputs):
        assert all(isinstance(after[value].op, Receive) for value in roots.values())
    assert isinstance(after[after.updates["bn.running_mean"]].op, Receive)
    assert after.updates["draws"] == before.updates["draws"]
    assert after.losses == before.losses


def test_one_shard_alone_gets_what_it_sends() -> None:
    before = sharded(net("float64"))
    after = DataParallel()(before)
    feeds, state = random_feeds(after, 5), random_state(before)
    feeds["y"] = feeds["y"] % 3
    feeds |= {name: np.asarray(1.0) for name in feeds if name.startswith("shard.share")}
    values = evaluate(after, feeds, state, 5)
    for name, value in before.gradients.items():
        assert (values[after.gradients[name]] == values[value]).all()


@pytest.mark.parametrize("limit", [64, 200, 10**6])
def test_buckets_lie_in_a_row_in_the_order_in_which_gradients_are_made(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_parallel, "BUCKET_BYTES", limit)
    after = DataParallel()(sharded(net()))
    found = sends(after)
    position = {name: i for i, name in enumerate(after.nodes)}
    gradients = [name for name in found if name.startswith("d_")]
    assert gradients == sorted(gradients, key=position.__getitem__)
    assert [op.bucket for op in found.values()] == sorted(op.bucket for op in found.values())
    end, sizes = 0, dict[int, list[int]]()
    for name, op in found.items():
        assert op.offset == end
        size = align(after[name].type.nbytes(1))
        end += size
        sizes.setdefault(op.bucket, []).append(size)
    for op in found.values():
        assert op.members == len(sizes[op.bucket])
    for some in sizes.values():
        assert sum(some[:-1]) < limit
    if limit == 10**6:
        assert len(sizes) == 1


def test_values_of_two_dtypes_are_in_two_buckets() -> None:
    made = gc.Net("net")
    x = made.input("x", (gc.N, 4))
    a = gc.affine(x, 3)
    b = gc.affine(gc.cast(x, "float64"), 2)
    made.loss("one", gc.mean(a * a))
    made.loss("two", gc.mean(b * b))
    after = DataParallel()(sharded(made))
    kinds: dict[int, set[str]] = {}
    for name, op in sends(after).items():
        kinds.setdefault(op.bucket, set()).add(after[name].type.dtype)
    assert all(len(kind) == 1 for kind in kinds.values())
    assert {"float32"} in kinds.values()
    assert {"float64"} in kinds.values()


def test_totals_become_buckets_of_their_own() -> None:
    after = DataParallel()(sharded(net(), synchronise=True))
    verify(after)
    assert not any(isinstance(node.op, Total) for node in after)
    alone = {name: op for name, op in sends(after).items() if op.members == 1}
    assert len(alone) == 4  # mean and variance, and what flows back to each
    assert {"bn.mean.part", "bn.var.part"} < alone.keys()
    places = [(op.offset, op.offset + align(after[n].type.nbytes(1))) for n, op in alone.items()]
    assert all(a[1] <= b[0] for a, b in zip(sorted(places), sorted(places)[1:], strict=False))


def test_a_counter_that_depends_on_rows_is_refused() -> None:
    made = net()
    seen = state_of(made.builder, "seen", TensorType((), "int64"))
    made.builder.update(seen, gc.cast(gc.sum(made["x"]), "int64"))
    with pytest.raises(gc.GraphError, match="state 'seen' is int64"):
        DataParallel()(sharded(made))


def test_what_is_sent_is_not_folded() -> None:
    """Its reference rule is for one shard; other shards may have other constants."""
    made = gc.Net("net")
    w = made.parameter("w", (3,))
    x = made.input("x", (gc.N, 3))
    made.loss("loss", gc.sum(w) + gc.sum(x * 0))
    graph = DataParallel()(sharded_sum(made))
    kept = fold_constants(fold_constants(graph))
    assert sends(kept).keys() == sends(graph).keys()


def sharded_sum(made: gc.Net) -> Graph:
    graph = Shard((("loss", ""),))(Specialize(True)(made.graph()))
    return Backward(graph.losses, parameters(graph))(graph)


def test_shards_before_the_last_only_send() -> None:
    step = Update(gc.SGD(0.1))(DataParallel()(sharded(net())))
    held = hold_back(step).pruned()
    verify(held)
    assert not held.updates
    assert sends(held) == sends(step)
    assert not any(isinstance(node.op, Receive) for node in held)
