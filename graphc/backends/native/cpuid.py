"""The identity of this processor and of LLVM, which is not loaded for it.

LLVM describes a processor by what the instruction CPUID says, and by what of it the system uses.
Where these numbers and the files of llvmlite are the same, so is its description.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from importlib.util import find_spec
from mmap import PAGESIZE

from graphc.backends.native.executable_memory import address_of, mapped

BASES = 0x0, 0x80000000
"""The first leaves of CPUID's two tables, which say what the last one is."""
QUERIES = (
    *((leaf, 0) for leaf in BASES),
    (0x1, 0),
    (0x7, 0),
    (0x7, 1),
    (0xD, 1),
    (0x14, 0),
    (0x19, 0),
    (0x1E, 1),
    (0x24, 0),
    (0x80000001, 0),
    (0x80000008, 0),
)
"""The leaves and subleaves that tell of vendor, model and instructions."""
SAVES_STATE = 1 << 27
"""The bit of the third register of leaf 1 that says that XGETBV can be asked."""

# push rbx; mov eax, edi; mov ecx, esi; mov r8, rdx; cpuid
# mov [r8], eax; mov [r8 + 4], ebx; mov [r8 + 8], ecx; mov [r8 + 12], edx; pop rbx; ret
CPUID = bytes.fromhex("53 89f8 89f1 4989d0 0fa2 418900 41895804 41894808 4189500c 5b c3")
"""The machine code of `void cpuid(int leaf, int subleaf, int registers[4])`."""
# xor ecx, ecx; xgetbv; mov [rdi], eax; mov [rdi + 4], edx; ret
XGETBV = bytes.fromhex("31c9 0f01d0 8907 895704 c3")
"""The machine code of `void xgetbv(int registers[2])`: the state that the system saves."""


def identity() -> str | None:
    """Return a text that differs if LLVM may describe this machine otherwise; None if unknown."""
    try:
        return f"{_processor()} {_llvmlite()}"
    except (OSError, ValueError):  # the latter if something else has the name
        return None


def _processor() -> dict[tuple[int, int], list[int]]:
    """Return the registers after each query; raise OSError if this is not an x86-64 on Linux."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise OSError
    memory = mapped(CPUID + XGETBV, PAGESIZE)
    start = address_of(memory)
    cpuid = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)(start)
    xgetbv = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(start + len(CPUID))
    registers = (ctypes.c_uint32 * 4)()
    found: dict[tuple[int, int], list[int]] = {}
    for leaf, subleaf in QUERIES:
        base = leaf & BASES[1]
        # Beyond the last leaf some processors answer with another one's, which may vary.
        if leaf == base or leaf <= found[base, 0][0]:
            cpuid(leaf, subleaf, ctypes.addressof(registers))
            found[leaf, subleaf] = list(registers)
    model, _, features, more = found[1, 0]
    found[1, 0] = [model, features, more]  # without the number of the core
    if features & SAVES_STATE:
        xgetbv(ctypes.addressof(registers))
        found[1, 0] += registers[:2]
    memory.close()
    return found


def _llvmlite() -> str:
    """Return the version and the state of llvmlite's files; raise OSError if they are not found."""
    spec = find_spec("llvmlite")
    if spec is None or spec.origin is None:
        raise FileNotFoundError
    folder = os.path.dirname(spec.origin)
    library = os.path.join(folder, "binding", "libllvmlite.so")
    status = os.stat(library)
    with open(os.path.join(folder, "_version.py"), encoding="utf-8") as file:
        version = file.read()
    return f"{library} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {version}"
