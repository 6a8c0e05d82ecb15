"""Compile a `Loop` kernel, run it on arrays between guards, and say what it should compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.backends.native.ir import Function, Module
from graphc.backends.native.loops import emit_loop
from graphc.ir.expr import Broadcast
from graphc.ir.tensor_type import dim_at, numpy_dtype
from graphc.kernels.interpret import run
from graphc.kernels.kernel import Loop
from tests.backends.native.compiled_function import Compiled

Array = NDArray[Any]
Arrays = Mapping[str, Array]
GUARD = 128
"""Bytes before and after each buffer, all ones: NaN to whoever reads them as a float."""


class LoopFunction:
    """The native function of a kernel."""

    def __init__(
        self, kernel: Loop, target: str = "host", pitch: Mapping[str, int] | None = None
    ) -> None:
        module = Module()
        code = emit_loop(module, kernel, pitch or {})
        self.kernel, self.buffers = kernel, code.buffers
        arguments = "".join(f"ptr %a{i}, " for i in range(len(code.buffers)))
        arguments += "i64 %n, i64 %tid, i64 %threads"
        function = Function(module, "tested", arguments, linkage="")
        function.do(f"call void @{code.name}({arguments})")
        function.ret()
        module.add(function)
        self.compiled = Compiled(module, "tested", target)

    def __call__(
        self,
        arrays: Arrays,
        n: int = 1,
        threads: Sequence[int] = (0,),
        share: Mapping[str, str] | None = None,
    ) -> dict[str, Array]:
        """The buffers afterwards.

        `threads` are the threads in the order in which they run; `share` says for a buffer in
        whose memory it lies.
        """
        roots = {name: (share or {}).get(name, name) for name in self.buffers}
        memory = {root: _Guarded(arrays[root]) for root in dict.fromkeys(roots.values())}
        views = [memory[roots[name]].view for name in self.buffers]
        for thread in threads:
            self.compiled(*views, n, thread, len(threads))
        return {name: memory[roots[name]].checked() for name in self.buffers}


class _Guarded:
    """A copy of an array between guards, at an address with no alignment but the dtype's."""

    def __init__(self, array: Array) -> None:
        self.bytes = np.full(array.nbytes + 2 * GUARD + 64, 255, np.uint8)
        start = -self.bytes.ctypes.data % 64 + GUARD - 64 + array.itemsize
        self.inside = slice(start, start + array.nbytes)
        self.view = self.bytes[self.inside].view(array.dtype).reshape(array.shape)
        self.view[...] = array

    def checked(self) -> Array:
        """What the array is now; the guards must be as they were."""
        assert np.all(self.bytes[: self.inside.start] == 255), "written before the buffer"
        assert np.all(self.bytes[self.inside.stop :] == 255), "written after the buffer"
        return self.view.copy()


def expected(kernel: Loop, arrays: Arrays, n: int = 1) -> dict[str, Array]:
    """What the kernel writes, by the interpreter of kernels."""
    after = {name: array.copy() for name, array in arrays.items()}
    run(kernel, after, n)
    return {store.buffer: after[store.buffer] for store in kernel.body.stores}


def arrays_for(kernel: Loop, n: int = 1, seed: int = 0) -> dict[str, Array]:
    """Something for every buffer; labels are numbers of columns, "var" is positive."""
    rng = np.random.default_rng(seed)
    rows, columns = dim_at(kernel.rows, n), dim_at(kernel.columns, n)
    arrays: dict[str, Array] = {}
    for step in (step for step in kernel.body.steps if step.op == "load"):
        shape = shape_of(step.broadcast, rows, columns)
        if np.dtype(step.dtype).kind == "f":
            numbers: Array = rng.standard_normal(shape)
            numbers = np.abs(numbers) + 0.1 if "var" in step.buffer else numbers
        else:
            numbers = rng.integers(0, {"label": columns}.get(step.buffer, 100), shape)
            numbers = numbers % 2 if step.dtype == "bool" else numbers
        arrays[step.buffer] = numbers.astype(step.dtype)
    for store in kernel.body.stores:
        dtype = kernel.body.steps[store.step].dtype
        shape = shape_of(store.broadcast, rows, columns)
        arrays.setdefault(store.buffer, np.ones(shape, numpy_dtype(dtype)))
    return arrays


def shape_of(broadcast: Broadcast, rows: int, columns: int) -> tuple[int, int]:
    """The shape of a buffer of that broadcast."""
    return (
        rows if broadcast in ("each", "row") else 1,
        columns if broadcast in ("each", "column") else 1,
    )
