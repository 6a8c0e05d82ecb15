"""A student's pair of functions, called so that no side effect goes unnoticed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from graphc.check.layer_cases import Case, Spec
from graphc.check.layer_report import Finding, numbers
from graphc.ir.op import Array

Function = Callable[..., Any]


class Raised(Exception):
    """The error for a student's function that raised, or returned something of another form."""

    def __init__(self, what: str, text: str) -> None:
        super().__init__(text)
        self.what = what


class Student:
    """A pair of functions and a case; every call gets arrays of its own."""

    def __init__(
        self, spec: Spec, forward: Function, backward: Function | None, case: Case
    ) -> None:
        self.spec, self.case = spec, case
        self._forward, self._backward = forward, backward
        self.param: dict[str, Any] = {}
        self.given: dict[str, Any] = {}

    @property
    def has_backward(self) -> bool:
        """Return whether there is a backward function to check."""
        return self._backward is not None

    def forward(self, arrays: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
        """Return (out, cache), or a loss's (loss, dx); raise Raised for anything else."""
        self.given = {k: np.array(v) for k, v in (arrays or self.case.arrays).items()}
        self.param = copy.deepcopy(dict(self.case.param))
        args = [*self.given.values(), *([self.param] if self.case.param else [])]
        pair = "(loss, dx)" if self.spec.backward is None else "(out, cache)"
        result = _call("forward", self._forward, *args)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise Raised("forward", f"forward returns a {type(result).__name__}, not {pair}")
        return result[0], result[1]

    def backward(self, cache: Any, dout: Any = None) -> dict[str, Any]:
        """Return the gradients by name; raise Raised for another number of them."""
        assert self._backward is not None
        dout = self.case.dout.copy() if dout is None else dout
        result = _call("backward", self._backward, dout, cache)
        names = self.spec.gradients
        values = result if isinstance(result, (tuple, list)) else (result,)
        if len(values) != len(names):
            raise Raised(
                "backward", f"backward returns {len(values)} values, not {', '.join(names)}"
            )
        return dict(zip(names, values, strict=True))

    def results(self) -> dict[str, Any]:
        """Return all compared results by name."""
        out, cache = self.forward()
        if self.spec.backward is None:
            return {"loss": out, "dx": cache}
        found = {"out": out}
        for name in ("running_mean", "running_var"):
            if name in self.case.param:
                found[name] = self.param.get(name)
        found = {name: copy.deepcopy(value) for name, value in found.items()}
        return found | (self.backward(cache) if self.has_backward else {})

    def overwritten(self) -> Iterator[Finding]:
        """Yield the arguments and caches that the functions overwrite."""
        _, cache = self.forward()
        given = self.given
        for name, array in given.items():
            if not np.array_equal(array, self.case.arrays[name]):
                text = f"forward overwrites its argument {name}"
                cause = "cache overwritten: work on a copy, or make a new array by an expression"
                yield Finding(name, text, str(self.case), cause)
                return
        if self.has_backward:
            yield from self._overwritten_by_backward(cache, given)

    def _overwritten_by_backward(self, cache: Any, given: dict[str, Any]) -> Iterator[Finding]:
        case, dout = str(self.case), self.case.dout.copy()
        first = copy.deepcopy(self.backward(cache, dout))
        if not np.array_equal(dout, self.case.dout):
            cause = "dout is changed in place; work on a copy"
            yield Finding("dout", "backward overwrites its argument dout", case, cause)
        again = self.backward(cache)
        kept = all(np.array_equal(given[k], self.case.arrays[k]) for k in given)
        if not kept or not _equal(first, again):
            text = "backward called twice with the same cache gives different results"
            if not kept:
                text = "backward changes an array that the cache holds"
            cause = "cache overwritten by backward: work on a copy of what the cache holds"
            yield Finding("cache", text, case, cause)
            return
        _, cache = self.forward()
        self.forward({k: v if v.dtype.kind == "i" else v[::-1] * 2 + 1 for k, v in given.items()})
        if not _equal(first, self.backward(cache)):
            text = "a second forward changes what backward returns for the first one's cache"
            cause = "cache overwritten by forward: give each call its own arrays"
            yield Finding("cache", text, case, cause)


def _equal(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return all(_same(numbers(a[name]), numbers(b[name])) for name in a)


def _same(a: Array | None, b: Array | None) -> bool:
    if a is None or b is None:
        return a is b
    return np.array_equal(a, b, equal_nan=True)


def _call(what: str, function: Function, *args: Any) -> Any:
    try:
        with np.errstate(all="ignore"):
            return function(*args)
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise Raised(what, f"{what} raised {type(error).__name__}: {first}") from error
