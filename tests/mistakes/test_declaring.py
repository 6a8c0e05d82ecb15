"""Mistakes in declaring a net."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from tests.mistakes.harness import Mistake, collector, name_of, refused

MISTAKES, mistake = collector()


@mistake(
    """
    the name 'h' is taken already
      affine  h float32[N, 10]  declared at {h}
      at {here}
      hint: names must be unique: choose another, or group layers by net.block(name)
    """
)
def a_name_twice() -> None:
    net = gc.Net("digits")
    x = net.input("x", (gc.N, 64))
    h = gc.affine(x, 10, name="h")  # h
    gc.relu(h, name="h")  # here


@mistake(
    """
    net 'digits' has an output 'scores' already
      at {here}
      hint: choose another name
    """
)
def an_output_twice() -> None:
    net = gc.Net("digits")
    net.output("scores", gc.affine(net.input("x", (gc.N, 64)), 10))
    net.output("scores", net["x"])  # here


@mistake(
    """
    net 'digits' has no value 'score'
      at {here}
      hint: did you mean scores or scores.bias?
    """
)
def an_unknown_value() -> None:
    net = gc.Net("digits")
    gc.affine(net.input("x", (gc.N, 64)), 10, name="scores")
    net["score"]  # here


@mistake(
    """
    add: 'z' belongs to net 'critic', not to 'actor'
      a  x float32[N, 64]  declared at {x}
      b  z float32[N, 64]  declared at {z}
      at {here}
      hint: declare both in one net, or feed one net's output to the other's input
    """
)
def values_of_two_nets() -> None:
    net, other = gc.Net("actor"), gc.Net("critic")
    x = net.input("x", (gc.N, 64))  # x
    z = other.input("z", (gc.N, 64))  # z
    x + z  # here


@mistake(
    """
    the value given as 'z' is 'z' of net 'critic', not a value of net 'actor'
      at {here}
      hint: give the name, then a value of this net: net.output("scores", scores)
    """
)
def an_output_of_another_net() -> None:
    net, other = gc.Net("actor"), gc.Net("critic")
    net.output("z", other.input("z", (gc.N, 64)))  # here


@mistake(
    """
    add: ndarray is not a value of the net
      at {here}
      hint: make the array a value by net.constant(array), or feed it to a net.input
    """
)
def an_array_for_a_value() -> None:
    net = gc.Net("digits")
    net.input("x", (gc.N, 64)) + np.zeros(64)  # here


@mistake(
    """
    'greater_1' has no truth value: it is declared, not computed
      at {here}
      hint: use gc.where(condition, a, b) to choose between values
    """
)
def a_value_in_an_if() -> None:
    net = gc.Net("digits")
    x = net.input("x", (gc.N, 64))
    if gc.sum(x) > 0:  # here
        pass


@mistake(
    """
    parameter 'affine_1.weight': its shape is (64, 10), the array given for it has (10, 64)
      at {here}
    """
)
def an_initial_weight_of_another_shape() -> None:
    x = gc.Net("digits").input("x", (gc.N, 64))
    gc.affine(x, 10, init=np.zeros((10, 64)))  # here


@mistake(
    """
    parameter 'w': its shape is (64, 10), the array given for it has (10, 64)
      at {here}
      hint: say gc.He(), gc.Normal(0.01), 'zeros', a number, or an array of its shape
    """
)
def an_initial_array_of_another_shape() -> None:
    net = gc.Net("digits")
    net.parameter("w", (64, 10), init=np.zeros((10, 64)))  # here


@mistake(
    """
    parameter 'w': init 'xavier' is not one of he, glorot, normal, uniform, orthogonal, zeros, ones; you may mean 'glorot'
      at {here}
      hint: say gc.He(), gc.Normal(0.01), 'zeros', a number, or an array of its shape
    """  # noqa: E501
)
def an_unknown_initialiser() -> None:
    net = gc.Net("digits")
    net.parameter("w", (64, 10), init="xavier")  # here


@mistake(
    """
    input 'x': shape (N, N, N) has the batch dimension 3 times
      at {here}
      hint: rows are compared in pairs at most: (N, N)
    """
)
def the_batch_three_times() -> None:
    net = gc.Net("digits")
    net.input("x", (gc.N, gc.N, gc.N))  # here


@mistake(
    """
    sub: shapes (N, 1) and (N,) would compare every row with every other
      a  affine_1 float32[N, 1]  declared at {score}
      b  y float32[N]  declared at {y}
      at {here}
      hint: reshape (N,) to (N, 1) or (1, N), whichever is meant
    """
)
def a_column_minus_a_vector() -> None:
    net = gc.Net("line")
    y = net.input("y", (gc.N,))  # y
    score = gc.affine(net.input("x", (gc.N, 3)), 1)  # score
    gc.sub(score, y)  # here


@pytest.mark.parametrize("mistake", MISTAKES, ids=name_of)
def test_declaring(mistake: Mistake) -> None:
    refused(mistake)
