"""What is trained, minimised and returned: wrt, losses, outputs; accumulation."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import graphc as gc

Array = np.ndarray[Any, Any]


compiled = partial(gc.compile, backend="numpy")


def actor_critic() -> gc.Net:
    net = gc.Net("actor critic", dtype="float64")
    x = net.input("x", (gc.N, 3))
    action = net.input("action", (gc.N,), dtype="int64")
    ret = net.input("return", (gc.N, 1))
    h = gc.relu(gc.affine(x, 4, name="trunk"))
    with net.block("actor"):
        policy = gc.affine(gc.relu(gc.affine(h, 4)), 2, name="policy")
    with net.block("critic"):
        value = gc.affine(gc.relu(gc.affine(h, 4)), 1, name="value")
    net.output("policy", policy)
    net.output("value", value)
    net.loss("actor loss", gc.softmax_loss(policy, action))
    net.loss("critic loss", gc.mse_loss(value, ret))
    return net


def feed(n: int = 6, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    x, ret = rng.standard_normal((n, 3)), rng.standard_normal((n, 1))
    return {"x": x, "action": rng.integers(0, 2, n), "return": ret}


def state_bytes(ex: gc.Executor) -> dict[str, bytes]:
    return {name: ex.state[name].tobytes() for name in ex.parameters}


DECAYING = gc.AdamW(lr=0.1, weight_decay=0.5)


@pytest.mark.one_in(5)
@pytest.mark.parametrize(
    ("wrt", "trained"),
    [
        ("actor/*", ["actor/"]),
        (["critic/*", "trunk.*"], ["critic/", "trunk."]),
        ("trunk.bias", ["trunk.bias"]),
        (None, ["trunk.", "actor/", "critic/"]),
    ],
)
def test_parameters_outside_wrt_keep_every_bit(wrt: Any, trained: list[str]) -> None:
    ex = gc.Executor(compiled(actor_critic(), batch=6, wrt=wrt, optimizer=DECAYING))
    before = state_bytes(ex)
    for seed in range(3):
        ex.step(feed(seed=seed))
    chosen = {name for name in before if name.startswith(tuple(trained))}
    assert {name for name, data in state_bytes(ex).items() if data != before[name]} == chosen
    slots = {name.rpartition(".")[0] for name in ex.state if name.endswith(".square")}
    assert slots == chosen
    ex.forward(feed(), train=True)
    assert ex.backward().keys() == chosen == set(ex.plan.wrt)


def test_one_loss_of_two() -> None:
    ex = gc.Executor(compiled(actor_critic(), batch=6, losses="actor*", optimizer=DECAYING))
    before = state_bytes(ex)
    loss = ex.forward(feed())["actor loss"]
    assert ex.step(feed()) == pytest.approx(float(loss), abs=1e-12)
    changed = {name for name, data in state_bytes(ex).items() if data != before[name]}
    assert changed == {name for name in before if name.startswith(("actor/", "trunk."))}


def test_losses_add_up() -> None:
    both = gc.Executor(compiled(actor_critic(), batch=6))
    parts = [
        gc.Executor(compiled(actor_critic(), batch=6, losses=name))
        for name in ("actor loss", "critic loss")
    ]
    gradients = []
    for ex in (both, *parts):
        ex.forward(feed(), train=True)
        gradients.append(ex.backward())
    for name, total in gradients[0].items():
        summed = sum(g[name] for g in gradients[1:] if name in g)
        np.testing.assert_allclose(total, summed, rtol=0, atol=1e-12)


def test_any_node_can_be_returned_and_differentiated() -> None:
    net = actor_critic()
    plan = compiled(net, batch=6, outputs=["trunk", "value", "critic/rel*"], wrt=net["x"])
    ex = gc.Executor(plan)
    out = ex.forward(x=feed()["x"])
    assert out.keys() == {"trunk", "value", "critic/relu_1"}
    ex.forward(feed(), train=True)
    (dx,) = ex.backward().values()
    assert dx.shape == (6, 3)
    x, h = feed()["x"], 1e-6
    shifted = []
    for sign in (1, -1):
        moved = x.copy()
        moved[2, 1] += sign * h
        out = ex.forward(feed() | {"x": moved})
        shifted.append(float(out["actor loss"] + out["critic loss"]))
    assert dx[2, 1] == pytest.approx((shifted[0] - shifted[1]) / (2 * h), abs=1e-8)


def test_shared_weights_get_the_sum_of_their_gradients() -> None:
    net = gc.Net(dtype="float64")
    x = net.input("x", (gc.N, 3))
    w = net.parameter("w", (3, 3))
    h = gc.tanh(gc.affine(x, 3, weight=w, bias=False))
    net.output("out", gc.affine(h, 3, weight=w, bias=False))
    net.loss("loss", gc.sum(net["affine_2"]))
    ex = gc.Executor(compiled(net, batch=5, optimizer=gc.SGD(lr=0.1)))
    feed, weight = np.random.default_rng(0).standard_normal((5, 3)), ex.parameters["w"]
    hidden, ones = np.tanh(feed @ weight), np.ones((5, 3))
    want = hidden.T @ ones + feed.T @ ((ones @ weight.T) * (1 - hidden**2))
    ex.forward(x=feed, train=True)
    np.testing.assert_allclose(ex.backward()["w"], want, atol=1e-12)
    ex.step(x=feed)
    np.testing.assert_allclose(ex.parameters["w"], weight - 0.1 * want, atol=1e-12)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("optimizer", [gc.SGD, gc.Adam])
@pytest.mark.parametrize("k", [2, 3])
def test_micro_batches_equal_one_large_batch(optimizer: Any, k: int) -> None:
    """For losses that are means over the batch, and no layer that looks across rows."""
    net = actor_critic()
    options = {"lr": 0.05, "weight_decay": 0.1, "clip_norm": 0.5}
    large = gc.Executor(compiled(net, batch=6, optimizer=optimizer(**options)))
    plan = compiled(net, batch=6 // k, optimizer=optimizer(**options, accumulate=k))
    small = gc.Executor(plan)
    for seed in range(3):
        whole = feed(6, seed)
        loss = large.step(whole)
        before = state_bytes(small)
        losses = []
        for i in range(k):
            assert state_bytes(small) == before
            rows = slice(i * 6 // k, (i + 1) * 6 // k)
            losses.append(small.step({name: array[rows] for name, array in whole.items()}))
        assert np.mean(losses) == pytest.approx(loss, abs=1e-12)
        for name in large.parameters:
            np.testing.assert_allclose(
                small.parameters[name], large.parameters[name], rtol=0, atol=1e-12
            )
    assert int(small.state["updates"]) == 3
    assert int(small.state["accumulated"]) == 0


def test_an_update_takes_what_has_been_accumulated_so_far() -> None:
    net = actor_critic()
    plain = gc.Executor(compiled(net, batch=6, optimizer=gc.SGD(lr=0.1)))
    ex = gc.Executor(compiled(net, batch=6, optimizer=gc.SGD(lr=0.1, accumulate=4)))
    ex.step(feed())
    ex.update()
    plain.step(feed())
    np.testing.assert_allclose(ex.parameters.flat(), plain.parameters.flat(), atol=1e-14)
    ex.forward(feed(), train=True)
    ex.backward()
    with pytest.raises(gc.StateError, match=r"no gradients\n.*\n.*call ex.step\(\) first"):
        ex.update()
    with pytest.raises(gc.StateError, match="this optimizer accumulates"):
        ex.update({})
