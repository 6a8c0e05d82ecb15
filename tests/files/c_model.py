"""A model that was exported as C, compiled and called."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gc
from graphc.backends.interface import Interface
from graphc.backends.writers import model_writer
from graphc.files.code.interface import Options, interface
from graphc.ir.tensor_type import shape_at
from tests.extras import needs

STRICT = [
    "-std=c99",
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Wconversion",
    "-Wdouble-promotion",
    "-Werror",
]


class CModel:
    """A compiled model with its memory."""

    def __init__(
        self, ex: gc.Executor, folder: Path, *flags: str, cc: str = "cc", **options: Any
    ) -> None:
        source, *_ = gc.export_c(ex, folder / "model.c", name="model", **options)
        library = folder / f"model-{len([*folder.glob('*.so')])}.so"
        command = [needs(cc), *STRICT, *flags, "-fPIC", "-shared", str(source), "-o"]
        subprocess.run([*command, str(library)], check=True, capture_output=True)
        self.library = ctypes.CDLL(str(library))
        self.interface: Interface
        self.interface, _ = interface(ex, model_writer("c"), Options(name="model", **options))
        self.state = np.zeros(self.interface.state_bytes, np.uint8)
        self.work = np.full(self.interface.work_bytes, 255, np.uint8)
        if options.get("weights") == "file":
            image = (folder / "model.bin").read_bytes()
            self.state[:] = np.frombuffer(image, np.uint8)
        elif self.interface.state:
            self.function("model_init")(_address(self.state))

    def function(self, name: str) -> Any:
        """A function by its name in the header."""
        return getattr(self.library, self.interface.symbol(name))

    def call(self, function: str, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Call a function; return the arrays that it wrote, and what it returned as "loss"."""
        entry = next(e for e in self.interface.entries if e.name == f"model_{function}")
        arrays = [np.ascontiguousarray(feeds[a.declared], a.type.dtype) for a in entry.feeds]
        n = len(arrays[0])
        results = {
            a.declared: np.zeros(shape_at(a.type.shape, n), a.type.dtype) for a, _ in entry.results
        }
        called = self.function(entry.name)
        called.restype = ctypes.c_float if entry.losses else None
        memory = [self.state, self.work] if self.interface.state else [self.work]
        pointers = [_address(x) for x in (*arrays, *results.values())]
        loss = called(*map(_address, memory), ctypes.c_ssize_t(n), *pointers)
        return results | ({"loss": np.float32(loss)} if entry.losses else {})

    def read(self, name: str) -> Any:
        """The value of a state."""
        array, at = self.interface.state[name], self.interface.offsets[name]
        return self.state[at : at + array.nbytes].view(array.dtype).reshape(array.shape)


def _address(array: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
