"""Whole networks: those that ONNX's package brings, and what becomes of them by training."""

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
from graphc.onnx import load, prepare, to_proto
from graphc.op import Array
from graphc.ops.source import Parameter

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
def test_what_pytorch_wrote(kind: str, count: int) -> None:
    assert len(folders(kind)) == count
    assert not [told for folder in folders(kind) if (told := fails(folder))]


def test_simple_ones_but_for_text_and_sequences() -> None:
    names = [folder.name for folder in folders("simple")]
    others = {name for name in names if "sequence" in name or "strnorm" in name}
    assert {folder.name for folder in folders("simple") if fails(folder)} == others


def light(path: Path) -> tuple[ModelProto, list[Array], Array]:
    model = onnx.load(path)
    given = {tensor.name for tensor in model.graph.initializer}
    feeds = [Runner.generate_dummy_data(i) for i in model.graph.input if i.name not in given]
    wanted = TensorProto()
    wanted.ParseFromString(path.with_name(f"{path.stem}_output_0.pb").read_bytes())
    return model, feeds, np.asarray(numpy_helper.to_array(wanted))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_light_networks(path: Path, backend: str) -> None:
    assert len(LIGHT) == 9
    model, feeds, wanted = light(path)
    (found,) = prepare(model, backend=backend).run(feeds)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-7)


def with_random_weights(model: ModelProto) -> ModelProto:
    """The light model, whose weights are all one number, with others.

    Its weights are made by nodes; random ones become initializers.
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


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "resnet50"])
def test_light_networks_with_random_weights(name: str, backend: str) -> None:
    model, feeds, _ = light(DATA / "light" / f"light_{name}.onnx")
    made = with_random_weights(model)
    session = onnxruntime.InferenceSession(made.SerializeToString())
    names = [i.name for i in session.get_inputs()]
    (wanted,) = session.run(None, dict(zip(names, feeds, strict=True)))
    (found,) = prepare(made, backend=backend).run(feeds)
    assert np.std(wanted) > 0
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=1e-6)


def trainable() -> Iterator[tuple[Path, gc.Net]]:
    for folder in folders("pytorch-converted"):
        net = load(folder / "model.onnx")
        if any(isinstance(node.op, Parameter) for node in net.graph()):
            yield folder, net


def test_converted_networks_train_on_and_are_exported() -> None:
    trained = 0
    for folder, net in trainable():
        (output,) = net.graph().outputs
        value = net[net.graph().outputs[output]]
        net.loss("loss", gc.mean(value * value))
        plan = gc.compile(net, batch=1, optimizer=gc.SGD(lr=1e-3), backend="numpy")
        ex = gc.Executor(plan)
        (data, *_) = sorted(folder.glob("test_data_set_*"))
        (name,) = (node.name for node in net.graph() if node.op.name == "input")
        feeds: dict[str, Any] = {name: tensors(data, "input")[0]}
        losses = [ex.step(feeds) for _ in range(5)]
        assert losses[-1] < losses[0], folder.name
        session = onnxruntime.InferenceSession(to_proto(ex).SerializeToString())
        (found, _) = session.run([output, "loss"], feeds)
        np.testing.assert_allclose(
            found, ex.forward(feeds)[output], rtol=1e-3, atol=1e-5, err_msg=folder.name
        )
        trained += 1
    assert trained > 35
