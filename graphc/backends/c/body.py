"""The steps and stores of a kernel's body in C99, at one element."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from graphc.backends.c.scalars import Code, Scalars, applied, dim_text, literal
from graphc.backends.interface import C_TYPES
from graphc.ir.expr import Body, Broadcast, Step, Store
from graphc.ir.tensor_type import Batch

Leaf = Callable[[Step, Mapping[int, str]], str]
"""The expression of a step that depends on the kind of kernel: a product, a gathered element."""


def levels(body: Body) -> tuple[int, ...]:
    """Return for each step how many reductions it depends on, one after the other."""
    found: list[int] = []
    for step in body.steps:
        before = max((found[arg] for arg in step.args), default=0)
        found.append(before + (step.op in ("sum", "max")))
    return tuple(found)


def needed(body: Body, numbers: Iterable[int], known: Iterable[int]) -> list[int]:
    """Return the steps that these steps need, in order, without the known ones."""
    found: set[int] = set()
    todo, have = list(numbers), set(known)
    while todo:
        number = todo.pop()
        if number not in found and number not in have:
            found.add(number)
            todo.extend(body.steps[number].args)
    return sorted(found)


class BodyWriter:
    """The writer of steps and stores; `pitch` has the elements from row to row of each matrix."""

    def __init__(
        self,
        body: Body,
        names: Mapping[str, str],
        pitch: Mapping[str, str],
        sizes: tuple[str, str],
        leaf: Leaf,
    ) -> None:
        self.body, self.names, self.pitch, self.sizes, self.leaf = body, names, pitch, sizes, leaf

    def write(self, code: Code, numbers: Iterable[int], known: dict[int, str]) -> None:
        """Write steps in order, at row `i` and column `j`, and add their names to `known`."""
        v = Scalars(code)
        for step in (self.body.steps[n] for n in known):
            if step.op == "const" and isinstance(step.value, int | float):
                v.const(step.value, step.dtype)
        for number in numbers:
            if number not in known:
                known[number] = self._value(v, self.body.steps[number], known)

    def _value(self, v: Scalars, step: Step, known: Mapping[int, str]) -> str:
        if step.op == "const":
            assert isinstance(step.value, int | float), "a constant is a number"
            return v.const(step.value, step.dtype)
        text = self._leaf(step, known)
        if text is not None:
            return v.code.value(text, step.dtype)
        dtypes = [self.body.steps[arg].dtype for arg in step.args]
        return applied(v, step.op, [known[arg] for arg in step.args], dtypes, step.dtype)

    def _leaf(self, step: Step, known: Mapping[int, str]) -> str | None:
        """Return the expression of a leaf, or None for a function of other steps."""
        kind = C_TYPES[step.dtype]
        if step.op == "load":
            return self.place(step.buffer, step.broadcast)
        if step.op == "index":
            index = {"row": "i", "column": "j"}.get(step.broadcast)
            return f"({kind}){index}" if index else literal(0, step.dtype)
        if step.op == "size":
            if isinstance(step.value, int | Batch):
                return f"({kind}){dim_text(step.value)}"
            return f"({kind}){self.sizes[step.value == 'columns']}"
        if step.op in ("fetch", "offset", "product", "scatter_add", "philox"):
            return self.leaf(step, known)
        return None

    def place(self, buffer: str, broadcast: Broadcast) -> str:
        """Return the element of a buffer at row `i` and column `j`."""
        name = self.names[buffer]
        if broadcast == "each":
            return f"{name}[i * {self.pitch[buffer]} + j]"
        return f"{name}[{ {'row': 'i', 'column': 'j', 'one': '0'}[broadcast] }]"

    def store(self, code: Code, stores: Iterable[Store], known: Mapping[int, str]) -> None:
        """Write stores of known values."""
        for store in stores:
            code.do(f"{self.place(store.buffer, store.broadcast)} = {known[store.step]};")
