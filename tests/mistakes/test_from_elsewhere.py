"""Mistakes of people who know Keras or PyTorch: options, names and habits that are theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.base.arguments import takes
from graphc.base.other_names import EXECUTOR, FUNCTIONS, NET, VALUE
from tests.mistakes.harness import Mistake, collector, name_of, refused

MISTAKES, mistake = collector()
anything: Any = gc


def anything_of(value: Any) -> Any:
    return value


def image() -> gc.Value:
    return gc.Net("images").input("image", (gc.N, 1, 8, 8))


def sequence() -> gc.Value:
    return gc.Net("texts").input("rows", (gc.N, 5, 3))


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        ("squeeze(x, dim=1)", "it is axis"),
        ("transpose(x, dims=(0, 1))", "it is axes"),
        ("argmax(x, dim=1, keepdim=True)", "it is axis"),
        ("argmax(x, keepdim=True)", "it is keepdims"),
        ("softmax(x, dim=1)", "it is axis"),
        ("sum(x, dim=1)", "it is axis"),
        ("concat([x, x], dim=1)", "it is axis"),
        ("dropout(x, p=0.5)", "it is drop_prob"),
        ("resize(x, scale_factor=2)", "it is scales"),
        ("resize(x, size=(16, 16))", "it is sizes"),
        ("leaky_relu(x, negative_slope=0.1)", "it is slope"),
        ("multi_head_attention(x, num_heads=2)", "it is heads"),
        ("cosine_similarity(x, x, dim=1)", "it is axis"),
        ("flatten(x, 1)", "gc.flatten(x)"),
    ],
)
def test_an_option_of_another_library_has_graphcs_as_a_hint(call: str, hint: str) -> None:
    with pytest.raises(gc.GraphError) as caught:
        eval(f"gc.{call}", {"gc": gc, "x": image()})
    assert caught.value.hint == hint, str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"), [("permute", "transpose"), ("interpolate", "resize"), ("chunk", "split")]
)
def test_a_function_of_pytorch_has_graphcs_as_a_hint(name: str, meant: str) -> None:
    with pytest.raises(AttributeError, match=f"you may mean gc.{meant}$"):
        getattr(anything, name)
    assert hasattr(gc, meant)


@mistake(
    """
    SGD has no option 'learning_rate'
      at {here}
      hint: it is lr
    """
)
def the_rate_of_keras() -> None:
    anything.SGD(learning_rate=0.1)  # here


@mistake(
    """
    Adam has no option 'betas'
      at {here}
      hint: they are beta1 and beta2
    """
)
def the_betas_of_pytorch() -> None:
    anything.Adam(betas=(0.9, 0.99))  # here


@mistake(
    """
    AdamW has no option 'clipnorm'
      at {here}
      hint: did you mean clip_norm=?
    """
)
def an_option_nearly_right() -> None:
    anything.AdamW(clipnorm=1.0)  # here


@mistake(
    """
    Lion has no option 'fused'
      at {here}
      hint: it has lr, beta1, beta2, weight_decay, decay, schedule, clip_norm, clip_value, accumulate, groups, ema, name
    """  # noqa: E501
)
def an_option_that_nobody_has() -> None:
    anything.Lion(fused=True)  # here


@mistake(
    """
    SGD: missing 1 required positional argument: 'lr'
      at {here}
      hint: gc.SGD(lr=0.1, momentum=0.9)
    """
)
def no_rate() -> None:
    anything.SGD()  # here


@mistake(
    """
    affine has no option 'activation'
      at {here}
      hint: it is a separate function: gc.relu(gc.affine(x, 10))
    """
)
def an_activation_as_an_option() -> None:
    anything.affine(image(), 10, activation="relu")  # here


@mistake(
    """
    affine: takes from 1 to 2 positional arguments but 3 were given
      at {here}
      hint: gc.affine(x, 10)
    """
)
def both_sizes_of_a_linear_layer() -> None:
    anything.affine(image(), 64, 10)  # here


@mistake(
    """
    conv2d has no option 'kernel_size'
      at {here}
      hint: it is kernel
    """
)
def the_kernel_size() -> None:
    anything.conv2d(image(), 8, kernel_size=3)  # here


@mistake(
    """
    max_pool has no option 'pool_size'
      at {here}
      hint: it is kernel
    """
)
def the_pool_size() -> None:
    anything.max_pool(image(), pool_size=2)  # here


@mistake(
    """
    conv: x is float32[N, 8, 8], conv2d takes floats of shape (N, channels, height, width)
      x  image float32[N, 8, 8]  declared at {image}
      at {here}
      hint: add a dimension for the one channel: gc.unsqueeze(x, 1)
    """
)
def images_without_channels() -> None:
    x = gc.Net("images").input("image", (gc.N, 8, 8))  # image
    gc.conv2d(x, 8, 3)  # here


@mistake(
    """
    batchnorm has no option 'momentum'
      at {here}
      hint: running_decay is Keras's momentum, and 1 minus PyTorch's
    """
)
def the_momentum_of_batchnorm() -> None:
    anything.batchnorm(image(), momentum=0.9)  # here


@mistake(
    """
    dropout: takes 1 positional argument but 2 were given
      at {here}
      hint: gc.dropout(x, drop_prob=0.5), or keep_prob=0.5
    """
)
def dropout_by_position() -> None:
    anything.dropout(image(), 0.5)  # here


@mistake(
    """
    lstm has no option 'return_sequences'
      at {here}
      hint: both are returned: all states, and the last: states, last = gc.gru(x, width)
    """
)
def whether_sequences_are_returned() -> None:
    anything.lstm(sequence(), 4, return_sequences=True)  # here


@mistake(
    """
    affine: tuple is not a value of the net
      at {here}
      hint: take one of them, as in: states, last = gc.gru(x, width)
    """
)
def both_results_of_a_layer() -> None:
    both: Any = gc.gru(sequence(), 4)
    gc.affine(both, 2)  # here


@mistake(
    """
    gru: tuple is not a value of the net
      at {here}
      hint: take one of them, as in: states, last = gc.gru(x, width)
    """
)
def both_results_as_an_initial_state() -> None:
    x = sequence()
    both: Any = gc.gru(x, 4)
    gc.gru(x, 4, initial=both)  # here


@mistake(
    """
    np.exp computes with numbers, which a value of a net does not have: it is declared
      at {here}
      hint: use graphc's own functions: gc.exp(x), gc.maximum(x, 0)
    """
)
def a_function_of_numpy() -> None:
    anything.softplus(np.exp(sequence()))  # here


@mistake(
    """
    np.maximum computes with numbers, which a value of a net does not have: it is declared
      at {here}
      hint: use graphc's own functions: gc.exp(x), gc.maximum(x, 0)
    """
)
def a_function_of_numpy_with_a_number_first() -> None:
    operands: Any = 0.0, sequence()
    np.maximum(*operands)  # here


@mistake(
    """
    embedding has no option 'num_embeddings'
      at {here}
      hint: it is count
    """
)
def the_number_of_embeddings() -> None:
    anything.embedding(sequence(), num_embeddings=10, embedding_dim=4)  # here


@mistake(
    """
    concat takes several values as one list
      at {here}
      hint: gc.concat([a, b], axis=1)
    """
)
def values_one_by_one() -> None:
    x = image()
    anything.concat(x, x)  # here


@mistake(
    """
    input 'x': dimension None is neither a whole number nor a multiple of N
      at {here}
      hint: gc.N is the batch, all other dimensions are numbers: (gc.N, 28, 28)
    """
)
def none_for_the_batch() -> None:
    anything.Net("net").input("x", (None, 64))  # here


@mistake(
    """
    softmax_loss: scores are int64[N], softmax_loss takes floats of shape (N, classes)
      scores  y int64[N]  declared at {y}
      labels  x float32[N, 3]  declared at {x}
      at {here}
      hint: the scores come first: gc.softmax_loss(scores, labels)
    """
)
def the_order_of_keras() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3))  # x
    y = net.input("y", (gc.N,), dtype="int64")  # y
    gc.softmax_loss(y, x)  # here


@mistake(
    """
    softmax_loss: scores have shape (N, 5, 3), labels (N, 5)
      scores  rows float32[N, 5, 3]  declared at {scores}
      labels  y int64[N, 5]  declared at {labels}
      at {here}
      hint: there is one label for each place: (N, 3); classes come second: gc.transpose(scores, (0, 2, 1))
    """  # noqa: E501
)
def classes_that_come_last() -> None:
    net = gc.Net("texts")
    scores = net.input("rows", (gc.N, 5, 3))  # scores
    labels = net.input("y", (gc.N, 5), dtype="int64")  # labels
    gc.softmax_loss(scores, labels)  # here


@mistake(
    """
    compile has no option 'loss'
      at {here}
      hint: it is declared: net.loss("loss", gc.softmax_loss(scores, y))
    """
)
def a_loss_to_compile() -> None:
    anything.compile(gc.Net("net"), batch=4, loss="mse")  # here


@mistake(
    """
    compile: missing 1 required keyword-only argument: 'batch'
      at {here}
      hint: gc.compile(net, batch=128, optimizer=gc.Adam())
    """
)
def no_batch() -> None:
    anything.compile(gc.Net("net"))  # here


@mistake(
    """
    EarlyStopping has no option 'monitor'
      at {here}
      hint: it is watch
    """
)
def what_to_monitor() -> None:
    anything.EarlyStopping(patience=5, monitor="val_loss")  # here


@mistake(
    """
    freeze takes an executor, not Plan
      at {here}
      hint: gc.freeze(ex, batch=1) with ex = gc.Executor(plan)
    """
)
def a_plan_to_freeze() -> None:
    anything.freeze(trained().plan, batch=1)  # here


@mistake(
    """
    sum has no option 'dim'
      at {here}
      hint: it is axis
    """
)
def the_dim_of_pytorch() -> None:
    anything.sum(image(), dim=1)  # here


@mistake(
    """
    min: axis is a value of the net, not a whole number
      x     relu_1 float32[N, 1, 8, 8]  declared at {relu}
      axis  clip_1 float32[N, 1, 8, 8]  declared at {clip}
      at {here}
      hint: of two values: gc.minimum(a, b)
    """
)
def the_min_of_two_values() -> None:
    x = gc.relu(image())  # relu
    y = gc.clip(x, 0.8, 1.2)  # clip
    anything.min(x, y)  # here


@mistake(
    """
    mean has no option 'keepdim'
      at {here}
      hint: it is keepdims
    """
)
def the_keepdim_of_pytorch() -> None:
    anything.mean(image(), 1, keepdim=True)  # here


@mistake(
    """
    name is 3, it must be text
      at {here}
      hint: gc.affine(x, 10, name="scores")
    """
)
def a_number_for_a_name() -> None:
    anything.affine(image(), 10, name=3)  # here


@mistake(
    """
    the value given as 'scores' is of type str, not a value of net 'net'
      at {here}
      hint: give the name, then a value of this net: net.output("scores", scores)
    """
)
def text_for_an_output() -> None:
    anything.Net("net").output("scores", "affine_1")  # here


@mistake(
    """
    parameter 'w': its shape has the batch dimension, (N, 3)
      at {here}
      hint: a parameter is the same for all rows; declare an array with rows as an input
    """
)
def a_parameter_with_rows() -> None:
    anything.Net("net").parameter("w", (gc.N, 3))  # here


@mistake(
    """
    apply takes an op, not str
      at {here}
      hint: gc.apply(MyOp(), x); graphc's own are functions: gc.relu(x)
    """
)
def an_op_by_name() -> None:
    anything.apply("relu", image())  # here


# ---------------------------------------------------------------- training

X, Y = np.ones((8, 3), np.float32), np.arange(8) % 2


def trained() -> gc.Executor:
    net = gc.Net("net")
    y = net.input("y", (gc.N,), dtype="int64")
    net.loss("loss", gc.softmax_loss(gc.affine(net.input("x", (gc.N, 3)), 2), y))
    return gc.Executor(gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1), backend="numpy"))


@mistake(
    """
    fit: takes 2 positional arguments but 3 were given
      at {here}
      hint: data is one argument: gc.fit(ex, (x, y), epochs=5)
    """
)
def arrays_one_by_one() -> None:
    anything.fit(trained(), Y, X)  # here


@mistake(
    """
    fit has no option 'batch_size'
      at {here}
      hint: it is batch, at most that of gc.compile(net, batch=128)
    """
)
def the_size_of_a_batch() -> None:
    anything.fit(trained(), (Y, X), batch_size=4)  # here


@mistake(
    """
    fit: arrays were given for 'y', in the order of the inputs, and none for 'x'
      at {here}
      hint: gc.fit(ex, (y, x)), or gc.fit(ex, {{'y': ..., 'x': ...}})
    """
)
def one_array() -> None:
    gc.fit(trained(), Y)  # here


@mistake(
    """
    validation is 0.2, not data
      at {here}
      hint: graphc.data.stratified_split(labels, 0.2, seed=0) cuts rows in two; then validation=(x[held], y[held])
    """  # noqa: E501
)
def a_share_for_validation() -> None:
    gc.fit(trained(), (Y, X), validation=0.2)  # here


@mistake(
    """
    the function that makes batches does not take the number of the epoch
      at {here}
      hint: def batches(epoch): yield x, y
    """
)
def batches_of_no_epoch() -> None:
    gc.fit(trained(), lambda: [(Y, X)])  # here


@mistake(
    """
    fit: the callback '<lambda>' does not take an Epoch
      at {here}
      hint: def callback(epoch): print(epoch.number, epoch.numbers)
    """
)
def a_callback_of_nothing() -> None:
    anything.fit(trained(), (Y, X), callbacks=[lambda: None])  # here


@mistake(
    """
    copy_from takes parameters, not Executor
      at {here}
      hint: ex.parameters.copy_from(other.parameters)
    """
)
def an_executor_for_its_parameters() -> None:
    anything_of(trained().parameters).copy_from(trained())  # here


@mistake(
    """
    fit: the run to resume trained another net: input 'x' is different now
      before  x: float32[N, 3] = input()
      now     x: float32[N, 4] = input()  declared at {x}
      at {here}
      hint: resume with the options of the run, or start a new run in another folder
    """
)
def the_checkpoint_of_another_net() -> None:
    gc.fit(trained(), (Y, X), checkpoint="run")
    net = gc.Net("net")
    y = net.input("y", (gc.N,), dtype="int64")
    x = net.input("x", (gc.N, 4))  # x
    net.loss("loss", gc.softmax_loss(gc.affine(x, 2), y))
    wider = gc.Executor(gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1), backend="numpy"))
    gc.fit(wider, (Y, np.ones((8, 4), np.float32)), checkpoint="run", resume=True)  # here


@mistake(
    """
    fit: the run to resume had lr 0.1, now it is 0.5
      at {here}
      hint: resume with the options of the run, or start a new run in another folder; to train its weights in another way: gc.load('run/step-000000002.gc', optimizer=...)
    """  # noqa: E501
)
def the_checkpoint_of_another_rate() -> None:
    gc.fit(trained(), (Y, X), checkpoint="run")
    ex = trained()
    ex.hyper["lr"] = 0.5
    gc.fit(ex, (Y, X), checkpoint="run", resume=True)  # here


# ---------------------------------------------------------------- files


@mistake(
    """
    m.pt cannot be read as a model: it is cut short, or not a model file at all
      at {here}
      hint: weights of PyTorch: safetensors.torch.save_file(module.state_dict(), path), then gc.load_torch_state(ex, path)
    """  # noqa: E501
)
def a_pickle_of_pytorch() -> None:
    with open("m.pt", "wb") as file:
        file.write(b"PK\x03\x04" + bytes(100))
    gc.load("m.pt")  # here


@mistake(
    """
    m.onnx cannot be read as a model: it is cut short, or not a model file at all
      at {here}
      hint: an ONNX model is read by gc.onnx.load(path)
    """
)
def an_onnx_model() -> None:
    with open("m.onnx", "wb") as file:
        file.write(b"\x08\x0a" * 50)
    gc.load("m.onnx")  # here


@mistake(
    """
    cannot write no/folder/m.gc: No such file or directory
      at {here}
      hint: make the folder first: no/folder
    """
)
def a_folder_that_is_not_there() -> None:
    gc.save("no/folder/m.gc", trained())  # here


@pytest.mark.parametrize("mistake", MISTAKES, ids=name_of)
def test_from_elsewhere(mistake: Mistake, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(mistake)


def test_a_type_error_inside_a_function_stays_what_it_is() -> None:
    @takes("add(1, 2)")
    def add(a: Any, b: Any) -> Any:
        return a + b

    assert add(1, b=2) == 3
    with pytest.raises(TypeError, match="unsupported operand"):
        add(1, "2")


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Dense", "gc.affine"),
        ("Linear", "gc.affine"),
        ("conv2D", "gc.conv2d"),
        ("Conv2d", "gc.conv2d"),
        ("BatchNorm2d", "gc.batchnorm"),
        ("MaxPool2d", "gc.max_pool"),
        ("CrossEntropyLoss", "gc.softmax_loss"),
        ("Sequential", "gc.Net"),
        ("clamp", "gc.clip"),
        ("rand", "gc.random_uniform"),
        ("randn", "gc.random_normal"),
        ("afine", "gc.affine"),
        ("Input", "net.input(name, shape)"),
    ],
)
def test_names_of_other_libraries(name: str, meant: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(gc, name)
    assert str(caught.value).startswith(f"module 'graphc' has no attribute {name!r}; ")
    assert str(caught.value).endswith(meant)


def test_a_name_that_nobody_has() -> None:
    with pytest.raises(AttributeError) as caught:
        gc.qqq  # noqa: B018
    assert str(caught.value) == "module 'graphc' has no attribute 'qqq'"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mean", "; functions of values are graphc's: gc.mean(x)"),
        ("softmx", "; functions of values are graphc's: gc.softmax(x)"),
        ("view", "; here: gc.reshape(x, shape)"),
        ("backward", "; here: net.loss(name, x); compiling derives its gradients"),
        ("qqqqq", ""),
        ("__array_interface__", ""),
    ],
)
def test_methods_of_tensors(name: str, told: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(image(), name)
    assert str(caught.value) == f"'Value' object has no attribute {name!r}{told}"


def test_methods_of_models() -> None:
    net = gc.Net("net")
    net.output("y", gc.affine(net.input("x", (gc.N, 3)), 2))
    ex = gc.Executor(gc.compile(net, batch=1, backend="numpy"))
    for one, name, told in (
        (net, "compile", "Net' object has no attribute 'compile'; here: gc.compile(net, "),
        (net, "qqq", "Net' object has no attribute 'qqq'"),
        (ex, "fit", "Executor' object has no attribute 'fit'; here: gc.fit(ex, (x, y), "),
        (ex, "eval", "Executor' object has no attribute 'eval'; here: ex.forward(x=x), "),
    ):
        assert not hasattr(one, name)
        with pytest.raises(AttributeError) as caught:
            getattr(one, name)
        assert told in str(caught.value)


def test_members_that_are_told_of_are_not_there() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3))
    ex = gc.Executor(gc.compile(_with_output(net, x), batch=1, backend="numpy"))
    for one, theirs in ((x, VALUE), (net, NET), (ex, EXECUTOR)):
        assert not [name for name in theirs if hasattr(one, name)]


def _with_output(net: gc.Net, x: gc.Value) -> gc.Net:
    net.output("y", gc.affine(x, 2))
    return net


def test_what_is_meant_is_there() -> None:
    for other, here in FUNCTIONS.items():
        assert hasattr(gc, here), other
        assert other == other.lower().replace("_", "")
