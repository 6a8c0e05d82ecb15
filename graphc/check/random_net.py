"""Random nets of chosen ops, as `gc.check_pass` draws them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from graphc.base.arguments import checked_whole
from graphc.base.errors import GraphError, shown
from graphc.declare.net import Net
from graphc.ir.build import Value, apply
from graphc.ir.init import generator
from graphc.ir.op import Op
from graphc.ir.tensor_type import N
from graphc.ops import FUNCTIONS
from graphc.ops.loops.layer import scan

__all__ = ["random_net"]

Ops = Iterable[str | Op | type[Op]]

WIDTH = 4
"""The columns of most values, so that many values fit each other."""
NUMBERS = (0.0, 1.0, 0.0, 1.0, -1.0, 2.0, -0.0)
"""The numbers that are operands beside values."""
ARITHMETIC = ("add", "sub", "mul")
FEW = 6
"""The ops of a net besides arithmetic."""
TRIES = 8
"""The draws of operands for an op, until it takes them."""


def random_net(
    seed: int,
    *,
    ops: Ops | None = None,
    steps: int = 8,
    dtype: str = "float32",
) -> Net:
    """Return a small random net, the same for the same arguments.

    Each step applies an op to values of the net: often to the last one, to a value twice, or to
    a value and a number such as 0 or 1.  All values that nothing reads are outputs, and all
    outputs and a parameter are in the loss.

    Parameters
    ----------
    seed
        The seed of all choices.
    ops
        What the steps may apply: names such as "mul" or "affine", or ops, which may be your own.
        None means arithmetic, and six others, chosen by the seed.
    steps
        The number of steps.
    dtype
        The dtype of floats.

    Returns
    -------
    Net
        A net with inputs, a parameter, outputs and a loss.

    Raises
    ------
    GraphError
        If an op is not known here, or no value of the net fits any of them.

    Examples
    --------
    >>> from graphc.check import random_net
    >>> net = random_net(3, ops=["mul", "tanh"], steps=2)
    >>> {"mul", "tanh"} < {node.op.name for node in net.graph()}
    True
    """
    growth = Growth(checked_whole("random_net: seed", seed, None), dtype)
    chosen = [_draw_of(op) for op in (growth.some() if ops is None else listed_ops(ops))]
    for _ in range(checked_whole("random_net: steps", steps)):
        growth.step(chosen[int(growth.rng.integers(len(chosen)))])
    if not growth.made:
        raise GraphError(
            "random_net: no value of the net fits any of the ops",
            hint='its values are floats of the shape (N, 4); add an op that takes such: "relu"',
        )
    if ops is None and growth.chance(0.5):
        growth.alike()
    growth.finish()
    return growth.net


class Growth:
    """A net in the making, and its values that steps may read."""

    def __init__(self, seed: int, dtype: str) -> None:
        self.rng = generator(seed, "random_net")
        self.net = Net(f"random_{seed}", dtype=dtype)
        self.pool = [self.net.input(f"x{i}", (N, WIDTH)) for i in range(2)]
        self.pool.append(self.net.parameter("p", (WIDTH,), init="ones"))
        if self.chance(0.3):
            self.pool.append(self.net.input("cube", (N, 2, WIDTH)))
        self.made: list[Value] = []
        """The results of the steps."""

    def some(self) -> list[str]:
        """Return some ops: in a net of few ops more of them meet."""
        kept = self.rng.choice(len(DRAWS), FEW, replace=False)
        return [*ARITHMETIC, *(list(DRAWS)[int(i)] for i in kept)]

    def step(self, draw: Draw) -> None:
        """Apply an op to operands that it takes; do nothing if none are found."""
        for _ in range(TRIES):
            try:
                with self.net.builder.all_or_nothing():
                    made = draw(self)
            except (GraphError, ValueError, IndexError):  # the operands do not fit
                continue
            self.made.append(made)
            if made.type.is_float:
                self.pool.append(made)
            return

    def alike(self) -> None:
        """Apply two ops that differ in attributes alone."""
        x = self.matrix()
        self.made += call("clip", x, -0.5, 1.0), call("clip", x, -1.0, 0.5)

    def finish(self) -> None:
        """Declare an output of each value that nothing reads, and a loss of all that are floats.

        Its derivative is not 0 where a value is, as behind a relu.
        """
        graph = self.net.graph()
        ends = [value for value in self.made if not graph.users[value.name]]
        total = call("mean", self.pool[2] ** 2)
        for number, value in enumerate(ends):
            self.net.output(f"out{number}", value)
            if value.type.is_float:
                total = total + call("mean", value * (value + 0.5))
        self.net.loss("loss", total)

    def chance(self, probability: float) -> bool:
        """Return True as often as that."""
        return bool(self.rng.random() < probability)

    def value(self) -> Value:
        """Return a value of the pool: half of the time the last one."""
        if self.chance(0.5):
            return self.pool[-1]
        return self.pool[int(self.rng.integers(len(self.pool)))]

    def matrix(self) -> Value:
        """Return a value of rows and columns."""
        found = self.value()
        return found if found.type.rank == 2 else self.pool[0]

    def like(self, x: Value) -> Value:
        """Return a value of x's shape; often x itself."""
        same = [value for value in self.pool if value.shape == x.shape]
        return x if self.chance(0.3) else same[int(self.rng.integers(len(same)))]

    def number(self) -> float:
        """Return a number that is an operand."""
        return float(self.rng.choice(NUMBERS))

    def images(self) -> Value:
        """Return images: the last ones, or new ones of two channels made of a matrix."""
        known = [value for value in self.pool if value.type.rank == 4]
        if known and self.chance(0.6):
            return known[-1]
        size = 8 if self.chance(0.4) else 3
        return call("reshape", call("affine", self.matrix(), 2 * size**2), (N, 2, size, size))

    def name(self, base: str) -> str:
        """Return a name that is free."""
        return self.net.builder.unique(base)

    def axis(self, x: Value) -> int:
        """Return an axis of x, mostly not that of the batch."""
        first = 0 if x.type.rank == 1 or self.chance(0.1) else 1
        return int(self.rng.integers(first, x.type.rank))


