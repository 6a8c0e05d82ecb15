"""Updates of the soft actor-critic of docs/examples are PyTorch's with three optimizers."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.extras import needs

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "sac.py"
ROWS, STATES, ACTIONS, LR = 8, 3, 2, 1e-2


def feeds(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    widths = {"state": STATES, "after": STATES, "action": ACTIONS, "reward": 1, "going": 1}
    found = {name: rng.standard_normal((ROWS, n)) for name, n in widths.items()}
    found["going"] = (found["going"] > 0).astype(float)
    return {name: array.astype(np.float32) for name, array in found.items()}


def test_updates_are_torch_s() -> None:
    torch = needs("torch")
    example = runpy.run_path(str(EXAMPLE))
    net = example["agent"](STATES, ACTIONS, width=16)
    noises = ["new.noise", "later.noise"]
    plan = gc.compile(net, batch=ROWS, updates=example["updates"](LR), outputs=noises)
    ex = gc.Executor(plan, seed=1)
    p = {name: torch.tensor(ex.parameters[name], requires_grad=True) for name in ex.parameters}

    def dense(x: Any, name: str) -> Any:
        for i in range(3):
            x = x if i == 0 else torch.relu(x)
            x = x @ p[f"{name}/{i}.weight"] + p[f"{name}/{i}.bias"]
        return x

    def act(state: Any, noise: Any) -> tuple[Any, Any]:
        mean, log_std = dense(state, "actor").chunk(2, dim=1)
        log_std = log_std.clamp(-20, 2)
        inner = mean + log_std.exp() * noise
        density = torch.distributions.Normal(mean, log_std.exp()).log_prob(inner)
        squash = 2 * (np.log(2) - inner - torch.nn.functional.softplus(-2 * inner))
        return torch.tanh(inner), (density - squash).sum(1, keepdim=True)

    def worth(names: str, state: Any, action: Any) -> list[Any]:
        return [dense(torch.cat([state, action], 1), f"{names}{i}") for i in (1, 2)]

    groups = {"temperature": "log_alpha", "critic": "critic", "actor": "actor"}
    adams = {
        name: torch.optim.Adam([w for k, w in p.items() if k.startswith(start)], lr=LR)
        for name, start in groups.items()
    }

    def descend(name: str, loss: Any) -> float:
        adams[name].zero_grad()
        loss.backward()
        adams[name].step()
        return float(loss.detach())

    for seed in range(3):
        given = feeds(seed)
        total = ex.step(given)
        t = {name: torch.tensor(array) for name, array in given.items()}
        new, later = (torch.tensor(ex.values[name]) for name in noises)
        action, surprise = act(t["state"], new)
        loss = -(p["log_alpha"] * (surprise - ACTIONS).detach()).mean()
        losses = descend("temperature", loss)
        alpha = p["log_alpha"].exp().detach()
        with torch.no_grad():
            then, density = act(t["after"], later)
            least = torch.minimum(*worth("target", t["after"], then)) - alpha * density
            goal = t["reward"] + 0.99 * t["going"] * least
        values = worth("critic", t["state"], t["action"])
        losses += descend("critic", sum(0.5 * ((value - goal) ** 2).mean() for value in values))
        best = torch.minimum(*worth("critic", t["state"], action))
        losses += descend("actor", (alpha * surprise - best).mean())
        with torch.no_grad():
            for name in p:
                if name.startswith("target"):
                    p[name].lerp_(p[name.replace("target", "critic")], 0.005)
        assert total == pytest.approx(losses, rel=1e-4)
    for name, value in p.items():
        np.testing.assert_allclose(ex.parameters[name], value.detach(), rtol=2e-3, atol=2e-5)
