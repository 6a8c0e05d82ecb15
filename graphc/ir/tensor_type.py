"""The type of a value: a dtype, and a shape whose batch dimension may stay open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import isqrt, prod
from typing import Any, SupportsIndex

from graphc.base.arguments import is_whole, plain
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc

ORDERED = "bfloat16"
"""The dtype of factors of products whose terms have an order; the compiler alone makes it."""
ITEMSIZE = {
    "float32": 4,
    "float64": 8,
    ORDERED: 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "bool": 1,
    "uint64": 8,
    "uint32": 4,
    "uint16": 2,
    "uint8": 1,
}
DECLARED = tuple(dtype for dtype in ITEMSIZE if dtype != ORDERED)
"""The dtypes that users declare."""
FLOATS = ("float32", "float64")
"""The dtypes that gradients flow through; `ORDERED` is made once they are there."""
# NumPy 1 takes no more; NumPy 2 takes 64.
MOST_DIMENSIONS = 32
LARGEST = 1 << 47
"""The most bytes of a value in a batch of one row: no processor can address more."""


MOST_BATCHES = 2
"""The most times that a shape may have the batch dimension: for rows, and for pairs of rows."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A dimension of `factor * N**power`, where N is the number of rows of a run."""

    factor: int = 1
    power: int = 1

    def __mul__(self, other: SupportsIndex | Batch) -> Batch:
        if isinstance(other, Batch):
            return Batch(self.factor * other.factor, self.power + other.power)
        factor = plain(other)
        if not is_whole(factor) or factor < 1:
            raise ValueError(
                f"the batch dimension is multiplied by whole numbers, not by {other!r}"
            )
        return Batch(self.factor * factor, self.power)

    __rmul__ = __mul__

    def __str__(self) -> str:
        rows = "*".join(["N"] * self.power)
        return rows if self.factor == 1 else f"{self.factor}*{rows}"

    def at(self, n: int) -> int:
        """Return the size when the batch has `n` rows."""
        return self.factor * (n if self.power == 1 else n * n)

    def rows(self, size: int) -> int | None:
        """Return the number of rows for which the dimension has a size, or None."""
        n = size // self.factor
        n = isqrt(n) if self.power == 2 else n
        return n if self.at(n) == size else None

    __repr__ = __str__


Dim = int | Batch
Shape = tuple[Dim, ...]
N = Batch()


def dim_at(dim: Dim, n: int) -> int:
    """Return the size of a dimension when the batch has `n` rows."""
    return dim.at(n) if isinstance(dim, Batch) else dim


def shape_at(shape: Shape, n: int) -> tuple[int, ...]:
    """Return the sizes of a shape when the batch has `n` rows."""
    return tuple([dim.at(n) if isinstance(dim, Batch) else dim for dim in shape])


def batch_axes(shape: Sequence[Dim]) -> list[tuple[int, Batch]]:
    """Return the axes that have the batch dimension, each with its size."""
    return [(axis, dim) for axis, dim in enumerate(shape) if isinstance(dim, Batch)]


def count(shape: Shape) -> Dim:
    """Return the number of elements: an int, k*N, or k*N*N."""
    power, factor = 0, 1
    for dim in shape:
        if isinstance(dim, Batch):
            power += dim.power
            factor *= dim.factor
        else:
            factor *= dim
    return Batch(factor, power) if factor and power else factor


