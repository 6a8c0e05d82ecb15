"""Random numbers as values of a net: normal and uniform ones, counter-based."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from graphc.base.arguments import sizes_of
from graphc.base.docstrings import with_shared
from graphc.ir.build import Builder, Value, as_value, misfit
from graphc.ir.expr import Axis, Broadcast, Expr, call, philox, select
from graphc.ir.op import Array, Iteration, Layer, NoGradient, Op
from graphc.ir.tensor_type import Batch, Dim, Shape, TensorType, shape_at
from graphc.kernels.interpret import evaluated
from graphc.kernels.philox import keep_words, stream_of
from graphc.ops.elementwise import add, mul
from graphc.ops.shape import cast
from graphc.ops.source import constant, draws, seed
from graphc.ops.sums import broadcast_to

__all__ = ["random_normal", "random_uniform"]

WORD = "float32"
"""The dtype in which a word becomes a number: those of a float64 net are the same numbers."""


@dataclass(frozen=True)
class Drawn(NoGradient, Op, base=True):
    """The base of ops that draw random numbers, keyed by seed, draws, stream and position.

    The random words are those of Philox4x32-10 (Salmon, Moraes, Dror and Shaw, SC11), so that the
    order of computation does not matter.  In a shard of a batch, `first_row` is the index of row 0
    in the whole batch.
    """

    takes_pairs = True
    is_exact = True
    is_random = True
    roles = ("seed", "draws", "first_row")
    optional = 1
    gradient_text = ("", "", "")
    shape: Shape
    dtype: str

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        check_keys(ins)
        return TensorType(self.shape, self.dtype)

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        one: Broadcast = "one"
        return (one,) * len(ins)


@dataclass(frozen=True)
class RandomNumbers(Drawn, base=True):
    """The base of random numbers, each a function of one word; element f reads column f of row 0.

    So neighbouring rows share counters: an array of few columns costs as little as a vector.
    """

    stream: int
    mean = 0.0

    def of_word(self, word: Expr) -> Expr:
        """Return the number of a word, by operations that have the same bits everywhere."""
        raise NotImplementedError

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type; raise ValueError unless it is of floats and the keys fit."""
        type = super().infer(ins)
        if not type.is_float:
            raise ValueError(f"{self.name} draws floats, not {type.dtype}")
        if not type.shape:
            raise ValueError("random numbers have a shape of at least one dimension")
        if type.batched and not isinstance(type.shape[0], Batch):
            raise ValueError(f"{type} is not possible, the batch must be the first dimension")
        return type

    def reference(self, ins: Sequence[Array]) -> Array:
        """Compute the numbers from the words of a counter-based generator."""
        shape = shape_at(self.shape, 0)
        of_row = int(np.prod(shape[1:]))
        first = of_row * int(ins[2]) if len(ins) > 2 else 0
        size = int(np.prod(shape))
        words = keep_words(int(ins[0]), self.stream, int(ins[1]), 1, size, first_column=first)
        return evaluated(self.of_word, words).reshape(shape).astype(self.dtype)

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        # In a shard the first word is not the first of a counter.
        return "elements" if len(ins) == 2 else "call"

    def lead(self, ins: Sequence[TensorType]) -> int:
        return 0

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        key, counter = ins
        return self.of_word(philox(key, counter, self.stream)).cast(self.dtype)


class RandomUniform(RandomNumbers):
    """Numbers of the uniform distribution over 0 <= u < 1, multiples of 2**-24."""

    mean = 0.5
    operations = 3

    def of_word(self, word: Expr) -> Expr:
        return call("floor_div", word, 256).cast(WORD) * 2.0**-24


