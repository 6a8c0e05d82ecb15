"""exp, log, tanh, sigmoid and erf against the C library's, to the bounds that they state."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graphc.backends.maths import apply
from graphc.backends.native.vectors import Vectors
from tests.backends.native.compiled_function import TARGETS, map_of

Array = NDArray[Any]

FLOATS = ("float32", "float64")
NAMES = ("exp", "log", "tanh", "sigmoid", "erf")
EXACT: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.vectorize(math.tanh),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "erf": np.vectorize(math.erf),
}
BOUND = {"exp": 1.0, "log": 1.0, "tanh": 3.0, "sigmoid": 3.0, "erf": 2.0}
WIDE: dict[str, dict[str, tuple[float, float]]] = {  # where the results are normal numbers
    "exp": {"float32": (-86.9, 88.7), "float64": (-708, 709.7)},
    "tanh": {"float32": (-10, 10), "float64": (-21, 21)},
    "sigmoid": {"float32": (-86.9, 30), "float64": (-708, 50)},
    "erf": {"float32": (-4.5, 4.5), "float64": (-6.5, 6.5)},
}
PER_NAME = pytest.mark.parametrize("name", NAMES)
PER_DTYPE = pytest.mark.parametrize("dtype", FLOATS)


@functools.cache
def compiled(
    dtype: str, lanes: int = 16, target: str = "host", fused: bool = True
) -> Callable[[Array], list[Array]]:
    def emit(v: Vectors, x: list[str]) -> Sequence[str]:
        return [apply(v, name, x, [dtype], dtype) for name in NAMES]

    return map_of(emit, [dtype], [dtype] * len(NAMES), lanes, target, fused)


def run(name: str, x: Array, fused: bool = True) -> Array:
    return compiled(x.dtype.name, fused=fused)(x)[NAMES.index(name)]


def samples(name: str, dtype: str) -> Array:
    random = np.random.default_rng(1)
    near = [random.normal(size=20_000) * scale for scale in (1, 1e-2, 1e-6)]
    if name == "log":
        exponents = random.uniform(-87, 88, 20_000) * (8 if dtype == "float64" else 1)
        return np.concatenate([np.exp(exponents), *(1 + x for x in near[1:])]).astype(dtype)
    low, high = WIDE[name][dtype]
    x = np.concatenate([np.linspace(low, high, 100_001), random.uniform(low, high, 20_000), *near])
    return x.astype(dtype)


@pytest.mark.parametrize("fused", [True, pytest.param(False, marks=pytest.mark.slow)])
@PER_DTYPE
@PER_NAME
def test_bounds(name: str, dtype: str, fused: bool) -> None:
    x = samples(name, dtype)
    exact = EXACT[name](x.astype("float64"))
    unit = np.spacing(np.abs(exact.astype(dtype))).astype("float64")
    # The reference in float64 is itself off by up to one unit, the sigmoid's by up to two.
    slack = 0.0 if dtype == "float32" else 2.0 if name == "sigmoid" else 1.0
    assert np.max(np.abs(run(name, x, fused) - exact) / unit) <= BOUND[name] + slack


def test_an_unfused_plan_has_bits_of_its_own() -> None:
    x = samples("tanh", "float32")
    both = [run("tanh", x, fused) for fused in (True, False)]
    assert not np.array_equal(*both)


@PER_DTYPE
def test_the_logarithm_of_subnormal_numbers(dtype: str) -> None:
    smallest = np.finfo(dtype).smallest_subnormal
    counts = np.unique(np.geomspace(1, 2 ** np.finfo(dtype).nmant, 400).astype("int64"))
    x = (counts * smallest).astype(dtype)
    exact = np.log(x.astype("longdouble"))
    unit = np.spacing(np.abs(exact.astype(dtype)))
    assert np.max(np.abs(run("log", x) - exact) / unit) <= BOUND["log"]


@PER_DTYPE
def test_small_results_underflow_gradually_but_those_of_exp(dtype: str) -> None:
    """The smallest results of sigmoid are subnormal; exp gives 0 below 2**-125.5 (-1021.5)."""
    tiny = np.finfo(dtype).tiny
    x = np.linspace(np.log(tiny) - 0.7, np.log(tiny) - 0.4, 50).astype(dtype)
    assert (run("exp", x) == 0).all()
    found = run("sigmoid", x)
    assert ((found > 0) & (found < tiny)).all()
    np.testing.assert_allclose(found, np.exp(x.astype("longdouble")), rtol=1e-5)
    small = (np.arange(1, 50) * np.finfo(dtype).smallest_subnormal).astype(dtype)
    np.testing.assert_array_equal(run("tanh", small), small)
    assert (run("erf", small) >= small).all()


@PER_DTYPE
@pytest.mark.parametrize(
    ("name", "x", "y"),
    [
        ("exp", [-np.inf, -1e30, 0.0, -0.0, 1e30, np.inf], [0, 0, 1, 1, np.inf, np.inf]),
        ("log", [0.0, -0.0, 1.0, np.inf], [-np.inf, -np.inf, 0, np.inf]),
        ("log", [-1.0, -1e30, -np.inf], [np.nan] * 3),
        ("tanh", [-np.inf, -50.0, -0.0, 0.0, 50.0, np.inf], [-1, -1, -0.0, 0, 1, 1]),
        ("sigmoid", [-np.inf, -1e30, 0.0, 50.0, 1e30, np.inf], [0, 0, 0.5, 1, 1, 1]),
        ("erf", [-np.inf, -50.0, -0.0, 0.0, 50.0, np.inf], [-1, -1, -0.0, 0, 1, 1]),
    ],
)
def test_edges(name: str, x: list[float], y: Any, dtype: str) -> None:
    expected = np.array(y[dtype] if isinstance(y, dict) else y, dtype)
    found = run(name, np.array(x, dtype))
    np.testing.assert_array_equal(found, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[numbers]), np.signbit(expected[numbers]))


@PER_DTYPE
@PER_NAME
def test_nan_gives_nan(name: str, dtype: str) -> None:
    integer = np.dtype(dtype.replace("float", "uint"))
    # NaNs with every bit of the payload set, one bit set, and either sign.
    quiet = np.array(np.nan, dtype).view(integer)
    payloads = [integer.type(1) << integer.type(i) for i in range(np.finfo(dtype).nmant - 1)]
    bits = quiet | np.array([0, *payloads, sum(payloads)], integer)
    x = np.concatenate([bits.view(dtype), -bits.view(dtype)])
    assert np.isnan(x).all()
    assert np.isnan(run(name, x)).all()


@PER_DTYPE
def test_exp_at_the_ends_of_its_range(dtype: str) -> None:
    finfo = np.finfo(dtype)
    top = np.log(np.longdouble(finfo.max)).astype(dtype)
    steps = [top]
    for _ in range(3):
        steps = [np.nextafter(steps[0], -top), *steps, np.nextafter(steps[-1], 2 * top)]
    found = run("exp", np.array(steps, dtype))
    assert np.isfinite(found[:3]).all() and np.isinf(found[-2:]).all()
    assert np.all(found[1:] >= found[:-1])
    small = run("exp", np.linspace(np.log(finfo.tiny) - 20, np.log(finfo.tiny), 500, dtype=dtype))
    assert np.all((small == 0) | (small >= finfo.tiny))


@pytest.mark.one_in(2)
@PER_DTYPE
def test_bits_are_the_same_on_every_machine(dtype: str) -> None:
    random = np.random.default_rng(2)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-30, -1e-30, 88.7, -87.0, 300.0]
    x = np.concatenate([special, random.normal(size=500) * 3]).astype(dtype)
    expected = compiled(dtype)(x)
    for lanes, target in [
        (8, "host"),
        (4, "host"),
        *((16, t) for t in TARGETS[1:]),
        (4, TARGETS[-1]),
    ]:
        for name, one, other in zip(
            NAMES, expected, compiled(dtype, lanes, target)(x), strict=True
        ):
            np.testing.assert_array_equal(one, other, f"{name} {lanes} {target}")
