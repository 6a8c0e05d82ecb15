"""The steps and stores of a kernel's body in C99, at one element."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from graphc.backends.body import Known, evaluate, needed
from graphc.backends.c.scalars import Code, Scalars, dim_text, literal
from graphc.backends.interface import C_TYPES
from graphc.ir.expr import Body, Broadcast, Step, Store
from graphc.ir.tensor_type import Batch

Leaf = Callable[[Step, Mapping[int, str]], str]
"""The expression of a step that depends on the kind of kernel: a product, a gathered element."""


class BodyWriter:
    """The writer of steps and stores; `pitch` has the elements from row to row of each matrix."""

    def __init__(
        self,
        code: Code,
        body: Body,
        names: Mapping[str, str],
        pitch: Mapping[str, str],
        sizes: tuple[str, str],
        leaf: Leaf,
    ) -> None:
        self.v, self.body, self.leaf = Scalars(code), body, leaf
        self.names, self.pitch, self.sizes = names, pitch, sizes

    def write(self, numbers: Iterable[int], known: Known) -> None:
        """Write steps in order, at row `i` and column `j`, and add their names to `known`."""
        evaluate(self.v, self.body, numbers, known, partial(self._leaf, known))

    def write_for(self, stores: Iterable[Store], known: Known) -> None:
        """Write the steps that stores need."""
        self.write(needed(self.body, (store.step for store in stores), known), known)

    def store(self, stores: Iterable[Store], known: Mapping[int, str]) -> None:
        """Write stores of known values."""
        for store in stores:
            self.v.code.do(f"{self.place(store.buffer, store.broadcast)} = {known[store.step]};")

    def place(self, buffer: str, broadcast: Broadcast) -> str:
        """Return the element of a buffer at row `i` and column `j`."""
        name = self.names[buffer]
        if broadcast == "each":
            return f"{name}[i * {self.pitch[buffer]} + j]"
        return f"{name}[{ {'row': 'i', 'column': 'j', 'one': '0'}[broadcast] }]"

    def _leaf(self, known: Mapping[int, str], step: Step) -> str:
        return self.v.code.value(self._text(step, known), step.dtype)

    def _text(self, step: Step, known: Mapping[int, str]) -> str:
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
        if step.op == "philox":
            return self.v.code.functions.random_word(step, known)
        return self.leaf(step, known)
