"""Models that train as C programs of their own, on this machine or emulated ones."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import graphc as gc
from graphc.backends.writers import model_writer
from graphc.files.code.interface import Options, interface
from graphc.ir.tensor_type import shape_at
from tests.files.c_model import STRICT

Feeds = Mapping[str, Any]


class Target(NamedTuple):
    """A compiler with its flags, and the emulator of its programs.

    A program consists of C files or, if `object` is given, of the object for a triple (None for
    this machine) and a C file that calls it.  Without a compiler it is a WebAssembly module.
    """

    compiler: str
    flags: tuple[str, ...]
    emulator: tuple[str, ...] = ()
    object: tuple[str | None, ...] | None = None

    @property
    def programs(self) -> list[str]:
        """What must be installed."""
        return [name for name in (self.compiler, *self.emulator[:1]) if name]


def _emulated(machine: str, prefix: str, *flags: str) -> Target:
    return Target(f"{prefix}-gcc", ("-static", *flags), (f"qemu-{machine}",))


WHOLE = "-U__FMA__ -U__AVX__ -U__SSE2__ -U__SSE4_1__ -U__AVX512F__ -U__FP_FAST_FMA -U__FP_FAST_FMAF"
"""Flags under which a file computes in C what the processor could: fma, roots and rounding."""
TARGETS = {
    "gcc -O0": Target("gcc", ("-O0", "-march=native")),
    "gcc -O2": Target("gcc", ("-O2", "-march=native")),
    "gcc -O3": Target("gcc", ("-O3", "-march=native")),
    "gcc -Os": Target("gcc", ("-Os",)),
    "gcc -O3 -std=gnu99": Target("gcc", ("-O3", "-march=native", "-std=gnu99")),
    "gcc -O2, nothing but C": Target("gcc", ("-O2", *WHOLE.split())),
    "clang -O2": Target("clang", ("-O2", "-march=native")),
    "clang -O3": Target("clang", ("-O3", "-mavx2", "-mfma")),
    "aarch64": _emulated("aarch64", "aarch64-linux-gnu", "-O2"),
    "riscv64": _emulated("riscv64", "riscv64-linux-gnu", "-O2"),
    "arm, hard float": _emulated("arm", "arm-linux-gnueabihf", "-O2"),
    "arm, hard float with fma": _emulated("arm", "arm-linux-gnueabihf", "-O2", "-mfpu=vfpv4"),
    "arm, soft float": Target(
        "arm-none-eabi-gcc", ("-O2", "-mcpu=arm926ej-s", "--specs=rdimon.specs"), ("qemu-arm",)
    ),
}
"""What a model is compiled for."""
_CORTEX = "-mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16 --specs=rdimon.specs"
OBJECTS = {
    "object": Target("cc", (), (), (None,)),
    "object for aarch64": _emulated("aarch64", "aarch64-linux-gnu")._replace(
        object=("aarch64-linux-gnu",)
    ),
    "object for riscv64": _emulated("riscv64", "riscv64-linux-gnu")._replace(
        object=("riscv64-linux-gnu",)
    ),
    "object for 32-bit ARM": _emulated("arm", "arm-linux-gnueabihf")._replace(
        object=("armv7a-linux-gnueabihf",)
    ),
    "object for Cortex-M4": Target(
        "arm-none-eabi-gcc",
        tuple(_CORTEX.split()),
        ("qemu-arm", "-cpu", "cortex-m4"),
        ("thumbv7em-none-eabihf",),
    ),
    "WebAssembly": Target("", (), ("node",), ("wasm32",)),
}
"""The targets of objects."""
TARGETS |= OBJECTS
SANITIZED = {
    name: Target(name, ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"))
    for name in ("gcc", "clang")
}

_MAIN = """\
#include <stdio.h>
#include "model.h"

static unsigned char state[MODEL_STATE_BYTES + 1] __attribute__((aligned(64)));
static unsigned char work[MODEL_WORK_BYTES + 1] __attribute__((aligned(64)));
{arrays}

