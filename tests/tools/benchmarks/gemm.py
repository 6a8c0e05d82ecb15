"""GFLOP/s of generated matrix products beside NumPy's and the peak of one core.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE OPENBLAS_NUM_THREADS=1 \\
        python -m tests.tools.benchmarks.gemm

For each shape the product forward (NN), of the input's gradient (NT) and of the weight's (TN), as
it is (`plain`) and with the body that training has there (`fused`: bias and relu; the mask of a
relu; a step with momentum).  The sides take turns; a figure
is the median over rounds of the thread's own time, which other processes disturb least.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import statistics
from collections.abc import Callable
from time import thread_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.backends.native.ir import Function, Module
from graphc.backends.native.vectors import Vectors
from graphc.ir.expr import BodyBuilder, Expr, call, select
from tests.backends.native.compiled_function import Compiled
from tests.backends.native.gemm_function import Product, Spec, store_product

SHAPES = {  # rows, units, inputs of a layer
    "hidden 100": (200, 100, 784),
    "hidden 50": (200, 50, 784),
    "hidden 20": (200, 20, 784),
    "tiny": (32, 64, 64),
    "tiny out": (32, 10, 64),
    "deep": (64, 128, 128),
    "mnist 1": (128, 512, 784),
    "mnist 2": (128, 256, 512),
    "mnist out": (128, 10, 256),
    "wide 1": (256, 4096, 1024),
    "wide 2": (256, 4096, 4096),
    "wide 3": (256, 1000, 4096),
    "one row": (1, 512, 784),
    "one row, wide": (1, 4096, 4096),
}
ROUND_SECONDS = 0.02
PAGES = 1 << 21
PEAK_VECTORS, PEAK_STEPS = 24, 20000


def bias_relu(b: BodyBuilder, x: Expr) -> None:
    x = x + b.load("bias", "column", x.dtype)
    b.store(select(b.const(0, x.dtype) > x, 0, x), "c", "each")


def relu_mask(b: BodyBuilder, x: Expr) -> None:
    b.store(select(b.load("y", "each", x.dtype) > 0, x, 0), "c", "each")


def momentum(b: BodyBuilder, x: Expr) -> None:
    rate, decay = (b.load(name, "one", x.dtype) for name in ("rate", "decay"))
    velocity = call("mul", decay, b.load("velocity", "each", x.dtype)) + x
    b.store(velocity, "velocity", "each")
    b.store(b.load("c", "each", x.dtype) - call("mul", rate, velocity), "c", "each")


FUSED = {"NN": bias_relu, "NT": relu_mask, "TN": momentum}


def spec(shape: str, kind: str, fused: bool) -> Spec:
    """The product of a layer: forward, of the input's gradient, or of the weight's."""
    rows, units, inputs = SHAPES[shape]
    m, n, k = {
        "NN": (rows, units, inputs),
        "NT": (rows, inputs, units),
        "TN": (inputs, units, rows),
    }[kind]
    write = FUSED[kind] if fused else store_product
    return Spec(m, n, k, kind[0] == "T", kind[1] == "T", write=write, partition="rows")


def repeats(shape: str) -> int:
    """How often a call runs a product, so that the call itself costs nothing beside it."""
    return max(1, int(1e7 / np.prod(SHAPES[shape])))


def array(values: NDArray[Any]) -> NDArray[Any]:
    """A copy on large pages, as the buffers of programs are."""
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # shared memory gets no large pages
    memory = mmap.mmap(-1, -(-values.nbytes // PAGES) * PAGES + PAGES, flags=private)
    if values.nbytes >= PAGES and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(memory, np.uint8)
    start = -whole.ctypes.data % PAGES
    copy = whole[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def sides(shape: str, kind: str, bits: int) -> dict[str, Callable[[], object]]:
    """NumPy and ours."""
    times = repeats(shape)
    plain, fused = (Product(spec(shape, kind, f), bits, times=times) for f in (False, True))
    s = plain.spec
    rng = np.random.default_rng(0)
    arrays = {name: array(x) for name, x in s.operands(rng, 1).items()}
    a, b = (x.T if t else x for x, t in zip(arrays.values(), (s.trans_a, s.trans_b), strict=True))
    m, n = a.shape[0], b.shape[1]
    for name in ("c", "y", "velocity"):
        arrays[name] = array(np.zeros((m, n), np.float32))
    arrays["bias"] = np.zeros(n, np.float32)
    arrays["rate"], arrays["decay"] = np.full((), 0.01, np.float32), np.full((), 0.9, np.float32)
    out = array(np.zeros((m, n), np.float32))
    return {
        "numpy": lambda: [np.matmul(a, b, out=out) for _ in range(times)],
        "plain": bound(plain, arrays),
        "fused": bound(fused, arrays),
    }


def bound(product: Product, arrays: dict[str, NDArray[Any]]) -> Callable[[], object]:
    """A call of one thread with all arguments converted once."""
    scratch = array(np.zeros(product.scratch(1) // 4 + 16, np.float32))
    pointers = [arrays[name].ctypes.data for name in product.code.buffers]
    kinds = [ctypes.c_void_p] * (len(pointers) + 1) + [ctypes.c_int64] * 3
    function = ctypes.CFUNCTYPE(None, *kinds)(product.address)
    values = [
        kind(x) for kind, x in zip(kinds, [*pointers, scratch.ctypes.data, 1, 0, 1], strict=True)
    ]
    keep = (product, arrays, scratch)
    return lambda: (function(*values), keep)


def peak(bits: int) -> tuple[Callable[[], object], int]:
    """A loop of independent fused multiply-adds, and its operations."""
    module = Module()
    f = Function(module, "peak", "ptr %a", linkage="")
    v = Vectors(f, bits // 32)
    x = v.load("%a", "float32")
    count = PEAK_VECTORS if bits == 512 else PEAK_VECTORS // 2
    start = [(v.type("float32"), "zeroinitializer")] * count
    sums = f.loop(0, PEAK_STEPS, 1, lambda _, c: [v.fma(x, x, y, "float32") for y in c], start)
    for y in sums:
        f.do(f"store volatile {v.type('float32')} {y}, ptr %a, align 4")
    f.ret()
    module.add(f)
    compiled, a = Compiled(module, "peak"), np.zeros(16, np.float32)
    return lambda: compiled(a), PEAK_STEPS * count * v.lanes * 2


def measure(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call; the calls take turns."""
    loops, times = {}, {name: [] for name in calls}  # type: ignore[var-annotated]
    for name, run in calls.items():
        run()
        start = thread_time()
        run()
        loops[name] = max(1, int(ROUND_SECONDS / (thread_time() - start)))
    for _ in range(rounds):
        for name, run in calls.items():
            start = thread_time()
            for _ in range(loops[name]):
                run()
            times[name].append((thread_time() - start) / loops[name])
    return {name: statistics.median(values) for name, values in times.items()}


def main(argv: list[str] | None = None) -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shapes", nargs="*", default=list(SHAPES))
    parser.add_argument("--bits", type=int, default=512)
    parser.add_argument("--kinds", nargs="*", default=["NN", "NT", "TN"])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args(argv)
    run_peak, operations = peak(options.bits)
    print(f"GFLOP/s of one core (of the peak in %), {options.bits} bits")
    print(f"{'':14} {'peak':>10}", *(f"{side:>13}" for side in ("numpy", "plain", "fused")))
    for shape in options.shapes:
        flops = 2 * np.prod(SHAPES[shape]) * repeats(shape)
        for kind in options.kinds:
            times = measure({"peak": run_peak, **sides(shape, kind, options.bits)}, options.rounds)
            top = operations / times.pop("peak") / 1e9
            rates = [flops / t / 1e9 for t in times.values()]
            print(
                f"{shape:11} {kind} {top:>10.1f}",
                *(f"{rate:>7.1f} ({rate / top:3.0%})" for rate in rates),
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
