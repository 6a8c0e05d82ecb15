"""Mistakes in compiling a net."""

from __future__ import annotations

import pytest

import graphc as gc
from tests.mistakes.harness import Mistake, collector, name_of, refused

MISTAKES, mistake = collector()


@mistake(
    """
    net 'digits' has no output and no loss
      at {here}
      hint: declare one: net.output("scores", scores)
    """
)
def nothing_to_compute() -> None:
    net = gc.Net("digits")
    gc.affine(net.input("x", (gc.N, 64)), 10)
    gc.compile(net, batch=32)  # here


@mistake(
    """
    batch is 0, it must be a whole number from 1 up
      at {here}
      hint: it is the largest number of rows of a run
    """
)
def a_batch_of_nothing() -> None:
    net = gc.Net("digits")
    net.output("scores", gc.affine(net.input("x", (gc.N, 64)), 10))
    gc.compile(net, batch=0)  # here


@mistake(
    """
    there is no backend 'cuda'
      at {here}
      hint: there are "native", "c" and "numpy"
    """
)
def an_unknown_backend() -> None:
    net = gc.Net("digits")
    net.output("scores", gc.affine(net.input("x", (gc.N, 64)), 10))
    gc.compile(net, batch=32, backend="cuda")  # here


@mistake(
    """
    budget is '8MB', it must be a whole number from 1 up
      at {here}
      hint: it is in bytes: 8 MB are budget=8_000_000
    """
)
def a_budget_in_words() -> None:
    net = gc.Net("digits")
    net.output("scores", gc.affine(net.input("x", (gc.N, 64)), 10))
    gc.compile(net, batch=32, budget="8MB")  # type: ignore[arg-type]  # here


@mistake(
    """
    passes is 'cse', not a list of passes
      at {here}
      hint: gc.passes.without("cse"), or gc.passes.after("cse", my_pass)
    """
)
def passes_by_name() -> None:
    net = gc.Net("digits")
    net.output("scores", gc.affine(net.input("x", (gc.N, 64)), 10))
    gc.compile(net, batch=32, passes="cse")  # type: ignore[arg-type]  # here


@mistake(
    """
    optimizer is 'sgd', not an optimizer of graphc
      at {here}
      hint: gc.SGD(lr=0.1, momentum=0.9), gc.Adam() or gc.AdamW()
    """
)
def an_optimizer_by_name() -> None:
    net = gc.Net("digits")
    net.loss("loss", gc.mean(gc.affine(net.input("x", (gc.N, 64)), 10)))
    gc.compile(net, batch=32, optimizer="sgd")  # type: ignore[arg-type]  # here


@mistake(
    """
    SGD: lr is -0.1, it must be 0 or more
      at {here}
      hint: updates go against the gradient already
    """
)
def a_negative_rate() -> None:
    gc.SGD(lr=-0.1)  # here


@mistake(
    """
    net 'digits' has no loss for the optimizer to minimise
      at {here}
      hint: declare one: net.loss("loss", gc.softmax_loss(scores, y))
    """
)
def an_optimizer_without_a_loss() -> None:
    net = gc.Net("digits")
    net.output("scores", gc.affine(net.input("x", (gc.N, 64)), 10))
    gc.compile(net, batch=32, optimizer=gc.Adam())  # here


@mistake(
    """
    net 'digits' has no parameter for the optimizer to train
      at {here}
      hint: layers such as gc.affine(x, 10) make them, and net.parameter(name, shape)
    """
)
def an_optimizer_without_a_parameter() -> None:
    net = gc.Net("digits")
    net.loss("loss", gc.mean(net.input("x", (gc.N, 64))))
    gc.compile(net, batch=32, optimizer=gc.Adam())  # here


@mistake(
    """
    loss 'size' depends on no parameter, so nothing can minimise it
      loss  mean_1 float32[]  declared at {loss}
      at {here}
      hint: compute it from what the net predicts, or leave it out by losses=
    """
)
def a_loss_without_a_parameter() -> None:
    net = gc.Net("digits")
    x = net.input("x", (gc.N, 64))
    net.output("scores", gc.affine(x, 10))
    net.loss("size", gc.mean(x))  # loss
    gc.compile(net, batch=32)  # here


@mistake(
    """
    no gradient flows from 'loss' to scores.weight, scores.bias
      loss  mean_1 float32[]  declared at {loss}
      at {here}
      hint: argmax, comparisons, casts to integers and gc.stop_gradient pass none
    """
)
def a_loss_that_no_gradient_leaves() -> None:
    net = gc.Net("digits")
    best = gc.argmax(gc.affine(net.input("x", (gc.N, 64)), 10, name="scores"), axis=1)
    net.loss("loss", gc.mean(gc.cast(best, "float32")))  # loss
    gc.compile(net, batch=32)  # here


@mistake(
    """
    no loss depends on the values of wrt: head.weight, head.bias
      loss  mean_1 float32[]  declared at {loss}
      at {here}
      hint: choose losses= and wrt= that belong together
    """
)
def a_parameter_without_a_loss() -> None:
    net = gc.Net("digits")
    x = net.input("x", (gc.N, 64))
    gc.affine(x, 10, name="head")
    net.loss("loss", gc.mean(gc.affine(x, 10)))  # loss
    gc.compile(net, batch=32, wrt="head.*")  # here


@mistake(
    """
    no parameter or float value matches 'encoder/*'
      at {here}
      hint: there are affine_1.weight, affine_1.bias
    """
)
def a_pattern_that_matches_nothing() -> None:
    net = gc.Net("digits")
    net.loss("loss", gc.mean(gc.affine(net.input("x", (gc.N, 64)), 10)))
    gc.compile(net, batch=32, wrt="encoder/*")  # here


@mistake(
    """
    compile takes a net, not Value
      at {here}
      hint: gc.compile(net, batch=128); what to return is chosen by outputs=
    """
)
def a_value_for_a_net() -> None:
    net = gc.Net("digits")
    scores = gc.affine(net.input("x", (gc.N, 64)), 10)
    gc.compile(scores, batch=32)  # type: ignore[arg-type]  # here


@mistake(
    """
    the plan needs 119,616 bytes, 39,616 more than the budget of 80,000
      state    30,272 bytes
      arena    56,384 bytes
      feeds    32,832 bytes
      largest  h 51,200 bytes  declared at {h}
      largest  h.weight 25,600 bytes  declared at {h}
      largest  affine_1 5,120 bytes  declared at {out}
      at {here}
      hint: batch=71 fits
    """
)
def a_budget_too_small() -> None:
    net = gc.Net("digits")
    h = gc.affine(net.input("x", (gc.N, 64)), 100, name="h")  # h
    net.output("scores", gc.affine(h, 10))  # out
    gc.compile(net, batch=128, budget=80_000, backend="numpy")  # here


@mistake(
    """
    pass 'backward' is required
      at {here}
      hint: these can be left out: cse, channels_last, fold_constants, recompute_scans, transpose_factors, segment_scans, split_scans, join_transposes, share_batchnorm_statistics, fold_batchnorm, widen_sums, middle_axes, fuse_affine_relu, recompute_attention, rematerialize, repeat_elements
    """  # noqa: E501
)
def a_pass_that_is_needed() -> None:
    gc.passes.without("backward")  # here


@pytest.mark.parametrize("mistake", MISTAKES, ids=name_of)
def test_compiling(mistake: Mistake) -> None:
    refused(mistake)
