"""Matrix products against sums in the order of k, between guards, and bit by bit."""

from __future__ import annotations

from itertools import product as combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.backends.native.gemm import emit_gemm
from graphc.backends.native.gemm_scratch import K_BLOCK
from graphc.backends.native.ir import Module
from graphc.ir.expr import BodyBuilder, Expr, call, select
from graphc.ir.tensor_type import Batch, dim_at
from tests.backends.native.gemm_function import Array, Product, Spec, run, same_bytes

SIZES = (1, 2, 3, 7, 10, 16, 17, 31, 33, 37, 64, 100)
KINDS = list(combinations((False, True), (False, True)))
IDS = ["NN", "NT", "TN", "TT"]
WIDTHS = (512, 256, 128)
TOLERANCE = {"float32": 2e-6, "float64": 4e-15}


def epilogue(b: BodyBuilder, x: Expr) -> None:
    """Loads of every broadcast, numbers of rows and columns, a selection, two stores."""
    scale = b.load("scale", "one", x.dtype)
    y = call("mul", x, scale) + b.load("bias", "column", x.dtype) - b.load("c", "each", x.dtype)
    label = b.load("label", "row", "int64")
    hit = label.equals(b.index("columns"))
    y = select(hit, y - 1, y) + b.index("rows").cast(x.dtype) / b.size("columns", x.dtype)
    b.store(y, "c", "each")
    b.store(y > b.size("rows", x.dtype) / 50, "large", "each")


def arrays_of(spec: Spec, n: int, seed: int = 0) -> dict[str, Array]:
    """All buffers of the body `epilogue`."""
    rng = np.random.default_rng(seed)
    m = dim_at(spec.m, n)
    return spec.operands(rng, n) | {
        "scale": np.array(0.5, spec.dtype),
        "bias": rng.standard_normal(spec.n).astype(spec.dtype),
        "c": rng.standard_normal((m, spec.n)).astype(spec.dtype),
        "label": rng.integers(0, spec.n, m),
        "large": np.ones((m, spec.n), bool),
    }


def expected(spec: Spec, before: dict[str, Array]) -> Array:
    """What `epilogue` stores in c, in float64."""
    total = spec.product(before["a"], before["b"])
    y = total * before["scale"] + before["bias"] - before["c"]
    y[np.arange(len(y)), before["label"]] -= 1
    return y + np.arange(len(y))[:, None] / spec.n


def check(spec: Spec, got: dict[str, Array], before: dict[str, Array]) -> None:
    """Within rounding of the terms that were added; the masks agree with the numbers."""
    want = expected(spec, before)
    sizes = Spec.product(spec, np.abs(before["a"]), np.abs(before["b"])) + 10 + len(want) / spec.n
    assert (np.abs(got["c"] - want) <= TOLERANCE[spec.dtype] * sizes).all()
    bound = np.asarray(len(want), spec.dtype) / np.asarray(50, spec.dtype)
    np.testing.assert_array_equal(got["large"], got["c"] > bound)


