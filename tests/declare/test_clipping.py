"""The limit on the norm of all gradients, for gradients whose squares no dtype of theirs holds."""

import numpy as np
import pytest

import graphc as gc
from graphc.declare.optim import every_kind

SIZES = {"w": (5, 7), "v": (3,)}


def update(dtype: str, backend: str, limit: float, values: dict[str, np.ndarray]) -> np.ndarray:
    """What one step of rate 1 takes from weights of 0, for a loss whose gradients are `values`."""
    net = gc.Net("linear", dtype=dtype)
    losses = [
        gc.sum(net.parameter(name, shape, init="zeros") * net.input(f"d_{name}", shape))
        for name, shape in SIZES.items()
    ]
    net.loss("loss", losses[0] + losses[1])
    optimizer = gc.SGD(lr=1.0, clip_norm=limit)
    ex = gc.Executor(gc.compile(net, batch=1, optimizer=optimizer, backend=backend))
    ex.step({f"d_{name}": value for name, value in values.items()})
    return -ex.parameters.flat()


def gradients(dtype: str, scale: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: (rng.uniform(-1, 1, s) * scale).astype(dtype) for name, s in SIZES.items()}


@pytest.mark.one_in(5)
@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        *(("float32", scale) for scale in (1e-30, 1e-12, 1.0, 1.9e19, 1e37)),
        *(("float64", scale) for scale in (1e-290, 1e-160, 1.0, 1e155, 1e300)),
    ],
)
def test_the_norm_is_that_of_the_gradients(dtype: str, scale: float, backend: str) -> None:
    given = gradients(dtype, scale)
    exact = np.concatenate([given["w"].ravel(), given["v"]]).astype(np.longdouble) / scale
    norm = float(np.sqrt(np.sum(exact * exact)))
    for limit in (norm / 3, norm * 3):
        found = update(dtype, backend, limit * scale, given) / scale
        few = 8 * float(np.finfo(dtype).eps)
        np.testing.assert_allclose(found, exact * min(1.0, limit / norm), rtol=few)


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_zero_stay_so(dtype: str, backend: str) -> None:
    assert not update(dtype, backend, 1.0, gradients(dtype, 0.0)).any()


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_infinite_gradient_is_not_hidden(dtype: str, backend: str) -> None:
    given = gradients(dtype, 1.0)
    given["v"][1] = np.inf
    assert np.isnan(update(dtype, backend, 1.0, given)).any()


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("others", [(), (2,)])
def test_gradients_without_numbers(others: tuple[int, ...], backend: str) -> None:
    net = gc.Net("empty", dtype="float64")
    none = net.parameter("none", (0, 3), init="zeros")
    loss = gc.sum(none)
    for size in others:
        loss = loss + gc.sum(net.parameter("some", (size,), init="zeros") * 3.0)
    net.loss("loss", loss)
    optimizer = gc.SGD(lr=1.0, clip_norm=1.0)
    ex = gc.Executor(gc.compile(net, batch=1, optimizer=optimizer, backend=backend))
    assert ex.step() == 0
    np.testing.assert_allclose(ex.parameters.flat(), [-(0.5**0.5)] * 2 if others else [])


@pytest.mark.parametrize("kind", sorted(every_kind().keys() - {"Group", "Optimizer", "UpdateRule"}))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_optimizer_keeps_its_slots_beside(kind: str, dtype: str) -> None:
    net = gc.Net("slots", dtype=dtype)
    net.loss("loss", gc.sum(gc.affine(net.input("x", (gc.N, 2)), 3) ** 2))
    optimizer = every_kind()[kind](lr=0.1, clip_norm=1.0, ema=0.9)
    ex = gc.Executor(gc.compile(net, batch=2, optimizer=optimizer, backend="numpy"))
    assert np.isfinite([ex.step(x=np.ones((2, 2))) for _ in range(2)]).all()
