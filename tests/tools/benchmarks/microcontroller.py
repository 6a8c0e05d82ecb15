"""The size of inference and training on a Cortex-M4, beside emx-onnx-cgen.

    python -m tests.tools.benchmarks.microcontroller [--emx PATH]

needs `arm-none-eabi-gcc`, and, for the comparison, the command `emx-onnx-cgen` (pip install
emx-onnx-cgen), which reads what `gc.onnx.save` writes.  Both infer one row.  Code and constants are
sections of the object.  RAM is state, work and the deepest stack by GCC's own account; the peer has
all values on the stack.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import graphc as gc
from tests.backends.c.microcontroller import CORE, HARD, NETS, deepest, executor, objects

EMX = ["--input-dim", "x:0=1", "--large-temp-threshold", "0", "--large-weight-threshold", "0"]
Sizes = tuple[int, int, int]


def measured(folder: Path, name: str, optimize: str) -> Sizes:
    """The bytes of code, of constants, and of stack of a C file."""
    objects(folder, ["arm-none-eabi-gcc", optimize, *CORE, *HARD], name)
    command = ["arm-none-eabi-size", "-A", "model.o"]
    listed = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    found = {".text": 0, ".rodata": 0}
    for line in listed.stdout.splitlines():
        for section in found:
            if line.startswith(section):
                found[section] += int(line.split()[1])
    return found[".text"], found[".rodata"], deepest(folder)


def exported(folder: Path, ex: gc.Executor, optimize: str, infers: bool) -> Sizes:
    """The bytes of code, of constants, and of RAM of an exported model."""
    batch = 1 if infers else ex.plan.batch
    _, header, _ = gc.export_c(ex, folder / "own.c", infer_only=infers, batch=batch)
    code, constants, stack = measured(folder, "own", optimize)
    lines = [line.split() for line in header.read_text().splitlines() if "#define" in line]
    memory = [int(x[2]) for x in lines if x[1].endswith(("STATE_BYTES", "WORK_BYTES"))]
    return code, constants, stack + sum(memory)


def rows(folder: Path, emx: str | None) -> Iterator[tuple[str, ...]]:
    """The rows of the table."""
    for name in NETS:
        ex = executor(name, "numpy")
        if emx:
            gc.onnx.save(ex, folder / "peer.onnx", losses=False)
            command = [emx, "compile", *EMX, "peer.onnx", "peer.c"]
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
        for optimize in ("-Os", "-O2"):
            if emx:
                yield row(
                    name, "emx-onnx-cgen, infers", optimize, measured(folder, "peer", optimize)
                )
            yield row(name, "graphc, infers", optimize, exported(folder, ex, optimize, True))
            trains = exported(folder, ex, optimize, False)
            yield row(name, "graphc, infers and trains", optimize, trains)


def row(name: str, what: str, optimize: str, sizes: Sizes) -> tuple[str, ...]:
    return name, what, optimize, *(f"{size:,}" for size in sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--emx", default=shutil.which("emx-onnx-cgen"))
    emx = parser.parse_args().emx
    print("| net | | | code | constants | RAM |\n| --- | --- | --- | ---: | ---: | ---: |")
    with TemporaryDirectory() as folder:
        for cells in rows(Path(folder), emx):
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
