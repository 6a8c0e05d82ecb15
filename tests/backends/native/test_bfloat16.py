"""Products of bfloat16: the bits of multiply-adds in the stated order, by every method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.backends.backend import in_order
from graphc.backends.native import block_products
from graphc.backends.native.bfloat16_scratch import BlockMatrixScratch
from graphc.backends.native.choose_scratch import kernel_scratch, scratch_of
from graphc.backends.native.gemm import emit_gemm
from graphc.backends.native.gemm_tile import choose_tile, tile_of
from graphc.backends.native.ir import Module
from graphc.backends.native.panels import panels_of
from graphc.backends.native.target import DOTS, TILES, WIDENED, Target, Words, host
from graphc.features.precision.bfloat16 import BLOCK, rounded, widened
from graphc.ir.expr import BodyBuilder
from graphc.ir.forms import TermOrder
from graphc.ir.tensor_type import Dim, N, shape_at
from graphc.kernels import interpret
from graphc.kernels.kernel import Gemm, Partition
from tests.backends.native.compiled_function import Compiled, map_of
from tests.backends.native.gemm_function import Array, Product, run, store_product
from tests.backends.native.window_function import specs
from tests.check.validation.faults import Fault, plant

Sides = tuple[bool, bool]
"""Whether a and b are stored transposed."""


INSTRUCTIONS = {WIDENED: (), DOTS: ("DOTS",), TILES: ("TILES",)}
"""What a processor needs for each way."""
WAYS = [
    pytest.param(
        order,
        bits,
        words,
        marks=[pytest.mark.needs(name) for name in INSTRUCTIONS[words]],
        id=f"{order}-{bits}-{words.instruction or 'fma'}",
    )
    for order, bits, words in (
        *(("pairs", bits, words) for bits in (512, 256, 128) for words in (WIDENED, DOTS)),
        *(("blocks", bits, WIDENED) for bits in (512, 256, 128)),
        ("blocks", 512, TILES),
    )
]
EACH_WAY = pytest.mark.parametrize(("order", "bits", "words"), WAYS)


class Bfloat16(Product):
    """A compiled product of bfloat16."""

    def __init__(
        self, kernel: Gemm, bits: int, words: Words = WIDENED, packed: bool = False
    ) -> None:
        module, self.kernel, self.bits, self.packed = Module(), kernel, bits, packed
        self.words = {"pairs": words, "blocks": words}
        pitch = {"c": kernel.n, **kernel.factor_columns}
        self.code = emit_gemm(module, kernel, pitch, bits, self.words, packed=packed)
        self._compiled = Compiled(self.exported(module, self.code), "entry")

    def scratch(self, n: int) -> int:
        return kernel_scratch(self.kernel, self.bits, n, self.words, packs=not self.packed)


def drawn(shape: Sequence[int], seed: int) -> Array:
    """Random bits of bfloat16, of many magnitudes, some of them 0."""
    rng = np.random.default_rng(seed)
    made = rng.standard_normal(shape) * 2.0 ** rng.integers(-8, 8, shape)
    return rounded(np.where(rng.random(shape) < 0.1, 0, made).astype(np.float32))


def gemm(
    m: Dim, n: Dim, k: Dim, sides: Sides, partition: Partition = "rows", order: TermOrder = "pairs"
) -> Gemm:
    builder = BodyBuilder()
    store_product(builder, builder.product("float32"))
    fields = m, n, k, "a", "b", *sides, "float32", builder.body(), partition
    return Gemm(*fields, order=order)


def expected(a: Array, b: Array) -> Array:
    """The sums of (m, k) by (k, n): each pair's second term first, one rounding a term."""
    left, right = (widened(x).astype(np.longdouble) for x in (a, b))
    total, k = np.zeros((a.shape[0], b.shape[1]), np.float32), a.shape[1]
    for p in (q for even in range(0, k, 2) for q in (even + 1, even) if q < k):
        total = (total + left[:, p, None] * right[None, p]).astype(np.float32)
    return total


