"""Stacks of matrix products: each thread computes some of the matrices, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphc.backends.native.gemm import GemmCode, emit_gemm
from graphc.backends.native.ir import Function, Module, Value
from graphc.backends.native.registers import element_type
from graphc.backends.native.tile import choose_tile
from graphc.ir.tensor_type import Batch, Dim, Shape
from graphc.kernels.body import Body
from graphc.kernels.kernel import Gemm, Stack, stored
from graphc.kernels.turned import dense_strides

LEFT, RIGHT, STORED = "left ", "right ", "stored "
"""The prefixes of part names: a buffer may be several parts of a product, at other addresses."""


def emit_stack(module: Module, kernel: Gemm, bits: int) -> GemmCode:
    """Emit the function of a stack unless the module has it; its signature is a product's."""
    assert kernel.stack is not None
    one, buffers, apart = _one(kernel, kernel.stack)
    code = emit_gemm(module, one, _pitches(kernel, kernel.stack), bits)
    lies = tuple((buffers[name], apart[name]) for name in code.buffers)
    names = tuple(dict.fromkeys(buffer for buffer, _ in lies))
    place = {name: f"%b{i}" for i, name in enumerate(names)}
    passed = [(place[buffer], strides) for buffer, strides in lies]
    key = ("stack", code.name, kernel.stack.sizes, tuple(passed))
    name = module.known(key)
    if name is None:
        name = module.name("stack", key)
        types = _types(one)
        pointers = [(*where, types[part]) for part, where in zip(code.buffers, passed, strict=True)]
        _emit(module, name, code.name, kernel.stack.sizes, list(place.values()), pointers)
    return GemmCode(name, names, kernel, choose_tile(kernel.dtype, bits))


def _one(kernel: Gemm, stack: Stack) -> tuple[Gemm, dict[str, str], dict[str, Shape]]:
    """Return one of the products, with parts as its buffers, and the buffer of each part.

    The third result has the elements between the matrices of each part, per leading dimension.
    """
    body = kernel.body
    each = dense_strides((*stack.sizes, kernel.m, kernel.n))[:-2]
    row = dense_strides((*stack.sizes, kernel.m))[:-1]
    none: Shape = (0,) * len(stack.sizes)
    spans = {"each": each, "row": row, "column": none, "one": none}
    buffers = {LEFT: kernel.a, RIGHT: kernel.b}
    apart = {LEFT: stack.a[:-1], RIGHT: stack.b[:-1]}
    for step in body.steps:
        if step.op == "load":
            buffers[step.span + step.buffer] = step.buffer
            apart[step.span + step.buffer] = spans[step.span]
    for store in body.stores:
        buffers[STORED + store.buffer] = store.buffer
        apart[STORED + store.buffer] = stored(kernel, stack, store.buffer)[:-1]
    steps = [s._replace(buffer=s.span + s.buffer) if s.op == "load" else s for s in body.steps]
    stores = [s._replace(buffer=STORED + s.buffer) for s in body.stores]
    one = replace(
        kernel,
        a=LEFT,
        b=RIGHT,
        body=Body(tuple(steps), tuple(stores)),
        split="none",
        stack=None,
    )
    return one, buffers, apart


def _pitches(kernel: Gemm, stack: Stack) -> dict[str, int]:
    """Return the elements from row to row of each part, except those that the batch decides."""
    found: dict[str, Dim] = {LEFT: stack.a[-1], RIGHT: stack.b[-1]}
    found |= {s.span + s.buffer: kernel.n for s in kernel.body.steps if s.op == "load"}
    for store in kernel.body.stores:
        found[STORED + store.buffer] = stored(kernel, stack, store.buffer)[-1]
    return {part: pitch for part, pitch in found.items() if isinstance(pitch, int)}


def _types(one: Gemm) -> Mapping[str, str]:
    """Return the LLVM type in memory of an element of each part."""
    dtypes = {LEFT: one.dtype, RIGHT: one.dtype}
    dtypes |= {s.buffer: s.dtype for s in one.body.steps if s.op == "load"}
    dtypes |= {s.buffer: one.body.steps[s.step].dtype for s in one.body.stores}
    return {part: element_type(dtype) for part, dtype in dtypes.items()}


def _emit(
    module: Module,
    name: str,
    product: str,
    sizes: Shape,
    arguments: list[Value],
    parts: list[tuple[Value, Shape, str]],
) -> None:
    """Emit the loop over a thread's matrices.

    Each of `parts` is a buffer, the strides of its matrices, and its element type.
    """
    typed = [("ptr", argument) for argument in arguments]
    typed += [("ptr", "%scratch"), ("i64", "%n"), ("i64", "%tid"), ("i64", "%threads")]
    f = Function(name, typed, attributes="#1")
    counts = [size_of(f, dim) for dim in sizes]
    total: Value = "1"
    for size in counts:
        total = f.mul(total, size)
    first, last = (
        f.value(f"udiv i64 {f.mul(thread, total)}, %threads")
        for thread in ("%tid", f.add("%tid", 1))
    )

    def matrix(number: Value, _: list[Value]) -> None:
        place = place_of(f, number, counts)
        pointers = [_moved(f, part, place) for part in parts]
        listed = ", ".join(f"ptr {pointer}" for pointer in pointers)
        f.do(f"call void @{product}({listed}, ptr %scratch, i64 %n, i64 0, i64 1)")

    f.loop(first, last, 1, matrix)
    f.ret()
    module.add(f)


def size_of(f: Function, dim: Dim) -> Value:
    """Emit the size of a dimension, or another number that depends on the batch as one does."""
    return f.mul("%n", dim.factor) if isinstance(dim, Batch) else str(dim)


def place_of(f: Function, number: Value, counts: list[Value]) -> list[Value]:
    """Emit the index of a matrix in each leading dimension."""
    place: list[Value] = []
    for size in reversed(counts[1:]):
        place.insert(0, f.value(f"urem i64 {number}, {size}"))
        number = f.value(f"udiv i64 {number}, {size}")
    return [number, *place]


def _moved(f: Function, part: tuple[Value, Shape, str], place: list[Value]) -> Value:
    pointer, strides, type = part
    for index, stride in zip(place, strides, strict=True):
        if stride != 0:
            pointer = f.address(pointer, f.mul(index, size_of(f, stride)), type)
    return pointer
