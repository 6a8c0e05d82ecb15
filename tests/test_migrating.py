"""The formulas that docs/lessons/migrating.md gives for PyTorch, against PyTorch itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.extras import needs

torch = needs("torch")
pytestmark = pytest.mark.slow
LESSON = Path(__file__).resolve().parent.parent / "docs" / "lessons" / "migrating.md"
CELL = re.compile(r"^```\{code-cell\} python\n(.*?)^```$", re.M | re.S)
P = np.random.default_rng(3).normal(size=(2, 3))
LOWERED = [0.1] * 10 + [0.01] * 10


@pytest.fixture(scope="module")
def lesson() -> dict[str, Any]:
    """What the cells of the lesson define, once they have run."""
    names: dict[str, Any] = {}
    for cell in CELL.findall(LESSON.read_text()):
        if "raises-exception" not in cell:
            exec(cell, names)
    return names


def trained(optimizer: Callable[..., Any], rates: list[float], slope: float) -> np.ndarray:
    """A parameter after steps whose gradient is slope * p."""
    p = torch.tensor(P, requires_grad=True)
    chosen = optimizer([p])
    for rate in rates:
        chosen.param_groups[0]["lr"] = rate
        chosen.zero_grad()
        (0.5 * slope * p**2).sum().backward()
        chosen.step()
    return np.asarray(p.detach().numpy())


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd(lesson: dict[str, Any], nesterov: bool) -> None:
    choices = {"momentum": 0.9, "nesterov": nesterov}
    theirs = trained(
        lambda ps: torch.optim.SGD(ps, lr=0.1, weight_decay=0.2, **choices), LOWERED, 2.0
    )
    ours = lesson["torch_sgd"](P, LOWERED, 2.0, decay=0.2, **choices)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize("slope", [2.0, 1e-7])
def test_adam_and_adamw(lesson: dict[str, Any], slope: float) -> None:
    formula = lesson["torch_adam"]
    adam = trained(lambda ps: torch.optim.Adam(ps, lr=0.01), LOWERED, slope)
    np.testing.assert_allclose(formula(P, LOWERED, slope), adam, rtol=1e-9)
    adamw = trained(lambda ps: torch.optim.AdamW(ps, lr=0.01), LOWERED, slope)
    np.testing.assert_allclose(formula(P, LOWERED, slope, decay=0.01), adamw, rtol=1e-9)


def test_running_statistics(lesson: dict[str, Any]) -> None:
    batches = np.random.default_rng(4).normal(3, 2, size=(30, 8, 4))
    norm = torch.nn.BatchNorm1d(4, dtype=torch.float64)
    for batch in batches:
        norm(torch.tensor(batch))
    mean, var = lesson["torch_running"](batches)
    np.testing.assert_allclose(mean, norm.running_mean.numpy(), rtol=1e-12)
    np.testing.assert_allclose(var, norm.running_var.numpy(), rtol=1e-12)
    assert norm.eps == 1e-5


def test_layers_and_loss(lesson: dict[str, Any]) -> None:
    layers = torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)
    ).double()
    own = layers.state_dict()
    assert {k: tuple(v.shape) for k, v in own.items()} == {
        k: v.shape for k, v in lesson["state_dict"].items()
    }
    layers.load_state_dict({k: torch.tensor(v) for k, v in lesson["state_dict"].items()})
    theirs = layers(torch.tensor(lesson["points"])).detach().numpy()
    np.testing.assert_allclose(lesson["torch_forward"](lesson["points"]), theirs, rtol=1e-12)
    scores, labels = torch.tensor(lesson["s"]), torch.tensor(lesson["labels"])
    per_class = np.array([0.5, 1.0, 2.0])
    loss = torch.nn.CrossEntropyLoss(weight=torch.tensor(per_class))(scores, labels)
    w = per_class[lesson["labels"]]
    assert float(loss) == pytest.approx((w * lesson["rows"]).sum() / w.sum(), rel=1e-12)


def test_how_a_dense_layer_starts() -> None:
    layer = torch.nn.Linear(400, 300)
    for parameter in (layer.weight, layer.bias):
        largest = float(parameter.detach().abs().max())
        assert 0.9 / 20 < largest <= 1 / 20
