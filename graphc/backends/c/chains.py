"""Chains in C99: the functions of the kernels are called for one matrix after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from graphc.backends.c.scalars import Code, dim_text
from graphc.backends.interface import C_TYPES
from graphc.ir.tensor_type import Shape
from graphc.kernels.kernel import Chain, inputs
from graphc.kernels.stack import links_of


def write_chain(
    code: Code, chain: Chain, names: Mapping[str, str], called: Sequence[str], more: list[str]
) -> None:
    """Write the loops over a chain's matrices, and in them the calls of these functions.

    `more` are their arguments after the buffers.
    """
    workspace = names[chain.workspace]
    private = {p.buffer: f"({C_TYPES[p.dtype]} *)({workspace} + {p.start})" for p in chain.private}
    index = [f"s{axis}" for axis in range(len(chain.sizes))]
    with ExitStack() as loops:
        for name, size in zip(index, chain.sizes, strict=True):
            loops.enter_context(code.loop(name, dim_text(size)))
        for function, link in zip(called, links_of(chain), strict=True):
            used = dict.fromkeys((*inputs(link.kernel), *link.kernel.body.written))
            pointers = (
                private.get(name) or _moved(names[name], index, link.strides[name]) for name in used
            )
            code.do(f"{function}({', '.join([*pointers, *more])});")


def _moved(pointer: str, index: Sequence[str], strides: Shape) -> str:
    """Return the expression of the address of a matrix."""
    pairs = zip(index, strides, strict=True)
    return " + ".join([pointer, *(f"{i} * {dim_text(stride)}" for i, stride in pairs if stride)])
