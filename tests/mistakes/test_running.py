"""Mistakes in calling an executor; none of them changes a bit of the state."""

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
    backward: there is no forward pass to go back through
      at {here}
      hint: call ex.forward(..., train=True) first; any other run discards it
    """
)
def backward_before_forward(ex: gc.Executor) -> None:
    ex.backward()  # here


@mistake(
    """
    update: there are no gradients
      at {here}
      hint: call ex.backward() first, or pass them: ex.update({{name: array}})
    """
)
def update_before_backward(ex: gc.Executor) -> None:
    ex.update()  # here


@mistake(
    """
    step: the plan has no optimizer
      at {here}
      hint: compile with one: gc.compile(net, batch=..., optimizer=gc.SGD(lr=0.1))
    """
)
def a_step_without_an_optimizer(ex: gc.Executor) -> None:
    plain = gc.Executor(gc.compile(digits(), batch=32), state=ex.state)
    plain.step(x=X, y=Y)  # here


@mistake(
    """
    forward(train=True): this plan has nothing to train
      at {here}
      hint: frozen plans and nets without parameters only infer: leave train=True out
    """
)
def training_a_frozen_net(ex: gc.Executor) -> None:
    gc.freeze(ex, batch=4).forward(x=X, train=True)  # here


@mistake(
    """
    gradient 'scores.weight' takes (8, 10), the array has shape (10, 8)
      gradient  scores.weight float32[8, 10]  declared at {net_scores}
      at {here}
      hint: the shape is fixed: (8, 10)
    """
)
def a_gradient_of_another_shape(ex: gc.Executor) -> None:
    gradients = {name: np.zeros(value.shape) for name, value in ex.parameters.items()}
    gradients["scores.weight"] = gradients["scores.weight"].T
    ex.update(gradients)  # here


@mistake(
    """
    there is no parameter 'score.weight'
      at {here}
      hint: there are: hidden.weight, hidden.bias, batchnorm_1.gamma, batchnorm_1.beta, scores.weight, scores.bias
    """  # noqa: E501
)
def an_unknown_parameter(ex: gc.Executor) -> None:
    ex.parameters["score.weight"]  # here


@mistake(
    """
    'scores.weight' has shape (8, 10), the value has (10, 8)
      at {here}
      hint: shapes are fixed by the declaration; nothing was changed
    """
)
def a_parameter_of_another_shape(ex: gc.Executor) -> None:
    ex.parameters["scores.weight"] = np.zeros((10, 8))  # here


@mistake(
    """
    there is no hyper-parameter 'rate'
      at {here}
      hint: there are: lr
    """
)
def an_unknown_hyper_parameter(ex: gc.Executor) -> None:
    ex.hyper["rate"] = 0.1  # here


@mistake(
    """
    hyper-parameter 'lr' is nan, it must be 0 or more
      at {here}
      hint: to change it over time give the optimizer a schedule
    """
)
def a_rate_that_is_no_number(ex: gc.Executor) -> None:
    ex.hyper["lr"] = float("nan")  # here


@mistake(
    """
    hyper-parameter 'lr' is -0.1, it must be 0 or more
      at {here}
      hint: to change it over time give the optimizer a schedule
    """
)
def a_rate_below_zero(ex: gc.Executor) -> None:
    ex.hyper["lr"] = -0.1  # here


@mistake(
    """
    the vector has shape (3,), the parameters take (626,)
      at {here}
      hint: it is what ex.parameters.flat() gives for the same net
    """
)
def a_flat_vector_of_another_net(ex: gc.Executor) -> None:
    ex.parameters.load_flat(np.zeros(3))  # here


@mistake(
    """
    the state holds 'scores.weight' as float32[8, 10], the plan needs float32[3, 10]
      at {here}
      hint: share state between plans of one net
    """
)
def the_state_of_another_net(ex: gc.Executor) -> None:
    net = gc.Net("other")
    net.output("scores", gc.affine(net.input("x", (gc.N, 3)), 10, name="scores"))
    gc.Executor(gc.compile(net, batch=1), state=ex.state)  # here


@mistake(
    """
    Executor takes a plan, not Net
      at {here}
      hint: compile the net first: plan = gc.compile(net, batch=128)
    """
)
def a_net_for_a_plan(ex: gc.Executor) -> None:
    gc.Executor(digits())  # type: ignore[arg-type]  # here


@mistake(
    """
    evaluate: what was fed determines no loss and no other scalar output
      at {here}
      hint: feed the labels, too: ex.evaluate(x, y)
    """
)
def evaluating_without_labels(ex: gc.Executor) -> None:
    ex.evaluate(X)  # here


@mistake(
    """
    3 arrays were given, the net has 2 inputs
      at {here}
      hint: they are x, y, in this order
    """
)
def too_many_arrays(ex: gc.Executor) -> None:
    ex.predict(X, Y, Y)  # here


@pytest.mark.parametrize("mistake", MISTAKES, ids=name_of)
def test_running(mistake: Mistake) -> None:
    ex = trainer()
    before = state_of(ex)
    refused(mistake, ex, **{f"net_{name}": where for name, where in DECLARED.items()})
    assert state_of(ex) == before
    assert np.isfinite(ex.step(x=X, y=Y))
