"""Calls of a rule on arrays: the outputs with a cache, and the gradients from the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.base.arguments import checked_number, checked_whole
from graphc.base.docstrings import T, with_shared
from graphc.base.errors import GraphError, Operand
from graphc.ir.op import Array, Op
from graphc.ir.tensor_type import FLOATS
from graphc.runtime.reference import (
    Build,
    Rule,
    evaluate,
    expanded,
    gradients,
    operand_names,
    types_of,
)

Param = MutableMapping[str, Any]
"""The settings of a layer, by the course's names."""

CACHED = """
Returns
-------
Array, Cache
    The output, and the cache for the backward function.
"""
"""The section of the docstring of a forward function."""
_BACKWARD = """
Parameters
----------
dout, dh, dnext_h, dnext_c
    The gradient of each output, in its shape.
cache
    The cache that the forward function returned.

Returns
-------
{arrays}
    The gradient{s} {names}.
"""


def returns_gradients(*names: str) -> Callable[[T], T]:
    """Return the decorator of a backward function that returns arrays of these names."""
    arrays, s = ", ".join(["Array"] * len(names)), "s" * (len(names) > 1)
    return with_shared(_BACKWARD, arrays=arrays, s=s, names=", ".join(names))


@dataclass(frozen=True)
class Cache:
    """The rule of a forward function, and the arrays that the rule takes."""

    rule: Rule
    ins: tuple[Array, ...]
    train: bool = False


def floats(call: str, **given: Any) -> dict[str, Array]:
    """Return arrays in their common float dtype; whole numbers count as float64.

    Raise GraphError for what is not an array of real numbers.
    """
    arrays = {name: numbers(call, name, array) for name, array in given.items()}
    common = np.result_type(*arrays.values()).name
    dtype = common if common in FLOATS else "float64"
    return {name: array.astype(dtype, copy=False) for name, array in arrays.items()}


def numbers(call: str, name: str, given: Any) -> Array:
    """Return what was given as an array; raise GraphError for what is not one of real numbers."""
    try:
        array = np.asarray(given)
    except ValueError:  # a ragged list
        array = np.asarray(None)
    if array.dtype.kind not in "fiub":
        if array is given:
            raise fail(call, f"{name} is an array of {array.dtype}, not of real numbers")
        raise fail(call, f"{name} is a {type(given).__name__}, not an array of real numbers")
    return array


def forward(
    call: str, rule: Rule, given: Mapping[str, Array], train: bool = False
) -> tuple[Any, ...]:
    """Return the outputs of a rule, and a cache; raise GraphError if the arrays do not fit."""
    ins = tuple(given.values())
    if isinstance(rule, Op):
        infer(call, rule, given)
        return np.array(rule.reference_in(ins, train)), Cache(rule, ins, train)
    graph = expanded(rule, types_of(ins), train)
    values = evaluate(graph, given, {}, 1)
    return *(np.array(values[name]) for name in graph.outputs.values()), Cache(rule, ins, train)


def infer(
    call: str, op: Op, given: Mapping[str, Array], shown: Mapping[str, Array] | None = None
) -> None:
    """Raise GraphError, in the op's words, for arrays that it does not take.

    The error shows the arrays that the user gave, if they are others.
    """
    try:
        op.infer(types_of(tuple(given.values())))
    except ValueError as error:
        raise fail(call, str(error).partition("\n")[0], shown or given) from None


def backward(
    call: str, kind: type[Op] | Build, cache: Any, *douts: Any, of: int | None = None
) -> tuple[Any, ...]:
    """Return the gradients of the first `of` operands, or of all.

    Raise GraphError for the cache of another rule, or for a dout that has not its output's shape.
    """
    if not isinstance(cache, Cache) or not (
        isinstance(cache.rule, kind) if isinstance(kind, type) else cache.rule is kind
    ):
        raise not_a_cache(call)
    ins = dict(zip(operand_names(cache.rule, len(cache.ins)), cache.ins, strict=True))
    real = {role: array for role, array in ins.items() if array.dtype.kind == "f"}
    outputs = _output_shapes(cache)
    given = floats(call, **real, **dict(zip(outputs, douts, strict=True)))
    for name, wanted in outputs.items():
        if given[name].shape != wanted:
            raise fail(call, f"{name} has shape {given[name].shape}, the output has {wanted}")
    feeds = {role: given.get(role, array) for role, array in ins.items()}
    graph = expanded(cache.rule, types_of(tuple(feeds.values())), cache.train)
    return tuple(gradients(graph, feeds, [given[name] for name in outputs], tuple(ins)[:of]))