def call(name: str, *operands: Any, **options: Any) -> Value:
    """Return what the function of that name makes."""
    made: Value = FUNCTIONS[name](*operands, **options)
    return made


Draw = Callable[[Growth], Value]


def listed_ops(ops: Ops) -> tuple[str | Op | type[Op], ...]:
    """Return the ops; raise GraphError unless there are some."""
    found = () if isinstance(ops, (str, Op)) or not isinstance(ops, Iterable) else tuple(ops)
    if not found:
        raise GraphError(
            f"ops is {shown(ops)}, it must be a list of ops", hint='ops=["mul", "tanh"]'
        )
    return found


def _draw_of(op: str | Op | type[Op]) -> Draw:
    """Return the step for an op; raise GraphError if there is none."""
    if isinstance(op, Op):
        return partial(_own, op)
    name = op.removesuffix("2d") if isinstance(op, str) else str(getattr(op, "name", op))
    if name in DRAWS:
        return DRAWS[name]
    hint = f"it knows {', '.join(DRAWS)}; an op of your own is given itself: ops=[MyOp()]"
    raise GraphError(f"random_net: there is no op {shown(op)}", hint=hint)


def _own(op: Op, g: Growth) -> Value:
    """Apply an op with its attributes to as many values as it has roles."""
    x = g.value()
    more = (g.like(x) if g.chance(0.6) else g.value() for _ in op.roles[1:])
    return apply(op, x, *more)


def _unary(name: str, g: Growth) -> Value:
    return call(name, g.value())


def _positive(name: str, g: Growth) -> Value:
    """Apply a function of positive numbers."""
    return call(name, call("abs", g.value()) + 0.5)


def _binary(name: str, g: Growth) -> Value:
    """Apply an op to two values, to one twice, or to a value and a number."""
    x = g.value()
    if g.chance(0.3):
        number = g.number()
        return call(name, x, number) if g.chance(0.7) else call(name, number, x)
    return call(name, x, g.like(x) if g.chance(0.7) else g.value())


def _compared(name: str, g: Growth) -> Value:
    """Choose between two values by a comparison."""
    x = g.value()
    return call("where", call(name, x, g.number()), x, g.like(x))


def _reduced(name: str, g: Growth) -> Value:
    x = g.value()
    return call(name, x, g.axis(x), keepdims=g.chance(0.6))


def _along(name: str, g: Growth) -> Value:
    x = g.value()
    return call(name, x, g.axis(x))


def _divided(g: Growth) -> Value:
    x = g.value()
    return x / (g.number() or 2.0) if g.chance(0.4) else x / (1.5 + x * x)


