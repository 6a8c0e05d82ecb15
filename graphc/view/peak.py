"""The limits of this machine, measured: multiply-adds and bytes a second; and what they bind.

If native code can be made, a loop of independent multiply-adds is timed; else NumPy's matrix
product, with the threads that NumPy takes, which stays a little below.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from time import perf_counter
from typing import Any, Literal

import numpy as np

from graphc.backends.native import target
from graphc.backends.native.jit import load
from graphc.compiler.cost import Cost

CHAINS = 12
"""The number of independent sums: enough to hide the latency of two multiply-adds a cycle, and few
enough for the registers of every machine."""
ROUNDS = 20_000
"""The rounds of one call: about 0.1 ms, long compared with the call itself."""
MATRIX = 512
STREAM = 1 << 23
"""The floats of each of three arrays: more than caches hold."""

Verdict = Literal["compute", "memory", "overhead"]
EXPLAINED = 0.25
"""The share of an instruction's time that a limit must account for, to be the one it is bound by.
"""
RULE = (
    "compute: its operations at the machine's peak take at least a quarter of its time, and longer "
    "than its bytes; memory: its bytes at the memory's bandwidth do; overhead: neither does, the "
    "rest is calls, waking threads, waiting for caches, and functions such as exp that count as "
    "one operation"
)
"""The rule in words, for legends."""


@dataclass(frozen=True)
class Peak:
    """The limits of a number of threads together."""

    threads: int
    flops: float
    """Floating-point operations a second, float32; a multiply-add is two."""
    bytes: float
    """Bytes a second between memory and cores."""

    def seconds(self, flops: float, nbytes: float) -> float:
        """Return the least time for this work, by whichever limit takes longer."""
        return max(flops / self.flops, nbytes / self.bytes)


def measure_peak(threads: int, seconds: float = 0.2) -> Peak:
    """Return both limits, each measured for `seconds`."""
    return Peak(threads, fma_rate(threads, seconds), stream_rate(threads, seconds))


def how() -> str:
    """Return in a few words what `fma_rate` times."""
    return "NumPy's matrix product" if _native() is None else "native multiply-adds"


def fma_rate(threads: int, seconds: float) -> float:
    """Return the floating-point operations a second of so many threads, a median over `seconds`."""
    native = _native()
    if native is None:
        return _matmul_rate(seconds)
    flops, call = native

    def work() -> Callable[[], object]:
        sink = np.zeros(CHAINS * 16, np.float32)
        address = sink.ctypes.data
        return lambda: call(address, ROUNDS)

    return flops * ROUNDS * _calls_a_second(work, threads, seconds)


def stream_rate(threads: int, seconds: float) -> float:
    """Return the bytes a second of c = a + b on arrays that no cache holds."""

    def work() -> Callable[[], object]:
        a, b, c = (np.ones(STREAM, np.float32) for _ in range(3))
        return lambda: np.add(a, b, out=c)

    return 3 * 4 * STREAM * _calls_a_second(work, threads, seconds)


def _matmul_rate(seconds: float) -> float:
    a = np.ones((MATRIX, MATRIX), np.float32)
    out = np.empty_like(a)
    return 2 * MATRIX**3 * _calls_a_second(lambda: lambda: np.matmul(a, a, out=out), 1, seconds)


def _calls_a_second(
    make: Callable[[], Callable[[], object]], threads: int, seconds: float
) -> float:
    """Return the sum of the rates of all threads, each the median of its own calls."""
    calls = [make() for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(lambda call: _rate(call, seconds), calls))


def _rate(call: Callable[[], object], seconds: float) -> float:
    call()
    found: list[float] = []
    start = last = perf_counter()
    while last - start < seconds or not found:
        call()
        now = perf_counter()
        found.append(now - last)
        last = now
    return 1 / median(found)


@lru_cache(maxsize=1)
def _native() -> tuple[int, Callable[..., Any]] | None:
    """Return the flops of a round and the function (sink's address, rounds); None without LLVM."""
    if target.available() is not None:
        return None
    lanes = target.host().bits // 32
    library = load(fma_loop(lanes), ("fma_loop",), target.host())
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(library.address("fma_loop"))

    def call(sink: int, rounds: int, library: Any = library) -> None:  # keeps the code in memory
        function(sink, rounds)

    return 2 * lanes * CHAINS, call


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


def verdict(seconds: float, work: Cost, peak: Peak) -> Verdict:
    """Return the limit that explains the time of an instruction that does this work."""
    compute, memory = work.flops / peak.flops, work.bytes / peak.bytes
    if max(compute, memory) < EXPLAINED * seconds:
        return "overhead"
    return "compute" if compute >= memory else "memory"
