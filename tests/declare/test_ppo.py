"""What PPO of docs/examples computes: its updates, its draws, and what a rollout teaches."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.extras import needs

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "ppo.py"
ROWS = 16


@pytest.fixture
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


def feeds(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    old, gain, goal = rng.standard_normal((3, ROWS)).astype(np.float32)
    state, action = rng.standard_normal((ROWS, 4)), rng.integers(2, size=ROWS)
    state = state.astype(np.float32)
    return {"state": state, "action": action, "old": old - 0.7, "gain": gain, "goal": 9 * goal}


def test_updates_are_torch_s(example: dict[str, Any]) -> None:
    torch = needs("torch")
    optimizer = gc.Adam(lr=0.01, eps=1e-5, clip_norm=0.5)
    plan = gc.compile(example["net"](entropy=0.1), batch=ROWS, optimizer=optimizer)
    ex = gc.Executor(plan, seed=1)
    p = {name: torch.tensor(ex.parameters[name], requires_grad=True) for name in ex.parameters}
    adam = torch.optim.Adam(p.values(), lr=0.01, eps=1e-5)
    weights, biases = list(p.values())[::2], list(p.values())[1::2]

    def dense(x: Any, *layers: int) -> Any:
        for i in layers:
            x = (x if i < 2 else torch.tanh(x)) @ weights[i] + biases[i]
        return x

    for seed in range(4):
        given = feeds(seed)
        total = ex.step(given)
        t = {name: torch.tensor(array) for name, array in given.items()}
        policy = torch.distributions.Categorical(logits=dense(t["state"], 0, 2, 4))
        value = dense(t["state"], 1, 3, 5)[:, 0]
        gain = (t["gain"] - t["gain"].mean()) / t["gain"].std(correction=0)
        ratio = (policy.log_prob(t["action"]) - t["old"]).exp()
        loss = -torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()
        loss = loss + 0.5 * ((value - t["goal"]) ** 2).mean() - 0.1 * policy.entropy().mean()
        adam.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(p.values(), 0.5)
        assert norm > 0.5
        adam.step()
        assert total == pytest.approx(float(loss.detach()), rel=1e-5)
    for name, array in p.items():
        assert np.allclose(ex.parameters[name], array.detach().numpy(), atol=2e-5), name


def test_actions_are_drawn_with_their_probabilities(example: dict[str, Any]) -> None:
    plan = gc.compile(example["acting"](example["net"]()), batch=500, backend="numpy")
    ex = gc.Executor(plan)
    (bias,) = [name for name in ex.parameters if ex.parameters[name].shape == (2,)]
    ex.parameters[bias] = np.log([0.2, 0.8])
    found = [ex.forward(state=np.zeros((500, 4)), count=count) for count in range(8)]
    drawn = np.stack([each["drawn"] for each in found])
    assert drawn.mean() == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / drawn.size))
    assert len({row.tobytes() for row in drawn}) == 8
    logs = np.stack([each["drawn_log_prob"] for each in found])
    assert np.allclose(logs, np.log(np.where(drawn == 1, 0.8, 0.2)), atol=1e-6)


def test_goals_are_discounted_returns(example: dict[str, Any]) -> None:
    """Without traces that fade a goal is what the trial gave from there on."""
    rollout, steps = example["rollout"], 60
    rollout.__globals__.update(LIMIT=14, TRACE=1.0)
    agent = gc.Executor(
        gc.compile(example["acting"](example["net"]()), batch=8, backend="numpy"), seed=3
    )
    poles = example["Poles"]((3,), np.random.default_rng(0))
    found = rollout(agent, poles, steps, count=0)
    state, action = found["state"].reshape(steps, 3, 4), found["action"].reshape(steps, 3)
    goal = found["goal"].reshape(steps, 3)
    after = np.concatenate([state[1:], poles.state[None]])
    ways = set()
    for pole in range(3):
        for start in range(steps):
            player, total, way = example["Poles"]((1,), np.random.default_rng(1)), 0.0, "cut"
            player.state = state[start, pole][None]
            for t in range(start, steps):
                total += 0.99 ** (t - start)
                fell, _ = player.push(action[t : t + 1, pole])
                if fell or not np.array_equal(player.state[0], after[t, pole]):
                    way = "fell" if fell else "late"
                    break
            if way != "fell":
                ahead = agent.forward(state=player.state, count=0)["value"][0]
                total += 0.99 ** (t + 1 - start) * ahead
            ways.add(way)
            assert goal[start, pole] == pytest.approx(total, rel=1e-5)
    assert ways == {"fell", "late", "cut"}
