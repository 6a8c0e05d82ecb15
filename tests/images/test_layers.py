"""Layers of images that have parameters: their shapes, their start, what is trained; kernels."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.backends.numpy.products import BLOCK
from tests.images.cases import waves


def state_of(net: gc.Net) -> gc.Executor:
    return gc.Executor(gc.compile(net, batch=2, backend="numpy"), seed=0)


def test_parameters_have_pytorchs_shapes() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 4, 8, 6))
    net.output("a", gc.conv2d(x, 6, (3, 2), groups=2, name="a"))
    net.output("b", gc.conv_transpose2d(x, 6, (3, 2), groups=2, name="b"))
    net.output("c", gc.conv2d(x, 5, 1, bias=False, name="c"))
    net.output("d", gc.conv1d(gc.reshape(x, (gc.N, 4, 48)), 5, 3, name="d"))
    net.output("e", gc.groupnorm(x, 2, name="e"))
    found = {name: array.shape for name, array in state_of(net).parameters.items()}
    assert found == {
        "a.weight": (6, 2, 3, 2),
        "a.bias": (6,),
        "b.weight": (4, 3, 3, 2),
        "b.bias": (6,),
        "c.weight": (5, 4, 1, 1),
        "d.weight": (5, 4, 3),
        "d.bias": (5,),
        "e.gamma": (4,),
        "e.beta": (4,),
    }


def test_weights_start_by_what_a_unit_reads() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 32, 9, 9))
    net.output("a", gc.conv2d(x, 64, 3, name="a"))
    net.output("b", gc.conv_transpose2d(x, 64, 3, name="b"))
    net.output("c", gc.conv2d(x, 4, 3, init=0.5, name="c"))
    values = np.arange(2 * 32.0).reshape(2, 32, 1, 1)
    net.output("d", gc.conv2d(x, 2, 1, init=values, name="d"))
    start = state_of(net).parameters
    for name in ("a.weight", "b.weight"):
        assert start[name].std() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.05)
    assert not start["a.bias"].any()
    assert (start["c.weight"] == 0.5).all()
    assert (start["d.weight"] == values).all()


def test_a_mistake_leaves_no_parameters() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 2, 3, 3))
    with pytest.raises(gc.GraphError):
        gc.conv2d(x, 4, 5)
    assert list(net.builder.nodes) == ["x"]


def test_batchnorm_of_images_keeps_running_statistics_of_channels() -> None:
    net = gc.Net("net", dtype="float64")
    x = net.input("x", (gc.N, 3, 4, 2))
    net.loss("loss", gc.mean(gc.batchnorm(x, running_decay=0.8, name="bn")))
    plan = gc.compile(net, batch=5, optimizer=gc.SGD(lr=0.1), backend="numpy")
    ex = gc.Executor(plan)
    images = waves((5, 3, 4, 2), 0.2)
    ex.step(x=images)
    mean, var = images.mean(axis=(0, 2, 3)), images.var(axis=(0, 2, 3))
    np.testing.assert_allclose(ex.state["bn.running_mean"], 0.2 * mean)
    np.testing.assert_allclose(ex.state["bn.running_var"], 0.8 + 0.2 * var)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_many_images_are_worked_on_in_blocks(stride: int, groups: int) -> None:
    """What a batch larger than a block gives is what its images give alone."""
    samples, channels, size = 40, 4, 32
    columns = 9 * channels * (size - 2) ** 2 // stride**2
    assert samples * columns > 2 * BLOCK
    net = gc.Net("net", dtype="float64")
    x = net.input("x", (gc.N, channels, size, size))
    y = gc.conv2d(gc.conv2d(x, channels, 1, name="first"), 6, 3, stride, groups=groups, name="c")
    net.loss("loss", gc.sum(gc.tanh(y)))
    ex = gc.Executor(gc.compile(net, batch=samples, backend="numpy"), seed=1)
    images = waves((samples, channels, size, size), 0.1)
    ex.forward(x=images, train=True)
    found = {name: value.copy() for name, value in ex.backward().items()}
    total = {name: np.zeros_like(value) for name, value in found.items()}
    for image in images:
        ex.forward(x=image[None], train=True)
        for name, value in ex.backward().items():
            total[name] += value
    for name, value in found.items():
        np.testing.assert_allclose(value, total[name], rtol=1e-9, atol=1e-9, err_msg=name)


def test_a_frozen_convolution_net_infers_what_it_was_trained_for() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 2, 6, 6))
    h = gc.relu(gc.batchnorm(gc.conv2d(x, 4, 3, padding=1, name="c")))
    net.output("y", gc.flatten(gc.max_pool(h, 2)))
    net.loss("loss", gc.mean(h))
    for backend in ("numpy", "native"):
        plan = gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1), backend=backend)
        ex = gc.Executor(plan, seed=0)
        images = waves((4, 2, 6, 6), 0.4).astype(np.float32)
        for _ in range(3):
            ex.step(x=images)
        fast = gc.freeze(ex, batch=4)
        wanted = ex.forward(x=images)["y"]
        np.testing.assert_allclose(fast.forward(x=images)["y"], wanted, rtol=1e-4, atol=1e-5)
        ex.step(x=-images)
        fast.refresh(ex)
        wanted = ex.forward(x=images)["y"]
        np.testing.assert_allclose(fast.forward(x=images)["y"], wanted, rtol=1e-4, atol=1e-5)


def test_infinite_and_undefined_pixels() -> None:
    """A window's largest may be infinite or NaN; the gradient beside it stays finite."""
    net = gc.Net("net", dtype="float64")
    x = net.input("x", (gc.N, 1, 2, 4))
    y = net.output("y", gc.max_pool(x, 2, padding=((0, 0), (0, 0))))
    net.output("d", gc.grad(gc.sum(y * net.input("c", y.shape)), x))
    ex = gc.Executor(gc.compile(net, batch=1, backend="numpy"))
    image = np.array([[[[1, -np.inf, np.nan, 3], [np.inf, 0, 1, 2]]]])
    found = ex.forward(x=image, c=np.array([[[[np.inf, 2.0]]]]))
    assert found["y"][0, 0, 0, 0] == np.inf
    assert np.isnan(found["y"][0, 0, 0, 1])
    assert (found["d"][0, 0, :, :2] == [[0, 0], [np.inf, 0]]).all()
