"""Compile a small function of vectors, and call it with arrays."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from numpy.typing import NDArray

from graphc.backends.native.ir import Function, Module, Value
from graphc.backends.native.target import CODEGEN
from graphc.backends.native.vectors import Vectors, element_type
from graphc.ir.tensor_type import numpy_dtype

Array = NDArray[Any]
Emit = Callable[[Vectors, list[Value]], Sequence[Value]]

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()

X86 = platform.machine().lower() in ("x86_64", "amd64")
TARGETS = ("host", "avx2", "sse") if X86 and llvm.get_host_cpu_features().get("avx2") else ("host",)
_NAMED = {"avx2": "x86-64-v3", "sse": "x86-64-v2"}


class Compiled:
    """A function of pointers (arrays) and 64-bit integers."""

    def __init__(self, module: Module, name: str, target: str = "host") -> None:
        """`target` is one of TARGETS."""
        machine = _machine(target)
        parsed = llvm.parse_assembly(module.text())
        parsed.triple, parsed.data_layout = machine.triple, str(machine.target_data)
        parsed.verify()
        self._compiler = llvm.create_lljit_compiler(machine)
        builder = llvm.JITLibraryBuilder().add_object_img(machine.emit_object(parsed))
        self._library = builder.add_current_process().export_symbol(name).link(self._compiler, name)
        self.address = self._library[name]

    def __call__(self, *args: Array | int) -> None:
        """Run; arrays must be C-contiguous."""
        assert all(isinstance(a, int) or a.flags.c_contiguous for a in args)
        kinds = [ctypes.c_int64 if isinstance(a, int) else ctypes.c_void_p for a in args]
        values = [a if isinstance(a, int) else a.ctypes.data for a in args]
        ctypes.CFUNCTYPE(None, *kinds)(self.address)(*values)


def _machine(target: str) -> llvm.TargetMachine:
    cpu = _NAMED.get(target) or llvm.get_host_cpu_name()
    features = "" if target in _NAMED else llvm.get_host_cpu_features().flatten()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, jit=True, **CODEGEN
    )


def function_of(
    arguments: Sequence[str],
    write: Callable[[Vectors], None],
    lanes: int,
    target: str = "host",
    fused: bool = True,
) -> Compiled:
    """Compile what `write` emits; arguments are named "ptr %a" or "i64 %n"."""
    module = Module(fused=fused)
    function = Function(module, "tested", ", ".join(arguments), linkage="")
    write(Vectors(function, lanes))
    function.ret()
    module.add(function)
    return Compiled(module, "tested", target)


def map_of(
    emit: Emit,
    inputs: Sequence[str],
    outputs: Sequence[str],
    lanes: int = 16,
    target: str = "host",
    fused: bool = True,
) -> Callable[..., list[Array]]:
    """The function that applies what `emit` writes to every element of arrays.

    `emit` gets vectors of the inputs' dtypes and yields vectors of the outputs' dtypes.
    """
    names = [f"%in{i}" for i in range(len(inputs))] + [f"%out{i}" for i in range(len(outputs))]
    arguments = [f"ptr {name}" for name in names] + ["i64 %n"]
    compiled = function_of(
        arguments, lambda v: _loop(v, emit, inputs, outputs), lanes, target, fused
    )

    def run(*arrays: Array) -> list[Array]:
        ins = [np.ascontiguousarray(a, t) for a, t in zip(arrays, inputs, strict=True)]
        outs = [np.empty(ins[0].shape, numpy_dtype(t)) for t in outputs]
        compiled(*ins, *outs, ins[0].size)
        return outs

    return run


def _loop(v: Vectors, emit: Emit, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    def step(i: Value, carried: list[Value]) -> None:
        mask = v.mask_below(v.function.sub("%n", i))

        def place(name: str, dtype: str) -> Value:
            return v.function.address(name, i, element_type(dtype))

        ins = [v.load(place(f"%in{k}", t), t, mask) for k, t in enumerate(inputs)]
        for k, (x, t) in enumerate(zip(emit(v, ins), outputs, strict=True)):
            v.store(x, place(f"%out{k}", t), t, mask)

    v.function.loop(0, "%n", v.lanes, step)