@pytest.mark.one_in(10)
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("trans", KINDS, ids=IDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shapes(trans: tuple[bool, bool], dtype: str, bits: int) -> None:
    """Every size in every place, each paired with others."""
    rng = np.random.default_rng(bits)
    ms, ns, ks = (rng.permutation(SIZES).tolist() for _ in range(3))
    for i in range(0, len(SIZES), 4):
        spec = Spec(ms[i], ns[i], ks[i], *trans, dtype=dtype, write=epilogue)
        before = arrays_of(spec, 1)
        check(spec, run(Product(spec, bits), before, 1), before)


@settings(max_examples=6, deadline=None)
@given(
    m=st.integers(1, 70),
    n=st.integers(1, 70),
    k=st.integers(1, 40),
    trans=st.sampled_from(KINDS),
    bits=st.sampled_from(WIDTHS),
    partition=st.sampled_from(["rows", "columns", "none"]),
    threads=st.integers(1, 4),
)
def test_any_shape(m, n, k, trans, bits, partition, threads) -> None:  # type: ignore[no-untyped-def]
    spec = Spec(m, n, k, *trans, partition=partition, write=epilogue)
    before = arrays_of(spec, 1)
    check(spec, run(Product(spec, bits), before, 1, threads), before)


@pytest.mark.one_in(7)
@pytest.mark.parametrize("partition", ["rows", "columns"])
@pytest.mark.parametrize("trans", KINDS, ids=IDS)
def test_bits_do_not_depend_on_threads(trans: tuple[bool, bool], partition: str) -> None:
    spec = Spec(100, 70, 33, *trans, partition=partition, write=epilogue)  # type: ignore[arg-type]
    product, before = Product(spec), arrays_of(spec, 1)
    assert same_bytes([run(product, before, 1, threads)["c"] for threads in (1, 2, 3, 4, 9)])


@pytest.mark.one_in(5)
@pytest.mark.parametrize("trans", KINDS[:3], ids=IDS[:3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_do_not_depend_on_the_width(trans: tuple[bool, bool], dtype: str) -> None:
    spec = Spec(37, 50, 100, *trans, dtype=dtype, write=epilogue)
    before = arrays_of(spec, 1)
    assert same_bytes([run(Product(spec, bits), before, 1)["c"] for bits in WIDTHS])


@pytest.mark.one_in(10)
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("factor", [1, 2])
def test_rows_do_not_depend_on_the_batch(trans_b: bool, factor: int, bits: int) -> None:
    """Each batch from 1 to the capacity has the first rows of the full one, byte for byte."""
    spec = Spec(Batch(factor), 37, 29, False, trans_b)
    product, capacity = Product(spec, bits), 40
    full = spec.operands(np.random.default_rng(1), capacity)
    full["c"] = np.zeros((capacity * factor, spec.n), np.float32)
    want = run(product, full, capacity)["c"]
    np.testing.assert_allclose(want, spec.product(full["a"], full["b"]), rtol=1e-4, atol=1e-5)
    for n in range(1, capacity):
        rows = factor * n
        arrays = {"a": full["a"][:rows], "b": full["b"], "c": full["c"][:rows]}
        assert run(product, arrays, n, threads=2)["c"].tobytes() == want[:rows].tobytes()


@pytest.mark.parametrize("bits", WIDTHS)
def test_rows_of_b_a_page_apart(bits: int) -> None:
    """b is packed for many rows, or if it is deep; else it is read in place: with the same bits."""
    for k in (80, 300):
        spec = Spec(Batch(), 1024, k)
        product, full = Product(spec, bits), spec.operands(np.random.default_rng(k), 70)
        full["c"] = np.zeros((70, 1024), np.float32)
        want = run(product, full, 70)["c"]
        np.testing.assert_allclose(want, spec.product(full["a"], full["b"]), rtol=1e-3, atol=1e-4)
        some = {"a": full["a"][:20], "b": full["b"], "c": full["c"][:20]}
        assert run(product, some, 20)["c"].tobytes() == want[:20].tobytes()


@pytest.mark.one_in(4)
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("trans_b", [False, True])
def test_the_batch_as_inner_dimension(trans_b: bool, bits: int) -> None:
    """As in a weight's gradient: k is the number of rows."""
    pitch_rows = 40
    spec = Spec(50, 37, Batch(), True, trans_b)
    product = Product(spec, bits, rows=pitch_rows)
    for n in (pitch_rows,) if trans_b else (*range(1, 20), pitch_rows):
        arrays = spec.operands(np.random.default_rng(n), n)
        arrays["c"] = np.full((50, 37), np.nan, np.float32)
        want = spec.product(arrays["a"], arrays["b"])
        np.testing.assert_allclose(run(product, arrays, n)["c"], want, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_long_sums_and_many_rows() -> None:
    """More than one block of rows, and panels that no cache near the core holds."""
    for trans, (m, n, k) in zip(KINDS, [(40, 40, 3000)] * 2 + [(300, 40, 700)] * 2, strict=True):
        spec = Spec(m, n, k, *trans, write=epilogue)
        before = arrays_of(spec, 1)
        results = [run(Product(spec), before, 1, threads) for threads in (1, 3)]
        check(spec, results[0], before)
        assert same_bytes([r["c"] for r in results])


@pytest.mark.one_in(11)
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_in_blocks(dtype: str, trans_b: bool, bits: int) -> None:
    """Blocks of k, the last one not full, give the bits of one long sum, at all heights."""
    spec = Spec(Batch(), 70, 4 * K_BLOCK + 37, False, trans_b, dtype=dtype)
    arrays = spec.operands(np.random.default_rng(2), 37)
    arrays["c"] = np.zeros((37, spec.n), dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graphc.backends.native.gemm_scratch.K_BLOCK", 1 << 20)
        whole = Product(spec, bits)
        want, scratch = run(whole, arrays, 37)["c"], whole.scratch(37)
    sizes = spec.product(np.abs(arrays["a"]), np.abs(arrays["b"]))
    error = np.abs(want - spec.product(arrays["a"], arrays["b"]))
    assert (error <= TOLERANCE[dtype] * sizes).all()
    product = Product(spec, bits)
    assert product.scratch(37) < scratch, "the panel is shorter"
    for n in (1, 3, 4, 5, 8, 16, 17, 31, 32, 33, 37):
        some = {"a": arrays["a"][:n], "b": arrays["b"], "c": arrays["c"][:n]}
        for threads in (1, 2):
            assert run(product, some, n, threads)["c"].tobytes() == want[:n].tobytes()


def test_a_nan_stays_in_its_row() -> None:
    """Nothing of one row reaches another, whatever is in it."""
    for trans_b in (False, True):
        spec = Spec(20, 40, 17, False, trans_b)
        arrays = spec.operands(np.random.default_rng(0), 1)
        arrays["a"][7] = np.nan
        arrays["c"] = np.zeros((20, 40), np.float32)
        c = run(Product(spec), arrays, 1)["c"]
        assert np.isnan(c[7]).all() and not np.isnan(np.delete(c, 7, 0)).any()


def test_equal_products_share_a_function() -> None:
    """Names of buffers do not count; sizes and pitches do."""
    module = Module()

    def emitted(n: int, c: str, pitch: int) -> str:
        def write(b: BodyBuilder, x: Expr) -> None:
            b.store(x, c, "each")

        kernel = Spec(8, n, 8, write=write).kernel()
        return emit_gemm(module, kernel, {"a": 8, "b": n, c: pitch}, 512).name

    assert emitted(16, "c", 16) == emitted(16, "d", 16)
    assert len({emitted(16, "c", 16), emitted(16, "c", 32), emitted(17, "c", 17)}) == 3
