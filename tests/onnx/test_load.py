"""Models that are read: names, shapes, layers, folding, and errors."""

from __future__ import annotations

import copy
import pickle
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import graphc as gc
from graphc.ir.op import Array
from graphc.ir.text import parse_graph
from graphc.onnx import load, prepare
from graphc.ops import OPS
from tests.onnx.models import model, node
from tests.together import together


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def run(net: gc.Net, batch: int = 4, **feeds: Array) -> dict[str, Array]:
    return gc.Executor(gc.compile(net, batch=batch, backend="numpy")).forward(feeds)


def ops(net: gc.Net) -> list[str]:
    return [n.op.name for n in net.graph() if n.op.name not in ("input", "parameter")]


def perceptron(batch: object = "batch") -> onnx.ModelProto:
    return model(
        [
            node("Gemm", "x fc1.weight fc1.bias", "h", transB=1),
            node("Relu", "h", "a"),
            node("Gemm", "a fc2.weight fc2.bias", "scores", transB=1),
        ],
        {"x": (batch, 4)},
        ["scores"],
        {
            "fc1.weight": numbers(5, 4),
            "fc1.bias": numbers(5, seed=1),
            "fc2.weight": numbers(3, 5, seed=2),
            "fc2.bias": numbers(3, seed=3),
        },
    )


