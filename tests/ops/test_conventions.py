"""batchnorm's running statistics against PyTorch's, once the conventions are translated.

PyTorch documents for `torch.nn.BatchNorm1d(eps=1e-5, momentum=m)`:

    y            = (x - mean) / sqrt(var + eps) * gamma + beta, var by 1/N   (normalisation)
    running      = (1 - m) * running + m * batch                             (both statistics)
    running_var  uses the batch variance by 1/(N - 1)

Ours keeps `running_decay` = 1 - m of the old value, and the running variance takes 1/N too.  The
vectors below are worked out from those formulas on a small batch of exact decimals.
"""

from __future__ import annotations

import numpy as np
import pytest

from graphc.declare.net import Net
from graphc.ir.op import Array
from graphc.ir.tensor_type import N
from graphc.ops.norm import batchnorm
from graphc.runtime.reference import evaluate, initial_state, next_state
from passes.specialize import Specialize

# Three batches of two rows.  Their means and variances (1/N; 1/(N-1) is twice that) are
# (1, 2): (1, 4); (2, 0): (4, 1); (-1, 1): (0.25, 9).
BATCHES = [
    np.array([[0.0, 4.0], [2.0, 0.0]]),
    np.array([[4.0, -1.0], [0.0, 1.0]]),
    np.array([[-1.5, 4.0], [-0.5, -2.0]]),
]
MOMENTUM = 0.1
# PyTorch's, by hand from (0, 0) and (1, 1):
#   mean: 0.1, 0.2 -> 0.09 + 0.2, 0.18 + 0 -> 0.261 - 0.1, 0.162 + 0.1
#   var:  0.9 + 0.2, 0.9 + 0.8 -> 0.99 + 0.8, 1.53 + 0.2 -> 1.611 + 0.05, 1.557 + 1.8
TORCH_MEAN = [[0.1, 0.2], [0.29, 0.18], [0.161, 0.262]]
TORCH_VAR = [[1.1, 1.7], [1.79, 1.73], [1.661, 3.357]]


def torch_running_var(ours: Array, step: int, n: int) -> Array:
    """Our running variance as PyTorch's: the start, 1, decays alike, the batches' share grows."""
    start = (1 - MOMENTUM) ** (step + 1)
    return np.asarray(start + (ours - start) * n / (n - 1))


def test_running_statistics_of_three_steps_with_two_rows() -> None:
    net = Net("bn", dtype="float64")
    out = batchnorm(net.input("x", (N, 2)), running_decay=1 - MOMENTUM, name="bn")
    net.output("out", out)
    train, test = (Specialize(mode)(net.graph()) for mode in (True, False))
    state = initial_state(train, 0)
    for step, x in enumerate(BATCHES):
        values = evaluate(train, {"x": x}, state, 2)
        # With two rows xhat is -1 and 1, times sqrt(var / (var + eps)).
        expected = np.sign(x - x.mean(0)) * np.sqrt(x.var(0) / (x.var(0) + 1e-5))
        np.testing.assert_allclose(values[train.outputs["out"]], expected, rtol=1e-12)
        state = next_state(train, values, state)
        np.testing.assert_allclose(state["bn.running_mean"], TORCH_MEAN[step], rtol=1e-12)
        translated = torch_running_var(state["bn.running_var"], step, len(x))
        np.testing.assert_allclose(translated, TORCH_VAR[step], rtol=1e-12)
    values = evaluate(test, {"x": BATCHES[0]}, state, 2)
    mean, var = np.array(TORCH_MEAN[-1]), state["bn.running_var"]
    np.testing.assert_allclose(
        values[test.outputs["out"]], (BATCHES[0] - mean) / np.sqrt(var + 1e-5), rtol=1e-12
    )


@pytest.mark.parametrize("n", [2, 3, 64])
def test_the_translation_holds_for_any_batch(n: int) -> None:
    rng = np.random.default_rng(n)
    net = Net("bn", dtype="float64")
    net.output("out", batchnorm(net.input("x", (N, 3)), running_decay=1 - MOMENTUM, name="bn"))
    train = Specialize(True)(net.graph())
    state, torch_var = initial_state(train, 0), np.ones(3)
    for step in range(10):
        x = rng.standard_normal((n, 3)) * 3 + 1
        state = next_state(train, evaluate(train, {"x": x}, state, n), state)
        torch_var = (1 - MOMENTUM) * torch_var + MOMENTUM * x.var(axis=0, ddof=1)
        translated = torch_running_var(state["bn.running_var"], step, n)
        np.testing.assert_allclose(translated, torch_var, rtol=1e-12)
