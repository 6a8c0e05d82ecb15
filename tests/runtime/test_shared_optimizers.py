"""Plans that share a state: whose rates, counters and slots are whose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc

Array = np.ndarray[Any, Any]
X = np.random.default_rng(0).normal(size=(4, 3))


def network() -> gc.Net:
    """Two players with parameters of their own; the second also looks at the first."""
    net = gc.Net("game", dtype="float64")
    x = net.input("x", (gc.N, 3))
    with net.block("critic"):
        value = gc.affine(x, 2, name="v")
    with net.block("actor"):
        action = gc.affine(x, 2, name="a")
    net.loss("td", gc.mean((value - 1) ** 2))
    net.loss("policy", gc.mean((gc.stop_gradient(value) - action) ** 2))
    return net


def plan(player: str, optimizer: gc.Optimizer, batch: int = 4, **options: Any) -> gc.Plan:
    loss = {"critic": "td", "actor": "policy"}[player]
    wrt = f"{player}/*"
    return gc.compile(
        network(), batch=batch, losses=loss, outputs=[], wrt=wrt, optimizer=optimizer, **options
    )


class Adam:
    """D. Kingma, J. Ba, ICLR 2015, algorithm 1, with a step count of its own."""

    def __init__(self, lr: float) -> None:
        self.lr, self.t = lr, 0
        self.means: dict[str, Array] = {}
        self.squares: dict[str, Array] = {}

    def step(self, weights: dict[str, Array], gradients: dict[str, Array]) -> None:
        self.t += 1
        for name, g in gradients.items():
            m = self.means[name] = 0.9 * self.means.get(name, 0 * g) + 0.1 * g
            s = self.squares[name] = 0.999 * self.squares.get(name, 0 * g) + 0.001 * g * g
            corrected = m / (1 - 0.9**self.t), s / (1 - 0.999**self.t)
            weights[name] = weights[name] - self.lr * corrected[0] / (corrected[1] ** 0.5 + 1e-8)


def gradients(weights: dict[str, Array], player: str) -> dict[str, Array]:
    value = X @ weights["critic/v.weight"] + weights["critic/v.bias"]
    if player == "critic":
        d, name = 2 * (value - 1) / value.size, "critic/v"
    else:
        action = X @ weights["actor/a.weight"] + weights["actor/a.bias"]
        d, name = -2 * (value - action) / value.size, "actor/a"
    return {f"{name}.weight": X.T @ d, f"{name}.bias": d.sum(0)}


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_two_optimizers_train_their_own_parameters(backend: str) -> None:
    rates = {"critic": 0.1, "actor": 0.003}
    state, players = None, {}
    for player, lr in rates.items():
        made = plan(player, gc.Adam(lr=lr, name=player), backend=backend)
        players[player] = gc.Executor(made, state=state)
        state = players[player].state
    weights = dict(gc.Executor(gc.compile(network(), batch=4), state=state).parameters)
    rules = {player: Adam(lr) for player, lr in rates.items()}
    for player in ("critic", "critic", "actor", "critic", "actor", "actor", "critic"):
        players[player].step(x=X)
        rules[player].step(weights, gradients(weights, player))
    for name, array in weights.items():
        np.testing.assert_allclose(players["actor"].state[name], array, rtol=1e-12, err_msg=name)
    assert [int(state[f"updates:{player}"]) for player in rates] == [4, 3]


def test_each_has_its_hyper_parameters() -> None:
    critic = gc.Executor(plan("critic", gc.Adam(lr=0.1, clip_norm=1.0)))
    actor = gc.Executor(plan("actor", gc.Adam(lr=0.2, name="actor")), state=critic.state)
    assert dict(critic.hyper) == {"lr": 0.1, "clip_norm": 1.0}
    assert dict(actor.hyper) == {"lr": 0.2}
    actor.hyper["lr"] = 0.5
    assert (critic.hyper["lr"], actor.hyper["lr"]) == (0.1, 0.5)
    onlooker = gc.Executor(gc.compile(network(), batch=1), state=critic.state)
    assert dict(onlooker.hyper) == {"lr": 0.1, "clip_norm": 1.0, "lr:actor": 0.5}


def test_equal_optimizers_of_one_net_share_everything() -> None:
    large = gc.Executor(plan("critic", gc.Adam(lr=0.1)))
    small = gc.Executor(plan("critic", gc.Adam(lr=0.1), batch=2), state=large.state)
    alone = gc.Executor(plan("critic", gc.Adam(lr=0.1)))
    for ex in (large, small, large):
        ex.step(x=X[:2])
        alone.step(x=X[:2])
    assert np.array_equal(large.parameters.flat(), alone.parameters.flat())
    assert int(large.state["updates"]) == 3
    large.hyper["lr"] = 0.7
    assert small.hyper["lr"] == 0.7


@pytest.mark.parametrize(
    ("player", "optimizer", "difference"),
    [
        ("critic", gc.Adam(lr=0.2), "this plan's has lr=0.2, the other's lr=0.1"),
        ("critic", gc.Adam(lr=0.1, beta2=0.9), "beta2=0.9, the other's beta2=0.999"),
        ("critic", gc.SGD(lr=0.1), r"this plan has SGD\(lr=0.1\), the other Adam\(lr=0.1\)"),
        ("actor", gc.Adam(lr=0.1), "'actor/a.bias' is trained by this plan alone"),
    ],
)
def test_others_are_refused_before_anything_changes(
    player: str, optimizer: gc.Optimizer, difference: str
) -> None:
    ex = gc.Executor(plan("critic", gc.Adam(lr=0.1)))
    before = {name: array.tobytes() for name, array in ex.state.items()}
    with pytest.raises(gc.StateError, match=difference) as error:
        gc.Executor(plan(player, optimizer), state=ex.state)
    assert 'name="second"' in error.value.hint
    assert {name: array.tobytes() for name, array in ex.state.items()} == before


def test_a_named_optimizer_does_all_that_others_do(tmp_path: Path) -> None:
    """Slots, sums, averages, files and validation: the same numbers under other names."""
    options = {"lr": 0.1, "momentum": 0.9, "accumulate": 2, "ema": 0.5, "clip_norm": 0.5}
    named = gc.Executor(plan("critic", gc.SGD(**options, name="mine"), validate=tmp_path))
    plain = gc.Executor(plan("critic", gc.SGD(**options)))
    for ex in (named, plain):
        for _ in range(5):
            ex.step(x=X)
    assert {name.removesuffix(":mine") for name in named.state} == set(plain.state)
    for name in plain.state:
        mine = name if name in named.state else f"{name}:mine"
        assert np.array_equal(named.state[mine], plain.state[name]), name
    averages = [ex.averaged().parameters.flat() for ex in (named, plain)]
    assert np.array_equal(*averages)
    gc.save(tmp_path / "named.gc", named)
    again = gc.load(tmp_path / "named.gc")
    for ex in (named, again):
        ex.step(x=X)
    assert np.array_equal(named.parameters.flat(), again.parameters.flat())
    assert dict(again.hyper) == dict(named.hyper) == {"lr": 0.1, "clip_norm": 0.5}


def test_a_name_is_plain() -> None:
    for name in ("a:b", "a b", None, 3):
        with pytest.raises(gc.GraphError, match="it must be letters"):
            gc.SGD(lr=0.1, name=name)  # type: ignore[arg-type]
