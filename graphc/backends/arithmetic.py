"""The arithmetic in which scalar functions are written, whatever the language of a backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import isnan

Value = str
"""A value in the language of a backend: the name of a variable, or a constant."""
FLOATS = ("float32", "float64")
LONG = ("exp", "log", "tanh", "sigmoid", "erf")
"""The functions of many operations."""
UNSIGNED = ("uint8", "uint16", "uint32", "uint64", "bool")


class Arithmetic(ABC):
    """The operations of a backend's language on values, each of which has a dtype.

    Every operation rounds by itself, and integers wrap.
    """

    @property
    @abstractmethod
    def fused(self) -> bool:
        """True if multiply-adds are fused, by the contract of the plan."""

    @abstractmethod
    def const(self, number: float, dtype: str) -> Value:
        """Return a constant."""

    @abstractmethod
    def number(self, x: Value, dtype: str) -> float | None:
        """Return the number that `const` got, or None."""

    @abstractmethod
    def binary(self, operation: str, a: Value, b: Value, dtype: str) -> Value:
        """Return the result of an instruction of two values, named as in LLVM: "fadd", "xor"."""

    @abstractmethod
    def select(self, condition: Value, a: Value, b: Value, dtype: str) -> Value:
        """Return `a` where the condition holds, else `b`."""

    @abstractmethod
    def compare(self, function: str, a: Value, b: Value, dtype: str) -> Value:
        """Return whether "less", "equal", ...; with NaN only `not_equal` holds."""

    @abstractmethod
    def is_nan(self, x: Value, dtype: str) -> Value:
        """Return whether a float is NaN."""

    @abstractmethod
    def neg(self, a: Value, dtype: str) -> Value:
        """Return -a."""

    @abstractmethod
    def cast(self, x: Value, source: str, dtype: str) -> Value:
        """Return x in another dtype.

        Floats are truncated to integers and saturate, and NaN becomes 0.
        """

    @abstractmethod
    def bitcast(self, x: Value, source: str, dtype: str) -> Value:
        """Return the same bits as another dtype of the same size."""

    @abstractmethod
    def intrinsic(
        self, name: str, args: Sequence[Value], dtype: str, result: str | None = None
    ) -> Value:
        """Return a function named as in LLVM of values of `dtype`; its dtype is `result`."""

    def add(self, a: Value, b: Value, dtype: str) -> Value:
        """Return a + b."""
        return self.binary("fadd" if dtype in FLOATS else "add", a, b, dtype)

    def sub(self, a: Value, b: Value, dtype: str) -> Value:
        """Return a - b."""
        return self.binary("fsub" if dtype in FLOATS else "sub", a, b, dtype)

    def mul(self, a: Value, b: Value, dtype: str) -> Value:
        """Return a * b."""
        return self.binary("fmul" if dtype in FLOATS else "mul", a, b, dtype)

    def div(self, a: Value, b: Value, dtype: str) -> Value:
        """Return a / b of floats."""
        return self.binary("fdiv", a, b, dtype)

    def fma(self, a: Value, b: Value, c: Value, dtype: str) -> Value:
        """Return a * b + c of floats, rounded once if they are fused, else twice."""
        if self.fused:
            return self.intrinsic("fma", (a, b, c), dtype)
        return self.add(self.mul(a, b, dtype), c, dtype)

    def apart(
        self, name: str, rule: Callable[..., Value], args: Sequence[Value], dtype: str
    ) -> Value:
        """Return `rule(self, *args)` of values of one dtype; a language may write it only once."""
        return rule(self, *args)

    @abstractmethod
    def applied(
        self, function: str, args: Sequence[Value], dtypes: Sequence[str], dtype: str
    ) -> Value:
        """Return a scalar function of a kernel's steps of values of these dtypes; see `maths`."""

    def both(self, a: Value, b: Value) -> Value:
        """Return whether both conditions hold."""
        return self.binary("and", a, b, "bool")

    def truth(self, x: Value, dtype: str) -> Value:
        """Return whether a value is not zero; NaN is not zero."""
        if dtype == "bool":
            return x
        return self.compare("not_equal", x, self.const(0, dtype), dtype)

    def maximum(self, a: Value, b: Value, dtype: str) -> Value:
        """Return the larger; NaN where either is.  Of zeros of both signs, either one."""
        return self._extreme("greater", a, b, dtype)

    def minimum(self, a: Value, b: Value, dtype: str) -> Value:
        """Return the smaller; NaN where either is.  Of zeros of both signs, either one."""
        return self._extreme("less", a, b, dtype)

    def _extreme(self, function: str, a: Value, b: Value, dtype: str) -> Value:
        if self._is_number(b, dtype):
            a, b = b, a
        # The selection yields b when either is NaN, and is one instruction of x86.
        chosen = self.select(self.compare(function, a, b, dtype), a, b, dtype)
        if dtype not in FLOATS or self._is_number(a, dtype):
            return chosen
        return self.select(self.is_nan(a, dtype), a, chosen, dtype)

    def _is_number(self, x: Value, dtype: str) -> bool:
        number = self.number(x, dtype)
        return number is not None and not isnan(number)
