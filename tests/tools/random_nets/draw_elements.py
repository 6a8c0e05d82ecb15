"""Functions of each element: arithmetic, activations, comparisons, choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .calls import Rows, words
from .drawer import Drawer, Var

ANYWHERE = words(
    "relu sigmoid tanh abs sign erf floor ceil round sin cos atan asinh softsign "
    "hard_sigmoid hard_swish relu6 hard_tanh selu silu mish softplus neg stop_gradient"
)
WITHIN_ONE = words("asin acos atanh exp expm1 sinh cosh tan")
ABOVE_ZERO = words("log sqrt reciprocal log1p")
WITH_NUMBER = {"leaky_relu": (0.0, 1.0), "elu": (0.3, 2.0), "celu": (0.3, 2.0)}
COMPARISONS = words("equal not_equal less less_equal greater greater_equal")
OPERATORS = {
    "gc.add": "operator.add",
    "gc.sub": "operator.sub",
    "gc.mul": "operator.mul",
    "gc.div": "operator.truediv",
    "gc.floor_div": "operator.floordiv",
    "gc.mod": "operator.mod",
    "gc.power": "operator.pow",
    "gc.neg": "operator.neg",
    "gc.matmul": "operator.matmul",
    "gc.less": "operator.lt",
    "gc.less_equal": "operator.le",
    "gc.greater": "operator.gt",
    "gc.greater_equal": "operator.ge",
    "gc.logical_and": "operator.and_",
    "gc.logical_or": "operator.or_",
    "gc.logical_xor": "operator.xor",
    "gc.logical_not": "operator.invert",
}


def spelled(d: Drawer, function: str, *args: Any) -> Any:
    """Make a call by the function's name, or by the operator that stands for it."""
    return d.call(OPERATORS.get(function, function) if d.chance(0.5) else function, *args)


def partner(d: Drawer, v: Var) -> Var:
    """Return floats that broadcast with a value: equal, a part of its axes, or the value itself."""
    same = d.pick(lambda o: o.real and o.shape == v.shape)
    kind = d.rng.random()
    if same is not None and kind < 0.5:
        return same
    fits = d.pick(lambda o: o.real and broadcasts(o.shape, v.shape))
    if fits is not None and kind < 0.8:
        return fits
    shape = tuple(1 if isinstance(dim, Rows) or d.chance(0.3) else dim for dim in v.shape)
    shape = shape[d.whole(0, len(shape)) :]
    return d.parameter(shape) if d.chance(0.7) else d.constant(shape)


def broadcasts(small: Any, large: Any) -> bool:
    """Return whether a shape broadcasts to another as it is."""
    if len(small) > len(large):
        return False
    pairs = zip(reversed(small), reversed(large), strict=False)
    return all(a in (1, b) for a, b in pairs)


def pair(d: Drawer) -> tuple[Any, Any]:
    """Return two operands, in any order."""
    v = d.real()
    a, b = v, partner(d, v)
    return (a, b) if d.chance(0.5) else (b, a)


def anywhere(name: str) -> Callable[[Drawer], None]:
    return lambda d: d.call(f"gc.{name}", d.real())


def within_one(name: str) -> Callable[[Drawer], None]:
    return lambda d: d.call(f"gc.{name}", d.call("gc.mul", d.small(d.real()), 0.9))


def above_zero(name: str) -> Callable[[Drawer], None]:
    return lambda d: d.call(f"gc.{name}", d.above(d.real()))


def acosh(d: Drawer) -> None:
    d.call("gc.acosh", d.above(d.real(), 1.5))


def with_number(name: str) -> Callable[[Drawer], None]:
    return lambda d: d.call(f"gc.{name}", d.real(), d.number(*WITH_NUMBER[name]))


def gelu(d: Drawer) -> None:
    d.call("gc.gelu", d.real(), d.one(["erf", "tanh"]))


def thresholded_relu(d: Drawer) -> None:
    d.call("gc.thresholded_relu", d.real(), d.number(-0.5, 1))


def shrink(d: Drawer) -> None:
    threshold = d.number(0.1, 1)
    d.call("gc.shrink", d.real(), threshold, d.one([0.0, threshold, 0.2]))


def clip(d: Drawer) -> None:
    low, high = d.number(-1, 0), d.number(0.1, 1)
    d.call("gc.clip", d.real(), d.one([low, None]), high)


def arithmetic(name: str) -> Callable[[Drawer], None]:
    def draw(d: Drawer) -> None:
        a, b = pair(d)
        kind = d.rng.random()
        if kind < 0.15:
            b = d.one([0, 1, 2, -1, 0.5, d.number()])
        elif kind < 0.25:
            a, b = b, a
        spelled(d, f"gc.{name}", a, b)

    return draw


def div(d: Drawer) -> None:
    a, b = pair(d)
    if d.chance(0.2):
        spelled(d, "gc.div", a, d.one([2, 4.0, d.number(0.5, 3)]))
    else:
        spelled(d, "gc.div", 1 if d.chance(0.1) else a, d.above(b))


def power(d: Drawer) -> None:
    v = d.real()
    kind = d.rng.random()
    if kind < 0.4:
        spelled(d, "gc.power", d.small(v), d.one([2, 3, 1, 2.0]))
    elif kind < 0.6:
        spelled(d, "gc.power", d.above(v), d.number(-2, 2))
    elif kind < 0.8:
        spelled(d, "gc.power", d.number(0.5, 2), d.small(v))
    else:
        spelled(d, "gc.power", d.above(v), d.small(partner(d, v)))


