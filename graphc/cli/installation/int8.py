"""Products and convolutions in int8, where sums are exact."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphc as gc
from graphc.cli.installation import plain
from graphc.cli.installation.plain import Array
from graphc.cli.installation.trial import Trial, Wrong, near

LARGEST, STEP = 127 / 64, 1 / 64
"""The range of numbers in int8 and their step: sums in float32 are exact, and there are ties."""


def _steps(rng: np.random.Generator, *shape: int, most: int = 127) -> Array:
    """Return multiples of the step; the first of each place along the last axis is the largest.

    So ranges are the same for each column of weights.
    """
    x = np.asarray(rng.integers(-most, most + 1, shape) * STEP)
    x[(0,) * (x.ndim - 1)] = LARGEST
    return x


def _in_steps(x: Array) -> Array:
    return np.asarray(np.rint(np.clip(x, -LARGEST, LARGEST) / STEP) * STEP)


def check_int8(trial: Trial, here: list[str]) -> None:
    """Check sums of two products and convolutions in int8, and that a NaN stays in its row."""
    rng = trial.rng
    for width in (1, 5, 16, 33, 65):
        net, wide = gc.Net("int8"), (width, width + 2)
        x, z = net.input("x", (gc.N, width)), net.input("z", (gc.N, width))
        y = gc.affine(x, weight=net.parameter("w", wide), bias=net.parameter("b", wide[1:]))
        net.output("y", y + gc.matmul(z, net.parameter("v", wide)))
        state = {"w": _steps(rng, *wide), "v": _steps(rng, *wide), "b": _steps(rng, width + 2)}
        data = {name: _steps(rng, 64, width, most=600) / 2 for name in "xz"}
        for array in data.values():
            array[-1, 0] = LARGEST  # in the last of the batches that set the range
        right = sum(_in_steps(data[a]) @ state[b] for a, b in (("x", "w"), ("z", "v"))) + state["b"]
        _small(trial, here, net, state, data, right)
    net = gc.Net("int8")
    kernel = net.parameter("w", (6, 4, 3, 2))
    net.output("y", gc.conv(net.input("x", (gc.N, 4, 7, 6)), kernel, stride=(2, 1), padding=(1, 2)))
    state = {"w": np.moveaxis(_steps(rng, 4, 3, 2, 6), 3, 0)}
    data = {"x": _steps(rng, 64, 4, 7, 6)}
    right = plain.conv(data["x"], state["w"], None, (2, 1), ((1, 1), (2, 2)))
    _small(trial, here, net, state, data, right)


def _small(
    trial: Trial, here: list[str], net: gc.Net, state: Any, data: dict[str, Array], right: Array
) -> None:
    """Compare a net in int8, whose ranges take several batches, and one with a NaN in a row."""
    near_range = {name: np.clip(x, -LARGEST, LARGEST) for name, x in data.items()}
    shapes = [array.shape[1:] for array in data.values()]
    for backend in here:
        with trial.case(f"int8 of {shapes} on {backend}"):
            ex = gc.Executor(gc.compile(net, batch=16, backend=backend))
            ex.state.assign(state)
            small = gc.quantize(ex, near_range)
            near("a product in int8", right, small.predict(tuple(data.values())), 0.0)
            for name, array in data.items():
                spoilt = array.copy()
                spoilt[3].flat[0] = np.nan
                found = small.predict(tuple((data | {name: spoilt}).values()))
                others = np.arange(len(right)) != 3
                near(f"rows beside one with a NaN in {name}", right[others], found[others], 0.0)
                if not np.isnan(found[3]).all():
                    raise Wrong(f"a NaN in {name} is lost")
