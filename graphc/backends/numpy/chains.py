"""Chains in NumPy: the calls of each kernel, bound for one matrix after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from graphc.backends.backend import Call, View
from graphc.backends.numpy.kernels import Planned, overlaps
from graphc.ir.op import Array
from graphc.ir.tensor_type import ITEMSIZE, numpy_dtype, shape_at
from graphc.kernels.kernel import Chain, Loop, buffers_of
from graphc.kernels.program import Program
from graphc.kernels.stack import Link, links_of


class PlannedChain(NamedTuple):
    """A chain of a program, ready to be bound for any number of rows."""

    chain: Chain
    links: tuple[tuple[Link, Planned], ...]

    @classmethod
    def of(cls, program: Program, chain: Chain) -> PlannedChain:
        """Return the chain with the plans of its kernels."""
        starts = {p.buffer: p.start for p in chain.private}
        return cls(
            chain, tuple((link, _planned(program, link, starts)) for link in links_of(chain))
        )

    @property
    def nbytes(self) -> int:
        """The bytes of the temporaries of one matrix."""
        return max(planned.nbytes for _, planned in self.links)

    def bind(self, n: int, view: View, scratch: Array) -> Sequence[Call]:
        """Return the NumPy calls that run the kernels on the matrices of `n` rows."""
        calls: list[Call] = []
        for index in np.ndindex(*shape_at(self.chain.sizes, n)):
            for link, planned in self.links:
                arrays = dict(self._arrays(link, index, n, view))
                calls.extend(planned.bind(n, arrays.__getitem__, scratch))
        return calls

    def _arrays(
        self, link: Link, index: Sequence[int], n: int, view: View
    ) -> Iterator[tuple[str, Array]]:
        """Yield the buffers of a kernel for one matrix."""
        workspace, kernel = view(self.chain.workspace), link.kernel
        for p in self.chain.private:
            end = p.start + prod(p.matrix) * ITEMSIZE[p.dtype]
            yield p.buffer, workspace[p.start : end].view(numpy_dtype(p.dtype))
        for name, strides in link.strides.items():
            each = shape_at(strides, n)
            if not any(each):
                yield name, view(name)
                continue
            start = sum(i * stride for i, stride in zip(index, each, strict=True))
            # Products read and write by their strides, other steps all that they are given.
            dense = name in kernel.body.loads or isinstance(kernel, Loop)
            yield name, view(name).reshape(-1)[start:][: each[-1] if dense else None]


def _planned(program: Program, link: Link, starts: Mapping[str, int]) -> Planned:
    """Return the plan of a kernel for one matrix; `starts` are the places of private values."""
    written = link.kernel.body.written
    names = buffers_of(link.kernel)
    public = [name for name in names if name not in starts]
    met = list(overlaps(program, public, [name for name in written if name not in starts]))
    for out in written:
        same = (name for name in names if name != out and starts.get(name, -1) == starts.get(out))
        met += [(name, out, "same") for name in same]
    return Planned.meeting(link.kernel, met, program.capacity)
