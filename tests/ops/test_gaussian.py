"""Gaussians of a net against the formulas, PyTorch's distributions, and finite differences."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.extras import needs

ROWS, WIDTH = 6, 3
RNG = np.random.default_rng(0)
MEAN = RNG.normal(size=(ROWS, WIDTH))
LOG_STD = RNG.uniform(-2, 1, (ROWS, WIDTH))


def declared(squash: bool, dtype: str = "float64") -> tuple[gc.Net, gc.Gaussian]:
    net = gc.Net("policy", dtype=dtype)
    mean = net.parameter("mean", (ROWS, WIDTH), init=MEAN)
    log_std = net.parameter("log_std", (ROWS, WIDTH), init=LOG_STD)
    return net, gc.Gaussian(mean, log_std, squash=squash)


def results(net: gc.Net, feeds: Any = None, train: bool = True, backend: str = "numpy") -> Any:
    """Outputs, and the gradients of the loss."""
    ex = gc.Executor(gc.compile(net, batch=ROWS, backend=backend, wrt=["*"]), seed=1)
    found = ex.forward(feeds or {}, train=train)
    return found | (ex.backward() if train else {})


@pytest.mark.parametrize("squash", [False, True])
def test_a_density_at_given_points_is_that_of_the_formula(squash: bool) -> None:
    net, policy = declared(squash)
    at = np.tanh(MEAN + 0.7 * np.exp(LOG_STD)) if squash else MEAN + 0.7 * np.exp(LOG_STD)
    net.output("density", policy.log_prob(net.constant(at)))
    found = results(net, train=False)["density"]
    wanted = np.zeros(ROWS)
    for row, column in np.ndindex(ROWS, WIDTH):
        normal = NormalDist(MEAN[row, column], np.exp(LOG_STD[row, column]))
        x = at[row, column]
        density = normal.pdf(np.arctanh(x)) / (1 - x * x) if squash else normal.pdf(x)
        wanted[row] += np.log(density)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


@pytest.mark.parametrize("squash", [False, True])
def test_the_density_of_a_sample_is_that_at_its_place(squash: bool) -> None:
    net, policy = declared(squash)
    sample = net.output("sample", policy.sample())
    known = net.output("known", policy.log_prob(sample))
    net.output("computed", policy.log_prob(sample * 1.0))
    net.loss("loss", gc.sum(known))
    found = results(net)
    np.testing.assert_allclose(found["known"], found["computed"], rtol=1e-9)
    if squash:
        assert (np.abs(found["sample"]) < 1).all()


@pytest.mark.parametrize("squash", [False, True])
def test_gradients_flow_through_samples_and_densities(squash: bool) -> None:
    """By finite differences: of a sample, of its density, and of the density elsewhere."""
    net, policy = declared(squash)
    sample = policy.sample()
    elsewhere = policy.log_prob(gc.stop_gradient(sample) * 0.9)
    net.loss("loss", gc.mean(sample**3) + gc.mean(policy.log_prob(sample)) + gc.mean(elsewhere))
    report = gc.grad_check(net, {})
    assert report.ok, report


def test_the_entropy_is_that_of_the_formula() -> None:
    net, policy = declared(False)
    net.loss("loss", gc.sum(net.output("entropy", policy.entropy())))
    found = results(net)
    wanted = (LOG_STD + 0.5 * np.log(2 * np.pi * np.e)).sum(1)
    np.testing.assert_allclose(found["entropy"], wanted, rtol=1e-12)
    np.testing.assert_array_equal(found["log_std"], 1)


def test_far_squashed_samples_have_finite_densities_and_gradients() -> None:
    """In float32, whose tanh is 1 from 9 on: log(1 - tanh(u)**2) is 2 * (log(2) - |u|) there."""
    for sign in (-1, 1):
        net = gc.Net("far")
        mean = net.parameter("mean", (1, 2), init=sign * 30.0)
        policy = gc.Gaussian(mean, -5.0, squash=True)
        net.output("density", policy.log_prob(policy.mode()))
        net.loss("loss", gc.sum(policy.log_prob(net.output("sample", policy.sample()))))
        found = results(net)
        assert np.isfinite(found["density"]).all()
        np.testing.assert_array_equal(found["sample"], sign)
        np.testing.assert_allclose(found["mean"], 2.0 * sign)
        noise = found["loss"] + 2 * (0.5 * np.log(2 * np.pi) - 5.0)
        assert abs(noise - 4 * (30 - np.log(2))) < 8


def test_inference_takes_the_mode() -> None:
    for squash in (False, True):
        net, policy = declared(squash, "float32")
        net.output("sample", policy.sample())
        net.output("mode", policy.mode())
        for backend in ("numpy", "native"):
            found = results(net, train=False, backend=backend)
            np.testing.assert_array_equal(found["sample"], found["mode"])


def test_a_deviation_is_shared_by_rows() -> None:
    net = gc.Net("shared")
    mean = net.input("mean", (gc.N, 2))
    policy = gc.Gaussian(mean, net.parameter("log_std", (2,), init=-1.0))
    net.loss("loss", gc.mean(policy.log_prob(policy.sample()) + policy.entropy()))
    found = results(net, {"mean": np.zeros((ROWS, 2))})
    assert found["log_std"].shape == (2,)
    np.testing.assert_allclose(found["log_std"], 0, atol=1e-6)


def test_mistakes_are_told() -> None:
    net = gc.Net("net")
    mean = net.input("mean", (gc.N, 2))
    with pytest.raises(gc.GraphError, match=r"mean is float32\[N\]"):
        gc.Gaussian(net.input("x", (gc.N,)), 0.0)
    with pytest.raises(gc.GraphError, match="x is"):
        gc.Gaussian(mean, 0.0).log_prob(net.input("y", (gc.N, 3)))
    with pytest.raises(gc.GraphError, match="no formula"):
        gc.Gaussian(mean, 0.0, squash=True).entropy()


def test_values_of_another_net_are_refused() -> None:
    """Also one that has the name of a sample."""
    net, other = gc.Net("net"), gc.Net("other")
    mean = net.input("mean", (gc.N, 2))
    before = str(net)
    with pytest.raises(gc.GraphError, match="log_std belongs to 'other', the mean to 'net'"):
        gc.Gaussian(mean, other.input("log_std", (gc.N, 2)))
    assert str(net) == before
    policy = gc.Gaussian(mean, 0.0)
    policy.sample(name="sample")
    with pytest.raises(gc.GraphError, match="'mean' belongs to net 'net', not to 'other'"):
        policy.log_prob(other.input("sample", (gc.N, 2)))


@pytest.mark.parametrize("squash", [False, True])
def test_pytorch_computes_the_same(squash: bool) -> None:
    torch = needs("torch")
    d = torch.distributions
    net, policy = declared(squash)
    sample = net.output("sample", policy.sample())
    net.output("noise", net["sample_1.noise"])
    net.loss("loss", gc.mean(policy.log_prob(sample) + gc.sum(sample**2, 1)))
    found = results(net)
    mean = torch.tensor(MEAN, requires_grad=True)
    log_std = torch.tensor(LOG_STD, requires_grad=True)
    normal = d.Normal(mean, log_std.exp())
    inner = mean + log_std.exp() * torch.tensor(found["noise"])
    if squash:
        normal = d.TransformedDistribution(normal, [d.TanhTransform(cache_size=1)])
        x = normal.transforms[0](inner)
    else:
        x = inner
    loss = (normal.log_prob(x).sum(1) + (x**2).sum(1)).mean()
    loss.backward()
    np.testing.assert_allclose(found["sample"], x.detach(), rtol=1e-12)
    np.testing.assert_allclose(found["loss"], loss.detach(), rtol=1e-12)
    np.testing.assert_allclose(found["mean"], mean.grad, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found["log_std"], log_std.grad, rtol=1e-9, atol=1e-12)
