"""The check of an op's own gradient rule against central differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.check.differences import Entry, compare, indices
from graphc.ir.build import Builder, Value
from graphc.ir.init import generator
from graphc.ir.op import Array, Layer, Op
from graphc.ir.tensor_type import TensorType
from graphc.ops.source import Input
from graphc.runtime import eager


@dataclass(frozen=True)
class WrongEntry:
    """An entry of an operand's gradient that differences do not confirm."""

    role: str
    entry: Entry
    flows: bool
    """Whether the rule gives the operand a cotangent at all."""

    def __str__(self) -> str:
        at = f"at {list(self.entry.index)}" if self.entry.index else "of the scalar"
        says = f"{self.entry.ours:.8g} by the rule" if self.flows else "nothing by the rule"
        return (
            f"the gradient of {self.role} {at} is {says}, {self.entry.numeric:.8g} by differences"
        )


def wrong_entries(
    op: Op,
    ins: Sequence[Array],
    *,
    train: bool = False,
    h: float = 1e-5,
    tolerance: float = 1e-6,
    limit: int = 50,
) -> Iterator[WrongEntry]:
    """Yield the worst entry of each float64 operand whose gradient is wrong.

    The scalar that is differentiated is a fixed random combination of the op's results.
    """
    names = eager.operand_names(op, len(ins))
    wrt = tuple(name for name, x in zip(names, ins, strict=True) if x.dtype == np.float64)
    arrays = [np.array(x) for x in ins]
    weight = generator(0, f"cotangent:{op.name}").standard_normal(_value(op, arrays, train).shape)
    gradients = dict(zip(wrt, eager.backward(op, arrays, weight, wrt, train), strict=True))

    def combination() -> float:
        return float((_value(op, arrays, train) * weight).sum())

    flows = _flowing(op, eager.types_of(arrays))
    for name, x in zip(names, arrays, strict=True):
        if name in gradients:
            entries = [
                compare(combination, x, index, float(gradients[name][index]), h, tolerance)
                for index in indices(x.shape, name, limit)
            ]
            worst = max(entries, key=lambda entry: entry.error, default=None)
            if worst is not None and worst.error > tolerance:
                yield WrongEntry(name, worst, flows is None or name in flows)


def rule_mistakes(op: Op, types: Sequence[TensorType]) -> Iterator[str]:
    """Yield the faults in the form of the gradient rule's result, before any number is computed."""
    found = apply_rule(op, types)
    if len(found) != len(types):
        yield f"gives {len(found)} cotangents for {len(types)} operands"
        return
    names = eager.operand_names(op, len(types))
    for name, type, value in zip(names, types, found, strict=True):
        if value is not None and not isinstance(value, Value):
            yield f"gives {name} a {value.__class__.__name__}, not a Value or None"
        elif value is not None and type.is_float and value.type != type:
            yield f"gives {name} a cotangent of type {value.type}; {name} is {type}"


def apply_rule(op: Op, types: Sequence[TensorType]) -> Sequence[Value | None]:
    """Return the results of the gradient rule for operands of these types."""
    b = Builder(op.name)
    b.locs = ()
    names = eager.operand_names(op, len(types))
    ins = [
        b.apply(Input(t.shape, t.dtype), name=name) for name, t in zip(names, types, strict=True)
    ]
    out = b.apply(op, *ins, name="result")
    dout = b.apply(Input(out.shape, out.dtype), name="cotangent")
    return op.grad(b, ins, out, dout)


def _flowing(op: Op, types: Sequence[TensorType]) -> frozenset[str] | None:
    if isinstance(op, Layer):
        return None
    names = eager.operand_names(op, len(types))
    found = apply_rule(op, types)
    return frozenset(n for n, value in zip(names, found, strict=True) if value is not None)


def _value(op: Op, ins: Sequence[Array], train: bool) -> Array:
    return np.asarray(op.reference_in(ins, train) if isinstance(op, Layer) else op.reference(ins))
