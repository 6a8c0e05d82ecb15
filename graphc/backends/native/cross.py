"""The targets of objects: a triple becomes a processor, its features and its registers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from graphc.backends.native.target import Target, bindings, host
from graphc.base.errors import GraphError
from graphc.kernels.kernel import LANES


@dataclass(frozen=True)
class Machine:
    """What is known of an architecture."""

    pointer: int
    cpu: str
    """The processor if none is named."""
    features: str = ""
    """The features that are added to those of the processor."""
    bits: int = 128
    abi: str = ""
    lanes: int = LANES


# NEON of 32 bits has no subnormal numbers, and the units of vectors of RISC-V are rare.
MACHINES: Mapping[str, Machine] = {
    r"x86_64|amd64": Machine(64, "x86-64-v3", bits=256),
    r"aarch64|arm64": Machine(64, "generic"),
    r"thumbv\d\w*m(\.\w+)?": Machine(32, "cortex-m4", bits=32, lanes=1),
    r"armv?\w*": Machine(32, "cortex-a7", "-neon", bits=32, lanes=1),
    r"riscv64": Machine(64, "generic-rv64", "+m,+a,+f,+d,+c", bits=32, lanes=1, abi="lp64d"),
    r"riscv32": Machine(32, "generic-rv32", "+m,+c", abi="ilp32", bits=32, lanes=1),
    r"wasm32": Machine(32, "generic", "+bulk-memory", bits=32, lanes=1),
}
"""The architectures, by patterns of the first part of a triple."""


def target_of(triple: str | None, cpu: str | None = None) -> Target:
    """Return the target of a triple; this machine if it is None."""
    if triple is None:
        return host()
    architecture = triple.split("-")[0]
    found = [m for pattern, m in MACHINES.items() if re.fullmatch(pattern, architecture)]
    if not found:
        raise GraphError(f"no objects for {triple}")
    machine = found[0]
    return Target(
        _normal(triple), cpu or machine.cpu, machine.features, machine.bits,
        machine.pointer, machine.abi, machine.lanes,
    )


def _normal(triple: str) -> str:
    """Return a triple with its vendor: LLVM takes the parts by their places."""
    architecture, *rest = triple.split("-")
    if not rest:
        rest = ["unknown", "none" if architecture != "wasm32" else "unknown"]
    elif rest[0] not in ("unknown", "pc", "apple"):
        rest = ["unknown", *rest]
    return "-".join([architecture, *rest])


@lru_cache
def machine_of(target: Target) -> Any:
    """Return LLVM's target machine for objects; to be used by one thread at a time."""
    llvm = bindings()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    reloc = "static" if "-none" in target.triple or target.pointer == 32 else "pic"
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, reloc=reloc, codemodel="small",
        abiname=target.abi,
    )


def compiled(ir: str, target: Target) -> bytes:
    """Return the object of the text of a module."""
    llvm, machine = bindings(), machine_of(target)
    module = llvm.parse_assembly(ir)
    module.triple, module.data_layout = target.triple, str(machine.target_data)
    module.verify()
    return bytes(machine.emit_object(module))
