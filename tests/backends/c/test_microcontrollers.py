"""Training and inference on small processors: the bits, the calls of libraries, and the stack."""

from __future__ import annotations

import re
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.backends.c.microcontroller import (
    CORE,
    HARD,
    NETS,
    ROWS,
    SOFT,
    cortex_m4,
    deepest,
    executor,
    objects,
)
from tests.backends.c.trained import TARGETS, Target, Trained, trained, unlike
from tests.extras import lacks, needs
from tests.reproducibility import small_nets

RV32 = "-march=rv32imafdc -mabi=ilp32d -ffreestanding -fno-math-errno -nostdlib -fuse-ld=lld"


def batches(name: str, steps: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    _, features, classes = NETS[name]
    return [
        {"x": rng.normal(size=(ROWS, features)), "y": rng.integers(0, classes, ROWS)}
        for _ in range(steps)
    ]


def available(target: Target) -> Target:
    """The target; the test is skipped where a tool of it is not installed."""
    needs(*target.programs)
    return target


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("target", ["hard float", "soft float", "riscv64"])
def test_twenty_steps_have_the_bits_of_native_code(name: str, target: str, tmp_path: Path) -> None:
    flags = ("-Os", *(HARD if target == "hard float" else SOFT))
    chosen = TARGETS[target] if target in TARGETS else cortex_m4(tmp_path, *flags)
    available(chosen)
    steps = batches(name, 20)
    ex = executor(name)
    found = Trained(ex, tmp_path, steps, ROWS).state(chosen)
    assert not unlike(trained(ex, steps), found)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [HARD, SOFT], ids=["hard float", "soft float"])
@pytest.mark.parametrize("optimize", ["-Os", "-O3"])
def test_the_file_tests_itself_on_a_cortex_m4(
    optimize: str, flags: tuple[str, ...], tmp_path: Path
) -> None:
    target = available(cortex_m4(tmp_path, optimize, *flags, "-DMODEL_SELF_TEST"))
    gc.export_c(executor("digits"), tmp_path / "model.c", name="model", self_test=True)
    command = [target.compiler, "-std=c99", *target.flags, "model.c", "-o", "program"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    run = subprocess.run(
        [*target.emulator, "program"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    infers = ["model_infer: scores"]
    steps = ["model_train_step: scores", "model_train_step returns"]
    assert run.stdout.splitlines() == [f"{x}: right" for x in [*2 * infers, *3 * steps, "state"]]


BARE = """\
#include "model.h"
static long call(long number, long a, long b, long c)
{
    register long a0 __asm__("a0") = a, a1 __asm__("a1") = b;
    register long a2 __asm__("a2") = c, a7 __asm__("a7") = number;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a7) : "memory");
    return a0;
}
static uint64_t state[MODEL_STATE_BYTES / 8], work[MODEL_WORK_BYTES / 8];
static float x[8 * FEATURES], scores[8 * CLASSES];
static int64_t y[8];
void _start(void)
{
    model_init(state);
    while (call(63, 0, (long)x, sizeof x) == sizeof x && call(63, 0, (long)y, sizeof y))
        model_train_step(state, work, 8, x, y, scores);
    call(64, 1, (long)state, sizeof state);
    call(93, 0, 0, 0);
}
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_a_32_bit_risc_v_without_any_library(name: str, tmp_path: Path) -> None:
    for tool in ("ld.lld", "qemu-riscv32"):
        needs(tool)
    steps = batches(name, 20)
    ex = executor(name)
    folder = Trained(ex, tmp_path, steps, ROWS).folder
    (folder / "main.c").write_text(BARE)
    sizes = [f"-DFEATURES={NETS[name][1]}", f"-DCLASSES={NETS[name][2]}"]
    command = [needs("clang"), "--target=riscv32-unknown-elf", *RV32.split(), "-O2", *sizes]
    files = ["main.c", "model.c", "-o", "program"]
    subprocess.run([*command, *files], cwd=folder, check=True, capture_output=True)
    feeds = (folder / "feeds.bin").read_bytes()
    run = subprocess.run(
        ["qemu-riscv32", "./program"], cwd=folder, input=feeds, check=True, capture_output=True
    )
    trained(ex, steps)
    model = Trained(ex, tmp_path, steps, ROWS).interface
    assert run.stdout == model.state_image({k: np.asarray(v) for k, v in ex.state.items()})


# ------------------------------------------------------------------ calls and stack


def called(folder: Path) -> set[str]:
    """The functions that the object needs of others."""
    command = [needs("arm-none-eabi-nm"), "-u", "model.o"]
    listed = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return {line.split()[-1] for line in listed.stdout.splitlines()}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_nothing_is_called_where_there_is_an_fpu(name: str, tmp_path: Path) -> None:
    gc.export_c(executor(name, "numpy"), tmp_path / "model.c")
    for optimize in ("-Os", "-O2"):
        objects(tmp_path, ["arm-none-eabi-gcc", optimize, *CORE, *HARD])
        assert called(tmp_path) == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_inference_without_fused_products_needs_no_doubles(name: str, tmp_path: Path) -> None:
    gc.export_c(executor(name, "numpy", "unfused"), tmp_path / "model.c", infer_only=True)
    objects(tmp_path, ["arm-none-eabi-gcc", "-Os", *CORE, *SOFT])
    doubles = {f for f in called(tmp_path) if re.match(r"__aeabi_(d|f2d|[iu]?l?2d)", f)}
    assert doubles == set()
    assert "__aeabi_fadd" in called(tmp_path)


COMPILERS = {
    "x86-64": ("gcc", "-DGRAPHC_NO_VECTORS"),
    "hard float": ("arm-none-eabi-gcc", *CORE, *HARD),
    "soft float": ("arm-none-eabi-gcc", *CORE, *SOFT),
    "riscv64": ("riscv64-linux-gnu-gcc",),
    "aarch64": ("aarch64-linux-gnu-gcc", "-DGRAPHC_NO_VECTORS"),
    "vectors": ("gcc", "-mavx512f", "-mavx512dq"),
}
VECTORS = 96 * 1024
"""The bytes of stack that vectors take besides, by the header."""


def stack_bound(header: Path) -> int:
    return int(re.findall(r"STACK_BYTES (\d+)", header.read_text())[0])


@pytest.mark.one_in(6)
@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILERS)
def test_no_call_needs_more_stack_than_the_header_says(name: str, tmp_path: Path) -> None:
    wide = partial(small_nets.net, "float64")
    for net in (*(made[0] for made in NETS.values()), small_nets.net, wide):
        plan = gc.compile(net(), batch=ROWS, optimizer=gc.Adam(lr=0.1), backend="numpy")
        ex = gc.Executor(plan, seed=0)
        _, header, _ = gc.export_c(ex, tmp_path / "model.c")
        for optimize in ("-O0", "-Os", "-O3"):
            objects(tmp_path, [*COMPILERS[name], optimize])
            bound = stack_bound(header) + VECTORS * (name == "vectors")
            assert 0 < deepest(tmp_path) <= bound, optimize


def test_without_vectors_the_stack_is_within_the_bound_here(tmp_path: Path) -> None:
    if b"Free Software" not in subprocess.check_output([needs("gcc"), "--version"]):
        lacks("gcc is another compiler here")
    _, header, _ = gc.export_c(executor("mlp", "numpy"), tmp_path / "model.c")
    objects(tmp_path, [*COMPILERS["x86-64"], "-O0"])
    assert 0 < deepest(tmp_path) <= stack_bound(header)
