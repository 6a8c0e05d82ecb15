"""What is exported passes onnx's full check, and its own runtime gives the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.extras import needs

onnx = needs("onnx")
reference = needs("onnx.reference")

Array = np.ndarray[Any, Any]
Declare = Callable[[gc.Net], Mapping[str, gc.Value]]

FLOATS = np.array([[-1.5, 0.25, 2.0, 0.0], [3.0, -0.5, 0.75, 1.0], [0.5, 0.5, -2.0, 4.0]])


def same(tmp_path: Path, declare: Declare, feeds: dict[str, Array], dtype: str = "float32") -> None:
    """As graphc runs it: by onnx's reference, and by graphc after reading it back."""
    net = gc.Net("exported", dtype=dtype)
    for name, value in declare(net).items():
        net.output(name, value)
    model = gc.onnx.to_proto(net)
    ex = gc.Executor(gc.compile(net, batch=8, backend="numpy"))
    expected = ex.forward(feeds)
    fed = {i.name: feeds[i.name] for i in model.graph.input}
    found = reference.ReferenceEvaluator(model).run(list(expected), fed)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    again = gc.compile(gc.onnx.load(path), batch=8, backend="numpy")
    reread = gc.Executor(again).forward(feeds)
    for (name, array), other in zip(expected.items(), found, strict=True):
        np.testing.assert_allclose(other, array, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(reread[name], array, rtol=1e-5, err_msg=name)
        assert other.dtype == array.dtype, name


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint8", "int32"])
def test_whole_numbers_that_onnx_has_not_are_cast(dtype: str, tmp_path: Path) -> None:
    def declare(net: gc.Net) -> dict[str, gc.Value]:
        x = net.input("x", (gc.N, 4), dtype=dtype)
        made = {"sum": gc.sum(x, 1), "max": gc.max(x, 1), "min": gc.min(x, 0)}
        made |= {"cumsum": gc.cumsum(x, 1), "prod": gc.prod(x, 1), "all": gc.sum(x)}
        return made | {"neg": -x, "abs": gc.abs(x), "larger": gc.maximum(x, 3)}

    x = np.array([[1, 2, 100, 7], [90, 60, 3, 1]]).astype(dtype)
    same(tmp_path, declare, {"x": x})


def test_bools_are_cast(tmp_path: Path) -> None:
    def declare(net: gc.Net) -> dict[str, gc.Value]:
        x, y = (net.input(name, (gc.N, 4), dtype="bool") for name in "xy")
        return {"or": gc.maximum(x, y), "and": gc.minimum(x, y)}

    same(tmp_path, declare, {"x": FLOATS > 0, "y": FLOATS > 0.4})


def test_celu_of_doubles(tmp_path: Path) -> None:
    def declare(net: gc.Net) -> dict[str, gc.Value]:
        return {"celu": gc.celu(net.input("x", (gc.N, 4), dtype="float64"), 1.5)}

    same(tmp_path, declare, {"x": FLOATS}, "float64")


@pytest.mark.parametrize("divisor", [[3, 0, -2, 5], [3, 1, -2, 5]])
@pytest.mark.parametrize("fed", [True, False])
def test_whole_numbers_divided_by_zero_are_zero(
    fed: bool, divisor: list[int], tmp_path: Path
) -> None:
    numbers = np.array([[7, 4, 7, -9], [-7, 0, -7, 9]])

    def declare(net: gc.Net) -> dict[str, gc.Value]:
        x = net.input("x", (gc.N, 4), dtype="int64")
        by = net.input("by", (4,), dtype="int64") if fed else net.constant(np.array(divisor))
        made = {"floor": x // by, "trunc": gc.trunc_div(x, by)}
        return made | {"mod": x % by, "fmod": gc.fmod(x, by)}

    same(tmp_path, declare, {"x": numbers} | ({"by": np.array(divisor)} if fed else {}))
    onnxruntime = needs("onnxruntime")
    net = gc.Net("divided")
    made = declare(net)
    for name, value in made.items():
        net.output(name, value)
    session = onnxruntime.InferenceSession(gc.onnx.to_proto(net).SerializeToString())
    feeds = {"x": numbers} | ({"by": np.array(divisor)} if fed else {})
    expected = gc.Executor(gc.compile(net, batch=2, backend="numpy")).forward(feeds)
    for name, found in zip(made, session.run(list(made), feeds), strict=True):
        np.testing.assert_array_equal(found, expected[name], err_msg=name)


def test_values_without_elements(tmp_path: Path) -> None:
    def declare(net: gc.Net) -> dict[str, gc.Value]:
        x = net.input("x", (gc.N, 3, 0))
        made = {"none": gc.reshape(x, (gc.N, 0)), "other": gc.reshape(x, (gc.N, 0, 5))}
        return made | {"flat": gc.reshape(x, (0, gc.N)), "sum": gc.sum(x, 2)}

    same(tmp_path, declare, {"x": np.zeros((2, 3, 0), np.float32)})


def test_rows_are_those_of_an_input_wherever_it_is_declared(tmp_path: Path) -> None:
    def declare(net: gc.Net) -> dict[str, gc.Value]:
        repeated = gc.broadcast_to(net.parameter("p", (4,)), (gc.N, 4)) * 2.0
        late = net.input("x", (gc.N, 4))
        return {"rows": repeated, "both": repeated + late, "sum": gc.sum(repeated)}

    same(tmp_path, declare, {"x": FLOATS.astype(np.float32)})


def test_an_input_that_only_says_how_many_rows_there_are_is_kept(tmp_path: Path) -> None:
    def declare(net: gc.Net) -> Mapping[str, gc.Value]:
        net.input("unread", (gc.N, 2))
        p = net.parameter("p", (4,), init=1.5)
        return {"rows": gc.broadcast_to(p, (gc.N, 4)) * 2.0}

    same(tmp_path, declare, {"unread": np.zeros((3, 2), np.float32)})


def test_rows_that_no_input_has_are_refused() -> None:
    net = gc.Net("alone")
    net.output("rows", gc.broadcast_to(net.parameter("p", (4,)), (gc.N, 4)))
    with pytest.raises(gc.GraphError, match="no input has that many"):
        gc.onnx.to_proto(net)


@pytest.mark.one_in(5)
@pytest.mark.parametrize("pool", [gc.max_pool, gc.avg_pool])
@pytest.mark.parametrize(
    ("sizes", "kernel", "stride", "padding"),
    [
        ((1,), 2, 2, 1),
        ((5,), 2, 2, 1),
        ((6,), 3, 2, 0),
        ((1, 6), (2, 3), 2, (1, 0)),
        ((2, 2), (2, 1), (2, 1), 0),
        ((3, 7), 2, 2, 1),
    ],
)
def test_pools_count_windows_as_onnxruntime(
    pool: Callable[..., gc.Value],
    sizes: tuple[int, ...],
    kernel: Any,
    stride: Any,
    padding: Any,
    tmp_path: Path,
) -> None:
    """A window that begins behind the image is none, though ONNX's rule counts it."""

    def declare(net: gc.Net) -> dict[str, gc.Value]:
        x = net.input("x", (gc.N, 2, *sizes))
        made = pool(x, kernel, stride=stride, padding=padding, ceil=True)
        return {"pool": made, "wider": pool(made, 1)}

    x = np.random.default_rng(0).normal(size=(2, 2, *sizes)).astype(np.float32)
    same(tmp_path, declare, {"x": x})
