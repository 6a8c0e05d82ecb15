"""Every optional pass off, and all of them off: training and inference give the same results."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.tools.generate import random_feeds, random_net

OPTIONAL = tuple(name for name in gc.passes.DEFAULT.names if name not in gc.passes.REQUIRED)
WITHOUT = [*((name,) for name in dict.fromkeys(OPTIONAL)), tuple(dict.fromkeys(OPTIONAL))]
BATCH = 5


def trained(net: gc.Net, off: tuple[str, ...]) -> dict[str, np.ndarray[Any, Any]]:
    """Gradients of a first batch, the state after three steps, and what is then inferred."""
    plan = gc.compile(
        net,
        batch=BATCH,
        optimizer=gc.SGD(lr=1e-3, momentum=0.9, clip_norm=1.0),
        backend="numpy",  # passes change graphs, whatever runs them
        passes=gc.passes.without(*off),
    )
    ex = gc.Executor(plan, seed=3)
    feeds = random_feeds(net.graph(), BATCH)
    found = {f"first {k}": v for k, v in ex.forward(feeds, train=True).items()}
    found.update({f"gradient of {k}": v for k, v in ex.backward().items()})
    for seed in range(3):
        ex.step(random_feeds(net.graph(), BATCH - seed, seed))
    found.update({f"state {k}": v for k, v in ex.state.items()})
    found.update({f"inferred {k}": v for k, v in ex.forward(feeds).items()})
    return found


@pytest.mark.one_in(42)
@pytest.mark.parametrize("off", WITHOUT, ids=", ".join)
@pytest.mark.parametrize("seed", range(6))
def test_results_do_not_depend_on_optional_passes(seed: int, off: tuple[str, ...]) -> None:
    net = random_net(random.Random(seed))
    expected, found = trained(net, ()), trained(net, off)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-7, atol=1e-9, err_msg=name)


@pytest.mark.one_in(7)
@pytest.mark.parametrize("seed", range(6))
def test_a_frozen_net_infers_the_same_with_batchnorm_unfolded(seed: int) -> None:
    net = random_net(random.Random(100 + seed))
    feeds = random_feeds(net.graph(), BATCH)
    results = []
    for off in ((), ("fold_batchnorm", "fuse_affine_relu"), tuple(dict.fromkeys(OPTIONAL))):
        passes = gc.passes.without(*off)
        ex = gc.Executor(gc.compile(net, batch=BATCH, backend="numpy", passes=passes), seed=1)
        results.append(gc.freeze(ex, batch=BATCH).forward(feeds))
    for name, value in results[0].items():
        for other in results[1:]:
            np.testing.assert_allclose(other[name], value, rtol=1e-7, atol=1e-9, err_msg=name)
