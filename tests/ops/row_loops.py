"""Random loops, declared once for graphc and for libraries that run a plain loop in Python.

What a loop means is said row by row: one row at a time goes through its own steps, and no more.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import graphc as gc
from graphc.ir.tensor_type import shape_at

Step = Callable[[list[Any], list[Any]], tuple[list[Any], list[Any]]]
"""From slices and carried values to outputs and next values."""
EPS = 0.1
WIDTHS = (2, 3, 4)
KINDS = ("affine", "affine", "tanh", "mul", "mix", "outside", "layernorm", "dropout", "loop")


class Graphc:
    """A net, declared layer by layer; `drops` is false if it has no dropout."""

    def __init__(self, dtype: str = "float64", drops: bool = False) -> None:
        self.net, self.drops = gc.Net("loops", dtype=dtype), drops
        self.weights: dict[str, gc.Value] = {}

    tanh, sigmoid, concat = staticmethod(gc.tanh), staticmethod(gc.sigmoid), staticmethod(gc.concat)

    def input(self, name: str, shape: tuple[int, ...]) -> gc.Value:
        return self.net.input(name, (gc.N, *shape))

    def lengths(self) -> gc.Value:
        return self.net.input("lengths", (gc.N,), dtype="int64")

    def weight(self, name: str, shape: tuple[int, ...]) -> gc.Value:
        if name not in self.weights:
            start = weight_of(name, shape).astype(self.net.dtype)
            self.weights[name] = self.net.parameter(name, shape, init=start)
        return self.weights[name]

    def layernorm(self, x: gc.Value) -> gc.Value:
        return gc.layernorm(x, eps=EPS)

    def dropout(self, x: gc.Value) -> gc.Value:
        return gc.dropout(x, keep_prob=0.75) if self.drops else x

    def reshape(self, x: gc.Value, shape: tuple[int, ...]) -> gc.Value:
        return gc.reshape(x, (gc.N, *shape))

    def sum(self, x: gc.Value) -> gc.Value:
        return gc.sum(x, 1)

    def loop(
        self,
        step: Step,
        inputs: list[gc.Value],
        initial: list[gc.Value],
        steps: int,
        lengths: gc.Value | None = None,
        reverse: bool = False,
    ) -> tuple[Sequence[gc.Value], Sequence[gc.Value]]:
        def of_values(*given: gc.Value) -> tuple[Any, Any]:
            outputs, nexts = step(list(given[: len(inputs)]), list(given[len(inputs) :]))
            return tuple(outputs), tuple(nexts)

        found: tuple[Any, Any] = gc.scan(
            of_values,
            inputs,
            initial,
            lengths=lengths,
            reverse=reverse,
            steps=None if inputs else steps,
        )
        return found


class Numpy:
    """One row, computed by NumPy."""

    library: Any = np

    def __init__(self, row: Mapping[str, Any], weights: dict[str, Any]) -> None:
        self.row, self.weights = row, weights

    def input(self, name: str, shape: tuple[int, ...]) -> Any:
        return self.row[name]

    def lengths(self) -> int:
        return int(self.row["lengths"][0])

    def weight(self, name: str, shape: tuple[int, ...]) -> Any:
        if name not in self.weights:
            self.weights[name] = self.array(weight_of(name, shape))
        return self.weights[name]

    def array(self, array: Any) -> Any:
        return array

    def tanh(self, x: Any) -> Any:
        return self.library.tanh(x)

    def sigmoid(self, x: Any) -> Any:
        return 1 / (1 + self.library.exp(-x))

    def concat(self, values: Sequence[Any], axis: int) -> Any:
        return np.concatenate(values, axis)

    def stack(self, values: Sequence[Any]) -> Any:
        return np.stack(values, 1)

    def layernorm(self, x: Any) -> Any:
        centred = x - x.mean(-1)[..., None]
        return centred / self.library.sqrt((centred * centred).mean(-1)[..., None] + EPS)

    def dropout(self, x: Any) -> Any:
        return x

    def reshape(self, x: Any, shape: tuple[int, ...]) -> Any:
        return x.reshape(1, *shape)

    def sum(self, x: Any) -> Any:
        return x.sum(1)

    def loop(
        self,
        step: Step,
        inputs: list[Any],
        initial: list[Any],
        steps: int,
        lengths: int | None = None,
        reverse: bool = False,
    ) -> tuple[list[Any], list[Any]]:
        count = steps if lengths is None else min(lengths, steps)
        carried = initial
        shapes, _ = step([x[:, 0] for x in inputs], initial)
        found = [[y * 0 for y in shapes] for _ in range(steps)]
        for t in range(count - 1, -1, -1) if reverse else range(count):
            found[t], carried = step([x[:, t] for x in inputs], carried)
        return [self.stack(each) for each in zip(*found, strict=True)], carried


def weight_of(name: str, shape: tuple[int, ...]) -> Any:
    """What a weight holds to begin with, by its name."""
    return np.random.default_rng(list(name.encode())).normal(size=shape) * 0.6


def feeds_of(net: gc.Net, n: int, seed: int) -> dict[str, Any]:
    """Inputs for `n` rows; some rows have no step, and some more than there are."""
    rng = np.random.default_rng(seed)
    found: dict[str, Any] = {}
    for node in net.graph():
        if node.op.is_input:
            shape = shape_at(node.type.shape, n)
            whole = node.type.dtype == "int64"
            made = rng.integers(0, 7, shape) if whole else rng.normal(size=shape)
            found[node.name] = made.astype(node.type.dtype)
    return found


def results(lib: Any, seed: int, lengths: bool | None = None) -> dict[str, Any]:
    """The results of the random net of a seed: those of its loop, and what else it computes."""
    r = random.Random(seed)
    steps, grown = r.randint(1, 5), _Grown(lib, r.randrange(1 << 30))
    outside = lib.tanh(_affine(lib, "outside", lib.input("z", (3,)), 3))
    inputs = [lib.input(f"x{i}", (steps, r.choice(WIDTHS))) for i in range(r.choice((0, 1, 1, 2)))]
    count = r.choice((0, 1, 2, 3)) if inputs else r.choice((1, 2))
    initial = [_initial(lib, r, i, outside) for i in range(count)]
    reverse, drawn = r.random() < 0.4, r.random() < 0.5
    ends = lib.lengths() if (drawn if lengths is None else lengths) else None

    def step(slices: list[Any], carried: list[Any]) -> tuple[list[Any], list[Any]]:
        return grown.step("step", [*slices, *carried], carried, outside, 0)

    outputs, lasts = lib.loop(step, inputs, initial, steps, ends, reverse)
    found = {f"output{i}": y for i, y in enumerate(outputs)}
    found |= {f"last{i}": h for i, h in enumerate(lasts)}
    return found | {"after": _affine(lib, "shared", lib.sum(outputs[0]), 3)}


def _initial(lib: Any, r: random.Random, i: int, outside: Any) -> Any:
    width = r.choice(WIDTHS)
    if r.random() < 0.3:
        return _affine(lib, f"initial{i}", outside, width)
    return lib.input(f"h{i}", (width,))


def _affine(lib: Any, name: str, x: Any, width: int) -> Any:
    """A map to that width; weights of the name "shared" are those of all maps of their shape."""
    rows = x.shape[-1]
    name = f"{name}.{rows}.{width}"
    return x @ lib.weight(name, (rows, width)) + lib.weight(f"{name}.bias", (width,))


class _Grown:
    """Steps that grow at random, the same whenever they are run."""

    def __init__(self, lib: Any, seed: int) -> None:
        self.lib, self.seed = lib, seed

    def step(
        self, name: str, values: list[Any], carried: list[Any], outside: Any, depth: int
    ) -> tuple[list[Any], list[Any]]:
        """The outputs and next values of the step of that name."""
        r = random.Random(f"{self.seed} {name}")
        pool = list(values)
        for i in range(r.randint(2, 5)):
            kind = r.choice(KINDS[: len(KINDS) - depth])
            pool.append(self._value(r, kind, f"{name}{i}", pool, outside, depth))
        nexts = [self._next(r, f"{name}.next{i}", pool, h) for i, h in enumerate(carried)]
        return r.sample(pool, r.choice((1, 1, 2))), nexts

    def _value(
        self, r: random.Random, kind: str, name: str, pool: list[Any], outside: Any, depth: int
    ) -> Any:
        lib, x = self.lib, r.choice(pool[-3:])
        if kind == "affine":
            return _affine(lib, r.choice((name, "shared")), x, r.choice(WIDTHS))
        if kind in ("tanh", "layernorm", "dropout"):
            return getattr(lib, kind)(x)
        if kind == "mix":
            return lib.concat((x, r.choice(pool)), 1)
        if kind == "loop":
            return self._loop(r, name, x, r.choice(pool), outside, depth)
        other = outside if kind == "outside" else r.choice(pool)
        return lib.tanh(x) * lib.sigmoid(_affine(lib, name, other, x.shape[-1]))

    def _next(self, r: random.Random, name: str, pool: list[Any], h: Any) -> Any:
        new = self.lib.tanh(_affine(self.lib, name, r.choice(pool[-2:]), h.shape[-1]))
        return r.choice((new, h * 0.5 + new))

    def _loop(self, r: random.Random, name: str, x: Any, h: Any, outside: Any, depth: int) -> Any:
        """The sum of the outputs of a loop over the columns of a value, and its last value."""
        steps = x.shape[-1]

        def step(slices: list[Any], carried: list[Any]) -> tuple[list[Any], list[Any]]:
            return self.step(f"{name}.step", [*slices, *carried, h], carried, outside, depth + 1)

        columns = self.lib.reshape(x, (steps, 1))
        outputs, lasts = self.lib.loop(step, [columns], [h], steps, None, r.random() < 0.5)
        return self.lib.concat((self.lib.sum(outputs[0]), lasts[0]), 1)
