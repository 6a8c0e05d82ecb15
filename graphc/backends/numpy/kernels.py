"""Kernels bound to memory: each becomes a flat list of calls of NumPy with out=."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from graphc.backends.backend import Call, View
from graphc.backends.numpy.access import gathered_view
from graphc.backends.numpy.actions import Action
from graphc.backends.numpy.body import BodyPlan, Shared, plan_body
from graphc.backends.numpy.values import Part, Sizes, Value, matrix_of, number
from graphc.ir.access import AccessMap
from graphc.ir.expr import Step
from graphc.ir.op import Array
from graphc.ir.tensor_type import ITEMSIZE, Batch, align, numpy_dtype, shape_at
from graphc.kernels.kernel import BatchedGemm, Permutation, Single, buffers_of
from graphc.kernels.program import Buffer, Program


def plan_bytes(plan: BodyPlan, capacity: int) -> int:
    """Return the bytes of the temporaries of a kernel."""
    most = Sizes.of(plan.kernel, capacity)
    return plan.layout(most, most)[1]


def bind_plan(plan: BodyPlan, capacity: int, n: int, view: View, scratch: Array) -> Sequence[Call]:
    """Return the calls of a planned kernel; `view` gives the arrays of its buffers."""
    most = Sizes.of(plan.kernel, capacity)
    return list(_Binding(plan, n, most, view, scratch).calls())


class Planned(NamedTuple):
    """A kernel of a program, ready to be bound for any number of rows.

    Kernels that differ only in names, such as those of the layers of a deep net, share a plan;
    `names` maps its buffers to those of the kernel.  A permutation needs no plan.
    """

    kernel: Single
    plan: BodyPlan | None
    names: Mapping[str, str]
    capacity: int

    @classmethod
    def of(cls, program: Program, kernel: Single) -> Planned:
        """Return the kernel with its plan."""
        if isinstance(kernel, Permutation):
            return cls(kernel, None, {}, program.capacity)
        names = buffers_of(kernel)
        met = overlaps(program, names, kernel.body.written)
        return cls.meeting(kernel, met, program.capacity)

    @classmethod
    def meeting(cls, kernel: Single, met: Iterable[tuple[str, str, str]], capacity: int) -> Planned:
        """Return the kernel with its plan; `met` are the pairs of buffers that share bytes."""
        names = buffers_of(kernel)
        places = {name: f"buffer{i}" for i, name in enumerate(names)}
        shared = tuple((places[a], places[b], how) for a, b, how in met)
        plan = known_plan(kernel.renamed(places), shared)
        back = {place: name for name, place in places.items()}
        return cls(kernel, plan, back, capacity)

    @property
    def nbytes(self) -> int:
        """The bytes of its temporaries."""
        return 0 if self.plan is None else plan_bytes(self.plan, self.capacity)

    def bind(self, n: int, view: View, scratch: Array) -> Sequence[Call]:
        """Return the NumPy calls that run the kernel on `n` rows."""
        if self.plan is None:
            assert isinstance(self.kernel, Permutation), "all others are planned"
            return (_permuted(self.kernel, n, view),)
        names = self.names
        return bind_plan(self.plan, self.capacity, n, lambda place: view(names[place]), scratch)


@lru_cache(maxsize=4096)
def known_plan(kernel: Single, shared: Shared) -> BodyPlan:
    """Return the plan of a kernel, computed once for kernels that are equal."""
    return plan_body(kernel, shared)


def _permuted(kernel: Permutation, n: int, view: View) -> Call:
    (step,), (store,) = kernel.body.steps, kernel.body.stores
    source = view(step.buffer).reshape(shape_at(kernel.shape, n)).transpose(kernel.axes)
    return partial(np.copyto, view(store.buffer).reshape(source.shape), source)


class _Binding:
    """A planned kernel and the memory that it runs on."""

    def __init__(self, plan: BodyPlan, n: int, most: Sizes, view: View, scratch: Array) -> None:
        self.kernel, self.plan, self.view, self.scratch = plan.kernel, plan, view, scratch
        self.sizes, self.most = Sizes.of(plan.kernel, n), most
        self.offsets, self.nbytes = plan.layout(self.sizes, most)

    def calls(self) -> Iterator[Call]:
        """Yield the NumPy calls of the kernel in order: once, part by part, and last."""
        for action in self.plan.once:
            yield from self._calls(action, self.sizes.whole)
        for part in self.plan.cuts(self.sizes, self.most) if self.plan.parts else ():
            for action in self.plan.parts:
                yield from self._calls(action, part)
        for action in self.plan.last:
            yield from self._calls(action, self.sizes.whole)

    def _calls(self, action: Action, part: Part) -> Sequence[Call]:
        out, *ins = (self._array(value, part) for value in (action.out, *action.ins))
        offset, work = self.offsets[-1], []
        for dtype, shape in action.work:
            sizes = shape(self.sizes, part)
            work.append(self._typed(offset, dtype, sizes))
            offset += align(work[-1].nbytes)
        return action.rule(self.sizes, part, out, *ins, *work)

    def _array(self, value: Value, part: Part) -> Array:
        """Return the part of a value; one number is an array without axes, which is quicker."""
        array = self._in_axes(value, part)
        return array.reshape(()) if value.broadcast == "one" and value.dtype else array

    def _in_axes(self, value: Value, part: Part) -> Array:
        key = value.key
        if value.memory == "buffer":
            assert isinstance(key, str), "the key is the buffer's name"
            whole = self.view(key)
            if not value.dtype:
                return whole
            return self.sizes.cut(self._in_space(key, whole, value), value.broadcast, part)
        if value.memory == "gathered":
            assert isinstance(key, Step) and isinstance(key.value, AccessMap)
            return gathered_view(self.sizes, part, self.view(key.buffer), key.value)
        if value.memory == "index" and isinstance(key, Step):
            return self._offsets(key, value)
        if value.memory == "index":
            return self._numbers(value, part)
        if value.memory == "temporary":
            assert isinstance(key, int), "the key is the number"
            whole_value = key < self.plan.whole
            shape = self.sizes.shape(value.broadcast, None if whole_value else part)
            array = self._typed(self.offsets[key], value.dtype, shape)
            return self.sizes.cut(array, value.broadcast, part) if whole_value else array
        assert isinstance(key, (int, float, str, Batch)), "a number, or what a size is of"
        if value.memory == "size":
            return number(self._size(key), value.dtype)
        assert not isinstance(key, Batch)
        return number(float(key), numpy_dtype(value.dtype))

    def _in_space(self, name: str, whole: Array, value: Value) -> Array:
        """Return a buffer in the kernel's iteration space."""
        shape = self.sizes.shape(value.broadcast)
        kernel, written = self.kernel, self.kernel.body.written
        if isinstance(kernel, BatchedGemm) and name in written:
            strides = shape_at(kernel.strides_out[written.index(name)], self.sizes.n)
            return as_strided(whole, shape, [s * whole.itemsize for s in (*strides, 1)])
        return matrix_of(whole, shape)

    def _numbers(self, value: Value, part: Part) -> Array:
        """Return the numbers of the rows or the columns of a part."""
        cut = part.rows if value.broadcast == "row" else part.columns
        many = prod(self.sizes.places) if value.broadcast == "row" else 1
        numbers = np.arange(cut.start * many, cut.stop * many, dtype=value.dtype)
        return numbers.reshape(self.sizes.shape(value.broadcast, part))

    def _offsets(self, step: Step, value: Value) -> Array:
        """Return the offset of each row within its tile of places, equal in all lines."""
        assert isinstance(step.value, tuple), "the value is the tile"
        places = self.sizes.places
        found = np.zeros((1,) * len(places), np.int64)
        for axis, (size, tile) in enumerate(zip(places, step.value, strict=True)):
            shape = [-1 if i == axis else 1 for i in range(len(places))]
            found = found * tile + (np.arange(size) % tile).reshape(shape)
        columns = self.sizes.columns if value.broadcast == "each" else 1
        whole = np.broadcast_to(found[None, ..., None], (1, *places, columns))
        return whole.astype(step.dtype)

    def _size(self, of: Batch | float | str) -> int:
        if isinstance(of, Batch):
            return of.at(self.sizes.n)
        return self.sizes.rows if of == "rows" else self.sizes.columns

    def _typed(self, offset: int, dtype: str, shape: tuple[int, ...]) -> Array:
        raw = self.scratch[offset : offset + prod(shape) * ITEMSIZE[dtype]]
        return raw.view(numpy_dtype(dtype)).reshape(shape)


