"""A loop of nothing but multiply-adds, which measures the peak of a machine."""

from __future__ import annotations

import ctypes
from functools import lru_cache, partial
from typing import Any

import numpy as np

from graphc.backends.backend import Call, PeakWork
from graphc.backends.native import target
from graphc.backends.native.jit import load

CHAINS = 12
"""The number of independent sums: enough to hide the latency of two multiply-adds a cycle, and few
enough for the registers of every machine."""
ROUNDS = 20_000
"""The rounds of one call: about 0.1 ms, long compared with the call itself."""


@lru_cache(maxsize=1)
def peak_work() -> PeakWork:
    """Return the loop, compiled for this machine."""
    lanes = target.host().bits // 32
    library = load(fma_loop(lanes), ("fma_loop",), target.host())
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(library.address("fma_loop"))

    def run(sink: Any, rounds: int, library: Any = library) -> None:  # keeps the code in memory
        function(sink.ctypes.data, rounds)

    def make() -> Call:
        return partial(run, np.zeros(CHAINS * 16, np.float32), ROUNDS)

    return PeakWork("native multiply-adds", 2 * lanes * CHAINS * ROUNDS, make)


def fma_loop(lanes: int) -> str:
    """Return LLVM IR of CHAINS sums of `lanes` floats each: x = x * 0.5 + 1, `rounds` times."""
    vector = f"<{lanes} x float>"
    fma = f"@llvm.fma.v{lanes}f32"
    half, one = (f"<{', '.join([f'float {v}'] * lanes)}>" for v in ("0.5", "1.0"))
    sums = range(CHAINS)
    phis = [f"  %x{i} = phi {vector} [ {one}, %entry ], [ %y{i}, %round ]" for i in sums]
    steps = [
        f"  %y{i} = call {vector} {fma}({vector} %x{i}, {vector} {half}, {vector} {one})"
        for i in sums
    ]
    stores = [
        f"  %p{i} = getelementptr {vector}, ptr %sink, i64 {i}\n"
        f"  store {vector} %y{i}, ptr %p{i}, align 4"
        for i in sums
    ]
    return "\n".join(
        [
            f"declare {vector} {fma}({vector}, {vector}, {vector})",
            "define void @fma_loop(ptr %sink, i64 %rounds) {",
            "entry:",
            "  br label %round",
            "round:",
            "  %i = phi i64 [ 0, %entry ], [ %next, %round ]",
            *phis,
            *steps,
            "  %next = add i64 %i, 1",
            "  %more = icmp slt i64 %next, %rounds",
            "  br i1 %more, label %round, label %done",
            "done:",
            *stores,
            "  ret void",
            "}",
            "",
        ]
    )