def larger(name: str) -> Callable[[Drawer], None]:
    def draw(d: Drawer) -> None:
        a, b = pair(d)
        d.call(f"gc.{name}", a, d.number(-1, 1) if d.chance(0.2) else b)

    return draw


def whole_numbers(d: Drawer) -> Var:
    """Return whole numbers: ids, indices, or floats made whole."""
    found = d.pick(lambda v: v.dtype == "int64")
    if found is not None and d.chance(0.7):
        return found
    if d.chance(0.5):
        return d.input((Rows(), *d.sizes(d.whole(0, 2), 60)), "ids", 7)
    made: Var = d.call("gc.cast", d.call("gc.mul", d.small(d.real()), 5), "int64")
    return made


def remainder(name: str) -> Callable[[Drawer], None]:
    def draw(d: Drawer) -> None:
        if d.chance(0.4) or name == "trunc_div":
            v = whole_numbers(d)
            same = d.pick(lambda o: o.dtype == "int64" and o.shape == v.shape)
            divides = name in ("floor_div", "trunc_div")
            b: Any = (
                same if same is not None and divides and d.chance(0.5) else d.one([2, 3, -3, 5])
            )
            result = spelled(d, f"gc.{name}", v, b)
            d.call("gc.cast", result, d.dtype)
        else:
            a, b = pair(d)
            b = d.above(b) if d.chance(0.6) else d.one([0.75, 1.25, -1.5])
            spelled(d, f"gc.{name}", a, b)

    return draw


def bools(d: Drawer) -> Var:
    """Return bools, of a comparison or an input."""
    found = d.pick(lambda v: v.dtype == "bool")
    if found is not None and d.chance(0.6):
        return found
    if d.chance(0.2):
        return d.input((Rows(), *d.sizes(d.whole(0, 2), 60)), "bools")
    return compared(d, d.one(COMPARISONS))


def compared(d: Drawer, name: str) -> Var:
    """Return a comparison of two values, of whole numbers too."""
    if d.chance(0.25):
        v = whole_numbers(d)
        made: Var = spelled(d, f"gc.{name}", v, d.whole(0, 4))
        return made
    a, b = pair(d)
    number = d.number(-1, 1)
    made = spelled(d, f"gc.{name}", a, number if d.chance(0.3) else b)
    return made


def comparison(name: str) -> Callable[[Drawer], None]:
    return lambda d: use(d, compared(d, name))


def use(d: Drawer, condition: Var) -> None:
    """Let bools have an influence on floats."""
    kind = d.rng.random()
    if kind < 0.3:
        d.call("gc.cast", condition, d.dtype)
    elif kind < 0.8:
        choose(d, condition)


def choose(d: Drawer, condition: Var) -> None:
    fits = d.pick(lambda v: v.real and broadcasts(v.shape, condition.shape))
    a = fits if fits is not None else d.parameter(())
    b: Any = d.number() if d.chance(0.3) else d.one([d.parameter(()), a, d.constant(())])
    d.call("gc.where", condition, *((a, b) if d.chance(0.5) else (b, a)))


def where(d: Drawer) -> None:
    choose(d, bools(d))


def logical(name: str) -> Callable[[Drawer], None]:
    def draw(d: Drawer) -> None:
        whole = d.chance(0.3)
        a = whole_numbers(d) if whole else bools(d)
        if name == "logical_not":
            found = spelled(d, f"gc.{name}", a)
        else:
            b = d.pick(lambda v: v.dtype == a.dtype and broadcasts(v.shape, a.shape))
            found = spelled(d, f"gc.{name}", a, a if b is None else b)
        if whole:
            d.call("gc.cast", found, d.dtype)
        else:
            use(d, found)

    return draw


def finite(name: str) -> Callable[[Drawer], None]:
    def draw(d: Drawer) -> None:
        v = d.real()
        use(d, d.call(f"gc.{name}", v))

    return draw


def cast(d: Drawer) -> None:
    v = d.pick(lambda v: True) or d.real()
    to = d.one(["int64", "bool", d.dtype, "float32", "float64", "int32"])
    if v.real and to in ("int64", "int32"):
        v = d.call("gc.mul", d.small(v), 3)
    made = d.call("gc.cast", v, to)
    if made.dtype != d.dtype:
        d.call("gc.cast", made, d.dtype)


DRAWS: dict[str, Callable[[Drawer], None]] = {
    **{name: anywhere(name) for name in ANYWHERE},
    **{name: within_one(name) for name in WITHIN_ONE},
    **{name: above_zero(name) for name in ABOVE_ZERO},
    **{name: with_number(name) for name in WITH_NUMBER},
    **{name: arithmetic(name) for name in ("add", "sub", "mul")},
    **{name: larger(name) for name in ("maximum", "minimum")},
    **{name: remainder(name) for name in ("floor_div", "mod", "fmod", "trunc_div")},
    **{name: comparison(name) for name in COMPARISONS},
    **{f"logical_{name}": logical(f"logical_{name}") for name in ("and", "or", "xor", "not")},
    **{name: finite(name) for name in ("isnan", "isinf", "isfinite")},
    "acosh": acosh,
    "gelu": gelu,
    "thresholded_relu": thresholded_relu,
    "shrink": shrink,
    "clip": clip,
    "div": div,
    "power": power,
    "where": where,
    "cast": cast,
}
