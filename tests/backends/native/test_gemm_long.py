"""Sums over many rows of a batch, by blocks: the bits of sums in the order of the rows."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.backends.native.choose_scratch import is_long
from graphc.backends.native.gemm_scratch import K_BLOCK
from graphc.backends.native.gemm_tile import choose_tile
from graphc.ir.tensor_type import Batch
from graphc.kernels.kernel import Partition
from tests.backends.native.gemm_function import Product, Spec, run
from tests.backends.native.test_gemm import WIDTHS, arrays_of, check, epilogue

CAPACITY = 5 * K_BLOCK


def spec(m: int, n: int, dtype: str = "float32", partition: Partition = "columns") -> Spec:
    return Spec(m, n, Batch(), True, False, dtype, partition, epilogue)


@pytest.mark.one_in(16)
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("partition", ["columns", "rows"])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (5, 32), (16, 33), (40, 70), (130, 96)])
def test_blocks_have_the_bits_of_one_sum(m: int, n: int, partition: Partition, bits: int) -> None:
    one = spec(m, n, partition=partition)
    long = Product(one, bits, capacity=CAPACITY)
    plain = Product(one, bits)
    assert is_long(long.kernel, choose_tile("float32", bits), CAPACITY)
    for rows in (1, 2, K_BLOCK - 1, K_BLOCK, 2 * K_BLOCK + 3):
        before = arrays_of(one, rows)
        found = [run(product, before, rows) for product in (long, plain)]
        check(one, found[0], before)
        assert all(found[0][name].tobytes() == found[1][name].tobytes() for name in ("c", "large"))


def test_doubles_and_threads() -> None:
    one = spec(37, 70, "float64")
    long = Product(one, capacity=CAPACITY)
    before = arrays_of(one, CAPACITY)
    alone, shared = (run(long, before, CAPACITY, threads=threads) for threads in (1, 3))
    check(one, alone, before)
    assert np.array_equal(alone["c"], shared["c"])


@pytest.mark.parametrize(
    "other",
    [
        Spec(16, 16, 2000, True),
        Spec(Batch(), 16, 2000),
        Spec(16, 16, Batch(), False),
        Spec(16, 16, Batch(), True, True),
    ],
)
def test_other_products_are_not_long(other: Spec) -> None:
    tile = choose_tile("float32", 512)
    assert not is_long(other.kernel(), tile, CAPACITY)
    assert not is_long(spec(16, 16).kernel(), tile, K_BLOCK)
