"""Products of int8: the sums of whole numbers, by every kind of word, between guards."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from graphc.backends.native.choose_scratch import kernel_scratch
from graphc.backends.native.gemm import emit_gemm
from graphc.backends.native.ir import Module
from graphc.backends.native.llvm import bindings
from graphc.backends.native.target import PAIRS, SDOT, VNNI, Target, Words, host
from graphc.ir.expr import BodyBuilder
from graphc.ir.forms import WindowProduct
from graphc.ir.tensor_type import N, TensorType, shape_at
from graphc.kernels.iteration_space import by_last
from graphc.kernels.kernel import Convolution, Gemm
from graphc.ops.conv import Conv
from graphc.ops.pad import Pad
from tests.backends.native.compiled_function import Compiled
from tests.backends.native.gemm_function import Array, Product, run, store_product
from tests.backends.native.window_function import pitches
from tests.extras import needs

WORDS = [
    pytest.param(
        bits,
        words,
        marks=[pytest.mark.needs("VNNI")] if words == VNNI else [],
        id=f"{bits}-{words.factors}",
    )
    for bits in (512, 256, 128)
    for words in (PAIRS, VNNI)
]
EACH_WORD = pytest.mark.parametrize(("bits", "words"), WORDS)


class Int8(Product):
    """A compiled product of int8."""

    def __init__(self, kernel: Gemm, bits: int, words: Words) -> None:
        module, self.kernel, self.bits, self.words = Module(), kernel, bits, words
        assert isinstance(kernel.n, int)
        pitch = {"c": kernel.n, **pitches(kernel)}
        self.code = emit_gemm(module, kernel, pitch, bits, {"int8": words})
        self._compiled = Compiled(self.exported(module, self.code), "entry")

    def scratch(self, n: int) -> int:
        return kernel_scratch(self.kernel, self.bits, n, {"int8": self.words})


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


def check_gemm(kernel: Gemm, rows: int, bits: int, words: Words, threads: int = 1) -> None:
    assert isinstance(kernel.n, int)
    assert isinstance(kernel.k, int)
    a, b = drawn((rows, kernel.k), 1, rows % 2 == 0), drawn((kernel.k, kernel.n), 2, rows % 4 == 0)
    c = np.full((rows, kernel.n), -1, np.int32)
    found = run(Int8(kernel, bits, words), {"a": a, "b": b, "c": c}, rows, threads)["c"]
    assert np.array_equal(found, a.astype(np.int64) @ b.astype(np.int64))


SHAPES = [
    (3, 45, 70),
    (1, 1, 1),
    (2, 5, 7),
    (1, 300, 131),
    (2, 64, 32),
    (13, 10, 6),
    (8, 64, 32),
    (67, 33, 130),
    (150, 17, 257),
]


@EACH_WORD
@pytest.mark.one_in(23)
@pytest.mark.parametrize(("rows", "n", "k"), SHAPES)
def test_sums_are_exact(rows: int, n: int, k: int, bits: int, words: Words) -> None:
    check_gemm(gemm(n, k), rows, bits, words)


@EACH_WORD
@pytest.mark.one_in(17)
@pytest.mark.parametrize("partition", ["rows", "columns", "none"])
def test_threads_share_a_product(partition: str, bits: int, words: Words) -> None:
    check_gemm(gemm(70, 12, partition), 37, bits, words, threads=3)
    check_gemm(gemm(150, 37, partition), 2, bits, words, threads=3)


def test_sums_wrap_nowhere_though_offsets_do() -> None:
    """The largest sum of 131,071 products fits int32; that of shifted factors does not."""
    k = 131_071
    a, b = np.full((1, k), -128, np.int8), np.full((k, 1), -128, np.int8)
    c = np.zeros((1, 1), np.int32)
    target = host()
    product = Int8(gemm(1, k), target.bits, target.words["int8"])
    assert run(product, {"a": a, "b": b, "c": c}, 1)["c"].item() == k * 128**2


IMAGES = {  # space and channels, filter, stride, dilation, pads of the space, groups
    "one channel": ((12, 12, 1), (5, 5, 1, 6), (1, 1), (1, 1), (2, 2)),
    "stride": ((9, 8, 3), (3, 3, 3, 20), (2, 1), (1, 1), (1, 0)),
    "dilation": ((8, 7, 5), (2, 3, 5, 33), (1, 2), (2, 2), (0, 2)),
    "one dimension": ((40, 6), (5, 6, 10), (2,), (1,), (3,)),
    "three dimensions": ((4, 5, 6, 2), (2, 3, 2, 2, 7), (1, 2, 1), (1, 1, 2), (0, 1, 1)),
    "no pads": ((6, 30, 4), (2, 2, 4, 40), (1, 1), (1, 1), (0, 0)),
    "groups": ((6, 7, 12), (3, 3, 4, 60), (1, 2), (1, 1), (1, 0), 3),
    "groups, no pads": ((5, 5, 10), (2, 2, 5, 80), (1, 1), (1, 1), (0, 0), 2),
}


@EACH_WORD
@pytest.mark.one_in(29)
@pytest.mark.parametrize("name", IMAGES)
def test_convolutions_are_exact(name: str, bits: int, words: Words) -> None:
    space, filter_size, stride, dilation, pads, *groups = IMAGES[name]
    x, w = TensorType((N, *space), "int8"), TensorType(filter_size, "int8")
    padding = Pad(((0, 0), *((p, p) for p in pads), (0, 0)))
    op, padded = Conv(stride, dilation, *groups), padding.infer([x])
    form, result = op.product([padded, w]), op.infer([padded, w])
    assert isinstance(form, WindowProduct)
    window = replace(form.window, space=space[:-1], before=pads)
    (m, n), builder = by_last(result.shape), BodyBuilder()
    store_product(builder, builder.product("int32"))
    fields = (m, n, form.inner, "a", "b", False, False, "int32", builder.body(), "rows")
    kernel = Convolution(*fields, window=window)  # type: ignore[arg-type]
    a, b = drawn((3, *space), 3), drawn(filter_size, 4, True)
    c = np.full(shape_at(result.shape, 3), -1, np.int32)
    found = run(Int8(kernel, bits, words), {"a": a, "b": b, "c": c}, 3, threads=2)["c"]
    wide = [array.astype(np.float64) for array in (padding.reference([a]), b)]
    assert np.array_equal(found, op.reference(wide))


@pytest.mark.parametrize(
    ("triple", "features", "words"),
    [
        ("x86_64-linux", "+avx512f,+avx512vl,+avx512vnni", VNNI),
        ("x86_64-linux", "+avx2,+avxvnni", VNNI),
        ("x86_64-linux", "+avx2,+avxvnni,+avx512vl,+avx512vnni,-avx512f", VNNI),
        ("x86_64-linux", "+avx512vl,+avx512vnni,-avx512f", PAIRS),
        ("x86_64-linux", "+avxvnni,-avx2", PAIRS),
        ("x86_64-linux", "+avx2,+fma", PAIRS),
        ("aarch64-linux", "+neon,+dotprod", SDOT),
        ("arm64-apple", "+neon,-dotprod", PAIRS),
    ],
)
def test_an_instruction_is_used_where_it_is(triple: str, features: str, words: Words) -> None:
    assert Target(triple, "", features, 256).words["int8"] == words


@pytest.mark.slow
@pytest.mark.parametrize(("features", "words"), [("+neon", PAIRS), ("+neon,+dotprod", SDOT)])
def test_sums_on_arm(features: str, words: Words, tmp_path: Path) -> None:
    """A program for 64-bit ARM compares the sums with those that it holds."""
    cc, qemu = (needs(tool) for tool in ("aarch64-linux-gnu-gcc", "qemu-aarch64"))
    rows, n, k = 67, 33, 130
    kernel, module = gemm(n, k), Module()
    code = emit_gemm(module, kernel, {"c": n, **pitches(kernel)}, 128, {"int8": words})
    Product.exported(module, code)
    (tmp_path / "sums.o").write_bytes(arm_object(module.text(), features))
    a, b = drawn((rows, k), 1), drawn((k, n), 2, True)
    arrays = {"a": a, "b": b, "sums": a.astype(np.int32) @ b.astype(np.int32)}
    held = [
        f"static const {array.dtype}_t {name}[] = {{{', '.join(map(str, array.ravel()))}}};"
        for name, array in arrays.items()
    ]
    main = ARM.format(
        size=rows * n, scratch=kernel_scratch(kernel, 128, rows, {"int8": words}), rows=rows
    )
    (tmp_path / "main.c").write_text("\n".join(["#include <stdint.h>", *held, main]))
    files = [tmp_path / name for name in ("main.c", "sums.o")]
    subprocess.run([cc, "-static", *files, "-lm", "-o", tmp_path / "main"], check=True)
    subprocess.run([qemu, "-cpu", "max", tmp_path / "main"], check=True)


ARM = """\
#include <string.h>
static int32_t out[{size}];
static char scratch[{scratch}] __attribute__((aligned(64)));
void entry(const void *, const void *, void *, void *, int64_t, int64_t, int64_t);
int main(void) {{
    entry(a, b, out, scratch, {rows}, 0, 1);
    return memcmp(out, sums, sizeof sums) != 0;
}}
"""


def arm_object(text: str, features: str) -> bytes:
    llvm, triple = bindings(), "aarch64-linux-gnu"
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(
        cpu="generic", features=features, opt=2, reloc="pic"
    )
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = triple, str(machine.target_data)
    return bytes(machine.emit_object(module))
