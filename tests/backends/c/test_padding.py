"""Convolutions over padded images: printed C has the bytes of native code, whatever the numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

import graphc as gc
from graphc.backends.c import backend
from graphc.ir.tensor_type import shape_at

Array = NDArray[Any]
Case = tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]
CASES: dict[str, Case] = {
    "a line": ((3, 11), (5, 3, 4), {"padding": 2}),
    "a causal line": ((2, 9), (3, 2, 3), {"padding": [(4, 0)], "dilation": 2}),
    "one channel": ((1, 9, 8), (6, 1, 5, 5), {"padding": 2}),
    "wide": ((20, 7, 9), (70, 20, 3, 3), {"padding": 1}),
    "stride": ((8, 8, 9), (17, 8, 3, 3), {"padding": 1, "stride": 2}),
    "dilation": ((3, 9, 9), (4, 3, 3, 2), {"padding": [(2, 3), (0, 2)], "dilation": (3, 2)}),
    "groups": ((6, 7, 5), (8, 3, 3, 3), {"padding": 1, "groups": 2, "stride": (1, 2)}),
    "depthwise": ((20, 6, 6), (20, 1, 3, 3), {"padding": 1, "groups": 20}),
    "space": ((2, 4, 5, 4), (3, 2, 3, 2, 3), {"padding": (1, 1, 2), "stride": (2, 1, 1)}),
    "only padding": ((2, 4, 4), (3, 2, 2, 2), {"padding": 4}),
}


def net() -> gc.Net:
    """A convolution for each case, and its two gradients for a given cotangent."""
    net = gc.Net("padded")
    for name, (image, filters, how) in CASES.items():
        x = net.input(f"x {name}", (gc.N, *image))
        w = net.input(f"w {name}", filters)
        y = net.output(f"y {name}", gc.conv(x, w, **how))
        total = gc.sum(y * net.input(f"c {name}", y.shape))
        for one, value in (("dx", x), ("dw", w)):
            net.output(f"{one} {name}", gc.grad(total, [value])[0])
    return net


def finite(rng: np.random.Generator, size: tuple[int, ...]) -> Array:
    return rng.standard_normal(size)


def not_finite(rng: np.random.Generator, size: tuple[int, ...]) -> Array:
    odd = rng.choice([np.inf, -np.inf, np.nan, 0.0, -0.0], size)
    return np.where(rng.random(size) < 4 / np.prod(size), odd, rng.standard_normal(size))


def tiny(rng: np.random.Generator, size: tuple[int, ...]) -> Array:
    """Numbers whose products are subnormal, or underflow to zeros of both signs."""
    return rng.standard_normal(size) * 10.0 ** rng.integers(-25, -21, size)


@pytest.mark.slow
@pytest.mark.needs("c")
@pytest.mark.parametrize(
    ("contract", "flags"),
    [("fused", ()), ("unfused", ()), ("fused", ("-DGRAPHC_NO_VECTORS",))],
    ids=("fused", "unfused", "no vectors"),
)
def test_c_has_the_bytes_of_native_code(
    contract: Literal["fused", "unfused"], flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "FLAGS", (*backend.FLAGS, *flags))
    backend.compiled.cache_clear()
    padded = net()
    plans = [gc.compile(padded, batch=3, backend=b, contract=contract) for b in ("c", "native")]
    runs = [gc.Executor(plan) for plan in plans]
    inputs = [node for node in padded.graph() if node.op.is_input]
    draws: list[Callable[..., Array]] = [finite, not_finite, tiny]
    for seed, draw in enumerate(draws):
        rng = np.random.default_rng(seed)
        drawn = {node.name: draw(rng, shape_at(node.type.shape, 3)) for node in inputs}
        feeds = {name: array.astype("float32") for name, array in drawn.items()}
        one, other = (run.forward(feeds) for run in runs)
        assert [name for name in one if bits(one[name]) != bits(other[name])] == []


def bits(array: Array) -> bytes:
    """The bytes of an array whose NaNs all have the same sign and payload."""
    return np.where(np.isnan(array), np.float32(np.nan), array).tobytes()