def _output_shapes(cache: Cache) -> dict[str, tuple[Any, ...]]:
    """Return the shapes of a rule's outputs, by the names of their gradients."""
    graph = expanded(cache.rule, types_of(cache.ins), cache.train)
    return {
        "dout" if name == "out" else f"d{name}": graph[value].type.shape
        for name, value in graph.outputs.items()
    }


def cache_of(call: str, op: Op, arrays: Any, *names: str) -> Cache:
    """Return the cache of an op from the tuple of arrays that the course keeps.

    Raise GraphError if there are not as many as names, or if they do not fit.
    """
    if not isinstance(arrays, tuple) or len(arrays) != len(names):
        raise not_a_cache(call)
    given = floats(call, **dict(zip(names, arrays, strict=True)))
    infer(call, op, given)
    return Cache(op, tuple(given.values()))


# ---------------------------------------------------------------- settings


def setting(call: str, param: Param, name: str, default: Any = None) -> Any:
    """Return an entry of a dictionary; raise GraphError for anything but a dictionary."""
    if not isinstance(param, Mapping):
        raise fail(call, f"the settings are {param!r}, they must be a dictionary")
    return param.get(name, default)


def count_in(call: str, param: Param, name: str, least: int = 1) -> int:
    """Return a whole number of a dictionary; raise GraphError unless it is at least `least`."""
    return checked_whole(f"{call}: {name}", setting(call, param, name), least)


def eps_in(call: str, param: Param) -> float:
    """Return `eps` of a dictionary; raise GraphError unless it is a number from 0 up."""
    return checked_number(f"{call}: eps", setting(call, param, "eps", 1e-5), least=0)


def trains(call: str, param: Param) -> bool:
    """Return whether `mode` of a dictionary is "train"; raise GraphError unless "test" is else."""
    mode = setting(call, param, "mode")
    if mode not in ("train", "test"):
        raise fail(call, f"mode is {mode!r}, it must be 'train' or 'test'")
    return bool(mode == "train")


# ---------------------------------------------------------------- mistakes


def fail(call: str, sentence: str, arrays: Mapping[str, Array] | None = None) -> GraphError:
    """Return an error at the user's line, with the arrays that were given."""
    operands = [
        Operand(name, str(array.dtype), str(array.shape), None)
        for name, array in (arrays or {}).items()
    ]
    return GraphError(f"{call}: {sentence}", operands=operands)


def not_a_cache(call: str) -> GraphError:
    """Return the error for a cache of something else."""
    return fail(call, "the cache is not one that the forward function returned")


def check_range(
    call: str, what: str, found: Array, of: tuple[int, str], arrays: Mapping[str, Array]
) -> None:
    """Raise GraphError if a number is below 0 or not below the count of `of`."""
    count, name = of
    if found.size and (found.min() < 0 or found.max() >= count):
        worst = int(found.min() if found.min() < 0 else found.max())
        message = f"{what} {worst} is not one of the {count} {name}, 0 to {count - 1}"
        raise fail(call, message, arrays)


def check_sizes(call: str, shapes: str, given: Mapping[str, Array]) -> None:
    """Raise GraphError unless arrays have shapes such as "N D, N H, D 4H".

    A letter is one size everywhere; the first array that has it decides.
    """
    known: dict[str, int] = {}
    for (name, array), text in zip(given.items(), shapes.split(", "), strict=True):
        shape, dims = array.shape, [(int(dim[:-1] or 1), dim[-1]) for dim in text.split()]
        for (_, letter), size in zip(dims, shape, strict=False):
            known.setdefault(letter, size)
        wanted = tuple(factor * known.get(letter, 0) for factor, letter in dims)
        if shape != wanted:
            what = f"({text.replace(' ', ', ')}{',' * (len(dims) == 1)})"
            seen = f" = {wanted}" if len(shape) == len(dims) else ""
            raise fail(call, f"{name} has shape {shape}, it should have {what}{seen}", given)
    if known.get("T") == 0:
        raise fail(call, "x has no steps", given)