def expected_blocks(a: Array, b: Array) -> Array:
    """The same, block by block: the terms of even and of odd number apart."""
    left, right = (widened(x).astype(np.longdouble) for x in (a, b))
    total = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for start in range(0, a.shape[1], BLOCK):
        halves = np.zeros((2, *total.shape), np.float32)
        for p in range(start, min(start + BLOCK, a.shape[1])):
            term = left[:, p, None] * right[None, p]
            halves[p % 2] = (halves[p % 2] + term).astype(np.float32)
        total += halves[0] + halves[1]
    return total


def check(kernel: Gemm, batches: Sequence[int], bits: int, words: Words = WIDENED) -> None:
    """Compare the bits of a product in batches, by one thread and by two."""
    product = Bfloat16(kernel, bits, words)
    for n in batches:
        a, b = (drawn(shape_at(space, n), i) for i, space in enumerate(kernel.factor_spaces))
        sums = expected if kernel.order == "pairs" else expected_blocks
        wanted = sums(a.T if kernel.trans_a else a, b.T if kernel.trans_b else b)
        for threads in (1, 2):
            arrays = {"a": a, "b": b, "c": np.full(wanted.shape, np.nan, np.float32)}
            found = run(product, arrays, n, threads)["c"]
            assert found.tobytes() == wanted.tobytes()


FORMS: dict[
    str, tuple[Dim, Dim, Dim, tuple[int, ...]]
] = {  # m, n, k, batches: few and many rows, odd and long sums, columns of the batch
    "rows of the batch": (N, 37, 49, (1, 3, 4, 37)),
    "one column": (N, 1, 1, (2, 16)),
    "long sums": (N, 20, 1027, (2, 5)),
    "sums of the batch": (35, 40, N, (1, 33, 300)),
    "columns of the batch": (17, N, 10, (1, 40)),
    "many rows": (N, 70, 12, (270,)),
}


SIDES = [(False, False), (False, True), (True, False), (True, True)]


@pytest.mark.one_in(5)
@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("order", ["pairs", "blocks"])
def test_matrices_have_the_stated_bits(form: str, sides: Sides, order: TermOrder) -> None:
    m, n, k, batches = FORMS[form]
    check(gemm(m, n, k, sides, order=order), batches, 512, host().words[order])


WAYS_OF_BLOCKS = [(512, host().words["blocks"]), *((bits, WIDENED) for bits in (512, 256, 128))]


