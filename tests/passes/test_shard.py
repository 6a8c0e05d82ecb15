"""Parts of a loss, masks and statistics of shards make up those of the whole batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.compiler.loss_share import divisors, loss_shares
from graphc.ir.graph import Graph
from graphc.ir.text import graph_text, parse_graph
from graphc.ir.verify import verify
from graphc.ops import OPS
from graphc.ops.exchange import ShardInput, Total
from graphc.runtime.reference import evaluate
from passes.backward import Backward
from passes.shard import Shard
from passes.specialize import Specialize
from tests.passes.same import parameters
from tests.tools.generate import random_feeds, random_state

ROWS = 12
CUT = ((0, 5), (5, 6), (6, 12))
"""Shards of different sizes."""

BEFORE = """\
graph net
x: float32[N, 3] = input()
seed: uint64[] = state()  start=0.0
draws: int64[] = state()  start=0.0
drop.mask: float32[N, 3] = dropout_mask(seed, draws)  keep_prob=0.5 stream=7
drop: float32[N, 3] = mul(x, drop.mask)
bn.gamma: float32[3] = parameter()  init=Ones()
bn.beta: float32[3] = parameter()  init=Zeros()
bn.mean: float32[3] = mean(drop)  axes=(0,)
bn: float32[N, 3] = batchnorm_train(drop, bn.gamma, bn.beta)  eps=1e-05
each: float32[N, 3] = mul(bn, bn)
cost: float32[] = mean(each)  axes=(0, 1)
output loss = cost
losses loss
"""

AFTER = """\
graph net
x: float32[N, 3] = input()
seed: uint64[] = state()  start=0.0
draws: int64[] = state()  start=0.0
shard.first_row: int64[] = shard_input()
drop.mask: float32[N, 3] = dropout_mask(seed, draws, shard.first_row)  keep_prob=0.5 stream=7
drop: float32[N, 3] = mul(x, drop.mask)
bn.gamma: float32[3] = parameter()  init=Ones()
bn.beta: float32[3] = parameter()  init=Zeros()
bn.mean.own: float32[3] = mean(drop)  axes=(0,)
shard.share.rows.float32: float32[] = shard_input()
bn.mean.part: float32[3] = mul(bn.mean.own, shard.share.rows.float32)
bn.mean: float32[3] = total(bn.mean.part)
bn: float32[N, 3] = normalize(drop, bn.mean, bn.var, bn.gamma, bn.beta)  eps=1e-05
"""


def cut(feeds: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    return {name: array[start:stop] if array.ndim else array for name, array in feeds.items()}


def numbers(graph: Graph, start: int, stop: int, feeds: dict[str, Any]) -> dict[str, Any]:
    """What a shard is fed besides its rows."""
    found: dict[str, Any] = {}
    for node in graph:
        if isinstance(node.op, ShardInput):
            value: float = start
            if node.name.endswith(".weight"):
                value = feeds["weight"].sum() * (stop - start) / ROWS
            elif ".share.sum." in node.name:
                value = 1
            elif ".share." in node.name:
                value = (stop - start) / ROWS
            found[node.name] = np.asarray(value, node.type.dtype)
    return found


def net(loss: str) -> gc.Net:
    made = gc.Net("net", dtype="float64")
    x, t = made.input("x", (gc.N, 4)), made.input("t", (gc.N, 2))
    w = made.input("weight", (gc.N,))
    h = gc.dropout(gc.tanh(gc.affine(x, 5)), keep_prob=0.7)
    guess = gc.affine(h, 2, name="guess")
    if loss == "mean":
        made.loss("loss", 2 * gc.mse_loss(guess, t) + 0.1 * gc.mean(made["guess.weight"] ** 2))
    elif loss == "weighted":
        made.loss("loss", gc.mse_loss(guess, t, weight=w) * 3)
    elif loss == "sum":
        made.loss("loss", gc.sum((guess - t) ** 2))
    elif loss == "sum of rows":
        made.loss("loss", gc.huber_loss(guess, t, weight=w, reduction="sum"))
    else:
        made.loss("one", gc.mae_loss(guess, t, reduction="sum"))
        made.loss("two", gc.mse_loss(guess, t))
        made.loss("three", gc.mse_loss(guess, t, weight=w))
    return made


def sharded(made: gc.Net, graph: Graph, synchronise: bool = False) -> Graph:
    declared = made.graph()
    divided = tuple(divisor.name for divisor in divisors(declared))
    return Shard(loss_shares(declared), divided, synchronise)(graph)


@pytest.mark.parametrize("loss", ["mean", "weighted", "sum", "sum of rows", "several"])
def test_parts_add_up_to_losses_and_gradients_of_the_whole(loss: str) -> None:
    whole = Specialize(True)(net(loss).graph())
    shard = sharded(net(loss), whole)
    verify(shard)
    feeds, state = random_feeds(whole, ROWS), random_state(whole)
    backward = Backward(whole.losses, parameters(whole))
    whole, shard = backward(whole), backward(shard)
    expected = evaluate(whole, feeds, state, ROWS)
    found: dict[str, Any] = {}
    for start, stop in CUT:
        part = {**cut(feeds, start, stop), **numbers(shard, start, stop, feeds)}
        values = evaluate(shard, part, state, stop - start)
        for name, value in {**shard.outputs, **shard.gradients}.items():
            found[name] = found.get(name, 0) + values[value]
    for name, value in {**whole.outputs, **whole.gradients}.items():
        np.testing.assert_allclose(found[name], expected[value], rtol=1e-12, err_msg=name)


def test_the_text_before_and_after() -> None:
    var = BEFORE.replace("bn: float", "bn.var: float32[3] = mean(drop)  axes=(0,)\nbn: float")
    made = graph_text(Shard((("loss", "rows"),), synchronise=True)(parse_graph(var, OPS)))
    lines = [line for line in made.splitlines() if "bn.var" not in line or "normalize" in line]
    assert "\n".join(lines).startswith(AFTER.rstrip())
    assert "cost.part: float32[] = mul(cost, shard.share.rows.float32)" in lines
    assert "output loss = cost.part" in lines


def test_statistics_of_all_shards_are_those_of_the_batch() -> None:
    made = gc.Net("net", dtype="float64")
    x, y = made.input("x", (gc.N, 4)), made.input("y", (gc.N,), dtype="int64")
    h = gc.relu(gc.batchnorm(gc.affine(x, 5), name="of.bn"))
    made.loss("loss", gc.softmax_loss(gc.affine(h, 3), y))
    whole = Specialize(True)(made.graph())
    shard = sharded(made, whole, synchronise=True)
    assert sum(isinstance(node.op, Total) for node in shard) == 2
    feeds, state = random_feeds(whole, ROWS), random_state(whole)
    feeds["y"] = feeds["y"] % 3
    values = evaluate(whole, feeds, state, ROWS)
    alone = {**feeds, **numbers(shard, 0, ROWS, feeds)}
    found = evaluate(shard, alone, state, ROWS)
    for name in ("of.bn.mean", "of.bn.var", "of.bn", "of.bn.running_var.next"):
        np.testing.assert_allclose(found[name], values[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("alone", [False, True])
def test_a_loss_whose_terms_count_differently_is_refused(alone: bool) -> None:
    made = gc.Net("net")
    h = gc.affine(made.input("x", (gc.N, 4)), 2, name="h")
    other = gc.sum(made["h.weight"] ** 2) if alone else gc.mean(h)
    made.loss("loss", gc.sum(h**2) + other)
    with pytest.raises(
        gc.GraphError, match="'loss' adds a sum over the rows to something that is not one"
    ):
        loss_shares(made.graph())
