"""The networks of ONNX's package: their outputs, and their training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.backend.test.runner import Runner

import graphc as gc
from graphc.ir.op import Array
from graphc.onnx import load, prepare, to_proto
from graphc.ops.source import Parameter
from tests.onnx.compare import agree, comes_back
from tests.onnx.runtimes import by_both

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
LIGHT = sorted(DATA.glob("light/*.onnx"))
BACKENDS = ("numpy", "native")

pytestmark = pytest.mark.slow


def tensors(folder: Path, kind: str) -> list[Array]:
    found = []
    for number in range(len(list(folder.glob(f"{kind}_*.pb")))):
        tensor = TensorProto()
        tensor.ParseFromString((folder / f"{kind}_{number}.pb").read_bytes())
        found.append(np.asarray(numpy_helper.to_array(tensor)))
    return found


def folders(kind: str) -> list[Path]:
    return sorted(path.parent for path in DATA.glob(f"{kind}/*/model.onnx"))


def fails(folder: Path) -> str | None:
    model = onnx.load(folder / "model.onnx")
    try:
        rep = prepare(model, backend="numpy")
        for data in sorted(folder.glob("test_data_set_*")):
            found = rep.run(tensors(data, "input"))
            Runner.assert_similar_outputs(tensors(data, "output"), found, 1e-3, 1e-6)
    except (gc.GraphError, AssertionError) as error:
        return f"{folder.name}: {error}"
    return None


@pytest.mark.parametrize(("kind", "count"), [("pytorch-converted", 82), ("pytorch-operator", 35)])
def test_networks_exported_by_pytorch(kind: str, count: int) -> None:
    assert len(folders(kind)) == count
    assert not [told for folder in folders(kind) if (told := fails(folder))]


def test_simple_ones_but_for_text() -> None:
    names = [folder.name for folder in folders("simple")]
    others = {name for name in names if "strnorm" in name}
    assert {folder.name for folder in folders("simple") if fails(folder)} == others


def light(path: Path) -> tuple[ModelProto, list[Array]]:
    """A light model with weights of its own, and an image for it."""
    model = onnx.load(path)
    given = {tensor.name for tensor in model.graph.initializer}
    feeds = [Runner.generate_dummy_data(i) for i in model.graph.input if i.name not in given]
    return with_random_weights(model), feeds


def with_random_weights(model: ModelProto) -> ModelProto:
    """Return the light model with random weights, as initializers.

    Its own are all one number, made by nodes: channels are then equal but for rounding, which
    normalization blows up, so what comes out is the processor's.
    """
    rng = np.random.default_rng(0)
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    variances = {n.input[4] for n in model.graph.node if n.op_type == "BatchNormalization"}
    kept, weights = [], {}
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = tuple(int(size) for size in shapes[node.input[0]])
        scale = 1.0 / np.sqrt(max(np.prod(shape[1:]), 1)) if len(shape) > 1 else 0.2
        array = rng.standard_normal(shape) * scale
        if node.output[0] in variances:
            array = 1 + rng.uniform(size=shape)
        elif len(shape) == 1:
            array = 1 + array
        weights[node.output[0]] = array.astype(np.float32)
    graph = helper.make_graph(
        kept,
        "random",
        [i for i in model.graph.input if i.name not in weights],
        list(model.graph.output),
        [*model.graph.initializer, *(numpy_helper.from_array(a, n) for n, a in weights.items())],
    )
    made = helper.make_model(graph, opset_imports=model.opset_import)
    made.ir_version = 7
    return made


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_light_networks(path: Path) -> None:
    assert len(LIGHT) == 9
    model, feeds = light(path)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [i.name for i in session.get_inputs()]
    (wanted,) = session.run(None, dict(zip(names, feeds, strict=True)))
    assert np.std(wanted) > 1e-4
    for backend in BACKENDS:
        (found,) = prepare(model, backend=backend).run(feeds)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-3 * np.std(wanted))


def trainable() -> Iterator[tuple[Path, gc.Net]]:
    """Of what PyTorch wrote, all that has something to train."""
    for folder in (*folders("pytorch-converted"), *folders("pytorch-operator")):
        net = load(folder / "model.onnx")
        if any(isinstance(node.op, Parameter) for node in net.graph()):
            yield folder, net


def result_of(net: gc.Net) -> gc.Value:
    """Its first output."""
    return net[next(iter(net.graph().outputs.values()))]


def fine_tuned(
    net: gc.Net, loss: gc.Value, feeds: dict[str, Array], steps: int, rate: float
) -> gc.Executor:
    """The net after some steps, in which its loss falls."""
    net.loss("loss", loss)
    plan = gc.compile(net, batch=1, optimizer=gc.SGD(lr=rate), backend="numpy")
    ex = gc.Executor(plan)
    losses = [ex.step(feeds) for _ in range(steps)]
    assert losses[-1] < losses[0], net.name
    return ex


def test_converted_networks_train_on_and_are_exported(tmp_path: Path) -> None:
    trained = 0
    for folder, net in trainable():
        (data, *_) = sorted(folder.glob("test_data_set_*"))
        names = [node.name for node in net.graph() if node.op.name == "input"]
        feeds: dict[str, Any] = dict(zip(names, tensors(data, "input"), strict=True))
        value = result_of(net)
        ex = fine_tuned(net, gc.mean(value * value), feeds, 5, 1e-3)
        wanted = ex.forward(feeds)
        for who, found in by_both(to_proto(ex), feeds):
            agree(found, wanted, f"{folder.name}, {who}")
        for train in (False, True):
            comes_back(ex, tmp_path / "model.onnx", feeds, train)
        trained += 1
    assert trained > 40


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_light_networks_train_on_and_are_exported(name: str, tmp_path: Path) -> None:
    model, feeds = light(DATA / "light" / f"light_{name}.onnx")
    net = load(model)
    (image,) = (node.name for node in net.graph() if node.op.name == "input")
    fed = {image: feeds[0].astype(np.float32)}
    share = gc.reshape(result_of(net), (1, 1000))[:, 3]
    ex = fine_tuned(net, -gc.mean(gc.log(share)), fed, 3, 1e-2)
    wanted = ex.forward(fed)
    for who, found in by_both(to_proto(ex), fed):
        agree(found, wanted, who)
    comes_back(ex, tmp_path / "model.onnx", fed, train=False)
