"""Mistakes on the way from an ONNX model to a trained net and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from tests.check.test_check_op import Cube
from tests.extras import needs
from tests.mistakes.harness import Mistake, collector, name_of, refused

onnx = needs("onnx")
MISTAKES, mistake = collector()


def imported() -> gc.Net:
    """A classifier from a file, whose rows and columns have names."""
    net = gc.Net("digits")
    net.output("scores", gc.affine(net.input("x", (gc.N, 4)), 3, name="scores"))
    return gc.onnx.load(gc.onnx.to_proto(net))


# ------------------------------------------------------------------------- reading


@mistake(
    """
    load: bytes is not a path
      at {here}
      hint: onnx.load_from_string makes an onnx.ModelProto from bytes
    """
)
def bytes_of_a_model() -> None:
    data = gc.onnx.to_proto(imported()).SerializeToString()
    gc.onnx.load(data)  # type: ignore[arg-type]  # here


@mistake(
    """
    model.gc is not an ONNX model, or is damaged
      at {here}
      hint: gc.save wrote it: gc.load reads it
    """
)
def a_file_of_graphc_as_onnx() -> None:
    gc.save("model.gc", gc.Executor(gc.compile(imported(), batch=2)))
    gc.onnx.load("model.gc")  # here


@mistake(
    """
    model.onnx cannot be read as a model: it is cut short, or not a model file at all
      at {here}
      hint: an ONNX model is read by gc.onnx.load(path)
    """
)
def an_onnx_file_as_one_of_graphc() -> None:
    gc.onnx.save(imported(), "model.onnx")
    gc.load("model.onnx")  # here


@mistake(
    """
    the model has no dimension 'batch'
      at {here}
      hint: it has N
    """
)
def a_dimension_that_is_not_there() -> None:
    model = gc.onnx.to_proto(imported())
    gc.onnx.load(model, dims={"batch": 8})  # here


@mistake(
    """
    load: dims is a list, it must be a dictionary by names
      at {here}
    """
)
def dimensions_without_names() -> None:
    gc.onnx.load(gc.onnx.to_proto(imported()), dims=[8])  # type: ignore[arg-type]  # here


@mistake(
    """
    input 'x' takes float32[N, 4], the array given for it is float64[2, 7]
      at {here}
    """
)
def an_input_of_another_shape() -> None:
    gc.onnx.load(gc.onnx.to_proto(imported()), inputs={"x": np.ones((2, 7))})  # here


# ------------------------------------------------------------------------- training


@mistake(
    """
    net 'digits' has no loss for the optimizer to minimise
      at {here}
      hint: declare one: net.loss("loss", gc.softmax_loss(scores, y))
    """
)
def training_without_a_loss() -> None:
    net = imported()
    gc.compile(net, batch=8, optimizer=gc.SGD(lr=0.1))  # here


@mistake(
    """
    step: the plan has no optimizer
      at {here}
      hint: compile with one: gc.compile(net, batch=..., optimizer=gc.SGD(lr=0.1))
    """
)
def fitting_what_has_neither() -> None:
    ex = gc.Executor(gc.compile(imported(), batch=8))
    gc.fit(ex, {"x": np.ones((8, 4))}, epochs=1)  # here


@mistake(
    """
    net 'digits' has no parameter for the optimizer to train
      at {here}
      hint: layers such as gc.affine(x, 10) make them, and net.parameter(name, shape)
    """
)
def training_what_was_frozen() -> None:
    frozen = gc.freeze(gc.Executor(gc.compile(imported(), batch=8)), batch=8)
    net = gc.onnx.load(gc.onnx.to_proto(frozen))
    net.loss("loss", gc.mean(net["scores"] ** 2))
    gc.compile(net, batch=8, optimizer=gc.SGD(lr=0.1))  # here


@mistake(
    """
    no parameter or float value matches 'head/*'
      at {here}
      hint: there are scores.weight, scores.bias
    """
)
def training_a_part_that_is_not_there() -> None:
    net = imported()
    net.loss("loss", gc.mean(net["scores"] ** 2))
    gc.compile(net, batch=8, optimizer=gc.SGD(lr=0.1), wrt="head/*")  # here


@mistake(
    """
    net 'digits' has no value 'logits'
      at {here}
      hint: print(net) lists what is declared
    """
)
def a_value_by_a_name_that_it_has_elsewhere() -> None:
    net = imported()
    net["logits"]  # here


@mistake(
    """
    net 'named' has no value 'answer'
      at {here}
      hint: the output of that name is the value 'relu_1'
    """
)
def an_output_as_if_it_were_a_value() -> None:
    net = gc.Net("named")
    net.output("answer", gc.relu(net.input("x", (gc.N, 4))))
    again = gc.onnx.load(gc.onnx.to_proto(net))
    again["answer"]  # here


# ------------------------------------------------------------------------- writing


@mistake(
    """
    save: Net is not a path
      at {here}
      hint: the net, plan or executor, then the path: gc.onnx.save(ex, 'model.onnx')
    """
)
def the_path_before_the_net() -> None:
    gc.onnx.save("model.onnx", imported())  # type: ignore[arg-type]  # here


@mistake(
    """
    save writes graphc's own files, model.onnx is the name of an ONNX model
      at {here}
      hint: gc.onnx.save(ex, path) writes an ONNX model
    """
)
def the_other_save() -> None:
    gc.save("model.onnx", gc.Executor(gc.compile(imported(), batch=8)))  # here


@mistake(
    """
    grad 'grad_1' is not exported to ONNX, which has no gradients
      at {here}
      hint: a plan without it is: gc.compile(net, batch=..., outputs=[...], losses=[])
    """
)
def a_gradient_inside_the_net() -> None:
    net = imported()
    slope = gc.grad(gc.sum(net["scores"]), net["x"])  # here
    net.loss("penalty", gc.mean(slope**2))  # type: ignore[operator]
    gc.onnx.save(net, "model.onnx")


@mistake(
    """
    cube 'cube_1' is not exported to ONNX, which has no ops of your own
      at {here}
      hint: a plan without it is: gc.compile(net, batch=..., outputs=[...], losses=[])
    """
)
def an_op_of_ones_own() -> None:
    net = imported()
    net.output("more", gc.apply(Cube(), net["scores"]))  # here
    gc.onnx.save(net, "model.onnx")


@mistake(
    """
    cannot write models/model.onnx: No such file or directory
      at {here}
      hint: make the folder first: models
    """
)
def a_folder_that_is_not_there() -> None:
    gc.onnx.save(imported(), "models/model.onnx")  # here


@pytest.mark.parametrize("mistake", MISTAKES, ids=name_of)
def test_onnx(mistake: Mistake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(mistake)


def test_what_the_hint_says_of_a_net_with_a_gradient() -> None:
    net = imported()
    slope = gc.grad(gc.sum(net["scores"]), net["x"])
    net.loss("penalty", gc.mean(slope**2))  # type: ignore[operator]
    model = gc.onnx.to_proto(gc.compile(net, batch=2, outputs=["scores"], losses=[]))
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.output] == ["scores"]