class RandomNormal(RandomNumbers):
    """Numbers of the standard normal distribution: its quantile at (word + 1/2) / 2**32.

    The quantile at p is x * NORMAL(sqrt(w + 2)) with x = 1 - 2p and w = -ln(4p(1 - p)), as Giles
    ("Approximating the erfinv function", GPU Computing Gems 2, 2010) writes it, within 1e-6 of
    itself.  Its operations are rounded one by one, so that every backend has the same bits.
    """

    operations = 80

    def of_word(self, word: Expr) -> Expr:
        """Return the quantile at (word + 1/2) / 2**32, which is odd around 1/2."""
        low = word < 2**31
        tail = select(low, word, (2**32 - 1) - word)
        half = 0.5 + tail.cast("int32").cast(WORD)
        rest = 0.5 + (2**31 - 1 - tail).cast("int32").cast(WORD)
        p2, x = half * 2.0**-31, rest * 2.0**-31
        w = -_log(p2 * (2.0 - p2))
        middle, scale = (LARGEST_ROOT + SMALLEST_ROOT) / 2, (LARGEST_ROOT - SMALLEST_ROOT) / 2
        t = (call("sqrt", w + 2.0) - middle) * (1 / scale)
        size = x * _polynomial(t, NORMAL)
        return select(low, -size, size)


SMALLEST_ROOT, LARGEST_ROOT = 2**0.5, (2 + 31 * log(2)) ** 0.5
"""The bounds of sqrt(w + 2)."""
NORMAL = (
    0.0293603976,
    -0.01603247305,
    -0.1182836961,
    0.09633731716,
    0.161748001,
    -0.2212152469,
    -0.00371815105,
    0.1892657023,
    -0.2148755932,
    0.1404393902,
    -0.0228416675,
    -0.1065288131,
    2.710933714,
    3.713370826,
)
"""The quantile divided by x, of t from -1 to 1 between those bounds; the highest power first."""


def _log(x: Expr) -> Expr:
    """Return the logarithm of x from 2**-31 to 1, within 2e-7.

    x = m / 2**e with m from sqrt(1/2) to sqrt(2), s = (m - 1) / (m + 1), and ln(m) = 2 artanh(s).
    """
    e = x.builder.const(0.0, WORD)
    for bits in (16, 8, 4, 2, 1):
        small = x < 2.0 ** (0.5 - bits)
        x, e = select(small, x * 2.0**bits, x), select(small, e + float(bits), e)
    s = (x - 1.0) / (x + 1.0)
    return s * _polynomial(s * s, (2 / 7, 2 / 5, 2 / 3, 2.0)) - e * log(2)


def _polynomial(x: Expr, powers: Sequence[float]) -> Expr:
    """Return a polynomial of x by Horner's rule; `powers` has its highest power first."""
    result = x.lift(powers[0])
    for coefficient in powers[1:]:
        result = result * x + coefficient
    return result


@dataclass(frozen=True)
class Noise(Layer):
    """Random numbers in training, keyed by the counter of training forwards; else their mean.

    They do not depend on the numbers of x, which is the value that they go with.
    """

    takes_pairs = True
    roles = ("x", "seed", "draws")
    shape: Shape
    dtype: str
    kind: str
    stream: int

    @property
    def drawn(self) -> RandomNumbers:
        """The op that draws the numbers."""
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}, it must be one of {', '.join(KINDS)}")
        return KINDS[self.kind](self.shape, self.dtype, self.stream)

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return self.drawn.infer(ins[1:])

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        if train:
            return self.drawn.reference(ins[1:])
        return np.full(shape_at(self.shape, 0), self.drawn.mean, self.dtype)

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        if train:
            return b.apply(self.drawn, *ins[1:], name=name)
        return broadcast_to(constant(b, self.drawn.mean, self.dtype), self.shape, name=name)


KINDS: dict[str, type[RandomNumbers]] = {"normal": RandomNormal, "uniform": RandomUniform}
"""The ops by the kinds of noise."""

_TEXT = """
Parameters
----------
x
    A value whose shape and dtype they get; of the dtype of the net if x has no floats.
shape
    Another shape, such as (gc.N, 2).
counter
    A single whole number that keys them in place of the counter of training forwards: the same one
    gives the same numbers, in training and in inference.
name
    The name of the node.

Returns
-------
Value
    The numbers.

Raises
------
GraphError
    If the shape has no dimension, or the batch not as its first one, or if the counter is not a
    single whole number.
"""


