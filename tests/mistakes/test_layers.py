"""Mistakes in the operands and options of layers and ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import graphc as gc
from graphc.ir.tensor_type import TensorType
from tests.mistakes.harness import Mistake, collector, name_of, refused

MISTAKES, mistake = collector()


@mistake(
    """
    affine 'affine_1': x has 64 features, weight takes 32
      x       x float32[N, 64]  declared at {x}
      weight  w float32[32, 10]  declared at {w}
      bias    affine_1.bias float32[10]  declared at {this}
      at {here}
      hint: share a weight only between layers of one input width
    """
)
def wrong_feature_count() -> None:
    net = gc.Net("digits")
    x = net.input("x", (gc.N, 64))  # x
    w = net.parameter("w", (32, 10))  # w
    gc.affine(x, 10, weight=w)  # here


@mistake(
    """
    add: shapes (N, 20) and (N, 10) do not broadcast: 20 against 10
      a  affine_1 float32[N, 20]  declared at {wide}
      b  affine_2 float32[N, 10]  declared at {narrow}
      at {here}
      hint: sizes must be equal, or one of them 1
    """
)
def shapes_that_do_not_broadcast() -> None:
    net = gc.Net("digits")
    x = net.input("x", (gc.N, 64))
    wide = gc.affine(x, 20)  # wide
    narrow = gc.affine(x, 10)  # narrow
    wide + narrow  # here


@mistake(
    """
    add: a is float32, b is float64
      a  x float32[N, 64]  declared at {x}
      b  z float64[N, 64]  declared at {z}
      at {here}
      hint: cast one of them: gc.cast(b, 'float32')
    """
)
def two_dtypes() -> None:
    net = gc.Net("digits")
    x = net.input("x", (gc.N, 64))  # x
    z = net.input("z", (gc.N, 64), dtype="float64")  # z
    x + z  # here


@mistake(
    """
    softmax_loss: labels are float32, softmax_loss takes class numbers
      scores  affine_1 float32[N, 10]  declared at {scores}
      labels  labels float32[N]  declared at {labels}
      at {here}
      hint: declare them as net.input('y', (gc.N,), dtype='int64')
    """
)
def float_labels() -> None:
    net = gc.Net("digits")
    scores = gc.affine(net.input("x", (gc.N, 64)), 10)  # scores
    labels = net.input("labels", (gc.N,))  # labels
    gc.softmax_loss(scores, labels)  # here


@mistake(
    """
    svm_loss: labels have shape (N, 10), svm_loss takes one class number a row: (N,)
      scores  affine_1 float32[N, 10]  declared at {scores}
      labels  labels int64[N, 10]  declared at {labels}
      at {here}
      hint: for one-hot rows write gc.argmax(labels, axis=1)
    """
)
def one_hot_labels() -> None:
    net = gc.Net("digits")
    scores = gc.affine(net.input("x", (gc.N, 64)), 10)  # scores
    labels = net.input("labels", (gc.N, 10), dtype="int64")  # labels
    gc.svm_loss(scores, labels)  # here


@mistake(
    """
    dropout takes exactly one of keep_prob and drop_prob, both were given
      at {here}
      hint: keep_prob=0.8 and drop_prob=0.2 mean the same
    """
)
def both_probabilities() -> None:
    net = gc.Net("digits")
    gc.dropout(net.input("x", (gc.N, 64)), keep_prob=0.8, drop_prob=0.2)  # here


@mistake(
    """
    dropout: keep_prob=80 is out of range
      at {here}
      hint: 0 < keep_prob <= 1; keep_prob=0.8 and drop_prob=0.2 mean the same
    """
)
def a_probability_in_percent() -> None:
    net = gc.Net("digits")
    gc.dropout(net.input("x", (gc.N, 64)), keep_prob=80)  # here


@mistake(
    """
    loss 'loss' is float32[N], it must be one float
      value  softmax_loss_1 float32[N]  declared at {each}
      at {here}
      hint: reduce it: gc.mean(value), or reduction='mean' in the loss
    """
)
def a_loss_that_is_not_reduced() -> None:
    net = gc.Net("digits")
    scores = gc.affine(net.input("x", (gc.N, 64)), 10)
    each = gc.softmax_loss(scores, net.input("y", (gc.N,), dtype="int64"), reduction="none")  # each
    net.loss("loss", each)  # here


@mistake(
    """
    affine: units is 32.0, it must be a whole number from 1 up
      at {here}
      hint: it is the number of features that come out: gc.affine(x, 10)
    """
)
def units_that_are_no_whole_number() -> None:
    net = gc.Net("digits")
    gc.affine(net.input("x", (gc.N, 64)), 64 / 2)  # type: ignore[arg-type]  # here


@mistake(
    """
    mean: axis 2 does not exist in a value of rank 2
      x  x float32[N, 64]  declared at {x}
      at {here}
      hint: axes go from 0 to 1
    """
)
def an_axis_too_many() -> None:
    net = gc.Net("digits")
    x = net.input("x", (gc.N, 64))  # x
    gc.mean(x, axis=2)  # here


@mistake(
    """
    reshape: shape (N, 64) has 64*N elements, (N, 8, 9) has 72*N
      x  x float32[N, 64]  declared at {x}
      at {here}
    """
)
def a_reshape_that_adds_elements() -> None:
    net = gc.Net("digits")
    x = net.input("x", (gc.N, 64))  # x
    gc.reshape(x, (gc.N, 8, 9))  # here


@mistake(
    """
    grad: of has shape (N, 10), a gradient needs a scalar
      of   affine_1 float32[N, 10]  declared at {h}
      wrt  x float32[N, 64]  declared at {x}
      at {here}
      hint: reduce it first: gc.sum(value)
    """
)
def a_gradient_of_many() -> None:
    net = gc.Net("digits")
    x = net.input("x", (gc.N, 64))  # x
    h = gc.affine(x, 10)  # h
    gc.grad(h, x)  # here


class NoGradient(gc.Op):
    """A user's op that has only a meaning."""

    name = "my_op"

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return ins[0]

    def reference(self, ins: Sequence[Any]) -> Any:
        return ins[0]


@mistake(
    """
    my_op 'my_op_1': it has no gradient rule
      operand 0  h float32[N, 10]  declared at {h}
      at {here}
      hint: give the op a grad rule, or stop before it: gc.stop_gradient(x)
    """
)
def an_op_without_gradient() -> None:
    net = gc.Net("digits")
    h = gc.affine(net.input("x", (gc.N, 64)), 10, name="h")  # h
    h = gc.apply(NoGradient(), h)  # here
    net.loss("loss", gc.mean(h))
    gc.compile(net, batch=32)


@pytest.mark.parametrize("mistake", MISTAKES, ids=name_of)
def test_layers(mistake: Mistake) -> None:
    refused(mistake)
