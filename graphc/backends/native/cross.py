"""Code for other machines than this one: targets by their triples, and LLVM's objects for them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from tempfile import TemporaryFile
from typing import Any, NamedTuple

from graphc.backends.arithmetic import FLOATS
from graphc.backends.native.ir import Function, Module
from graphc.backends.native.llvm import bindings
from graphc.backends.native.target import Target, host, without_tiles
from graphc.backends.native.vectors import Vectors
from graphc.backends.softfloat import ARITY
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc


class Machine(NamedTuple):
    """The processors of an architecture: the one that is meant if none is named, and its bits."""

    cpu: str
    pointer: int
    bits: int = 32
    """The width of a vector register; 32 bits are none."""
    lanes: int = 1
    """The lanes of vectors in loops."""
    features: str = ""
    """The features that are switched on or off."""
    abi: str = ""


# Vectors of 32-bit ARM have no subnormal numbers.
MACHINES: Mapping[str, Machine] = {
    r"x86_64|amd64": Machine("x86-64-v3", 64, 256, 16),
    r"aarch64|arm64": Machine("generic", 64, 128, 16),
    r"thumbv6m": Machine("cortex-m0", 32),
    r"thumbv7m": Machine("cortex-m3", 32),
    r"thumbv7em": Machine("cortex-m4", 32),
    r"thumbv8m\.main": Machine("cortex-m33", 32),
    r"armv[78]\w*": Machine("cortex-a7", 32, features="-neon"),
    r"riscv64": Machine("generic-rv64", 64, features="+m,+a,+f,+d,+c", abi="lp64d"),
    r"riscv32": Machine("generic-rv32", 32, features="+m,+c", abi="ilp32"),
    r"wasm32": Machine("generic", 32, features="+bulk-memory"),
}
"""The architectures, by patterns of the first part of a triple."""
SMALL = 'optsize minsize "no-builtins"'
"""The attributes of functions of which little code is made, without calls of a C library."""
EXAMPLES = "x86_64-linux, aarch64-linux, thumbv7em-none-eabihf, riscv32, riscv64-linux and wasm32"


def target_of(triple: str | None, cpu: str | None) -> Target:
    """Return the target of a triple; without one this machine.

    Raise GraphError for an architecture that is not known.
    """
    if triple is None:
        if cpu is None:
            return without_tiles(host())
        triple = host().triple
    architecture = triple.split("-")[0]
    for pattern, machine in MACHINES.items():
        if re.fullmatch(pattern, architecture):
            return _without_idle_vectors(
                Target(
                    _normal(triple),
                    cpu or machine.cpu,
                    machine.features,
                    machine.bits,
                    machine.pointer,
                    machine.abi,
                    machine.lanes,
                )
            )
    raise GraphError(
        f"there are no objects for the target {triple!r}",
        loc=caller_loc(),
        hint=f"targets are such as {EXAMPLES}",
    )


def _without_idle_vectors(target: Target) -> Target:
    """Return a target without vectors if multiply-adds, most of the work, are long there anyway."""
    return replace(target, bits=32, lanes=1) if "fma.float32" in lacking(target) else target


def _normal(triple: str) -> str:
    """Return a triple with its vendor, and with a system: LLVM takes the parts by their places."""
    architecture, *rest = triple.split("-")
    if not rest or rest[0] not in ("unknown", "pc", "apple"):
        rest = ["unknown", *(rest or ["none"])]
    return "-".join([architecture, *rest])


@lru_cache
def machine_of(target: Target) -> Any:
    """Return LLVM's machine for objects; to be used by one thread at a time."""
    llvm = bindings()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    make = partial(
        llvm.Target.from_triple(target.triple).create_target_machine,
        cpu=target.cpu,
        features=target.features,
        opt=2,
        reloc="pic" if "linux" in target.triple else "static",
        codemodel="small",
        abiname=target.abi,
    )
    machine, said = _with_messages(make)
    if "not a recognized processor" in said:
        raise GraphError(
            f"LLVM knows no processor {target.cpu!r} of {target.triple}",
            loc=caller_loc(),
            hint="leave it out for a usual one",
        )
    return machine


def _with_messages(make: Callable[[], Any]) -> tuple[Any, str]:
    """Return what `make` returns, and what LLVM writes to the standard error meanwhile."""
    with TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            made = make()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        return made, file.read().decode(errors="replace")


def compiled(ir: str, target: Target) -> bytes:
    """Return the object of the text of a module."""
    machine = machine_of(target)
    module = _parsed(ir, target, machine)
    if target.lanes == 1:
        _shorten(module, machine)
    return bytes(machine.emit_object(module))


def _shorten(module: Any, machine: Any) -> None:
    """Run LLVM's passes, which keep the bits and here make code smaller."""
    llvm = bindings()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_unrolling = options.loop_interleaving = False
    options.loop_vectorization = options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)


def _parsed(ir: str, target: Target, machine: Any) -> Any:
    module = bindings().parse_assembly(ir)
    module.triple, module.data_layout = target.triple, str(machine.target_data)
    module.verify()
    return module


def module_of(target: Target, lacks: frozenset[str], fused: bool = True) -> Module:
    """Return a module without functions for a machine that lacks these operations."""
    module = Module(target.lanes, lacks, fused)
    if target.lanes == 1:
        module.attributes = SMALL
    return module


@lru_cache
def lacking(target: Target) -> frozenset[str]:
    """Return what a machine lacks instructions for, as "fma.float32": LLVM would call libraries."""
    module, probed = (
        module_of(target, frozenset()),
        [(name, dtype) for name in ARITY for dtype in FLOATS],
    )
    for name, dtype in probed:
        f = Function(module, f"probe_{name}_{dtype}", "ptr %x", linkage="")
        v = Vectors(f, 1)
        arguments = [v.load("%x", dtype)] * ARITY[name]
        v.store(v.intrinsic(name, arguments, dtype), "%x", dtype)
        f.ret()
        module.add(f)
    machine = machine_of(target)
    text = machine.emit_assembly(_parsed(module.text(), target, machine))
    called = set(re.findall(r"^\s+\w+\s+_?(\w+)(?:@\w+)?$", text, re.MULTILINE))
    names = {f"{name}.{dtype}": name + "f" * (dtype == "float32") for name, dtype in probed}
    return frozenset(probe for probe, name in names.items() if name in called)
