"""The code of `Loop` kernels: one function each, shared by kernels that differ only in names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from graphc.backends.native.column_loops import emit_columns
from graphc.backends.native.elements import Elements, Known, Place, memory_types
from graphc.backends.native.flat_loops import emit_flat, is_flat
from graphc.backends.native.ir import Function, Module, Value
from graphc.backends.native.phases import (
    as_one_column,
    as_one_row,
    needed,
    reductions,
    stores_at,
)
from graphc.backends.native.place_loops import emit_places, fetches
from graphc.backends.native.rest import emit_rest
from graphc.backends.native.row_loops import emit_rows
from graphc.backends.native.vectors import Vectors
from graphc.ir.tensor_type import Batch, Dim
from graphc.kernels.body import Body, Store
from graphc.kernels.kernel import LANES, Loop


@dataclass(frozen=True)
class LoopCode:
    """A generated function: `void @name(ptr for each buffer, i64 %n, i64 %tid, i64 %threads)`."""

    name: str
    buffers: tuple[str, ...]
    """The buffers of the kernel, in the order of the function's arguments."""


def emit_loop(module: Module, kernel: Loop, pitch: Mapping[str, int]) -> LoopCode:
    """Return the function of a kernel, added to the module unless it has an equal one.

    `pitch` gives, for buffers of span each, the number of elements from one row to the next; rows
    of other buffers are contiguous.  Threads that call the function with the same arguments and
    their own `tid` below `threads` compute the kernel together.

    The first thread writes single numbers, and values stored once for each column if threads split
    the rows, or the other way round.  It does not wait for the other threads: such a store must not
    write memory that the kernel reads.
    """
    names = tuple(dict.fromkeys((*kernel.body.loads, *kernel.body.written)))
    place = {name: f"b{number}" for number, name in enumerate(names)}
    kernel = replace(kernel, body=_renamed(kernel.body, place))
    pitches = {place[name]: size for name, size in pitch.items() if name in place}
    key = ("loop", kernel, tuple(sorted(pitches.items())))
    name = module.known(key)
    if name is None:
        name = module.name("loop", key)
        _emit(module, name, kernel, pitches, [f"%{place[n]}" for n in names])
    return LoopCode(name, names)


def _renamed(body: Body, names: Mapping[str, str]) -> Body:
    steps = tuple(s._replace(buffer=names[s.buffer]) if s.buffer else s for s in body.steps)
    return Body(steps, tuple(s._replace(buffer=names[s.buffer]) for s in body.stores))


def _emit(
    module: Module, name: str, kernel: Loop, pitch: Mapping[str, int], buffers: list[Value]
) -> None:
    arguments = [("ptr", buffer) for buffer in buffers]
    arguments += [("i64", "%n"), ("i64", "%tid"), ("i64", "%threads")]
    function = Function(name, arguments, attributes="#1")
    kernel = _simplified(kernel, pitch)
    elements = _elements(module, function, kernel, pitch)
    known: Known = {}
    elements.evaluate(_hoisted(kernel.body), known, Place())
    stores = _emit_loops(elements, kernel, known)
    emit_rest(elements, known, stores)
    function.ret()
    module.add(function)


def _emit_loops(elements: Elements, kernel: Loop, known: Known) -> list[Store]:
    """Emit the loops of the kernel, and return the stores that remain.

    Stores that happen once for each row belong to the loops if each row has one thread.
    """
    body = kernel.body
    mine: tuple[Store, ...] = stores_at(body, "each")
    if fetches(kernel):
        emit_places(elements, kernel, known)
    elif is_flat(kernel, elements):
        emit_flat(elements, kernel, known)
    elif _hoists_columns(kernel) or (kernel.axis == "rows" and kernel.split != "rows"):
        once = stores_at(body, "column") if kernel.split != "rows" else ()
        emit_columns(elements, kernel, known, once)
        mine += once
    else:
        once = stores_at(body, "row") if kernel.split != "columns" else ()
        emit_rows(elements, kernel, known, once)
        mine += once
    return [store for store in body.stores if store not in mine]


def _simplified(kernel: Loop, pitch: Mapping[str, int]) -> Loop:
    """Return the kernel with its single row or column treated as plain elements, for speed."""
    reduced = {kernel.body.steps[number].value for number in reductions(kernel.body)}
    assert reduced <= {kernel.axis}, "reductions run along the kernel's axis"
    if fetches(kernel):
        return kernel
    assert not reduced or kernel.split in ("none", _across(kernel)), "threads split no reduction"
    if reduced:
        return as_one_row(kernel) if kernel.rows == 1 and kernel.axis == "columns" else kernel
    dense = all(size == 1 for size in pitch.values())
    if kernel.columns == 1 and dense and kernel.split != "columns" and not _draws(kernel):
        kernel = as_one_column(kernel)
    return as_one_row(kernel) if kernel.rows == 1 else kernel


def _across(kernel: Loop) -> str:
    return "rows" if kernel.axis == "columns" else "columns"


def _draws(kernel: Loop) -> bool:
    return any(step.op == "philox" for step in kernel.body.steps)


def _elements(
    module: Module, function: Function, kernel: Loop, pitch: Mapping[str, int]
) -> Elements:
    rows, columns = _size(function, kernel.rows), _size(function, kernel.columns)
    body = kernel.body
    matrices = [s.buffer for s in body.steps if s.op == "load" and s.span == "each"]
    matrices += [store.buffer for store in body.stores if store.span == "each"]
    pitches = {buffer: pitch.get(buffer, columns) for buffer in dict.fromkeys(matrices)}
    types = memory_types(body)
    pointers = {buffer: f"%{buffer}" for buffer in types}
    vectors = Vectors(module, function, LANES)
    return Elements(function, vectors, body, pointers, types, pitches, rows, columns)


def _size(function: Function, dim: Dim) -> Value | int:
    return function.mul("%n", dim.factor) if isinstance(dim, Batch) else dim


def _hoisted(body: Body) -> list[int]:
    """Return the steps of span one that some store or reduction needs."""
    roots = [store.step for store in body.stores]
    roots += [body.steps[number].args[0] for number in reductions(body)]
    return [number for number in needed(body, roots) if body.steps[number].span == "one"]


def _hoists_columns(kernel: Loop) -> bool:
    """Return whether to loop over rows within blocks of columns: a step is computed once a column.

    This needs a kernel without reductions, in which the order is free.
    """
    body = kernel.body
    computed = any(s.span == "column" and s.op not in ("load", "index") for s in body.steps)
    return computed and not reductions(body) and kernel.rows != 1