@with_shared(_TEXT)
def random_normal(
    x: Value,
    shape: Sequence[Dim] | None = None,
    *,
    counter: Value | None = None,
    name: str | None = None,
) -> Value:
    """Return random numbers of the standard normal distribution.

    In training they are keyed by the seed, the counter of training forwards, the name of the node
    and the position of the element: other ones in each step, and the same ones on every machine,
    with any number of threads, and after a resume.  They are float32 numbers in a float64 net, too.
    In inference each is 0, the mean, so that results depend on feeds and parameters alone.  With
    `counter` they are drawn in inference, too.  No gradient flows through them.

    Examples
    --------
    >>> net = gc.Net("example")
    >>> mean, std = net.input("mean", (gc.N, 3)), net.input("std", (gc.N, 3))
    >>> net.output("sample", mean + std * gc.random_normal(mean))
    <add_1: float32[N, 3]>
    """
    return _noise("normal", x, shape, counter, name)


@with_shared(_TEXT)
def random_uniform(
    x: Value,
    shape: Sequence[Dim] | None = None,
    *,
    counter: Value | None = None,
    name: str | None = None,
) -> Value:
    """Return random numbers of the uniform distribution from 0 to 1, without 1.

    They are drawn as those of `gc.random_normal`: in inference each is 0.5.

    Examples
    --------
    >>> net = gc.Net("example")
    >>> x = net.input("x", (gc.N, 3))
    >>> gc.less(gc.random_uniform(x, (gc.N, 1)), 0.1)
    <less_1: bool[N, 1]>
    """
    return _noise("uniform", x, shape, counter, name)


def _noise(
    kind: str, x: Value, shape: Sequence[Dim] | None, counter: Value | None, name: str | None
) -> Value:
    """Add the layer or, with a counter, the op itself, which draws in inference, too."""
    function = f"random_{kind}"
    x = as_value(function, x)
    b, dtype = x.builder, x.dtype if x.type.is_float else x.builder.dtype
    sizes = x.shape if shape is None else sizes_of(shape)
    node = b.free_name(function, name)
    layer = Noise(sizes, dtype, kind, stream_of(b.path + b.prefix + node))
    with b.all_or_nothing():
        if counter is None:
            return b.apply(layer, x, *keys_of(b), name=node)
        key = as_value(f"{function}: counter", counter)
        if key.shape or np.dtype(key.dtype).kind not in "iu":
            raise misfit(
                f"{function}: counter is {key.type}\nit must be a single whole number", counter=key
            )
        return b.apply(layer.drawn, seed(b), key, name=node)


STEPS = 0x9E3779B9, 0x85EBCA6B
"""The draws between two steps of a loop, and the factor for each loop around it: odd numbers whose
multiples modulo 2**32 lie far apart, so that other steps and forwards do not have the same masks.
The first is 2**32 divided by the golden ratio (Knuth 1998, The Art of Computer Programming 3, 6.4).
"""


def keys_of(b: Builder) -> tuple[Value, Value]:
    """Return the seed and the counter of training forwards; in a loop each step has its own."""
    return seed(b), _counter(b)


def _counter(b: Builder) -> Value:
    if b.outer is None or not b.number:
        return draws(b)
    apart, more = STEPS
    between = apart * more ** (b.depth - 1) % 2**32
    step = cast(b.value(b.number), "int64")
    return add(b.captured(_counter(b.outer)), mul(step, constant(b, between, "int64")))


def check_keys(keys: Sequence[TensorType]) -> None:
    """Raise ValueError unless each key of random numbers is one whole number."""
    for role, key in zip(Drawn.roles, keys, strict=False):
        if key.shape or np.dtype(key.dtype).kind not in "iu":
            raise ValueError(f"{role} is {key}, random numbers are keyed by single whole numbers")