def test_a_perceptron_is_affine_layers_with_its_names() -> None:
    net = load(perceptron())
    assert ops(net) == ["affine", "relu", "affine"]
    assert net["x"].shape == (gc.N, 4)
    assert net["scores"].shape == (gc.N, 3)
    x = numbers(4, 4, seed=9)
    hidden = np.maximum(x @ numbers(5, 4).T + numbers(5, seed=1), 0)
    wanted = hidden @ numbers(3, 5, seed=2).T + numbers(3, seed=3)
    np.testing.assert_allclose(run(net, x=x)["scores"], wanted, rtol=1e-5)
    plan = gc.compile(net, batch=4)
    assert list(gc.Executor(plan).parameters) == [
        *("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
    ]


def test_it_trains_on(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(perceptron(), path)
    net = load(path)
    labels = net.input("y", (gc.N,), dtype="int64")
    net.loss("loss", gc.softmax_loss(net["scores"], labels))
    ex = gc.Executor(gc.compile(net, batch=8, optimizer=gc.SGD(lr=0.1), backend="numpy"))
    x, y = numbers(8, 4, seed=5), np.arange(8) % 3
    losses = [ex.step(x=x, y=y) for _ in range(20)]
    assert losses[-1] < 0.7 * losses[0]
    gc.onnx.save(ex, path)
    again = load(path)
    feeds = {"x": x, "y": y}
    np.testing.assert_allclose(
        run(again, 8, **feeds)["scores"], ex.forward(feeds)["scores"], rtol=1e-5
    )


def test_a_weight_that_two_nodes_read_is_one_parameter() -> None:
    net = load(
        model(
            [node("MatMul", "x w", "h"), node("Gemm", "h w", "y", transB=1)],
            {"x": ("N", 4)},
            ["y"],
            {"w": numbers(4, 5)},
        )
    )
    x, w = numbers(3, 4, seed=1), numbers(4, 5)
    assert [n.name for n in net.graph() if n.op.name == "parameter"] == ["w"]
    np.testing.assert_allclose(run(net, x=x)["y"], x @ w @ w.T, rtol=1e-4)


def test_batchnorm_and_dropout_are_layers_of_both_modes() -> None:
    statistics = {
        "gamma": numbers(3),
        "beta": numbers(3, seed=1),
        "mean": numbers(3, seed=2),
        "var": np.abs(numbers(3, seed=3)),
    }
    net = load(
        model(
            [
                node("BatchNormalization", "x gamma beta mean var", "h", momentum=0.75),
                node("Dropout", "h ratio", "y"),
            ],
            {"x": ("N", 3)},
            ["y"],
            {**statistics, "ratio": np.float32(0.25)},
        )
    )
    layers = {n.op.name: n.op for n in net.graph()}
    assert layers["batchnorm"].running_decay == 0.75  # type: ignore[attr-defined]
    assert layers["dropout"].keep_prob == 0.75  # type: ignore[attr-defined]
    x = numbers(64, 3, seed=4)
    gamma, beta, mean, var = statistics.values()
    wanted = (x - mean) / np.sqrt(var + 1e-5) * gamma + beta
    net.loss("loss", gc.mean(net["y"] ** 2))
    ex = gc.Executor(gc.compile(net, batch=64, optimizer=gc.SGD(lr=0.1), backend="numpy"))
    np.testing.assert_allclose(ex.forward(x=x)["y"], wanted, rtol=1e-4, atol=1e-5)
    ex.step(x=x)
    running = 0.75 * mean + 0.25 * x.mean(axis=0)
    np.testing.assert_allclose(ex.state["mean"], running, rtol=1e-4, atol=1e-6)


def test_random_numbers_are_drawn_by_graphc() -> None:
    made = model(
        [
            node("RandomNormalLike", "x", "normal", mean=3.0, scale=2.0),
            node("RandomUniformLike", "x", "uniform", low=-1.0, high=3.0, dtype=11),
        ],
        {"x": ("N", 500)},
        ["normal", "uniform"],
    )
    net = load(made)
    net.loss("loss", gc.mean(net["normal"] * net.parameter("p", ())))
    ex = gc.Executor(gc.compile(net, batch=40, optimizer=gc.SGD(lr=0.1), backend="numpy"))
    x = numbers(40, 500)
    found, again = (ex.forward(x=x, train=True) for _ in range(2))
    assert found["uniform"].dtype == np.float64
    for name, mean, spread in (("normal", 3, 2), ("uniform", 1, 4 / np.sqrt(12))):
        assert abs(found[name].mean() - mean) < 0.1
        assert abs(found[name].std() - spread) < 0.1
        assert (found[name] != again[name]).mean() > 0.99
        np.testing.assert_array_equal(ex.forward(x=x)[name], mean)
    with pytest.raises(gc.GraphError, match="each runtime draws its own random numbers"):
        prepare(made).run([x])


@pytest.mark.parametrize("flipped", [0, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_a_weight_is_transposed_if_its_layer_is_affine_alone(flipped: int, bias: bool) -> None:
    """So that a square weight goes back to where it came from as it was there."""
    w, b = numbers(3, 3, seed=1), numbers(3, seed=2)
    gemm = node("Gemm", "x w b" if bias else "x w", "y", transB=flipped)
    net = load(model([gemm], {"x": ("N", 3)}, ["y"], {"w": w, "b": b} if bias else {"w": w}))
    assert ("affine" in ops(net)) == bool(flipped)
    ex = gc.Executor(gc.compile(net, batch=4, backend="numpy"))
    np.testing.assert_array_equal(ex.parameters["w"], w.T if flipped else w)
    x = numbers(4, 3, seed=3)
    wanted = x @ (w.T if flipped else w) + (b if bias else 0)
    np.testing.assert_allclose(ex.forward(x=x)["y"], wanted, rtol=1e-5, atol=1e-6)
    other = gc.Executor(ex.plan, seed=1)
    theirs = {"w": numbers(3, 3, seed=4), **({"b": b} if bias else {})}
    gc.load_torch_state(other, theirs)
    wanted = x @ (theirs["w"].T if flipped else theirs["w"]) + (b if bias else 0)
    np.testing.assert_allclose(other.forward(x=x)["y"], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kept", [True, False])
def test_factors_of_products_whose_weights_are_initializers(kept: bool) -> None:
    """A product with other factors than 1, or of a transposed operand, is no affine layer."""
    w, b, x = numbers(3, 3, seed=1), numbers(3, seed=2), numbers(3, 3, seed=3)
    for alpha, beta, first, second in product((1.0, 0.5), (1.0, -2.0, 0.0), (0, 1), (0, 1)):
        given = {"alpha": alpha, "beta": beta, "transA": first, "transB": second}
        gemm, fed = node("Gemm", "x w b", "y", **given), {"x": (3, 3)}
        more = {"w": w, "b": b} if kept else {"b": b}
        net = load(model([gemm], fed if kept else {**fed, "w": (3, 3)}, ["y"], more))
        ex = gc.Executor(gc.compile(net, batch=1, backend="numpy"))
        feeds = {"x": x} if kept else {"x": x, "w": w}
        wanted = alpha * (x.T if first else x) @ (w.T if second else w) + beta * b
        np.testing.assert_allclose(ex.forward(feeds)["y"], wanted, rtol=1e-5, atol=1e-6)


def test_statistics_of_training_that_nobody_reads() -> None:
    """The way in which PyTorch writes a batchnorm that it trains: it is a layer, too."""
    vectors = {name: np.abs(numbers(3, seed=i)) for i, name in enumerate("abcd")}
    trains = node("BatchNormalization", "x a b c d", "y mean var", training_mode=1)
    made = model([trains], {"x": ("N", 3)}, ["y"], vectors)
    assert ops(load(made)) == ["state", "state", "batchnorm"]
    assert list(load(made).graph().outputs) == ["y"]
    made = model([trains], {"x": ("N", 3)}, ["y", "mean"], vectors)
    assert "batchnorm_train" in ops(load(made))
    assert list(load(made).graph().outputs) == ["y", "mean"]
    inside = helper.make_function(
        *("mine", "norm", list("xabcd"), ["y", "mean"], [trains]), [helper.make_opsetid("", 18)]
    )
    call = node("norm", "x a b c d", "y mean")
    call.domain = "mine"
    for outputs, op in ((["y"], "batchnorm"), (["y", "mean"], "batchnorm_train")):
        made = model([call], {"x": ("N", 3)}, outputs, vectors, functions=[inside])
        made.opset_import.append(helper.make_opsetid("mine", 1))
        assert op in ops(load(made))


def test_all_results_of_a_node_that_is_computed_now() -> None:
    image = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    made = model(
        [
            node("Constant", "", "w", value=onnx.numpy_helper.from_array(image)),
            node("MaxPool", "w", "y places", kernel_shape=[2, 2], strides=[2, 2]),
            node("Cast", "places", "numbers", to=1),
            node("Add", "numbers x", "z"),
        ],
        {"x": (1,)},
        ["y", "z"],
    )
    found = run(load(made), 1, x=np.zeros(1, np.float32))
    np.testing.assert_array_equal(found["z"].ravel(), [5, 7, 13, 15])


def test_values_computed_from_shapes_alone_do_not_become_nodes() -> None:
    """The way in which PyTorch writes x.view(x.size(0), -1)."""
    net = load(
        model(
            [
                node("Shape", "x", "shape"),
                node("Constant", "", "zero", value_int=0),
                node("Gather", "shape zero", "rows", axis=0),
                node("Constant", "", "axes", value_ints=[0]),
                node("Unsqueeze", "rows axes", "row"),
                node("Constant", "", "rest", value_ints=[-1]),
                node("Concat", "row rest", "flat", axis=0),
                node("Reshape", "x flat", "y"),
            ],
            {"x": ("N", 3, 2)},
            ["y"],
        )
    )
    assert ops(net) == ["reshape"]
    assert net["y"].shape == (gc.N, 6)


@pytest.mark.parametrize(("op", "rows"), [("Mul", 2 * gc.N), ("Div", gc.N)])
def test_the_batch_times_a_number_that_is_known(op: str, rows: object) -> None:
    """The way in which PyTorch writes the heads of an attention: rows * heads, as a reshape."""
    net = load(
        model(
            [
                node("Shape", "x", "shape"),
                node("Constant", "", "zero", value_int=0),
                node("Constant", "", "factor", value_int=2 if op == "Mul" else 1),
                node("Gather", "shape zero", "rows", axis=0),
                node(op, "rows factor", "more"),
                node("Constant", "", "axes", value_ints=[0]),
                node("Unsqueeze", "more axes", "first"),
                node("Constant", "", "rest", value_ints=[-1]),
                node("Concat", "first rest", "to", axis=0),
                node("Reshape", "x to", "y"),
            ],
            {"x": ("N", 3, 2)},
            ["y"],
        )
    )
    assert net["y"].shape == (rows, 3 if op == "Mul" else 6)


def test_the_first_dimension_stays_open_and_others_are_given() -> None:
    made = model([node("Relu", "x", "y")], {"x": ("batch", "length", 2)}, ["y"])
    assert load(made, dims={"length": 7})["y"].shape == (gc.N, 7, 2)
    assert load(made, dims={"length": gc.N, "batch": 3})["y"].shape == (3, gc.N, 2)
    with pytest.raises(gc.GraphError, match="dimension 'length' of input 'x' has no size"):
        load(made)
    with pytest.raises(gc.GraphError) as told:
        load(made, dims={"lenght": 7})
    assert told.value.sentence == "the model has no dimension 'lenght'"
    assert told.value.hint == "it has batch, length"


def test_an_input_that_shapes_depend_on_is_given() -> None:
    made = model([node("Reshape", "x to", "y")], {"x": (2, 3), "to": (2, "int64")}, ["y"])
    assert load(made, inputs={"to": np.array([3, 2])})["y"].shape == (3, 2)
    with pytest.raises(gc.GraphError) as told:
        load(made)
    assert "depend on the numbers of input 'to'" in str(told.value)
    assert "inputs={'to': ...}" in str(told.value)


def test_all_unknown_ops_are_reported_at_once() -> None:
    nodes = [node("Det", "x", "a"), node("Det", "a", "b"), node("NonZero", "b", "y")]
    with pytest.raises(gc.GraphError) as told:
        load(model(nodes, {"x": (2, 8, 2)}, ["y"], opset=18))
    assert "Det (2x), NonZero (1x)" in str(told.value)


def test_an_error_names_the_node() -> None:
    with pytest.raises(gc.GraphError) as told:
        load(model([node("MatMul", "x w", "y")], {"x": (2, 3)}, ["y"], {"w": numbers(4, 2)}))
    assert "a has 3 columns, b has 4 rows" in str(told.value)
    assert "<net>:1 in MatMul 'the MatMul'" in str(told.value)
    nodes = [node("Conv", "x w", "y", auto_pad="SOMEHOW")]
    with pytest.raises(gc.GraphError) as told:
        load(model(nodes, {"x": (1, 1, 4, 4)}, ["y"], {"w": numbers(1, 1, 2, 2)}))
    assert "node 'the Conv' (Conv) cannot be imported: auto_pad='SOMEHOW'" in str(told.value)
    assert "its operands are float32[1, 1, 4, 4], float32[1, 1, 2, 2]" in str(told.value)


@together("op", ["MaxPool", "AveragePool", "LpPool", "Conv", "ConvTranspose"])
@pytest.mark.parametrize("pad", ["NOTSET", "SAME_UPPER", "VALID"])
@pytest.mark.parametrize("word", ["strides", "dilations", "kernel_shape"])
def test_windows_of_no_pixels_are_refused(op: str, pad: str, word: str) -> None:
    attributes = {"kernel_shape": [2, 2], "auto_pad": pad, word: [0, 1]}
    reads = "x w" if op.startswith("Conv") else "x"
    made = model(
        [node(op, reads, "y", **attributes)], {"x": (1, 1, 4, 4)}, ["y"], {"w": numbers(1, 1, 2, 2)}
    )
    with pytest.raises(gc.GraphError, match=r"from 1 (up|to)|must be 1 or more|weights have"):
        load(made)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("size", [2, 1, 40, 5])
def test_local_response_normalisation_is_one_pool_of_any_size(size: int) -> None:
    """A node for each neighbour took seconds and 200 MB where a small file asked for 3,000."""
    made = model([node("LRN", "x", "y", size=size, alpha=0.5)], {"x": ("N", 6, 2, 3)}, ["y"])
    net = load(made)
    assert len(net.graph()) < 20
    x = np.random.default_rng(0).standard_normal((4, 6, 2, 3)).astype(np.float32)
    near = [range(max(c - (size - 1) // 2, 0), min(c + size // 2 + 1, 6)) for c in range(6)]
    squares = np.stack([(x[:, list(each)] ** 2).sum(1) for each in near], 1)
    found = gc.Executor(gc.compile(net, batch=4)).forward(x=x)["y"]
    np.testing.assert_allclose(found, x / (1 + 0.5 / size * squares) ** 0.75, rtol=1e-5)


def test_functions_of_the_model_are_written_out() -> None:
    body = [node("Mul", "a a", "s"), node("Add", "s b", "out")]
    function = helper.make_function(
        "mine", "square_add", ["a", "b"], ["out"], body, [helper.make_opsetid("", 18)]
    )
    call = node("square_add", "x x", "y")
    call.domain = "mine"
    made = model([call], {"x": ("N", 2)}, ["y"], functions=[function])
    made.opset_import.append(helper.make_opsetid("mine", 1))
    x = numbers(4, 2)
    np.testing.assert_allclose(run(load(made), x=x)["y"], x * x + x, rtol=1e-6)


def test_a_loaded_net_is_saved_and_found_again(tmp_path: Path) -> None:
    ex = gc.Executor(gc.compile(load(perceptron()), batch=4, backend="numpy"))
    gc.save(tmp_path / "model.gc", ex)
    again = gc.load(tmp_path / "model.gc")
    x = numbers(4, 4, seed=7)
    np.testing.assert_array_equal(again.forward(x=x)["scores"], ex.forward(x=x)["scores"])


def test_running_statistics_are_part_of_a_model_file(tmp_path: Path) -> None:
    arrays = {name: np.abs(numbers(3, seed=i)) for i, name in enumerate("abcd")}
    made = model([node("BatchNormalization", "x a b c d", "y")], {"x": ("N", 3)}, ["y"], arrays)
    ex = gc.Executor(gc.compile(load(made), batch=2, backend="numpy"))
    gc.save(tmp_path / "model.gc", ex)
    np.testing.assert_array_equal(gc.load(tmp_path / "model.gc").state["c"], arrays["c"])
    twin = pickle.loads(pickle.dumps(copy.deepcopy(load(made))))
    fresh = gc.Executor(gc.compile(twin, batch=2, backend="numpy"))
    np.testing.assert_array_equal(fresh.state["d"], arrays["d"])
    text = str(load(made))
    assert str(parse_graph(text, OPS)) == text


@pytest.mark.parametrize("dtype", ["uint8", "uint32"])
@pytest.mark.parametrize("way", ["LEFT", "RIGHT"])
def test_shifts_by_up_to_all_bits(way: str, dtype: str) -> None:
    bits = np.dtype(dtype).itemsize * 8
    shift, x = np.arange(bits + 3, dtype=dtype), 0xB5B5B5B5 % 2**bits
    types = {"x": (bits + 3, dtype), "s": (bits + 3, dtype)}
    made = model([node("BitShift", "x s", "y", direction=way)], types, ["y"])
    found = run(load(made), x=np.full(bits + 3, x, dtype), s=shift)["y"]
    by = [(x << n) % 2**bits if way == "LEFT" else x >> n for n in shift.tolist()]
    assert found.tolist() == by


def test_indices_from_the_end_beside_axes_of_a_batch() -> None:
    """They are counted from the end of the axes behind those of the batch."""
    x, indices = numbers(3, 2, 5), np.array([[[-1, 0], [1, -5]], [[0, 4], [-2, -2]], [[1, 1]] * 2])
    made = model(
        [node("GatherND", "x k", "y", batch_dims=1)], {"x": (3, 2, 5)}, ["y"], {"k": indices}
    )
    found = run(load(made), x=x)["y"]
    wanted = [[x[row][tuple(at)] for at in each] for row, each in enumerate(indices)]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "bool"])
@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
def test_extremes_of_nothing_are_the_ends_of_the_dtype(op: str, dtype: str) -> None:
    if dtype == "bool":
        ends: tuple[object, object] = False, True
    elif dtype == "float32":
        ends = -np.inf, np.inf
    else:
        ends = np.iinfo(dtype).min, np.iinfo(dtype).max
    given = {"x": (2, 0, 3, dtype)}
    made = model([node(op, "x axes", "y")], given, ["y"], {"axes": np.array([1])}, opset=20)
    found = run(load(made), x=np.zeros((2, 0, 3), dtype))["y"]
    assert found.dtype == dtype and found.shape == (2, 1, 3)
    assert (found == ends[op == "ReduceMin"]).all()


@pytest.mark.parametrize("order", [0, 1])
def test_places_of_maxima_are_numbers_in_the_whole_image(order: int) -> None:
    """Of a padded image, row by row or, with order 1, column by column."""
    how = {"kernel_shape": [2, 3], "pads": [1, 0, 0, 2], "strides": [2, 1], "dilations": [2, 1]}
    nodes = [node("MaxPool", "x", "y places", storage_order=order, **how)]
    x = np.random.default_rng(0).permutation(2 * 3 * 5 * 6).astype(np.float32)
    x = x.reshape(2, 3, 5, 6)
    found = run(load(model(nodes, {"x": x.shape}, ["y", "places"])), x=x)
    flat = x if order == 0 else x.swapaxes(2, 3)
    np.testing.assert_array_equal(flat.reshape(-1)[found["places"]], found["y"])
    padded = np.pad(x, ((0, 0), (0, 0), (1, 0), (0, 2)), constant_values=-1)
    views = [padded[:, :, i : i + 4 : 2, j : j + 6] for i in (0, 2) for j in range(3)]
    np.testing.assert_array_equal(found["y"], np.max(views, axis=0))
