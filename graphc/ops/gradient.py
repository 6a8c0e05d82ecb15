"""Derivatives as values of the net."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.build import Builder, Value, apply, as_value
from graphc.ir.op import Layer
from graphc.ir.tensor_type import TensorType, shape_text
from graphc.ops.autodiff import vjp
from graphc.ops.reduce import broadcast_to
from graphc.ops.source import constant

__all__ = ["grad"]


class Gradient(Layer):
    """The derivative of a scalar with respect to another value of the net."""

    name = "grad"
    needs_expansion = True
    roles = ("of", "wrt")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        of, wrt = ins
        if of.rank != 0 or not of.is_float:
            raise ValueError(
                f"of has shape {shape_text(of.shape)}, a gradient is taken of a scalar\n"
                "reduce it first: gc.sum(value)"
            )
        if not wrt.is_float:
            raise ValueError(f"wrt is {wrt.dtype}, gradients flow to floats")
        return wrt

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        of, wrt = ins
        one = constant(b, 1.0, of.dtype, name=f"{name}.one")
        found = vjp(b, {of.name: one}, [wrt.name], prefix=f"{name}.d_")
        if wrt.name in found:
            return found[wrt.name]
        zero = constant(b, 0.0, wrt.dtype, name=f"{name}.zero")
        return broadcast_to(zero, wrt.shape, name=name)


def grad(value: Value, wrt: Value | Sequence[Value]) -> Value | list[Value]:
    """Return the derivative of a scalar value: one Value for each of `wrt`, of its shape.

    Gradients are values like any other, so they can be differentiated again.  Where none flows, as
    through argmax, they are 0.  Raise GraphError for a `wrt` that the value does not depend on at
    all.
    """
    targets = [wrt] if isinstance(wrt, Value) else list(wrt)
    for target in targets:
        _check_depends(as_value("grad", value), as_value("grad", target))
    found = [apply(Gradient(), value, target) for target in targets]
    return found[0] if isinstance(wrt, Value) else found


def _check_depends(value: Value, target: Value) -> None:
    """Raise GraphError if no path leads from the target to the value, both of one net."""
    if target.builder is not value.builder:
        return  # refused when the node is made
    if 0 in target.shape:
        return  # it has no number to depend on
    nodes, seen, left = value.builder.nodes, {value.name}, [value.name]
    while left:
        if left[-1] == target.name:
            return
        new = [name for name in nodes[left.pop()].inputs if name not in seen]
        seen.update(new)
        left.extend(new)
    raise GraphError(
        f"grad: {value.name!r} does not depend on {target.name!r}",
        operands=[value.node.described("of"), target.node.described("wrt")],
        loc=caller_loc(),
        hint="compute the value from it, or leave it out: its derivative is 0",
    )