def _matmul(g: Growth) -> Value:
    x = g.matrix()
    return x @ g.net.parameter(g.name("w"), (_columns(x), WIDTH), init="he")


def _columns(x: Value) -> int:
    last = x.shape[-1]
    if not isinstance(last, int):
        raise ValueError("its columns are the batch")
    return last


def _reshaped(g: Growth) -> Value:
    x = g.value()
    return call("reshape", x, (N, -1) if x.type.rank > 2 else (N, 2, _columns(x) // 2))


def _transposed(g: Growth) -> Value:
    """Permute axes; half of the time there and back."""
    x = g.value()
    axes = [int(axis) for axis in g.rng.permutation(x.type.rank)]
    found = call("transpose", x, axes)
    back = [axes.index(i) for i in range(len(axes))]
    return call("transpose", found, back) if g.chance(0.5) else found


def _joined(g: Growth) -> Value:
    x = g.matrix()
    found = call("concat", [x, g.like(x)], 1)
    return found[:, :WIDTH] if g.chance(0.5) else found


def _slice(g: Growth) -> Value:
    x = g.matrix()
    start = int(g.rng.integers(2))
    return x[:, start : start + 2]


def _embedded(g: Growth) -> Value:
    return call("embedding", g.net.input(g.name("ids"), (N,), dtype="int64"), 5, WIDTH)


def _looped(g: Growth) -> Value:
    """Run a recurrent layer over two steps; one that comes first, over enough for segments, too."""
    x, steps = g.matrix(), 2 if g.made or g.chance(0.5) else 32
    fed = call("reshape", call("affine", x, steps * WIDTH), (N, steps, WIDTH))
    w, u = (g.net.parameter(g.name("w"), (WIDTH, WIDTH), init="he") for _ in range(2))

    def step(x: Value, h: Value) -> tuple[Value, Value]:
        h = call("tanh", x @ w + h @ u)
        return h, h

    states, last = scan(step, fed, call("affine", x, WIDTH))
    made: Value = last if g.chance(0.5) else states[:, 1]
    return made


UNARY: Sequence[str] = (
    *("relu", "tanh", "sigmoid", "exp", "neg", "abs", "sin", "cos", "erf", "softplus", "sign"),
    *("floor", "round", "stop_gradient", "gelu", "silu", "elu", "selu", "leaky_relu", "mish"),
    *("softsign", "hard_sigmoid", "hard_swish", "celu", "thresholded_relu", "standardize"),
)
DRAWS: Mapping[str, Draw] = {
    **{name: partial(_unary, name) for name in UNARY},
    **{name: partial(_positive, name) for name in ("log", "sqrt", "log1p", "reciprocal")},
    **{name: partial(_binary, name) for name in ("add", "sub", "mul", "maximum", "minimum")},
    **{name: partial(_reduced, name) for name in ("sum", "mean", "max", "min")},
    **{name: partial(_along, name) for name in ("softmax", "log_softmax", "cumsum", "argmax")},
    **{name: partial(_compared, name) for name in ("less", "less_equal", "greater", "equal")},
    "div": _divided,
    "power": lambda g: g.value() ** int(g.rng.integers(1, 4)),
    "where": partial(_compared, "greater_equal"),
    "clip": lambda g: call("clip", g.value(), -1.0, g.rng.choice([0.0, 1.0])),
    "matmul": _matmul,
    "affine": lambda g: call("affine", g.matrix(), WIDTH),
    "batchnorm": lambda g: call("batchnorm", g.images() if g.chance(0.5) else g.matrix()),
    "layernorm": lambda g: call("layernorm", g.matrix()),
    "dropout": lambda g: call("dropout", g.matrix(), keep_prob=0.5),
    "random_normal": lambda g: call("random_normal", g.matrix()),
    "reshape": _reshaped,
    "transpose": _transposed,
    "concat": _joined,
    "slice": _slice,
    "pad": lambda g: call("pad", g.matrix(), ((0, 0), (1, 0)), g.number()),
    "embedding": _embedded,
    "scan": _looped,
    "conv": lambda g: call("conv2d", g.images(), 2, 2, padding=1),
    "max_pool": lambda g: call("max_pool", g.images(), 2, 1),
    "avg_pool": lambda g: call("avg_pool", g.images(), 2, 1),
}
"""The step for each op by its name."""
