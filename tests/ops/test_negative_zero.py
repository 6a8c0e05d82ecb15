"""-0.0 equals 0.0 but is another number: attributes that differ by it are different constants."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc

ZEROS = (0.0, -0.0)
NATIVE = pytest.param("native", marks=pytest.mark.needs("native"))


@pytest.mark.parametrize("backend", ["numpy", NATIVE])
@pytest.mark.parametrize("first", [0, 1])
def test_the_sign_of_a_zero_attribute_is_kept(backend: str, first: int) -> None:
    """Whichever net is compiled first, and beside the other in one net."""
    for values in (ZEROS[first:], ZEROS[: first + 1], ZEROS):
        net = gc.Net("zeros")
        for number, value in enumerate(values):
            x = net.input(f"x{number}", (gc.N, 4))
            net.output(f"clip{number}", gc.clip(x, value, 1.0))
            net.output(f"slope{number}", gc.leaky_relu(x, value))
            net.output(f"pad{number}", gc.pad(x, ((0, 0), (1, 1)), value=value))
        feeds = {f"x{number}": -np.ones((2, 4)) for number in range(len(values))}
        found = gc.Executor(gc.compile(net, batch=2, backend=backend)).forward(feeds)
        for number, value in enumerate(values):
            negative = bool(np.signbit(value))
            assert np.signbit(found[f"clip{number}"]).all() == negative
            assert np.signbit(found[f"slope{number}"]).all() != negative
            assert np.signbit(found[f"pad{number}"][:, [0, -1]]).all() == negative
