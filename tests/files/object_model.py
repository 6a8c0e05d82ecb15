"""A model that was exported as an object for this processor, linked by LLVM and called."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

import graphc as gc
from graphc.backends.native.export import ObjectWriter
from graphc.backends.native.llvm import LLVM, bindings
from graphc.backends.native.target import Target, host, machine
from graphc.files.code.interface import Options, interface
from graphc.ir.tensor_type import shape_at


def narrow() -> Target:
    """A machine like this one without vectors, but with fused multiply-add."""
    cpu = "generic" if host().arm else "x86-64-v3"
    return replace(host(), cpu=cpu, features="", bits=32, lanes=1)


def plain() -> Target:
    """A processor of this machine's kind that lacks what it may: fused multiply-adds, rounding."""
    return narrow() if host().arm else replace(narrow(), cpu="x86-64")


@cache
def _session() -> Any:
    return bindings().create_lljit_compiler(machine(host()), use_jit_link=True)


class ObjectModel:
    """An object in memory, with the state and work that it runs on."""

    def __init__(self, ex: gc.Executor, target: Target, **options: Any) -> None:
        writer = ObjectWriter(target)
        self.interface, _ = interface(ex, writer, Options(name="model", **options))
        self.content, _ = writer.write(self.interface, "model.h", False, "")
        names = [entry.name for entry in self.interface.entries]
        names += ["model_init"] if self.interface.state else []
        self.library = LLVM(self._linked, [*map(self.interface.symbol, names)])
        self.state = np.full(self.interface.state_bytes, 255, np.uint8)
        self.work = np.full(self.interface.work_bytes, 255, np.uint8)
        if self.interface.state:
            self._function("model_init", None)(_address(self.state))

    def _linked(self, names: list[str]) -> Any:
        builder = bindings().JITLibraryBuilder().add_object_img(self.content)
        for name in names:
            builder.export_symbol(name)
        return builder.link(_session(), f"object{id(self)}")

    def _function(self, name: str, result: Any) -> Any:
        return ctypes.CFUNCTYPE(result)(self.library[self.interface.symbol(name)])

    def call(self, function: str, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Call a function; return the arrays that it wrote, and what it returned as "loss"."""
        entry = next(e for e in self.interface.entries if e.name == f"model_{function}")
        arrays = [np.ascontiguousarray(feeds[a.declared], a.type.dtype) for a in entry.feeds]
        n = next((len(x) for x in arrays if x.ndim), self.interface.batch)
        results = {
            a.declared: np.zeros(shape_at(a.type.shape, n), a.type.dtype) for a, _ in entry.results
        }
        kinds = {"float32": ctypes.c_float, "float64": ctypes.c_double}
        result = kinds[entry.losses[0].type.dtype] if entry.losses else None
        memory = [self.state, self.work] if self.interface.state else [self.work]
        pointers = [_address(x) for x in (*arrays, *results.values())]
        loss = self._function(entry.name, result)(
            *map(_address, memory), ctypes.c_ssize_t(n), *pointers
        )
        return results | ({"loss": loss} if entry.losses else {})

    def read(self, name: str) -> Any:
        """The value of a state."""
        array, at = self.interface.state[name], self.interface.offsets[name]
        return self.state[at : at + array.nbytes].view(array.dtype).reshape(array.shape)


def _address(array: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
