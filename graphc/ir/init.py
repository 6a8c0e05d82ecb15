"""Initial values of parameters, and the random numbers they are drawn from.

Weights are (in, out): the last dimension is the layer's output, the others are its input.
Values are drawn in float64 and rounded once, so that a float32 net starts at the same values as
its float64 twin.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import ArrayLike, DTypeLike, NDArray

from graphc.base.docstrings import with_shared

Array = NDArray[Any]

_WITH_EXAMPLE = with_shared("""
Examples
--------
>>> net = gc.Net("net")
>>> weight = net.parameter("weight", (64, 10), init=gc.{public}())
""")


class Initializer(ABC):
    """The rule that makes the values of a parameter; frozen and hashable."""

    @abstractmethod
    def sample(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return a new array of `shape` and `dtype`; raise ValueError for an unsuitable shape."""


@_WITH_EXAMPLE
@dataclass(frozen=True, slots=True)
class He(Initializer):
    """Normal values with mean 0 and standard deviation sqrt(2 / fan_in), for layers before a relu.

    fan_in is the product of all dimensions but the last.  K. He, X. Zhang, S. Ren, J. Sun, "Delving
    deep into rectifiers", ICCV 2015, equation 10.
    """

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Draw (..., fan_out) values."""
        fan_in, _ = fans(shape)
        return (rng.standard_normal(shape) * math.sqrt(2.0 / fan_in)).astype(dtype)


@_WITH_EXAMPLE
@dataclass(frozen=True, slots=True)
class Glorot(Initializer):
    """Uniform values between -b and b, where b = sqrt(6 / (fan_in + fan_out)).

    fan_out is the last dimension, fan_in the product of the others.  X. Glorot, Y. Bengio,
    "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010,
    equation 16.
    """

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Draw (..., fan_out) values."""
        bound = math.sqrt(6.0 / sum(fans(shape)))
        return np.asarray(rng.uniform(-bound, bound, shape)).astype(dtype)


@_WITH_EXAMPLE
@dataclass(frozen=True, slots=True)
class Normal(Initializer):
    """Normal values.

    Parameters
    ----------
    std
        The standard deviation, from 0 up.
    mean
        The mean.

    Raises
    ------
    ValueError
        If a number is not finite, or `std` is negative.
    """

    std: float = 0.01
    mean: float = 0.0

    def __post_init__(self) -> None:
        _require_finite("Normal", self.std, self.mean)
        if self.std < 0:
            raise ValueError(f"Normal needs a std of at least 0, not {self.std}")

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Draw values of any shape."""
        return np.asarray(rng.normal(self.mean, self.std, shape)).astype(dtype)


@_WITH_EXAMPLE
@dataclass(frozen=True, slots=True)
class Uniform(Initializer):
    """Uniform values.

    Parameters
    ----------
    low, high
        The ends of the interval.

    Raises
    ------
    ValueError
        If a number is not finite, or `low` is larger than `high`.
    """

    low: float = -0.05
    high: float = 0.05

    def __post_init__(self) -> None:
        _require_finite("Uniform", self.low, self.high)
        if self.low > self.high:
            raise ValueError(f"Uniform needs low <= high, not {self.low} and {self.high}")

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Draw values of any shape."""
        return np.asarray(rng.uniform(self.low, self.high, shape)).astype(dtype)


@_WITH_EXAMPLE
@dataclass(frozen=True, slots=True)
class Orthogonal(Initializer):
    """A matrix with orthonormal rows or columns, whichever are fewer, times `gain`.

    A. Saxe, J. McClelland, S. Ganguli, "Exact solutions to the nonlinear dynamics of learning in
    deep linear neural networks", ICLR 2014.  Uniform over such matrices: the QR factor with the
    signs of R's diagonal moved into Q (F. Mezzadri, Notices of the AMS 54, 2007).

    Parameters
    ----------
    gain
        The length of each of those rows or columns.

    Raises
    ------
    ValueError
        If `gain` is not finite, or the shape has fewer than two dimensions.
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        _require_finite("Orthogonal", self.gain)

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Draw (in, out) values; with more dimensions, all but the last count as rows."""
        if len(shape) < 2:
            raise ValueError(f"Orthogonal needs at least two dimensions, not shape {shape}")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        tall = rng.standard_normal((max(rows, columns), min(rows, columns)))
        q, r = np.linalg.qr(tall)
        q *= np.where(np.diagonal(r) < 0, -self.gain, self.gain)
        matrix = q if rows >= columns else q.T
        return np.ascontiguousarray(matrix.reshape(shape)).astype(dtype)


@dataclass(frozen=True, slots=True)
class Constant(Initializer):
    """The same value for every element.

    Parameters
    ----------
    value
        The value.

    Examples
    --------
    >>> net = gc.Net("net")
    >>> scale = net.parameter("scale", (10,), init=gc.Constant(0.5))
    """

    value: float

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Fill any shape, without drawing."""
        return np.full(shape, self.value, dtype)


@_WITH_EXAMPLE
@dataclass(frozen=True, slots=True)
class Zeros(Initializer):
    """The value 0 for every element."""

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Fill any shape, without drawing."""
        return np.zeros(shape, dtype)


