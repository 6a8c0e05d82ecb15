"""What shards exchange: every gradient, loss and statistic once, in buckets of one buffer."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.compiler.loss_share import loss_shares
from graphc.ir.graph import Graph
from graphc.ir.tensor_type import TensorType, align
from graphc.ir.text import graph_text, parse_graph
from graphc.ir.verify import verify
from graphc.ops import OPS
from graphc.ops.exchange import Receive, Send, Total
from graphc.ops.source import state as state_of
from graphc.runtime.reference import evaluate
from passes import data_parallel
from passes.backward import Backward
from passes.data_parallel import DataParallel
from passes.fold_constants import fold_constants
from passes.keep_sends import keep_sends
from passes.shard import Shard
from passes.specialize import Specialize
from passes.update import Update
from tests.passes.same import parameters
from tests.tools.generate import random_feeds, random_state


def sharded(net: gc.Net, synchronise: bool = False) -> Graph:
    graph = Shard(loss_shares(net.graph()), (), synchronise)(Specialize(True)(net.graph()))
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


BEFORE = """\
graph net
x: float32[N, 3] = input()
w: float32[3] = parameter()  init=He()
v: float32[40] = parameter()  init=He()
s: float32[3] = state()  start=0.0
t: int64[] = state()  start=0.0
one: int64[] = constant()  data=[1]
own: float32[3] = mean(x)  axes=(0,)
whole: float32[3] = total(own)
loss: float32[] = sum(whole)  axes=(0,)
d_v: float32[40] = neg(v)
d_w: float32[3] = mul(w, whole)
more: int64[] = add(t, one)
output loss = loss
losses loss
gradient w = d_w
gradient v = d_v
update s = own
update t = more
"""

SENT = """\
d_v.sent: float32[40] = send(d_v)  bucket=0 members=1 offset=0
d_w.sent: float32[3] = send(d_w)  bucket=1 members=3 offset=192
loss.sent: float32[] = send(loss)  bucket=1 members=3 offset=256
own.part.sent: float32[3] = send(own.part)  bucket=1 members=3 offset=320
d_v.sum: float32[40] = receive(d_v.sent)  bucket=0 members=1
d_w.sum: float32[3] = receive(d_w.sent)  bucket=1 members=3
loss.sum: float32[] = receive(loss.sent)  bucket=1 members=3
own.part.sum: float32[3] = receive(own.part.sent)  bucket=1 members=3
"""


def test_golden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_parallel, "BUCKET_BYTES", 192)
    after = graph_text(DataParallel()(parse_graph(BEFORE, OPS)))
    assert SENT in after
    for line in (
        "whole.sent: float32[3] = send(own)  bucket=2 members=1 offset=384",
        "whole: float32[3] = receive(whole.sent)  bucket=2 members=1",
        "own.part: float32[3] = mul(own, shard.share.rows.float32)",
        "more.at_end: int64[] = after(more, own.part.sum)",
        "output loss = loss.sum\nlosses loss",
        "gradient v = d_v.sum\ngradient w = d_w.sum",
        "update s = own.part.sum\nupdate t = more.at_end",
    ):
        assert line in after


@pytest.mark.parametrize("limit", [64, 193, 200, 10**6])
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
    for some in [*sizes.values()][:-1]:
        assert sum(some) >= limit
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


@pytest.mark.parametrize("limit", [64, 10**6])
def test_totals_become_buckets_of_their_own(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_parallel, "BUCKET_BYTES", limit)
    after = DataParallel()(sharded(net(), synchronise=True))
    verify(after)
    assert not any(isinstance(node.op, Total) for node in after)
    found = sends(after)
    last = found["bn.running_var.next.part"].bucket
    alone = {name: op for name, op in found.items() if op.bucket > last}
    assert len(alone) == 4  # mean and variance, and what flows back to each
    assert {"bn.mean.part", "bn.var.part"} < alone.keys()
    assert sorted(op.bucket for op in alone.values()) == [*range(last + 1, last + 5)]
    assert {op.members for op in alone.values()} == {1}
    places = sorted((op.offset, align(after[name].type.nbytes(1))) for name, op in found.items())
    end = 0
    for offset, size in places:
        assert offset == end
        end += size


def test_the_same_bucket_is_sent_and_awaited() -> None:
    after = DataParallel()(sharded(net(), synchronise=True))
    for node in after:
        if isinstance(node.op, Receive):
            (way,) = node.inputs
            op = after[way].op
            assert isinstance(op, Send)
            assert (node.op.bucket, node.op.members) == (op.bucket, op.members)


def test_a_counter_that_depends_on_rows_is_refused() -> None:
    made = net()
    seen = state_of(made.builder, "seen", TensorType((), "int64"))
    made.builder.update(seen, gc.cast(gc.sum(made["x"]), "int64"))
    with pytest.raises(gc.GraphError, match="state 'seen' is int64") as caught:
        DataParallel()(sharded(made))
    assert "shards can average only floats" in str(caught.value)


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
    graph = Shard((("loss", "sum"),))(Specialize(True)(made.graph()))
    return Backward(graph.losses, parameters(graph))(graph)


def test_shards_before_the_last_only_send() -> None:
    step = Update(gc.SGD(0.1))(DataParallel()(sharded(net())))
    held = keep_sends(step).pruned()
    verify(held)
    assert not held.updates
    assert held.name == step.name
    assert sends(held) == sends(step)
    assert not any(isinstance(node.op, Receive) for node in held)
