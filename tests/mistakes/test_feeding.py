"""Mistakes in what a plan is fed; none of them changes a bit of the state."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from tests.mistakes.harness import (
    DECLARED,
    Mistake,
    collector,
    digits,
    name_of,
    refused,
    state_of,
    trainer,
)

MISTAKES, mistake = collector()
X, Y = np.ones((4, 64), np.float32), np.array([0, 1, 2, 9])


@mistake(
    """
    input 'x' takes (N, 64), the array has shape (4, 63)
      input  x float32[N, 64]  declared at {net_x}
      at {here}
      hint: the batch dimension N is free, all others are as declared
    """
)
def too_few_features(ex: gc.Executor) -> None:
    ex.step(x=X[:, :63], y=Y)  # here


@mistake(
    """
    input 'x' takes (N, 64), the array has shape (64,)
      input  x float32[N, 64]  declared at {net_x}
      at {here}
      hint: one sample needs its batch axis: x[None]
    """
)
def one_sample_without_a_batch(ex: gc.Executor) -> None:
    ex.forward(x=X[0])  # here


@mistake(
    """
    input 'x' takes (N, 64), the array has shape (4, 8, 8)
      input  x float32[N, 64]  declared at {net_x}
      at {here}
      hint: reshape the array, or declare the input with its real shape
    """
)
def images_for_vectors(ex: gc.Executor) -> None:
    ex.step(x=X.reshape(4, 8, 8), y=Y)  # here


@mistake(
    """
    input 'y' holds the label 10 at row 3, there are 10 classes
      input  y int64[N]  declared at {net_y}
      at {here}
      hint: labels go from 0 to 9
    """
)
def a_label_out_of_range(ex: gc.Executor) -> None:
    ex.step(x=X, y=Y + 1)  # here


@mistake(
    """
    input 'y' takes int64, the array is float64
      input  y int64[N]  declared at {net_y}
      at {here}
      hint: labels are class numbers: y.astype('int64')
    """
)
def labels_that_are_floats(ex: gc.Executor) -> None:
    ex.step(x=X, y=Y.astype(float))  # here


@mistake(
    """
    input 'y' takes int64, the array is float64
      input  y int64[N]  declared at {net_y}
      at {here}
      hint: labels are class numbers: for one-hot rows y.argmax(axis=-1)
    """
)
def one_hot_labels(ex: gc.Executor) -> None:
    ex.step(x=X, y=np.eye(10)[Y])  # here


@mistake(
    """
    input 'y' takes (N,), the array has shape (4, 10)
      input  y int64[N]  declared at {net_y}
      at {here}
      hint: labels are class numbers: for one-hot rows y.argmax(axis=-1)
    """
)
def one_hot_labels_of_whole_numbers(ex: gc.Executor) -> None:
    ex.step(x=X, y=np.eye(10, dtype=int)[Y])  # here


@mistake(
    """
    input 'y' takes (N,), the array has shape (4, 1)
      input  y int64[N]  declared at {net_y}
      at {here}
      hint: the last axis, of size 1, is one too many: y[..., 0]
    """
)
def labels_in_a_column(ex: gc.Executor) -> None:
    ex.step(x=X, y=Y[:, None])  # here


@mistake(
    """
    input 'y' takes int64, the array is text
      input  y int64[N]  declared at {net_y}
      at {here}
      hint: turn words into numbers: np.unique(y, return_inverse=True)[1]
    """
)
def labels_that_are_words(ex: gc.Executor) -> None:
    ex.step(x=X, y=np.array(["cat", "dog", "cat", "cow"]))  # here


@mistake(
    """
    input 'x' takes float32, the array is text
      input  x float32[N, 64]  declared at {net_x}
      at {here}
      hint: feed the array, not its path: np.load(path)
    """
)
def the_path_of_an_array(ex: gc.Executor) -> None:
    ex.predict("rows.npy")  # here


@mistake(
    """
    input 'image' takes (N, 1, 8, 8), the array has shape (4, 8, 8, 1)
      input  image float32[N, 1, 8, 8]  declared at {declared}
      at {here}
      hint: channels come first: np.moveaxis(image, -1, 1)
    """
)
def channels_that_come_last(ex: gc.Executor) -> None:
    net = gc.Net("images")
    image = net.input("image", (gc.N, 1, 8, 8))  # declared
    net.output("means", gc.global_avg_pool(image))
    gc.Executor(gc.compile(net, batch=4)).predict(np.zeros((4, 8, 8, 1)))  # here


@mistake(
    """
    input 'image' takes (8, 9), the array has shape (4, 8, 9)
      input  image float32[8, 9]  declared at {declared}
      at {here}
      hint: the batch is a dimension, too: net.input('image', (gc.N, 8, 9))
    """
)
def a_batch_that_is_not_declared(ex: gc.Executor) -> None:
    net = gc.Net("images")
    image = net.input("image", (8, 9))  # declared
    net.output("hidden", gc.affine(image, 10))
    gc.Executor(gc.compile(net, batch=4)).predict(np.zeros((4, 8, 9)))  # here


@mistake(
    """
    input 'x' takes float32, the array is text
      input  x float32[N, 64]  declared at {net_x}
      at {here}
      hint: convert it: x.astype('float32')
    """
)
def words(ex: gc.Executor) -> None:
    ex.forward(x=np.full((4, 64), "a"))  # here


@mistake(
    """
    input 'x' is not an array: its parts have different lengths
      input  x float32[N, 64]  declared at {net_x}
      at {here}
      hint: all rows of a batch must have the same shape
    """
)
def rows_of_several_lengths(ex: gc.Executor) -> None:
    ex.forward(x=[[1.0, 2.0], [3.0]])  # here


@mistake(
    """
    input 'y' is missing
      input  y int64[N]  declared at {net_y}
      at {here}
      hint: feed it by name: y=...
    """
)
def no_labels_for_a_step(ex: gc.Executor) -> None:
    ex.step(x=X)  # here


@mistake(
    """
    input 'y' is missing
      input  y int64[N]  declared at {net_y}
      at {here}
      hint: there is no input 'labels'; feed it by name: y=...
    """
)
def labels_under_another_name(ex: gc.Executor) -> None:
    ex.step(x=X, labels=Y)  # here


@mistake(
    """
    there is no input 'z'
      at {here}
      hint: there are: x, y
    """
)
def an_input_too_many(ex: gc.Executor) -> None:
    ex.step(x=X, y=Y, z=Y)  # here


@mistake(
    """
    no output can be computed without x
      at {here}
      hint: feed it by name: x=...
    """
)
def nothing_that_an_output_needs(ex: gc.Executor) -> None:
    gc.Executor(gc.compile(digits(), batch=4, losses=())).forward()  # here


@mistake(
    """
    feeds are given by name, not as ndarray
      at {here}
      hint: ex.forward(x=array) or ex.forward({{"x": array}}); ex.predict(array) takes arrays
    """
)
def an_array_for_a_mapping(ex: gc.Executor) -> None:
    ex.forward(X)  # type: ignore[arg-type]  # here


@mistake(
    """
    'x' has 4 rows, 'y' has 3
      input  x float32[N, 64]  declared at {net_x}
      input  y int64[N]  declared at {net_y}
      at {here}
      hint: all inputs of a run take the same batch
    """
)
def batches_that_disagree(ex: gc.Executor) -> None:
    ex.step(x=X, y=Y[:3])  # here


@mistake(
    """
    the batch has 33 rows, the plan takes up to 32
      at {here}
      hint: compile with batch=33, or use ex.predict or ex.evaluate, which cut batches
    """
)
def a_batch_too_large(ex: gc.Executor) -> None:
    ex.step(x=np.zeros((33, 64)), y=np.zeros(33, int))  # here


@mistake(
    """
    the batch has 0 rows
      at {here}
      hint: a run takes at least one row
    """
)
def an_empty_batch(ex: gc.Executor) -> None:
    ex.step(x=X[:0], y=Y[:0])  # here


@pytest.mark.one_in(4)
@pytest.mark.parametrize("mistake", MISTAKES, ids=name_of)
def test_feeding(mistake: Mistake) -> None:
    ex = trainer()
    before = state_of(ex)
    refused(mistake, ex, **{f"net_{name}": where for name, where in DECLARED.items()})
    assert state_of(ex) == before
    assert np.isfinite(ex.step(x=X, y=Y))
