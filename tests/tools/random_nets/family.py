"""A family drawn: a small net, and others that differ from one of it in one thing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import numpy as np

from .calls import Call, Ref, Rows, change, leaves, made
from .case import Case
from .draw import NAMES, finished, step
from .draw_elements import ANYWHERE
from .draw_layers import sequence
from .drawer import Drawer, Feed, Skip
from .loops import LINES

WORDS = (
    *(("float32", "float64"), ("tanh", "relu"), ("erf", "tanh"), ("mul", "add", "leaky")),
    ("sin", "tanh", "sigmoid", "erf", "softsign"),
)
"""The words that may stand for each other."""
FUNCTIONS = (
    [f"gc.{name}" for name in ANYWHERE],
    ["gc.sum", "gc.mean"],
    ["gc.add", "gc.sub", "gc.mul", "operator.add", "operator.sub", "operator.mul"],
    ["gc.lstm", "gc.gru", "gc.rnn"],
)
"""The functions that may stand for each other."""
RECURRENT = "lstm", "gru", "rnn"
WINDOWS = "conv1d", "conv2d", "conv", "max_pool", "avg_pool", "conv_transpose1d"
"""What is drawn more often than the rest, and often twice in a net."""
KINDS = "loop", "recurrent", "windows", "signs", "other"
PRODUCTS = {
    "": (0.4, 0.1, 0.15, 0.07, 0.28),
    "bf16": (0.5, 0.2, 0.3, 0, 0),
    "bf16_blocks": (0.5, 0.2, 0.3, 0, 0),
    "int8": (0, 0, 0.8, 0, 0.2),
}
"""What factors are rounded to, and how often nets of each kind are drawn then."""
WEIGHTS = {
    **{"net.loss": 0, "net.output": 0, "net.input": 2, "net.parameter": 1, "loops.scan": 12},
    **{f"gc.{name}": 9 for name in WINDOWS},
}
"""How often a call of a function is changed; loops and windows have many numbers."""


def family(seed: int) -> list[Case]:
    """Return a net and one or two that differ in one thing from it, or from each other."""
    rng = np.random.default_rng([seed, 37])
    products = str(rng.choice([*PRODUCTS], p=[0.85, 0.05, 0.05, 0.05]))
    d = Drawer(rng, "float64" if not products and rng.random() < 0.7 else "float32")
    kind = str(rng.choice(KINDS, p=PRODUCTS[products]))
    if kind == "loop":
        loop(d)
    elif kind == "signs":
        signs(d)
    elif kind != "other":
        windows = WINDOWS[:3] if products else WINDOWS  # convolutions have products
        step(d, d.one(windows if kind == "windows" else RECURRENT))
    if d.calls and d.chance(0.7 if kind == "windows" else 0.4):
        twin(d)
    if kind == "other" or d.chance(0.6):
        step(d, d.one(NAMES))
    members = [small(finished(d, seed), d, products)]
    for _ in range(1 + d.chance(0.15)):
        other = changed(d.one(members), rng)
        members += [other] if other is not None else []
    return [members[i] for i in rng.permutation(len(members))]


def small(case: Case, d: Drawer, products: str) -> Case:
    """Return the case with one action on few rows, and without what that does not need."""
    rows = d.whole(1, 4)
    batch = rows if d.chance(0.5) else d.whole(rows, 20)  # code for more rows may be another
    action = "infer" if products == "int8" else case.actions[-1][0]
    if action != "infer" and d.chance(0.5):
        action = "train"
    actions = ((action, d.whole(1, rows)),)
    case = replace(case, batch=batch, actions=actions, products=products)
    if action in ("infer", "train"):
        case = replace(case, optimizer=None)
    if action == "infer":
        calls = tuple(call for call in case.calls if call.function != "net.loss")
        case = replace(case, calls=calls, losses={}, wrt=None)
    return case


def loop(d: Drawer) -> None:
    """Draw a loop with numbers in its step."""
    x = sequence(d)
    width = int(x.shape[2])  # type: ignore[arg-type]
    options: dict[str, Any] = {"reverse": d.chance(0.3), "name": d.name("loop")}
    if d.chance(0.6):
        options["weight"] = d.parameter((width, width))
    if d.chance(0.3):
        options["lengths"] = d.input((Rows(),), "ids", int(x.shape[1]) + 1)  # type: ignore[arg-type]
    names = [*LINES, "mul", "mul", "mix", "mix", "add"]
    names += ["product"] * (4 if "weight" in options else 0)
    lines = tuple(line(d, d.one(names)) for _ in range(d.whole(1, 3)))
    d.call("loops.scan", x, lines, **options)


def signs(d: Drawer) -> None:
    """Draw what depends on the sign of a zero alone."""
    zero, v = d.one([0.0, -0.0]), d.input((Rows(), d.whole(1, 5)))
    made = {
        "gc.clip": lambda zero: d.call("gc.clip", v, zero, 1.0),
        "gc.leaky_relu": lambda zero: d.call("gc.leaky_relu", v, zero),
        "gc.pad": lambda zero: d.call("gc.pad", v, ((0, 0), (1, 0)), zero),
        "gc.where": lambda zero: d.call("gc.where", d.call("gc.greater", v, 0.1), v, zero),
        "gc.mul": lambda zero: d.call("gc.mul", v, zero),
    }
    kind = d.one([*made, "gc.clip", "gc.clip"])
    for number in (zero, -zero)[: d.whole(1, 2)]:
        d.call("gc.sign", d.call("gc.reciprocal", made[kind](number)))


def twin(d: Drawer) -> None:
    """Draw the last call once more, but for one number or word, or with its paddings turned."""
    known = {v.name: v for v in d.pool}

    def value(leaf: Any) -> Any:
        return known[leaf.name] if isinstance(leaf, Ref) else leaf

    call = d.calls[-1]
    args, kwargs = change((call.args, dict(call.kwargs)), value)
    places = [i for i, x in enumerate(leaves((args, kwargs))) if isinstance(x, (int, float, str))]
    if not places or call.function.startswith("net."):
        return
    with suppress(Exception):  # what cannot be declared is not a net
        if isinstance(kwargs.get("padding"), list) and d.chance(0.7):
            kwargs["padding"] = [pair[::-1] for pair in kwargs["padding"]]
        else:
            args, kwargs = _with_leaf((args, kwargs), d.one(places), d.rng)
        own = {"name": d.name("twin"), "trained": True} if "name" in kwargs else {}
        d.call(call.function, *args, **{**kwargs, **own})


def line(d: Drawer, name: str) -> tuple[Any, ...]:
    """Draw one function of a step, with its numbers."""
    if name == "function":
        return name, d.one(["sin", "tanh", "sigmoid", "erf"])
    if name == "product":
        return name, d.chance(0.5)
    numbers = [0.0, -0.0, 1.0, 1, 2] + [d.number(-1, 1) for _ in range(9)]
    return (name, *(d.one(numbers) for _ in range(2 if name == "where" else 1)))


def changed(case: Case, rng: np.random.Generator) -> Case | None:
    """Return a net that differs in one thing from another, and can be declared."""
    for _ in range(12):
        with suppress(Exception):  # what cannot be declared is not a net
            other = _changed(case, rng)
            made(other.calls, other.dtype)
            if repr(other) != repr(case):
                return other
    return None


def _changed(case: Case, rng: np.random.Generator) -> Case:
    if rng.random() < 0.05:
        return replace(case, dtype="float32" if case.dtype == "float64" else "float64")
    if rng.random() < 0.05:
        return replace(case, batch=case.batch + 1)
    if case.products.startswith("bf16") and rng.random() < 0.1:
        return replace(case, products=_one(rng, ["bf16", "bf16_blocks"]))
    if case.optimizer is not None and rng.random() < 0.1:
        return replace(case, optimizer=_other_optimizer(case.optimizer, rng))
    weights = [WEIGHTS.get(call.function, 3) for call in case.calls]
    at = int(rng.choice(len(weights), p=np.array(weights) / sum(weights)))
    call = case.calls[at]
    same = [group for group in FUNCTIONS if call.function in group]
    if same and rng.random() < 0.3:
        other = Call(call.results, _one(rng, same[0]), call.args, call.kwargs)
    else:
        tree = call.args, dict(call.kwargs)
        shares = np.array([_share(leaf, call) for leaf in leaves(tree)])
        if not shares.any():
            raise Skip
        place = int(rng.choice(len(shares), p=shares / shares.sum()))
        args, kwargs = _with_leaf(tree, place, rng)
        other = Call(call.results, call.function, args, kwargs)
    inputs = dict(case.inputs)
    if call.function == "net.input":
        feed = inputs.pop(str(call.args[0]))
        inputs[str(other.args[0])] = Feed(other.args[1], feed.kind, feed.count)
    return replace(case, calls=(*case.calls[:at], other, *case.calls[at + 1 :]), inputs=inputs)


def _share(leaf: Any, call: Call) -> float:
    """Return how often a leaf is changed: numbers more often than what is on or off, or a name."""
    if isinstance(leaf, (Ref, Rows)):
        return 0
    if isinstance(leaf, str):
        return 0.5 if leaf == call.kwargs.get("name") else 3
    return 1 if isinstance(leaf, bool) or leaf is None else 5


def _with_leaf(tree: Any, place: int, rng: np.random.Generator) -> Any:
    """Return a tree of arguments with another leaf at a place, or turned round with the next."""
    found = [*leaves(tree)]
    leaf, following = (*found[place : place + 2], None)[:2]
    if type(leaf) is type(following) and not isinstance(leaf, str) and rng.random() < 0.3:
        found[place : place + 2] = following, leaf
    else:
        found[place] = other_leaf(leaf, rng)
    given = iter(found)
    return change(tree, lambda _: next(given))


def other_leaf(leaf: Any, rng: np.random.Generator) -> Any:
    """Return a number, word or array that differs: often in little, or only in type or sign."""
    if isinstance(leaf, str):
        return _one(
            rng, [word for group in WORDS if leaf in group for word in group] or [f"{leaf}b"]
        )
    if isinstance(leaf, np.ndarray):
        other = leaf.copy()
        place = int(rng.integers(leaf.size))
        other.flat[place] = other_leaf(leaf.flat[place].item(), rng)
        return other
    if isinstance(leaf, bool) or leaf is None:
        return _one(rng, [not leaf, not leaf, not leaf, int(leaf or 0)])
    if isinstance(leaf, int):
        return _one(rng, [leaf + 1, leaf + 1, leaf - 1, -leaf, float(leaf), 2 * leaf])
    equal_ones = [int(leaf)] if leaf.is_integer() else []
    return _one(rng, [-leaf, 0.5 * leaf, leaf + 0.25, leaf + 1, *equal_ones])


def _other_optimizer(optimizer: Any, rng: np.random.Generator) -> Any:
    names = [f.name for f in fields(optimizer) if type(getattr(optimizer, f.name)) in (float, bool)]
    name = _one(rng, names)
    return replace(optimizer, **{name: other_leaf(getattr(optimizer, name), rng)})


def _one(rng: np.random.Generator, items: Sequence[Any]) -> Any:
    return items[int(rng.integers(len(items)))]
