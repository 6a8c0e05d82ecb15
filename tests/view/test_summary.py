"""The table of a net's layers."""

from __future__ import annotations

import pytest

import graphc as gc
from graphc.view.reports import summary

# 64 means and scales; 64*100 + 100; gamma, beta and two running statistics; 100*10 + 10.
DIGITS = """\
Net 'digits'
----------------------------------------------------------------
Layer (type)                 Output shape  Params  Connected to
----------------------------------------------------------------
x (input)                    (N, 64)            0
y (input)                    (N,)               0
standardize_1 (standardize)  (N, 64)          128  x
affine_1 (affine)            (N, 100)       6,500  standardize_1
batchnorm_1 (batchnorm)      (N, 100)         400  affine_1
relu_1 (relu)                (N, 100)           0  batchnorm_1
dropout_1 (dropout)          (N, 100)           0  relu_1
scores (affine)              (N, 10)        1,010  dropout_1
loss (softmax_loss)          ()                 0  scores, y
----------------------------------------------------------------
Total params: 8,038 (32,152 bytes)
Trainable params: 7,710 (30,840 bytes)
Non-trainable params: 328 (1,312 bytes)
"""


def test_the_table_of_a_net(capsys: pytest.CaptureFixture[str]) -> None:
    net = gc.Net("digits")
    x, y = net.input("x", (gc.N, 64)), net.input("y", gc.N, dtype="int64")
    scores = gc.mlp(gc.standardize(x), [100], 10, batchnorm=True, dropout=0.2, name="scores")
    net.loss("loss", gc.softmax_loss(scores, y, name="loss"))
    net.summary()
    assert capsys.readouterr().out == DIGITS


def test_a_shared_weight_counts_once() -> None:
    net = gc.Net("tied")
    x = net.input("x", (gc.N, 8))
    w = net.parameter("w", (8, 8))
    h = gc.affine(gc.affine(x, 8, weight=w, bias=False, name="a"), 8, weight=w, name="b")
    net.output("out", h + x)
    lines = summary(net.graph()).splitlines()
    counts = {line.split()[0]: line.split(")")[-1].split()[0] for line in lines[5:8]}
    assert counts == {"a": "64", "b": "8", "add_1": "0"}
    assert lines[-3] == "Total params: 72 (288 bytes)"


def test_a_loop_says_its_steps_and_which_result_it_is() -> None:
    net = gc.Net("loop")
    x, h0 = net.input("x", (gc.N, 1200, 3)), net.input("h0", (gc.N, 3))
    u = net.parameter("u", (3, 3))

    def step(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        h = gc.tanh(x + h @ u)
        return h, h

    states, last = gc.scan(step, x, h0, reverse=True, name="rnn")
    net.output("states", states)
    net.output("last", last)
    rows = [line.split("  ")[0] for line in summary(net.graph()).splitlines()]
    assert "rnn.steps (scan, all of 1,200 steps, last first)" in rows
    assert "rnn.last (scan, the last of 1,200 steps, last first)" in rows
