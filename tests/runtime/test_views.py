"""Results without a copy are views of the executor's memory, which nobody can write to."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

import graphc as gc

X = np.ones((4, 4), np.float32)
BACKENDS = ["numpy", "native"]


def executor(backend: str) -> gc.Executor:
    """A net whose outputs are an input, a parameter, a constant and what is computed of them."""
    net = gc.Net("views")
    x = net.input("x", (gc.N, 4))
    w = net.parameter("w", (4, 4))
    c = net.constant(np.arange(16, dtype=np.float32).reshape(4, 4), name="c")
    h = gc.relu(x @ w)
    for name, value in {"x_out": x, "w_out": w, "c_out": c, "h": h, "hc": h @ c}.items():
        net.output(name, value)
    net.loss("loss", gc.mean(h * h))
    plan = gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1), backend=backend)
    return gc.Executor(plan)


def refused(arrays: Mapping[str, np.ndarray]) -> None:
    """None of the arrays can be written to."""
    assert arrays
    for array in arrays.values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 7


RUNS: dict[str, Callable[[gc.Executor], Mapping[str, np.ndarray]]] = {
    "inference": lambda ex: ex.forward(x=X, copy=False),
    "inference of zero-copy feeds": lambda ex: (ex.forward(x=X), ex.forward(x=X, copy=False))[1],
    "training": lambda ex: ex.forward(x=X, train=True, copy=False),
    "frozen": lambda ex: gc.freeze(ex, batch=4).forward(x=X, copy=False),
    "fewer rows": lambda ex: ex.forward(x=X[:2], copy=False),
    "values": lambda ex: (ex.forward(x=X), ex.values)[1],
    "values of a step": lambda ex: (ex.step(x=X), ex.values)[1],
    "parameters": lambda ex: ex.parameters,
    "state": lambda ex: ex.state,
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("run", RUNS)
def test_views_are_read_only(run: str, backend: str) -> None:
    refused(RUNS[run](executor(backend)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_views_follow_the_next_run(backend: str) -> None:
    ex = executor(backend)
    view = ex.forward(x=X, copy=False)["h"]
    later = ex.forward(x=2 * X)["h"]
    assert np.array_equal(view, later)


@pytest.mark.parametrize("backend", BACKENDS)
def test_copies_are_the_users_own(backend: str) -> None:
    ex = executor(backend)
    before = ex.forward(x=X)
    for array in [*ex.forward(x=X).values(), *ex.predict(X).values()]:
        array[...] = 7
    ex.forward(x=X, train=True)
    for array in ex.backward().values():
        array[...] = 7
    after = ex.forward(x=X)
    assert all(np.array_equal(before[name], after[name]) for name in before)