@pytest.mark.one_in(25)
@pytest.mark.parametrize("seed", range(100))
def test_random_matrices_in_blocks_have_the_stated_bits(seed: int) -> None:
    """Sizes about those of vectors, tiles and blocks; one of them, or none, is the batch."""
    rng = np.random.default_rng(seed)
    m = int(rng.choice([1, 2, 15, 16, 17, 31, 33, 70, 513, 600, 1030]))
    n = int(rng.choice([1, 3, 15, 16, 17, 31, 33, 47, 63, 64, 65, 130, 200, 260]))
    k = int(rng.choice([1, 2, 31, 32, 33, 63, 65, 255, 256, 257, 300, 520, 784, 1400]))
    k = min(k, 5_000_000 // (m * n))
    sizes, batch = (m, n, k), int(rng.integers(4))
    m_n_k: list[Dim] = [N if i == batch else size for i, size in enumerate(sizes)]
    partition: Partition = "columns" if batch != 1 and rng.random() < 0.5 else "rows"
    kernel = gemm(m_n_k[0], m_n_k[1], m_n_k[2], SIDES[rng.integers(4)], partition, "blocks")
    check(kernel, ([*sizes, 1][batch],), *WAYS_OF_BLOCKS[rng.integers(4)])


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("fill", "clear(", "(lambda *_: None)("),
        ("_emit_multiply_adds", "both = v.add(even, odd, tile.dtype)", "both = even"),
        (
            *("_emit_multiply_adds", "v.add(v.load(place, tile.dtype), both, tile.dtype)"),
            "v.add(v.add(v.load(place, tile.dtype), even, tile.dtype), odd, tile.dtype)",
        ),
    ],
    ids=["what follows the last terms", "no odd terms", "even and odd terms not apart"],
)
def test_a_planted_fault_in_blocks_has_other_bits(
    name: str, right: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = f"{block_products.__name__}:{name}"
    plant(Fault("", exact_net, where, right, wrong, ""), monkeypatch)
    with pytest.raises(AssertionError):
        check(gemm(N, 37, 67, (False, False), order="blocks"), (21,), 512)


@pytest.mark.parametrize("held", [True, False])
def test_groups_of_panels_are_multiplied_by_all_of_a(
    held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group of a single panel, and three blocks of k, which are kept or packed for each group."""
    monkeypatch.setattr(BlockMatrixScratch, "SUMS", 1 << 15)
    monkeypatch.setattr(BlockMatrixScratch, "HELD", 1 << 20 if held else 0)
    kernel, words = gemm(N, 200, 600, (False, False), order="blocks"), host().words["blocks"]
    scratch = scratch_of(kernel, tile_of(kernel, 512, {"blocks": words}))
    assert isinstance(scratch, BlockMatrixScratch)
    assert scratch.holds_a is held
    check(kernel, (17,), 512, words)


def test_small_matrices_need_little_scratch() -> None:
    """Several times the bytes of both factors and the sums, but not those of the largest blocks."""
    small, large = (Bfloat16(gemm(8, n, n, (False, False)), 512) for n in (8, 2048))
    assert small.scratch(8) < 20_000
    assert large.scratch(8) < 1_000_000


@EACH_WAY
@pytest.mark.one_in(3)
@pytest.mark.parametrize("sides", SIDES[1:3])
def test_all_ways_have_the_same_bits(
    sides: Sides, order: TermOrder, bits: int, words: Words
) -> None:
    check(gemm(N, 37, 67, sides, order=order), (1, 2, 21), bits, words)


@EACH_WAY
@pytest.mark.one_in(4)
def test_a_factor_stored_in_panels_of_pairs_gives_the_same_bits(
    order: TermOrder, bits: int, words: Words
) -> None:
    for n, k in ((37, 50), (20, 1026), (64, 96)):
        kernel = gemm(N, n, k, (False, False), order=order)
        panels = panels_of(kernel, tile_of(kernel, bits, {order: words}, packed=True))
        assert panels is not None
        a, b = drawn((21, k), 0), drawn((k, n), 1)
        wanted = (expected if order == "pairs" else expected_blocks)(a, b)
        arrays = {
            "a": a,
            "b": in_order(panels.writes, b),
            "c": np.full(wanted.shape, np.nan, np.float32),
        }
        found = run(Bfloat16(kernel, bits, words, packed=True), arrays, 21, threads=2)["c"]
        assert found.tobytes() == wanted.tobytes()


def test_panels_of_pairs_do_not_depend_on_how_a_factor_is_stored() -> None:
    tile, b = choose_tile("float32", 512), drawn((10, 37), 1)
    plain, turned = (panels_of(gemm(N, 37, 10, (False, x)), tile) for x in (False, True))
    assert plain is not None
    assert turned is not None
    packed = in_order(plain.writes, b)
    assert np.array_equal(
        in_order(turned.writes, np.ascontiguousarray(b.T)).ravel(), packed.ravel()
    )
    assert packed.ravel()[:4].tolist() == [b[0, 0], b[1, 0], b[0, 1], b[1, 1]]


def test_an_odd_factor_is_stored_as_declared() -> None:
    assert panels_of(gemm(N, 16, 7, (False, False)), choose_tile("float32", 512)) is None


@pytest.mark.parametrize("form", ["rows of the batch", "sums of the batch"])
def test_threads_may_share_columns(form: str) -> None:
    m, n, k, batches = FORMS[form]
    check(gemm(m, n, k, (m != N, False), "columns"), batches, 512)


def test_code_without_vectors_has_the_same_bits() -> None:
    check(gemm(N, 5, 7, (False, True)), (1, 9), 32)


IMAGES = {  # image, filter, stride, dilation
    "odd channels": ((9, 10, 3), (3, 3, 3, 16), (1, 1), (1, 1)),
    "stride": ((9, 9, 8), (3, 3, 8, 33), (2, 2), (1, 1)),
    "more than a vector": ((4, 6, 37), (2, 2, 37, 5), (1, 1), (1, 2)),
    "one dimension": ((40, 1), (5, 1, 10), (2,), (1,)),
}


@pytest.mark.one_in(5)
@pytest.mark.parametrize("bits", [512, 128])
@pytest.mark.parametrize("order", ["pairs", "blocks"])
@pytest.mark.parametrize("images", IMAGES)
def test_convolutions_have_the_bits_of_the_interpreter(
    images: str, order: TermOrder, bits: int
) -> None:
    words = host().words[order] if bits == 512 else WIDENED
    for spec in specs(*IMAGES[images]):
        kernel = replace(spec.kernel(), order=order)
        a, b = (drawn(shape_at(type.shape, 3), 3) for type in (spec.a, spec.b))
        wanted = interpret.product(kernel, {"a": a, "b": b}, 3)
        arrays = {"a": a, "b": b, "c": np.full(wanted.shape, np.nan, np.float32)}
        found = run(Bfloat16(kernel, bits, words), arrays, 3, threads=2)["c"]
        assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    ("cpu", "features", "words"),
    [
        ("znver4", "+avx512bf16,+avx512f,+avx512vl", DOTS),
        ("znver4", "+avx512bf16,+avx512vl,-avx512f", WIDENED),
        ("sapphirerapids", "+avx512bf16,+avx512f,+avx512vl", WIDENED),
    ],
)
def test_an_instruction_is_used_where_it_is_fast(cpu: str, features: str, words: Words) -> None:
    assert Target("x86_64-linux", cpu, features, 256).words["pairs"] == words


SPECIAL = [0.0, -0.0, 2.0**-56, -(2.0**-56), 2.0**-57, 2.0**-126, 1e-45, 1.0, 257.0, 259.0]
SPECIAL += [np.inf, -np.inf, np.nan, -np.nan, 3.3961776e38, 3.3895314e38, 3.4028235e38]


@pytest.mark.parametrize("lanes", [16, 4])
def test_numbers_are_rounded_and_widened(lanes: int) -> None:
    below = np.nextafter(np.float32(2.0**-56), np.float32(0))
    numbers = np.array([*SPECIAL, below], np.float32)
    words = np.random.default_rng(0).integers(0, 2**32, 64 * lanes - len(numbers), np.uint32)
    numbers = np.concatenate([numbers, words.view(np.float32)])
    compiled = map_of(
        lambda v, x: [v.cast(x[0], "float32", "bfloat16")], ["float32"], ["bfloat16"], lanes
    )
    assert np.array_equal(compiled(numbers)[0], rounded(numbers))


def exact_net() -> gc.Net:
    """A net without functions that NumPy computes otherwise; sums of losses are not its state."""
    net = gc.Net("exact")
    x, y = net.input("x", (gc.N, 6, 5, 3)), net.input("y", (gc.N, 5))
    h = gc.relu(gc.conv2d(x, 10, 3, padding=1, bias=False))
    h = gc.relu(gc.affine(h, 33, bias=False))
    error = net.output("scores", gc.affine(h, 5, bias=False)) - y
    net.loss("loss", gc.sum(error * error))
    return net


def trained(backend: str, threads: int = 1) -> tuple[gc.Executor, bytes]:
    """A trained net, and the bytes of its parameters."""
    precision: Any = {"*": "bf16"}
    options = {"backend": backend, "threads": threads, "precision": precision}
    plan = gc.compile(exact_net(), batch=40, optimizer=gc.SGD(lr=2.0**-12), **options)
    ex, rng = gc.Executor(plan, seed=1), np.random.default_rng(0)
    for rows in (40, 13) * 10:
        ex.step(x=rng.standard_normal((rows, 6, 5, 3)), y=rng.standard_normal((rows, 5)))
    return ex, b"".join(ex.parameters[name].tobytes() for name in ex.parameters)


def test_twenty_steps_have_the_bits_of_numpy() -> None:
    wanted = trained("numpy")[1]
    assert trained("native")[1] == wanted
    assert trained("native", threads=2)[1] == wanted


def test_frozen_rows_have_the_bits_of_a_batch() -> None:
    ex, x = trained("native")[0], np.random.default_rng(2).standard_normal((21, 6, 5, 3))
    wanted = ex.forward(x=x)["scores"]
    frozen = gc.freeze(ex, batch=21)
    assert frozen.forward(x=x)["scores"].tobytes() == wanted.tobytes()
    rows = [frozen.forward(x=x[i : i + 1])["scores"] for i in range(21)]
    assert np.concatenate(rows).tobytes() == wanted.tobytes()