def overlaps(
    program: Program, names: Iterable[str], written: Iterable[str]
) -> Iterator[tuple[str, str, str]]:
    """Yield the pairs of a kernel's buffers that share bytes, the second written, and how.

    They are "same" if each element has the same address in both, else "part".  All buffers of a
    kernel are live at the same time, so only those of one storage share bytes.
    """
    blocks: dict[tuple[str, str], list[str]] = {}
    for name in names:
        blocks.setdefault(program.buffers[name][2:4], []).append(name)
    for target in written:
        other = program.buffers[target]
        for name in blocks[other[2:4]]:
            one = program.buffers[name]
            if name == target or _meet(bytes_of(program, one), bytes_of(program, other)):
                yield name, target, "same" if _alike(one, other) else "part"


def _alike(a: Buffer, b: Buffer) -> bool:
    """Return whether each element has the same address in both buffers."""
    return (a.type.dtype, a.offset, a.shift, a.pitch) == (b.type.dtype, b.offset, b.shift, b.pitch)


def bytes_of(program: Program, buffer: Buffer) -> range:
    """Return the range of a buffer's bytes in its memory."""
    nbytes = buffer.type.nbytes(program.capacity)
    if buffer.pitch:
        nbytes = (
            buffer.pitch
            * shape_at(buffer.type.shape, program.capacity)[0]
            * ITEMSIZE[buffer.type.dtype]
        )
    return range(buffer.offset, buffer.offset + nbytes)


def _meet(a: range, b: range) -> bool:
    return a.start < b.stop and b.start < a.stop
