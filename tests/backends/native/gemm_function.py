"""Compile a matrix product, and run it on arrays that lie between guards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.backends.native.choose_scratch import is_long, scratch_of
from graphc.backends.native.gemm import emit_gemm
from graphc.backends.native.gemm_tile import choose_tile
from graphc.backends.native.ir import Callee, Function, Module
from graphc.ir.expr import BodyBuilder, Expr
from graphc.ir.tensor_type import Dim, dim_at
from graphc.kernels.kernel import Gemm, Partition
from tests.backends.native.compiled_function import Compiled

Array = NDArray[Any]
Write = Callable[[BodyBuilder, Expr], None]
GUARD = 64


def store_product(builder: BodyBuilder, product: Expr) -> None:
    """The body that only stores the product."""
    builder.store(product, "c", "each")


@dataclass(frozen=True)
class Spec:
    """A product to test."""

    m: Dim
    n: int
    k: Dim
    trans_a: bool = False
    trans_b: bool = False
    dtype: str = "float32"
    partition: Partition = "rows"
    write: Write = store_product

    def kernel(self) -> Gemm:
        builder = BodyBuilder()
        self.write(builder, builder.product(self.dtype))
        return Gemm(
            self.m, self.n, self.k, "a", "b", self.trans_a, self.trans_b,
            self.dtype, builder.body(), self.partition,
        )  # fmt: skip

    def pitch(self, rows: int) -> dict[str, int]:
        """The pitches, for operands of the full batch of `rows` rows."""
        m, k = dim_at(self.m, rows), dim_at(self.k, rows)
        sizes = {"a": m if self.trans_a else k, "b": k if self.trans_b else self.n}
        each = {
            s.buffer for s in self.kernel().body.steps if s.op == "load" and s.broadcast == "each"
        }
        each |= {s.buffer for s in self.kernel().body.stores}
        return dict.fromkeys(each, self.n) | sizes

    def operands(self, rng: np.random.Generator, n: int) -> dict[str, Array]:
        """Random a and b for a batch of n rows."""
        m, k = dim_at(self.m, n), dim_at(self.k, n)
        a = rng.standard_normal((k, m) if self.trans_a else (m, k))
        b = rng.standard_normal((self.n, k) if self.trans_b else (k, self.n))
        return {"a": a.astype(self.dtype), "b": b.astype(self.dtype)}

    def product(self, a: Array, b: Array) -> Array:
        """The product in float64, summed in the order of k."""
        left = (a.T if self.trans_a else a).astype(np.float64)
        right = (b.T if self.trans_b else b).astype(np.float64)
        total = np.zeros((left.shape[0], right.shape[1]))
        for p in range(left.shape[1]):
            total += left[:, p, None] * right[None, p]
        return total


class Product:
    """A compiled product."""

    def __init__(
        self,
        spec: Spec,
        bits: int = 512,
        rows: int = 1,
        times: int = 1,
        packed: bool = False,
        capacity: int = 1,
    ) -> None:
        """`rows` is the batch for which pitches are meant where they depend on it; a call runs
        the product so many `times`.  If `packed`, b is stored in panels.  The code is made for up
        to `capacity` rows."""
        self.capacity = capacity
        self.spec, self.kernel, self.bits, self.packed = spec, spec.kernel(), bits, packed
        module = Module()
        of_batch = spec.pitch(rows)
        self.code = emit_gemm(module, self.kernel, of_batch, bits, packed=packed, rows=capacity)
        self._compiled = Compiled(self.exported(module, self.code, times), "entry")

    @staticmethod
    def exported(module: Module, code: Callee, times: int = 1) -> Module:
        """The module with a function `entry` that calls the product so many times."""
        names = [f"%b{i}" for i in range(len(code.buffers))] + ["%scratch"]
        arguments = ", ".join(f"ptr {name}" for name in names)
        arguments += ", i64 %n, i64 %tid, i64 %threads"
        f = Function(module, "entry", arguments, linkage="")
        f.loop(0, times, 1, lambda *_: f.do(f"call void @{code.name}({arguments})"))
        f.ret()
        module.add(f)
        return module

    @property
    def address(self) -> int:
        """Where the function is."""
        return int(self._compiled.address)

    def scratch(self, n: int) -> int:
        """The bytes of scratch that a thread needs."""
        tile = choose_tile(self.kernel.dtype, self.bits)
        long = is_long(self.kernel, tile, self.capacity)
        return scratch_of(self.kernel, tile, packs=not self.packed, long=long).size(n)

    def __call__(self, arrays: Mapping[str, Array], n: int, threads: int = 1) -> None:
        """Run the threads one after the other; their scratch starts as NaN, and so it goes on."""
        size = -(-self.scratch(n) // 8)
        scratch = np.full(size + 8 + GUARD, np.nan)
        start = -scratch.ctypes.data % 64 // 8
        buffers = [arrays[name] for name in self.code.buffers]
        for thread in range(threads):
            self._compiled(*buffers, scratch[start:], n, thread, threads)
        assert np.isnan(scratch[start + size :]).all(), "a product writes beyond its scratch"


def guarded(array: Array) -> tuple[Array, Callable[[], bool]]:
    """A copy between guards of NaN (or of ones), and whether they are untouched."""
    fill = np.nan if array.dtype.kind == "f" else 1
    whole = np.full(array.size + 2 * GUARD, fill, array.dtype)
    inside = whole[GUARD:-GUARD].reshape(array.shape)
    inside[...] = array
    before = whole.tobytes()

    def untouched() -> bool:
        now, size = whole.tobytes(), GUARD * array.dtype.itemsize
        return now[:size] == before[:size] and now[-size:] == before[-size:]

    return inside, untouched


def run(
    product: Product, arrays: Mapping[str, Array], n: int, threads: int = 1
) -> dict[str, Array]:
    """Run on guarded copies of the arrays; the arrays after it."""
    copies = {name: guarded(array) for name, array in arrays.items()}
    product({name: array for name, (array, _) in copies.items()}, n, threads)
    for name, (_, untouched) in copies.items():
        assert untouched(), f"wrote around {name}"
    return {name: array for name, (array, _) in copies.items()}


def same_bytes(results: Sequence[Array]) -> bool:
    """Whether all arrays have the same bytes."""
    return len({array.tobytes() for array in results}) == 1