int main(void)
{{
    FILE *feeds = fopen("feeds.bin", "rb"), *out = fopen("state.bin", "wb");
    if (!feeds || !out) return 1;
    model_init(state);
    for (int step = 0; step < {steps}; ++step) {{
{reads}
        model_train_step({arguments});
    }}
    fwrite(state, 1, MODEL_STATE_BYTES, out);
    fclose(out);
    return 0;
}}
"""

_SCRIPT = """\
import {{ readFileSync, writeFileSync }} from "node:fs";
const {{ instance }} = await WebAssembly.instantiate(readFileSync("model.o"), {{}});
const run = instance.exports, feeds = readFileSync("feeds.bin");
const state = run.__heap_base.value, work = state + run.model_state_bytes.value;
let end = work + run.model_work_bytes.value, at = 0;
const places = {sizes}.map((size) => {{
  end = (end + 7) & ~7;
  end += size;
  return end - size;
}});
const bytes = new Uint8Array(run.memory.buffer);
run.model_init(state);
for (let step = 0; step < {steps}; ++step) {{
  {fed}.forEach((size, i) => {{
    bytes.set(feeds.subarray(at, at + size), places[i]);
    at += size;
  }});
  run.model_train_step({memory}, {rows}, ...places);
}}
writeFileSync("state.bin", bytes.slice(state, work));
"""


class Trained:
    """The source of a program that trains a model on given batches, and its results."""

    def __init__(self, ex: gc.Executor, folder: Path, batches: Sequence[Feeds], rows: int) -> None:
        gc.export_c(ex, folder / "model.c", name="model")
        found, _ = interface(ex, model_writer("c"), Options(name="model"))
        self.ex, self.folder, self.interface = ex, folder, found
        step = next(e for e in found.entries if e.name == "model_train_step")
        feeds = [
            [np.ascontiguousarray(b[a.declared], a.type.dtype) for a in step.feeds] for b in batches
        ]
        (folder / "feeds.bin").write_bytes(b"".join(x.tobytes() for b in feeds for x in b))
        sizes = [x.nbytes for x in feeds[0]]
        sizes += [
            int(np.prod(shape_at(a.type.shape, rows))) * np.dtype(a.type.dtype).itemsize
            for a, _ in step.results
        ]
        arrays = [
            f"static unsigned char a{i}[{size} + 1] __attribute__((aligned(64)));"
            for i, size in enumerate(sizes)
        ]
        reads = [
            f"        if (fread(a{i}, 1, {size}, feeds) != {size}) return 2;"
            for i, size in enumerate(sizes[: len(step.feeds)])
        ]
        arguments = [
            *["state"] * bool(found.state),
            "work",
            str(rows),
            *(f"(void *)a{i}" for i in range(len(sizes))),
        ]
        text = _MAIN.format(
            arrays="\n".join(arrays),
            steps=len(batches),
            reads="\n".join(reads),
            arguments=", ".join(arguments),
        )
        (folder / "main.c").write_text(text)
        script = _SCRIPT.format(
            sizes=sizes,
            steps=len(batches),
            fed=sizes[: len(step.feeds)],
            memory="state, work" if found.state else "work",
            rows=rows,
        )
        (folder / "main.mjs").write_text(script)

    def state(self, target: Target) -> dict[str, Any]:
        """The state after all steps, of a program for a target."""
        model = "model.c"
        if target.object is not None:
            model, (triple, *_) = "model.o", target.object
            gc.export_object(self.ex, self.folder / model, target=triple, name="model")
        if target.compiler:
            command = [target.compiler, *STRICT, *target.flags, "main.c", model, "-o", "program"]
            _run(command, self.folder)
        _run([*target.emulator, "./program" if target.compiler else "main.mjs"], self.folder)
        image = (self.folder / "state.bin").read_bytes()
        found = {}
        for name, array in self.interface.state.items():
            start = self.interface.offsets[name]
            bits = image[start : start + array.nbytes]
            found[name] = np.frombuffer(bits, array.dtype).reshape(array.shape)
        return found


def _run(command: Sequence[str], folder: Path) -> None:
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-3000:]}"


def executor_of(
    net: gc.Net, batch: int, backend: str = "native", contract: str = "fused", **options: Any
) -> gc.Executor:
    """An executor that trains with Adam at 0.001, from seed 1."""
    optimizer = options.pop("optimizer", None) or gc.Adam(lr=0.001)
    plan = gc.compile(
        net, batch=batch, optimizer=optimizer, backend=backend, contract=contract, **options
    )
    return gc.Executor(plan, seed=1)


def trained(ex: gc.Executor, batches: Sequence[Feeds]) -> dict[str, Any]:
    """The state after a step for each batch."""
    for feeds in batches:
        ex.step(feeds)
    return {name: np.array(value) for name, value in ex.state.items()}


def unlike(state: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names of states that differ in any bit; a NaN equals every NaN."""
    return [name for name in other if _bits(state[name]) != _bits(other[name])]


def digest(ex: gc.Executor, state: Mapping[str, Any]) -> str:
    """The SHA-256 of all parameters, one after the other in the order of their names."""
    found = hashlib.sha256()
    for name in sorted(ex.parameters):
        found.update(_bits(state[name]))
    return found.hexdigest()


def _bits(array: Any) -> bytes:
    array = np.array(array)
    if array.dtype.kind == "f":
        array[np.isnan(array)] = np.nan
    return array.tobytes()
