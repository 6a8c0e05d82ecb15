"""Loops train as a plain loop in PyTorch does, where it is installed, in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.extras import needs
from tests.ops.row_loops import Numpy, feeds_of, results
from tests.ops.test_scan import BACKENDS, ROWS, assert_near, declared, loss_of

torch = needs("torch")

Arrays = Mapping[str, Any]


class Torch(Numpy):
    """One row, computed by PyTorch."""

    library = torch

    def array(self, array: Any) -> Any:
        return torch.tensor(array, requires_grad=True)

    def concat(self, values: Sequence[Any], axis: int) -> Any:
        return torch.cat(list(values), axis)

    def stack(self, values: Sequence[Any]) -> Any:
        return torch.stack(list(values), 1)


def by_torch(seed: int, feeds: Arrays, weights: dict[str, Any]) -> dict[str, Any]:
    """The results of all rows, each computed by itself."""
    rows = [{name: x[i : i + 1] for name, x in feeds.items()} for i in range(ROWS)]
    found = [results(Torch(row, weights), seed) for row in rows]
    return {name: torch.cat([one[name] for one in found]) for name in found[0]}


def tensors(feeds: Arrays) -> dict[str, Any]:
    """Inputs for PyTorch, which differentiates by those of floats."""
    return {k: torch.tensor(x, requires_grad=x.dtype.kind == "f") for k, x in feeds.items()}


@pytest.mark.one_in(40)
@pytest.mark.parametrize("seed", range(200))
def test_values_and_gradients(seed: int) -> None:
    net = declared(seed)
    feeds, weights = feeds_of(net, ROWS, seed), dict[str, Any]()
    given = tensors(feeds)
    wanted = by_torch(seed, given, weights)
    loss_of(wanted).backward()
    sources = {name: x.grad for name, x in {**given, **weights}.items() if x.grad is not None}
    slopes = {name: grad.numpy() for name, grad in sources.items() if grad.any()}
    for backend in BACKENDS:
        ex = gc.Executor(gc.compile(net, batch=ROWS, wrt=list(slopes), backend=backend))
        found = ex.forward(feeds, train=True)
        assert_near(found, {name: y.detach().numpy() for name, y in wanted.items()}, 1e-12)
        assert_near(ex.backward(), slopes, 1e-11)


@pytest.mark.one_in(40)
@pytest.mark.parametrize("seed", range(200))
def test_three_steps(seed: int) -> None:
    net = declared(seed)
    feeds, weights = [feeds_of(net, ROWS, 3 * seed + i) for i in range(3)], dict[str, Any]()
    loss_of(by_torch(seed, tensors(feeds[0]), weights)).backward()  # makes the weights
    slopes = [w.grad.abs().max().item() for w in weights.values() if w.grad is not None]
    lr = 0.05 / max(1.0, *slopes)  # steep nets would diverge
    optimizer = torch.optim.SGD(list(weights.values()), lr=lr, momentum=0.9)
    for each in feeds:
        optimizer.zero_grad(set_to_none=False)  # what stands still keeps its momentum
        loss_of(by_torch(seed, tensors(each), weights)).backward()
        optimizer.step()
    trained = {name: w.detach().numpy() for name, w in weights.items() if w.grad is not None}
    for backend in BACKENDS:
        plan = gc.compile(
            net,
            batch=ROWS,
            wrt=list(trained),
            optimizer=gc.SGD(lr=lr, momentum=0.9),
            backend=backend,
        )
        ex = gc.Executor(plan)
        for each in feeds:
            ex.step(each)
        assert_near({name: np.asarray(ex.parameters[name]) for name in trained}, trained, 1e-10)
