"""Modules become objects, several at a time: each is compiled by a thread in a context of its own.

llvmlite calls LLVM under a lock, and so one module at a time.  LLVM itself only wants that no two
threads use the same context or target machine.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from threading import Thread
from typing import Any

from graphc.backends.native.llvm import LLVM, bindings
from graphc.backends.native.target import Target, new_machine
from graphc.base.usable_cores import thread_count


def objects_of(texts: Sequence[str], target: Target) -> list[bytes]:
    """Return the objects of modules; to be called under the lock of LLVM.

    They do not depend on the number of threads.  Raise RuntimeError with LLVM's message if a text
    is not a valid module.
    """
    work = _Work(texts, target)
    helpers: list[Thread] = []
    try:
        with suppress(RuntimeError):  # no more threads may start: this one does it all
            for _ in range(min(thread_count(), len(texts)) - 1):
                helper = Thread(target=LLVM.help, args=(work.run,))
                helper.start()
                helpers.append(helper)
        work.run()
    finally:
        work.left.clear()
        for helper in helpers:
            helper.join()
    return work.result()


class _Work:
    """The modules that some threads compile."""

    def __init__(self, texts: Sequence[str], target: Target) -> None:
        self._texts, self._target = texts, target
        self._made: dict[int, bytes] = {}
        self._errors: dict[int, Exception] = {}
        # The longest first, lest one thread begins it when the others end.
        self.left = deque(sorted(range(len(texts)), key=lambda i: -len(texts[i])))

    def run(self) -> None:
        """Compile modules until none is left or one is wrong."""
        machine = new_machine(self._target)
        with suppress(IndexError):
            while True:
                self._compile(self.left.popleft(), machine)

    def _compile(self, i: int, machine: Any) -> None:
        try:
            self._made[i] = _object(machine, parsed(self._texts[i], self._target, machine))
        except Exception as error:
            self._errors[i] = error
            self.left.clear()

    def result(self) -> list[bytes]:
        """Return the objects in order, or raise the first error."""
        for _, error in sorted(self._errors.items()):
            raise error
        return [self._made[i] for i in range(len(self._texts))]


def parsed(ir: str, target: Target, machine: Any) -> Any:
    """Return the module of a text; raise RuntimeError with LLVM's message if it is not valid."""
    llvm = bindings()
    module = llvm.parse_assembly(ir, context=llvm.create_context())
    module.triple = target.triple
    module.data_layout = str(machine.target_data)
    module.verify()
    return module


def _object(machine: Any, module: Any) -> bytes:
    """Return the object of a module, made without llvmlite's lock."""
    ffi = bindings().ffi
    with ffi.OutputString() as error:
        made = _unlocked()(machine, module, True, error)
        if not made:
            raise RuntimeError(str(error))
    try:
        lib = ffi.lib
        return ctypes.string_at(lib.LLVMPY_GetBufferStart(made), lib.LLVMPY_GetBufferSize(made))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(made)


@lru_cache(maxsize=1)
def _unlocked() -> Any:
    """Return LLVM's function that makes an object."""
    lib = bindings().ffi.lib
    locked = lib.LLVMPY_TargetMachineEmitToMemory
    if not hasattr(lib, "_handle"):  # another llvmlite than today's: one module at a time
        return locked
    function = ctypes.CDLL(None, handle=lib._handle).LLVMPY_TargetMachineEmitToMemory
    function.argtypes, function.restype = locked.argtypes, locked.restype
    return function