@_WITH_EXAMPLE
@dataclass(frozen=True, slots=True)
class Ones(Initializer):
    """The value 1 for every element."""

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Fill any shape, without drawing."""
        return np.ones(shape, dtype)


@dataclass(frozen=True, slots=True)
class OutAt(Initializer):
    """The values of another initializer for a weight whose output is `axis`, not its last axis."""

    of: Initializer
    axis: int

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Draw the values with that axis last, and move it back."""
        drawn = (*shape[: self.axis], *shape[self.axis + 1 :], shape[self.axis])
        return np.moveaxis(self.of.sample(rng, drawn, dtype), -1, self.axis).copy()


@dataclass(frozen=True, slots=True)
class SameAs(Initializer):
    """The values of another parameter, which has that name and initializer."""

    name: str
    of: Initializer

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Draw the values, by the random numbers of the other parameter."""
        return self.of.sample(rng, shape, dtype)


@dataclass(frozen=True, slots=True)
class FromArray(Initializer):
    """The values of a given array, copied when it was given."""

    data: bytes
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, array: ArrayLike) -> FromArray:
        """Copy the values of `array`; raise ValueError unless they are real numbers."""
        values = np.asarray(array)
        if values.dtype.kind not in "fiub":
            raise ValueError(f"an array of {values.dtype} cannot be an initial value")
        return cls(values.tobytes(), values.shape, values.dtype.str)

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return the values, without drawing; raise ValueError if `shape` is not the array's."""
        if tuple(shape) != self.shape:
            raise ValueError(
                f"the array given as initial value has shape {self.shape}, "
                f"it must be {tuple(shape)}"
            )
        return np.frombuffer(self.data, self.dtype).reshape(self.shape).astype(dtype)

    def __repr__(self) -> str:
        return f"FromArray({np.dtype(self.dtype).name}, shape={self.shape})"


NAMED: dict[str, Callable[[], Initializer]] = {
    "he": He,
    "glorot": Glorot,
    "normal": Normal,
    "uniform": Uniform,
    "orthogonal": Orthogonal,
    "zeros": Zeros,
    "ones": Ones,
}


def resolve(
    init: str | float | np.number[Any] | Array | Initializer, shape: tuple[int, ...] | None = None
) -> Initializer:
    """Return the initializer meant by a name, a number, an array or an initializer itself.

    Raise ValueError, in plain words, for anything else, and for an array not of `shape`.
    """
    if isinstance(init, np.ndarray) and shape is not None and init.shape != shape:
        raise ValueError(f"its shape is {shape}, the array given for it has {init.shape}")
    if isinstance(init, Initializer):
        return init
    if isinstance(init, str):
        return _named(init)
    if isinstance(init, np.ndarray):
        return FromArray.of(init)
    if isinstance(init, (int, float, np.integer, np.floating)) and not isinstance(init, bool):
        return Constant(float(init))
    raise ValueError(
        f"init must be a name, a number, an array or an initializer, not {type(init).__name__}"
    )


def generator(seed: int, name: str) -> np.random.Generator:
    """Return NumPy's Philox generator for one parameter: adding a layer changes no other's values.

    The key is (seed mod 2**64, first eight bytes, big endian, of BLAKE2b-512 of the UTF-8 name).
    """
    word = int.from_bytes(blake2b(name.encode(errors="surrogatepass")).digest()[:8], "big")
    key = np.array([int(seed) & 0xFFFFFFFFFFFFFFFF, word], np.uint64)
    return np.random.Generator(np.random.Philox(_Key(key)))  # type: ignore[arg-type]


class _Key(ISeedSequence):
    """A seed of Philox that is its key: with `key=` NumPy asks the system for another one first."""

    def __init__(self, key: NDArray[np.uint64]) -> None:
        self._key = key

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[np.uint64]:
        """Return the key, which are the two words that Philox asks for."""
        return self._key


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a weight: all dimensions but the last, and the last.

    For a vector both are its length; neither is less than 1.
    """
    if len(shape) < 2:
        size = max(math.prod(shape), 1)
        return size, size
    return max(math.prod(shape[:-1]), 1), max(shape[-1], 1)


_OTHER_NAMES = {"kaiming": "he", "he_": "he", "xavier": "glorot", "glorot_": "glorot"}
"""The starts of other libraries' names, and graphc's names."""


def _named(name: str) -> Initializer:
    if name not in NAMED:
        here = next((h for other, h in _OTHER_NAMES.items() if name.startswith(other)), None)
        known = ", ".join(NAMED) + (f"; you may mean {here!r}" if here else "")
        raise ValueError(f"init {name!r} is not one of {known}")
    return NAMED[name]()


def _require_finite(owner: str, *values: float) -> None:
    for value in values:
        if not math.isfinite(value):
            raise ValueError(f"{owner} needs finite numbers, not {value}")