def divided(dim: Dim, by: int) -> Dim:
    """Return a dimension divided by a number that divides it."""
    return replace(dim, factor=dim.factor // by) if isinstance(dim, Batch) else dim // by


def shape_text(shape: Shape) -> str:
    """Return the shape as users read it: `(N, 64)`."""
    if len(shape) > MOST_DIMENSIONS:
        return f"({', '.join(map(str, shape[:4]))}, ... {len(shape):,} dimensions)"
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


class _Shared(type):
    """A metaclass that makes equal types one object, checked once and stored once for all nodes."""

    def __call__(cls, shape: Shape, dtype: str) -> TensorType:
        try:
            return _known_type(shape, dtype, tuple(map(type, shape)))
        except TypeError:  # unhashable
            return _new_type(tuple(map(plain, shape)), dtype)


@dataclass(frozen=True, slots=True)
class TensorType(metaclass=_Shared):
    """The shape and the dtype of a value.  Equal types are one object.

    Parameters
    ----------
    shape
        The dimensions: whole numbers, and one multiple of `gc.N`, the rows of the batch, or two
        for the pairs of rows.
    dtype
        The name of the dtype, such as "float32" or "int64".

    Raises
    ------
    ValueError
        If a dimension or the dtype is unknown, or one row of the batch needs 2**47 bytes or more.

    Examples
    --------
    >>> images = gc.TensorType((gc.N, 28, 28), "float32")
    >>> images.rank, images.nbytes(10)
    (3, 31360)
    """

    shape: Shape
    dtype: str
    pairs_rows: bool = field(init=False, repr=False, compare=False)
    """True if the batch dimension occurs twice: the value compares rows with each other."""

    def __post_init__(self) -> None:
        if self.dtype not in ITEMSIZE:
            known = ", ".join(ITEMSIZE)
            raise ValueError(f"dtype {self.dtype!r} is not one of {known}")
        if len(self.shape) > MOST_DIMENSIONS:
            raise ValueError(
                f"shape {shape_text(self.shape)} has more than {MOST_DIMENSIONS}\n"
                "every version of NumPy supports that many"
            )
        batches = 0
        for dim in self.shape:
            if isinstance(dim, Batch):
                batches += dim.power
            elif not is_whole(dim) or dim < 0:
                raise ValueError(
                    f"dimension {dim!r} is neither a whole number nor a multiple of N\n"
                    "gc.N is the batch, all other dimensions are numbers: (gc.N, 28, 28)"
                )
        if batches > MOST_BATCHES:
            raise ValueError(
                f"shape {shape_text(self.shape)} has the batch dimension {batches} times\n"
                "rows are compared in pairs at most: (N, N)"
            )
        object.__setattr__(self, "pairs_rows", batches > 1)
        sizes = (dim.factor if isinstance(dim, Batch) else dim for dim in self.shape)
        if prod(filter(None, sizes)) * ITEMSIZE[self.dtype] > LARGEST:
            raise ValueError(
                f"shape {shape_text(self.shape)} of {self.dtype} is larger than any memory\n"
                "one value has at most 2**47 bytes a row"
            )

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def is_float(self) -> bool:
        """True if gradients can flow through a value of this type."""
        return self.dtype in FLOATS

    @property
    def batched(self) -> bool:
        """True if the size depends on the batch."""
        return any(isinstance(dim, Batch) for dim in self.shape)

    def size(self, n: int) -> int:
        """Return the number of elements.

        Parameters
        ----------
        n
            The rows of the batch.

        Returns
        -------
        int
            The product of the dimensions.
        """
        return prod(shape_at(self.shape, n))

    def nbytes(self, n: int) -> int:
        """Return the exact bytes of a contiguous array.

        Parameters
        ----------
        n
            The rows of the batch.

        Returns
        -------
        int
            The number of elements times the bytes of one.
        """
        return self.size(n) * ITEMSIZE[self.dtype]

    def bytes_text(self) -> str:
        """Return the bytes as a formula in N.

        Returns
        -------
        str
            Such as `400*N`, or `25600` without a batch dimension.
        """
        return str(count(self.shape) * ITEMSIZE[self.dtype])

    def with_shape(self, shape: Shape) -> TensorType:
        """Return the same dtype in another shape.

        Parameters
        ----------
        shape
            The dimensions.

        Returns
        -------
        TensorType
            The type of that shape.
        """
        return TensorType(shape, self.dtype)

    def with_dtype(self, dtype: str) -> TensorType:
        """Return the same shape in another dtype.

        Parameters
        ----------
        dtype
            The name of the dtype.

        Returns
        -------
        TensorType
            The type of that dtype.
        """
        return TensorType(self.shape, dtype)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


def _new_type(shape: Shape, dtype: str) -> TensorType:
    made: TensorType = type.__call__(TensorType, shape, dtype)
    return made


@lru_cache(maxsize=4096)
def _known_type(shape: Shape, dtype: str, kinds: tuple[type, ...]) -> TensorType:
    """Return the cached type of a shape; `kinds` distinguishes True from 1, which it equals."""
    sizes = tuple(map(plain, shape))
    if tuple(map(type, sizes)) != kinds:
        return TensorType(sizes, dtype)
    return _new_type(sizes, dtype)


def dtype_name(dtype: Any) -> str:
    """Return the name of a dtype given as a name, as `numpy.float32` or as `numpy.dtype`.

    Raise GraphError for `ORDERED`, which users do not declare.
    """
    name = str(getattr(dtype, "__name__", dtype))
    if name == ORDERED:
        raise GraphError(
            f"{ORDERED} is the dtype of factors of products alone",
            loc=caller_loc(),
            hint='gc.compile(net, precision={"*": "bf16"}) rounds them',
        )
    return name


def numpy_dtype(dtype: str) -> str:
    """Return the dtype of NumPy's arrays of a dtype: NumPy lacks `ORDERED`, and holds its bits."""
    return "uint16" if dtype == ORDERED else dtype


def normal_axis(axis: SupportsIndex, rank: int) -> int:
    """Return `axis` counted from the front; raise ValueError if there is no such axis."""
    number = plain(axis)
    if type(number) is not int or not -rank <= number < rank:
        raise ValueError(
            f"axis {axis!r} does not exist in a value of rank {rank}\n"
            f"{f'axes go from 0 to {rank - 1}' if rank else 'a scalar has no axes'}"
        )
    return number % rank


def normal_axes(axis: SupportsIndex | Iterable[SupportsIndex] | None, rank: int) -> tuple[int, ...]:
    """Return the axes named, sorted and counted from the front; None means all."""
    if axis is None:
        return tuple(range(rank))
    axis = plain(axis)
    axes = tuple(axis) if isinstance(axis, Iterable) else (axis,)
    normal = tuple(sorted(normal_axis(a, rank) for a in axes))
    if len(set(normal)) != len(normal):
        raise ValueError(f"axis {axis!r} names an axis twice")
    return normal


def check_entries(shape: Shape, axes: Iterable[int]) -> None:
    """Raise ValueError if one of the axes has no entries to choose from."""
    for axis in axes:
        if shape[axis] == 0:
            raise ValueError(f"axis {axis} of {shape_text(shape)} has no entries to choose from")


def broadcast(a: Shape, b: Shape) -> Shape:
    """Return the common shape by NumPy's broadcasting with open dimensions, or raise ValueError."""
    if a == b:
        return a
    rank = max(len(a), len(b))
    left = (1,) * (rank - len(a)) + a
    right = (1,) * (rank - len(b)) + b
    dims: list[Dim] = []
    for p, q in zip(left, right, strict=True):
        if p != q and p != 1 and q != 1:
            raise ValueError(
                f"shapes {shape_text(a)} and {shape_text(b)} do not broadcast: {p} against {q}\n"
                "sizes must be equal, or one of them 1"
            )
        dims.append(q if p == 1 else p)
    _check_pairs(a, b, dims)
    return tuple(dims)


def _check_pairs(a: Shape, b: Shape, result: Sequence[Dim]) -> None:
    """Raise ValueError if rows would meet each other because an operand has too few axes."""
    if len(a) == len(b):
        return
    shorter = min(a, b, key=len)
    axes = [axis for axis, _ in batch_axes(shorter)]
    if len(axes) == 1 and len(batch_axes(result)) > 1:
        ones, after = (1,) * (len(result) - len(shorter)), axes[0] + 1
        forms = (*shorter[:after], *ones, *shorter[after:]), (*ones, *shorter)
        raise ValueError(
            f"shapes {shape_text(a)} and {shape_text(b)} would compare every row with every other\n"
            f"reshape {shape_text(shorter)} to {' or '.join(map(shape_text, forms))}, whichever is "
            "meant"
        )


ALIGNMENT = 64
"""The bytes of a cache line: every buffer starts at a multiple of them."""


def align(nbytes: int) -> int:
    """Return the number of bytes, rounded up to the alignment."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
