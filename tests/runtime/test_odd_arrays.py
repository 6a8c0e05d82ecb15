"""Arrays of other libraries that cannot be read as they are: one error says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.extras import needs


class Refusing:
    """An array of another library, which refuses to be read as PyTorch's do."""

    ndim, shape = 2, (4, 3)

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise self.error

    def __len__(self) -> int:
        return 4


def plan() -> gc.Plan:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3))
    net.output("o", gc.affine(x, 2, name="o"))
    net.loss("loss", gc.mean(net["o"]))
    return gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1), backend="numpy")


def uses() -> dict[str, Callable[[Any], object]]:
    """Each way in which an array comes in."""
    ex, population = gc.Executor(plan(), seed=0), gc.Population(plan(), members=4)
    return {
        "forward": lambda odd: ex.forward(x=odd),
        "step": lambda odd: ex.step({"x": odd}),
        "predict": lambda odd: ex.predict(odd),
        "parameter": lambda odd: ex.parameters.__setitem__("o.weight", odd),
        "vector": lambda odd: ex.parameters.load_flat(odd),
        "rows of a population": lambda odd: population.step({"x": odd}, rows=[[0]] * 4),
        "of all members": lambda odd: population.parameters.__setitem__("o.weight", odd),
        "replay": lambda odd: gc.ReplayBuffer(plan(), 9).add(x=odd),
        "fit": lambda odd: gc.fit(ex, (odd,), epochs=1),
        "constant": lambda odd: gc.Net("net").constant(odd),
        "initial values": lambda odd: gc.Net("net").parameter("w", (4, 3), init=odd),
    }


USES = uses()


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("error", [TypeError, RuntimeError])
def test_what_refuses_to_be_read_is_refused(use: str, error: type[Exception]) -> None:
    with pytest.raises(gc.GraphError, match=r"as an array: no numbers here|init must be"):
        USES[use](Refusing(error("no numbers here")))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grad", "bfloat16", "sparse", "meta"])
@pytest.mark.parametrize("use", USES)
def test_tensors_that_have_no_numpy(use: str, kind: str) -> None:
    torch = needs("torch")
    tensor = {
        "grad": lambda: torch.ones(4, 3, requires_grad=True),
        "bfloat16": lambda: torch.ones(4, 3).bfloat16(),
        "sparse": lambda: torch.eye(4, 3).to_sparse(),
        "meta": lambda: torch.ones(4, 3, device="meta"),
    }[kind]()
    with pytest.raises(gc.GraphError):
        USES[use](tensor)


def test_the_refused_changes_nothing() -> None:
    ex = gc.Executor(plan(), seed=0)
    before = ex.parameters["o.weight"].copy()
    with pytest.raises(gc.StateError, match=r"'o.weight' cannot be read as an array: no"):
        ex.parameters["o.weight"] = Refusing(TypeError("no"))
    np.testing.assert_array_equal(ex.parameters["o.weight"], before)
