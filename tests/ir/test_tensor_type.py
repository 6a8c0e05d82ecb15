"""The batch in two axes, and types that cannot be: too large, of too many dimensions."""

from __future__ import annotations

import pytest

import graphc as gc
from graphc.ir.tensor_type import Batch, N, Shape, TensorType, broadcast, count, shape_text


@pytest.mark.parametrize("shape", [(2**60,), (N, 2**30, 2**30), (0, 2**60), (2**20,) * 3])
def test_a_value_larger_than_any_memory(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="larger than any memory"):
        TensorType(shape, "float32")


def test_a_net_says_so_at_the_line() -> None:
    net = gc.Net("n")
    with pytest.raises(gc.GraphError, match="larger than any memory"):
        net.input("x", (gc.N, 2**60))
    x = net.input("x", (gc.N, 2**40))
    with pytest.raises(gc.GraphError, match="larger than any memory"):
        gc.concat([x] * 64, 1)


def test_a_plan_larger_than_any_memory() -> None:
    net = gc.Net("n")
    net.output("y", gc.relu(net.input("x", (gc.N, 2**30))))
    with pytest.raises(gc.OutOfMemoryError, match="there is not enough memory"):
        gc.Executor(gc.compile(net, batch=2**40, backend="numpy"))


def test_scratch_larger_than_any_memory() -> None:
    net = gc.Net("n")
    x = net.input("x", (gc.N, 1, 4, 4))
    far = ((2**40, 2**40), (0, 0))
    net.output("y", gc.conv2d(x, 1, 3, padding=far, name="far"))
    with pytest.raises(gc.OutOfMemoryError, match="not enough memory for this plan"):
        gc.compile(net, batch=2, backend="numpy")


def test_many_dimensions() -> None:
    assert TensorType((1,) * 32, "int8").rank == 32
    with pytest.raises(ValueError, match=r"\(1, 1, 1, 1, \.\.\. 33 dimensions\) has more than 32"):
        TensorType((1,) * 33, "int8")
    assert len(shape_text((7,) * 10**6)) < 50


def test_the_batch_in_two_axes() -> None:
    pairs = TensorType((N, 2 * N, 3), "float32")
    assert (pairs.pairs_rows, pairs.nbytes(5), str(pairs)) == (True, 600, "float32[N, 2*N, 3]")
    assert (count(pairs.shape), pairs.bytes_text()) == (Batch(6, 2), "24*N*N")
    assert count((0, N, N)) == 0
    assert not TensorType((N, 3), "float32").pairs_rows
    for shape in ((N, N, N), (N * N, N)):
        with pytest.raises(ValueError, match="has the batch dimension 3 times"):
            TensorType(shape, "float32")


def test_rows_of_a_size() -> None:
    for dim in (N, 3 * N, N * N, 5 * N * N):
        assert all(dim.rows(dim.at(n)) == n for n in range(40))
    assert (Batch(3).rows(4), (N * N).rows(8), (5 * N * N).rows(19)) == (None, None, None)


@pytest.mark.parametrize(
    "a, b, result",
    [
        ((N, 1), (1, N), (N, N)),
        ((N, N), (N, 1), (N, N)),
        ((N, N), (3,), None),
        ((N, 1, 4), (1, N, 4), (N, N, 4)),
        ((5, N, N), (N, N), (5, N, N)),
        ((N, N, 4), (4,), (N, N, 4)),
        ((N, N), (), (N, N)),
        ((N, 1), (N,), None),
        ((N, N), (N,), None),
        ((N, N, 4), (N, 4), None),
        ((N, 2 * N), (1, N), None),
    ],
)
def test_pairs_of_rows_by_broadcasting(a: Shape, b: Shape, result: Shape | None) -> None:
    for left, right in ((a, b), (b, a)):
        if result is None:
            with pytest.raises(ValueError, match=r"every row with every other|do not broadcast"):
                broadcast(left, right)
        else:
            assert broadcast(left, right) == result


def test_minus_one_among_pairs() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 6))
    pairs = gc.matmul(x, gc.transpose(x))
    assert gc.reshape(pairs, (-1,)).shape == (N * N,)
    assert gc.reshape(pairs, (gc.N, -1, 1)).shape == (N, N, 1)
    assert gc.reshape(gc.tile(pairs, (1, 2)), (gc.N, gc.N, -1)).shape == (N, N, 2)
    for shape in ((-1, 7), (gc.N, gc.N, gc.N, -1), (4, -1)):
        with pytest.raises(gc.GraphError, match=r"does not reshape|is multiplied|times"):
            gc.reshape(pairs, shape)
    with pytest.raises(gc.GraphError, match="do not join to a multiple of either"):
        gc.concat([gc.reshape(pairs, (-1,)), gc.sum(x, 1)], 0)
