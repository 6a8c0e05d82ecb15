"""A student's functions, run on one input of `check_layer`: results, and what they overwrite."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.base.errors import counted
from graphc.check.course.compare import Finding, described, numbers
from graphc.check.course.spec import Case, Spec
from graphc.ir.op import Array

Function = Callable[..., Any]
_NO_RETURN = "the function ends without a return statement, or returns None"
NEVER = "it is still None where it is returned"
"""The cause of a result that is None."""


class Raised(Exception):
    """Raised if a student's function raises, or returns the wrong number of values."""

    def __init__(self, what: str, text: str, cause: str = "") -> None:
        super().__init__(text)
        self.what, self.cause = what, cause


class Student:
    """A student's functions on one case; every call gets new copies of the arrays."""

    def __init__(
        self, spec: Spec, forward: Function, backward: Function | None, case: Case
    ) -> None:
        self.spec, self.case = spec, case
        self._forward, self._backward, self.has_backward = forward, backward, backward is not None
        self.param: dict[str, Any] = {}
        self.given: dict[str, Any] = {}

    @property
    def must_flatten(self) -> bool:
        """Return whether the samples have dimensions that the function has to flatten."""
        return self.spec.flattens and self.case.x.ndim > 2

    def forward(
        self, arrays: Mapping[str, Any] | None = None, param: Mapping[str, Any] | None = None
    ) -> tuple[tuple[Any, ...], Any]:
        """Return the outputs and the cache, or a loss and dx; raise Raised for anything else.

        Arrays and settings are those of the case, unless they are given.
        """
        self.given = {k: np.array(v) for k, v in (arrays or self.case.arrays).items()}
        self.param = copy.deepcopy(dict(param or self.case.param))
        more = [*self.case.more.values(), *([self.param] if self.spec.takes_param else [])]
        names = (*self.spec.outputs, "dx" if self.spec.is_loss else "cache")
        result = _call("forward", self._forward, *self.given.values(), *more)
        *outputs, cache = _values("forward", result, len(names), f"({', '.join(names)})")
        return tuple(outputs), cache

    def backward(self, cache: Any, douts: Sequence[Array] | None = None) -> dict[str, Any]:
        """Return the gradients by name; raise Raised for another number of them."""
        assert self._backward is not None
        names = self.spec.gradients
        result = _call("backward", self._backward, *(douts or self.douts()), cache)
        values = _values("backward", result, len(names), ", ".join(names))
        return dict(zip(names, values, strict=True))

    def douts(self) -> list[Array]:
        """Return new copies of the gradients of the outputs."""
        return [self.case.dout.copy(), *(dout.copy() for dout in self.case.douts)]

    def outputs(self) -> tuple[dict[str, Any], Any]:
        """Return the outputs and running statistics by name, and the cache; or a loss and dx."""
        outputs, cache = self.forward()
        if self.spec.is_loss:
            return {"loss": outputs[0], "dx": cache}, None
        statistics = {name: self.param.get(name) for name in self.case.param}
        return copy.deepcopy(self.spec.results(outputs, statistics)), cache

    def finding(self, what: str, text: str, cause: str = "") -> Finding:
        """Return a finding about the case."""
        return Finding(what, text, str(self.case), cause)

    def overwritten(self) -> Iterator[Finding]:
        """Yield the arguments and caches that the functions overwrite."""
        _, cache = self.forward()
        found = next(self.overwritten_arguments(), None)
        if found is not None:
            yield found
        elif self.has_backward:
            yield from self._overwritten_by_backward(cache, self.given)

    def overwritten_arguments(self) -> Iterator[Finding]:
        """Yield the arguments that the last call of forward overwrote."""
        cause = "cache overwritten: work on a copy, or make a new array by an expression"
        for name, array in self.given.items():
            if not np.array_equal(array, self.case.arrays[name]):
                yield self.finding(name, f"forward overwrites its argument {name}", cause)

    def overwritten_douts(self, douts: Sequence[Array]) -> Iterator[Finding]:
        """Yield the cotangents that backward overwrote."""
        for output, dout, given in zip(self.spec.outputs, douts, self.douts(), strict=True):
            name = "dout" if output == "out" else f"d{output}"
            if not np.array_equal(dout, given):
                cause = f"{name} is changed in place; work on a copy"
                yield self.finding(name, f"backward overwrites its argument {name}", cause)

    def _overwritten_by_backward(self, cache: Any, given: dict[str, Any]) -> Iterator[Finding]:
        """Yield the fault of a cache that backward, or a second forward, overwrites."""
        douts = self.douts()
        first = copy.deepcopy(self.backward(cache, douts))
        yield from self.overwritten_douts(douts)
        second = self.backward(cache)
        kept = all(np.array_equal(given[k], self.case.arrays[k]) for k in given)
        if not kept or not _equal(first, second):
            text = "backward called twice with the same cache gives different results"
            if not kept:
                text = "backward changes an array that the cache holds"
            cause = "cache overwritten by backward: work on a copy of what the cache holds"
            yield self.finding("cache", text, cause)
            return
        _, cache = self.forward()
        self.forward({k: v if v.dtype.kind != "f" else v[::-1] * 2 + 1 for k, v in given.items()})
        if not _equal(first, self.backward(cache)):
            text = "a second forward changes what backward returns for the first one's cache"
            cause = "cache overwritten by forward: give each call its own arrays"
            yield self.finding("cache", text, cause)


def _equal(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    pairs = ((numbers(a[name]), numbers(b[name])) for name in a)
    return all(
        x is y if x is None or y is None else np.array_equal(x, y, equal_nan=True) for x, y in pairs
    )


def _values(what: str, result: Any, count: int, wanted: str) -> Sequence[Any]:
    """Return the values that a function returned; raise Raised if they are not that many."""
    several = isinstance(result, (tuple, list))
    values: Sequence[Any] = result if several else (result,)
    if len(values) == count:
        return values
    found = counted(len(values), "value") if several else described(result)
    cause = _NO_RETURN if result is None else ""
    raise Raised(what, f"{what} returns {found}, not {wanted}", cause)


def _call(what: str, function: Function, *args: Any) -> Any:
    try:
        with np.errstate(all="ignore"):
            return function(*args)
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise Raised(what, f"{what} raised {type(error).__name__}: {first}") from error
