"""Random numbers of a net: their distributions, their keys, and the same bits everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.kernels.interpret import evaluated
from graphc.ops.random_numbers import Noise, RandomNormal, RandomUniform

Arrays = Mapping[str, Any]
NORMAL = NormalDist()
BACKENDS = ["numpy", *(pytest.param(x, marks=pytest.mark.needs(x)) for x in ("native", "c"))]
ENDS = [0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]


def words(many: int) -> Any:
    """Random words, and those at the ends of the distribution and of its halves."""
    drawn = np.random.default_rng(0).integers(0, 2**32, many, dtype=np.uint32)
    return np.concatenate([np.array(ENDS, np.uint32), drawn])


def executor(net: gc.Net, backend: str = "numpy", seed: int = 3, **how: Any) -> gc.Executor:
    net.loss("loss", gc.mean(net.input("x", (gc.N, 3)) * net.parameter("w", (3,), init=1.0)))
    plan = gc.compile(net, batch=64, optimizer=gc.SGD(lr=0.1), backend=backend, **how)
    return gc.Executor(plan, seed=seed)


def several(dtype: str = "float32") -> gc.Net:
    """Numbers of all ranks, narrow and wide, of both distributions, and in a loop."""
    net = gc.Net("noise", dtype=dtype)
    x = net.parameter("scale", (), init=1.0)
    for i, shape in enumerate([(gc.N,), (gc.N, 1), (gc.N, 3), (gc.N, 100), (gc.N, 2, 5), (7, 3)]):
        net.output(f"normal{i}", gc.random_normal(x, shape) * x)
        net.output(f"uniform{i}", gc.random_uniform(x, shape))
    steps = gc.broadcast_to(x, (gc.N, 3, 2))

    def step(x: gc.Value) -> tuple[gc.Value, tuple[()]]:
        return x * gc.random_normal(x), ()

    net.output("loop", gc.scan(step, steps)[0])
    return net


def drawn(ex: gc.Executor, rows: int = 64, train: bool = True) -> dict[str, Any]:
    found = ex.forward(x=np.zeros((rows, 3)), train=train)
    return {name: array for name, array in found.items() if name != "loss"}


def test_a_normal_number_is_the_quantile_of_its_word() -> None:
    word = words(20_000)
    found = evaluated(RandomNormal((1,), "float32", 0).of_word, word)
    wanted = [NORMAL.inv_cdf((int(w) + 0.5) / 2**32) for w in word]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_uniform_number_is_the_upper_bits_of_its_word() -> None:
    word = words(1000)
    found = evaluated(RandomUniform((1,), "float32", 0).of_word, word)
    np.testing.assert_array_equal(found, (word >> 8) / 2**24)
    assert found.min() == 0 and found.max() < 1


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_numbers_have_their_distribution(kind: str) -> None:
    """Moments and the Kolmogorov-Smirnov distance of many numbers with a fixed seed."""
    many = 100_000
    op = Noise((many // 50, 50), "float64", kind, 11).drawn
    x = np.sort(op.reference([np.uint64(5), np.int64(2)]).ravel())
    if kind == "normal":
        exact = np.array([NORMAL.cdf(v) for v in x])
        moments = [0, 1, 0, 3]
        spread = [1, 2, 15, 96]  # the variances of x, x**2, x**3 and x**4
    else:
        exact, moments = x, [1 / 2, 1 / 3, 1 / 4, 1 / 5]
        spread = [1 / (2 * k + 1) - 1 / (k + 1) ** 2 for k in range(1, 5)]
    for k, (moment, variance) in enumerate(zip(moments, spread, strict=True), start=1):
        assert abs((x**k).mean() - moment) < 4 * (variance / many) ** 0.5
    steps = np.arange(many) / many
    distance = max((exact - steps).max(), (steps + 1 / many - exact).max())
    assert distance < 1.63 / many**0.5  # it is larger for one seed of a hundred


def test_rows_columns_layers_and_steps_are_independent() -> None:
    net = gc.Net("noise")
    x = net.input("like", (gc.N, 40))
    for name in ("a", "b"):
        net.output(name, gc.random_normal(x, name=name))
    ex = executor(net)
    runs = [ex.forward(x=np.zeros((64, 3)), like=np.zeros((64, 40)), train=True) for _ in range(2)]
    parts = [run[name] for run in runs for name in ("a", "b")]
    parts += [np.roll(parts[0], 1, axis) for axis in (0, 1)]
    table = np.corrcoef([part.ravel() for part in parts])
    assert np.abs(table - np.eye(len(parts))).max() < 4.5 / (64 * 40) ** 0.5


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("backend", "dtype", "how"),
    [
        ("native", "float32", {"threads": 2}),
        ("native", "float64", {"threads": 1, "contract": "unfused"}),
        ("c", "float32", {}),
        ("numpy", "float64", {}),
    ],
)
def test_every_backend_draws_the_same_bits(backend: str, dtype: str, how: Any) -> None:
    """Numbers of float64 are those of float32; products may be fused or not."""
    found = drawn(executor(several(dtype), backend, **how))
    for name, array in drawn(executor(several())).items():
        assert found[name].dtype == dtype
        np.testing.assert_array_equal(found[name], array, name)


def test_numbers_depend_neither_on_other_rows_nor_on_other_layers() -> None:
    whole, few = drawn(executor(several())), drawn(executor(several()), rows=5)
    for name, array in few.items():
        np.testing.assert_array_equal(array, whole[name][: len(array)])
    alone = gc.Net("alone")
    x = alone.parameter("any", (), init=1.0)
    alone.output("one", gc.random_normal(x, (gc.N, 100), name="random_normal_4"))
    np.testing.assert_array_equal(drawn(executor(alone))["one"], whole["normal3"])


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_numbers_beside_a_sum_of_each_row_are_their_own(backend: str) -> None:
    """A kernel over rows and columns would draw a number for each element of the matrix."""
    net = gc.Net("rows")
    x = net.input("h", (gc.N, 5))
    numbers = gc.random_uniform(x, (gc.N,), name="numbers")
    net.output("sums", gc.sum(gc.tanh(x) - gc.exp(x), axis=1) + numbers)
    alone = gc.Net("alone")
    alone.output("numbers", gc.random_uniform(alone.input("h", (gc.N, 5)), (gc.N,), name="numbers"))
    h = np.zeros((9, 5), np.float32)
    sums, wanted = (
        executor(one, backend).forward({"h": h, "x": np.zeros((9, 3))}, train=True)
        for one in (net, alone)
    )
    np.testing.assert_allclose(sums["sums"], wanted["numbers"] - 5.0, atol=1e-5)


def test_other_seeds_and_forwards_draw_other_numbers() -> None:
    ex = executor(several())
    first, second = drawn(ex), drawn(ex)
    other = drawn(executor(several(), seed=4))
    for name, array in first.items():
        assert not np.array_equal(array, second[name])
        assert not np.array_equal(array, other[name])


def test_inference_sees_the_mean() -> None:
    for name, array in drawn(executor(several()), train=False).items():
        assert set(array.ravel()) == {0.5 if name.startswith("uniform") else 0}


def test_a_counter_draws_in_inference_too() -> None:
    net = gc.Net("acting")
    x = net.input("like", (gc.N, 4))
    turn = net.input("turn", (), dtype="int64")
    net.output("noise", gc.random_normal(x, counter=turn, name="noise"))
    ex = executor(net, "native")
    feeds = {"x": np.zeros((3, 3)), "like": np.zeros((3, 4))}
    runs = [ex.forward(feeds, turn=turn, train=train) for turn in (0, 1) for train in (True, False)]
    noises = [run["noise"] for run in runs]
    np.testing.assert_array_equal(noises[0], noises[1])
    np.testing.assert_array_equal(noises[2], noises[3])
    assert not np.array_equal(noises[0], noises[2])
    own = drawn_by_name("noise", (gc.N, 4))
    np.testing.assert_array_equal(noises[0], own[:3])  # draws begin at 0


def drawn_by_name(name: str, shape: Any) -> Any:
    net = gc.Net("net")
    net.output("noise", gc.random_normal(net.parameter("p", ()), shape, name=name))
    return drawn(executor(net))["noise"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_shards_draw_what_the_whole_batch_does(backend: str) -> None:
    gradients = []
    for shards in (1, 4):
        net = gc.Net("sharded")
        w = net.parameter("w", (5,), init=1.0)
        x = net.input("x", (gc.N, 5))
        kept = gc.dropout(gc.random_normal(x) * w, keep_prob=0.5)
        steps = gc.reshape(gc.stack([x + w, x - 2 * w], 1), (-1, 5))  # two rows for each
        apart = gc.reshape(gc.dropout(steps, keep_prob=0.5), (gc.N, 2, 5))
        net.loss("loss", gc.mean(kept * (1 + gc.random_uniform(x)) + gc.sum(apart, 1)))
        how = {"backend": backend, "shards": shards}
        ex = gc.Executor(gc.compile(net, batch=16, optimizer=gc.SGD(lr=1.0), **how), seed=0)
        ex.step(x=np.zeros((13, 5)))
        gradients.append(ex.parameters["w"])
    np.testing.assert_allclose(*gradients, rtol=1e-5)


def test_no_gradient_flows_through_them() -> None:
    net = gc.Net("net")
    w = net.parameter("w", (3,), init=2.0)
    net.loss("l", gc.mean(w * gc.random_normal(w) ** 2))
    report = gc.grad_check(net, {})
    assert report.ok, report


def test_saved_executors_go_on_with_the_same_numbers(tmp_path: Any) -> None:
    ex = executor(several())
    drawn(ex)
    gc.save(tmp_path / "noise.gc", ex)
    wanted, found = drawn(ex), drawn(gc.load(tmp_path / "noise.gc"))
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


def test_mistakes_are_told() -> None:
    x = gc.Net("net").input("x", (gc.N, 3))
    with pytest.raises(gc.GraphError, match="at least one dimension"):
        gc.random_normal(x, ())
    with pytest.raises(gc.GraphError, match="the batch must be the first dimension"):
        gc.random_uniform(x, (2, gc.N))
    with pytest.raises(gc.GraphError, match="counter is float32\\[N, 3\\]"):
        gc.random_normal(x, counter=x)
