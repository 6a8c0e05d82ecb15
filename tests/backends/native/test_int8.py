"""Products of int8: the sums of whole numbers, by every kind of word, between guards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from graphc.backends.native.gemm import emit_gemm
from graphc.backends.native.gemm_tile import kernel_scratch
from graphc.backends.native.ir import Module
from graphc.backends.native.target import Target, host
from graphc.ir.expr import BodyBuilder
from graphc.ir.forms import WindowProduct
from graphc.ir.tensor_type import N, TensorType, shape_at
from graphc.kernels.iteration_space import by_last
from graphc.kernels.kernel import Convolution, Gemm
from graphc.ops.conv import Conv
from graphc.ops.pad import Pad
from tests.backends.native.gemm_function import Array, Product, run, store_product
from tests.backends.native.jit_function import Compiled
from tests.backends.native.window_function import pitches

WORDS = [
    pytest.param(
        bits,
        word,
        marks=pytest.mark.skipif(word == 4 and host().word != 4, reason="no VNNI instructions"),
    )
    for bits in (512, 256, 128)
    for word in (2, 4)
]
EACH_WORD = pytest.mark.parametrize(("bits", "word"), WORDS)


class Int8(Product):
    """A compiled product of int8."""

    def __init__(self, kernel: Gemm, bits: int, word: int) -> None:
        module, self.kernel, self.bits, self.word = Module(), kernel, bits, word
        assert isinstance(kernel.n, int)
        pitch = {"c": kernel.n, **pitches(kernel)}
        self.code = emit_gemm(module, kernel, pitch, bits, word)
        self._compiled = Compiled(self.exported(module, self.code), "entry")

    def scratch(self, n: int) -> int:
        return kernel_scratch(self.kernel, self.bits, n, self.word)


def drawn(shape: Sequence[int], seed: int, extreme: bool = False) -> Array:
    """Random int8, or the two of the largest magnitude."""
    rng = np.random.default_rng(seed)
    made = rng.choice([-128, 127], shape) if extreme else rng.integers(-128, 128, shape)
    return made.astype(np.int8)


def gemm(n: int, k: int, partition: str = "rows") -> Gemm:
    builder = BodyBuilder()
    store_product(builder, builder.product("int32"))
    sides = "a", "b", False, False
    return Gemm(N, n, k, *sides, "int32", builder.body(), partition)  # type: ignore[arg-type]


def check_gemm(kernel: Gemm, rows: int, bits: int, word: int, threads: int = 1) -> None:
    assert isinstance(kernel.n, int)
    assert isinstance(kernel.k, int)
    a, b = drawn((rows, kernel.k), 1, rows % 2 == 0), drawn((kernel.k, kernel.n), 2, rows % 4 == 0)
    c = np.full((rows, kernel.n), -1, np.int32)
    found = run(Int8(kernel, bits, word), {"a": a, "b": b, "c": c}, rows, threads)["c"]
    assert np.array_equal(found, a.astype(np.int64) @ b.astype(np.int64))


SHAPES = [(1, 1, 1), (2, 5, 7), (13, 10, 6), (8, 64, 32), (67, 33, 130), (150, 17, 257)]


@EACH_WORD
@pytest.mark.one_in(11)
@pytest.mark.parametrize(("rows", "n", "k"), SHAPES)
def test_sums_are_exact(rows: int, n: int, k: int, bits: int, word: int) -> None:
    check_gemm(gemm(n, k), rows, bits, word)


@EACH_WORD
@pytest.mark.one_in(9)
@pytest.mark.parametrize("partition", ["rows", "columns", "none"])
def test_threads_share_a_product(partition: str, bits: int, word: int) -> None:
    check_gemm(gemm(70, 12, partition), 37, bits, word, threads=3)


def test_sums_wrap_nowhere_though_offsets_do() -> None:
    """The largest sum of 131,071 products fits int32; that of shifted factors does not."""
    k = 131_071
    a, b = np.full((1, k), -128, np.int8), np.full((k, 1), -128, np.int8)
    c = np.zeros((1, 1), np.int32)
    target = host()
    product = Int8(gemm(1, k), target.bits, target.word)
    assert run(product, {"a": a, "b": b, "c": c}, 1)["c"].item() == k * 128**2


IMAGES = {  # space and channels, filter, stride, dilation, pads of the space
    "one channel": ((12, 12, 1), (5, 5, 1, 6), (1, 1), (1, 1), (2, 2)),
    "stride": ((9, 8, 3), (3, 3, 3, 20), (2, 1), (1, 1), (1, 0)),
    "dilation": ((8, 7, 5), (2, 3, 5, 33), (1, 2), (2, 2), (0, 2)),
    "one dimension": ((40, 6), (5, 6, 10), (2,), (1,), (3,)),
    "three dimensions": ((4, 5, 6, 2), (2, 3, 2, 2, 7), (1, 2, 1), (1, 1, 2), (0, 1, 1)),
    "no pads": ((6, 30, 4), (2, 2, 4, 40), (1, 1), (1, 1), (0, 0)),
}


@EACH_WORD
@pytest.mark.one_in(11)
@pytest.mark.parametrize("name", IMAGES)
def test_convolutions_are_exact(name: str, bits: int, word: int) -> None:
    space, filter_size, stride, dilation, pads = IMAGES[name]
    x, w = TensorType((N, *space), "int8"), TensorType(filter_size, "int8")
    padding = Pad(((0, 0), *((p, p) for p in pads), (0, 0)))
    op, padded = Conv(stride, dilation), padding.infer([x])
    form, result = op.product([padded, w]), op.infer([padded, w])
    assert isinstance(form, WindowProduct)
    window = replace(form.window, space=space[:-1], before=pads)
    (m, n), builder = by_last(result.shape), BodyBuilder()
    store_product(builder, builder.product("int32"))
    fields = (m, n, form.inner, "a", "b", False, False, "int32", builder.body(), "rows")
    kernel = Convolution(*fields, window=window)  # type: ignore[arg-type]
    a, b = drawn((3, *space), 3), drawn(filter_size, 4, True)
    c = np.full(shape_at(result.shape, 3), -1, np.int32)
    found = run(Int8(kernel, bits, word), {"a": a, "b": b, "c": c}, 3, threads=2)["c"]
    wide = [array.astype(np.float64) for array in (padding.reference([a]), b)]
    assert np.array_equal(found, op.reference(wide))


@pytest.mark.parametrize(
    ("features", "word"),
    [
        ("+avx512f,+avx512vl,+avx512vnni", 4),
        ("+avx2,+avxvnni", 4),
        ("+avx2,+avxvnni,+avx512vl,+avx512vnni,-avx512f", 4),
        ("+avx512vl,+avx512vnni,-avx512f", 2),
        ("+avxvnni,-avx2", 2),
        ("+avx2,+fma", 2),
        ("+neon,+dotprod", 2),
    ],
)
def test_words_of_four_need_an_instruction_for_them(features: str, word: int) -> None:
    assert Target("", "", features, 256).word == word
