"""Native programs as text."""

from __future__ import annotations

import graphc as gc
from graphc.compiler.program import build_program
from graphc.kernels.program import Program
from graphc.kernels.text import program_text


def native(net: gc.Net, name: str, optimizer: gc.optim.Optimizer | None = None) -> Program:
    """The native program of a net, which needs no native backend as long as it does not run."""
    plan = gc.compile(net, batch=64, optimizer=optimizer, backend="numpy")
    return build_program(name, plan.programs[name].graph, 64, "native")


def instructions(program: Program) -> str:
    return program_text(program).partition("memory:")[0]


def mlp() -> gc.Net:
    net = gc.Net("mlp")
    x, y = net.input("x", (gc.N, 4)), net.input("y", (gc.N,), dtype="int64")
    h = gc.relu(gc.affine(x, 3, name="hidden"), name="active")
    net.loss("loss", gc.softmax_loss(gc.affine(h, 2, name="scores"), y, name="cross"))
    return net


def norm() -> gc.Net:
    net = gc.Net("norm")
    h = gc.batchnorm(net.input("x", (gc.N, 20)), name="bn")
    net.output("out", gc.dropout(gc.relu(h, name="active"), keep_prob=0.8, name="drop"))
    net.loss("loss", gc.mean(net["drop"] * net["bn.gamma"], name="loss"))
    return net


def joined() -> gc.Net:
    net = gc.Net("joined")
    x = net.input("x", (gc.N, 6))
    h = gc.affine(x[:, 1:4], 5, name="h")
    net.output("out", gc.concat([gc.tanh(x[:, 4:], name="t"), h], axis=1, name="both"))
    net.output("order", gc.cumsum(net["both"], axis=1, name="order"))
    return net


MLP_STEP = """\
program step for up to 64 rows, native
   0  gemm N x 3  float32 partition=rows  product = x @ hidden.weight over 4
        %1 = product + hidden.bias[j]
        active = select(0 > %1, 0, %1)
   1  gemm N x 2  float32 partition=rows  product = active @ scores.weight over 3
        scores = product + scores.bias[j]
   2  loop N x 2  float32 reduction=columns partition=rows  given d_cross.reshape_1
        %1[i] = max(scores)
        %2 = scores - %1[i]
        %3 = exp(%2)
        %4[i] = sum(%3)
        %5 = j == y[i]
        %6[i] = sum(select(%5, %2, 0))
        cross.rows[i] = log(%4[i]) - %6[i]
        d_scores = (%3 * (1 / %4[i]) - float32(%5)) * (d_cross.reshape_1 / N)
   3  gemm N x 3  float32 partition=rows  product = d_scores @ scores.weight.T over 2
        d_hidden = select(active > 0, product, 0)
   4  loop 1 x 1  int64 partition=none  given draws, constant_1, updates
        draws.next[i] = draws + constant_1
        updates.next[i] = updates + constant_1
   5  ---- barrier ---- epoch 1
   6  loop N x 2  float32 reduction=rows partition=columns  given hyper.lr
        %1[j] = sum(d_scores)
        scores.bias.velocity.next[j] = 0.9 * scores.bias.velocity[j] + %1[j]
        scores.bias.next[j] = scores.bias[j] - hyper.lr * scores.bias.velocity.next[j]
   7  gemm 3 x 2  float32 partition=columns  product = active.T @ d_scores over N  given hyper.lr
        scores.weight.velocity.next = 0.9 * scores.weight.velocity + product
        scores.weight.next = scores.weight - hyper.lr * scores.weight.velocity.next
   8  loop N x 3  float32 reduction=rows partition=columns  given hyper.lr
        %1[j] = sum(d_hidden)
        hidden.bias.velocity.next[j] = 0.9 * hidden.bias.velocity[j] + %1[j]
        hidden.bias.next[j] = hidden.bias[j] - hyper.lr * hidden.bias.velocity.next[j]
   9  gemm 4 x 3  float32 partition=columns  product = x.T @ d_hidden over N  given hyper.lr
        hidden.weight.velocity.next = 0.9 * hidden.weight.velocity + product
        hidden.weight.next = hidden.weight - hyper.lr * hidden.weight.velocity.next
  10  loop 1 x N  float32 reduction=columns partition=none
        %1[i] = sum(cross.rows)
        cross[i] = %1[i] / N
"""

NORM_GRAD = """\
program grad for up to 64 rows, native
  0  loop N x 20  float32 reduction=rows partition=columns  given bn.constant_2, bn.constant_1
       %1[j] = sum(x)
       bn.mean[j] = %1[j] / N
       %2 = x - bn.mean[j]
       %3[j] = sum(%2 * %2)
       bn.var[j] = %3[j] / N
       %4 = %2 * (bn.gamma[j] / sqrt(bn.var[j] + 1e-05)) + bn.beta[j]
       bn.running_mean.next[j] = bn.running_mean[j] * bn.constant_1 + bn.mean[j] * bn.constant_2
       bn.running_var.next[j] = bn.running_var[j] * bn.constant_1 + bn.var[j] * bn.constant_2
       active = select(0 > %4, 0, %4)
  1  ---- barrier ---- epoch 1
  2  loop N x 20  float32 partition=rows  given seed, draws
       drop.mask = select(philox(seed, draws, stream=685911182) <= 3435973836, 1.25, 0)
       drop = active * drop.mask
       mul_1 = drop * bn.gamma[j]
  3  ---- barrier ---- epoch 2
  4  loop 1 x 1  int64 partition=none  given draws, constant_1
       draws.next[i] = draws + constant_1
  5  loop 1 x 20*N  float32 reduction=columns partition=none
       %1[i] = sum(mul_1)
       loss[i] = %1[i] / (20*N)
  backward:
     ---- epoch 3
  6  loop N x 20  float32 reduction=rows partition=columns  given d_loss.reshape_1
       d_mul_1.sum_1[j] = sum(d_loss.reshape_1 / (20*N) * drop)
  7  loop N x 20  float32 reduction=rows partition=columns  given d_loss.reshape_1
       %1 = select(active > 0, d_loss.reshape_1 / (20*N) * bn.gamma[j] * drop.mask, 0)
       %2[j] = sum(%1 * (x - bn.mean[j]))
       d_bn.beta[j] = sum(%1)
       d_bn.gamma[j] = d_mul_1.sum_1[j] + %2[j] / sqrt(bn.var[j] + 1e-05)
"""

JOINED_INFER = """\
program infer for up to 64 rows, native
  0  gemm N x 5  float32 partition=rows  product = slice_1 @ h.weight over 3
       h = product + h.bias[j]
  1  loop N x 2  float32 partition=rows
       t = tanh(slice_2)
  2  loop N x 2  float32 partition=rows
       both.columns0 = t
  3  loop N x 5  float32 partition=rows
       both.columns1 = h
     ---- epoch 1
  4  order <- cumsum(both)  cumsum(axis=1)
memory: arena 3584 bytes, 3584 live at once; lives are epochs
  x              float32[N, 6]  24*N  feed        0..0
  slice_1        float32[N, 3]  12*N  feed        0..0  columns 1:4 of 6 of x
  h.weight       float32[3, 5]  60    state       0..0
  h.bias         float32[5]     20    state       0..0
  h              float32[N, 5]  20*N  arena 512   0..0
  slice_2        float32[N, 2]  8*N   feed        0..0  columns 4:6 of 6 of x
  t              float32[N, 2]  8*N   arena 0     0..0
  both           float32[N, 7]  28*N  arena 1792  0..2
  order          float32[N, 7]  28*N  arena 0     1..2
  both.columns0  float32[N, 2]  8*N   arena 1792  0..2  columns 0:2 of 7 of both
  both.columns1  float32[N, 5]  20*N  arena 1792  0..2  columns 2:7 of 7 of both
"""


def test_a_step_of_two_layers_with_momentum() -> None:
    assert instructions(native(mlp(), "step", gc.SGD(lr=0.1, momentum=0.9))) == MLP_STEP


def test_batchnorm_and_dropout_forward_and_backward() -> None:
    assert instructions(native(norm(), "grad")) == NORM_GRAD


def test_views_and_a_call_of_numpy() -> None:
    assert program_text(native(joined(), "infer")) == JOINED_INFER


def test_lives_are_the_epochs_that_are_printed() -> None:
    sgd = gc.SGD(lr=0.1, momentum=0.9)
    for program in (native(mlp(), "step", sgd), native(norm(), "grad"), native(joined(), "infer")):
        check_lives(program)


def check_lives(program: Program) -> None:
    """A buffer of its own lives from the epoch of who writes it to that of who reads it last."""
    found: dict[str, list[int]] = {}
    for instr, epoch in zip(program.instrs, program.epochs, strict=True):
        for name in (*instr.ins, *instr.outs):
            found.setdefault(name, []).append(epoch)
    views = {buffer.key for buffer in program.buffers.values() if buffer.pitch}
    outputs = set(program.outputs.values())
    for name, buffer in program.buffers.items():
        if buffer.space == "arena" and name in found and not buffer.pitch and name not in views:
            end = found[name][-1] if name not in outputs else buffer.last
            assert (buffer.first, buffer.last) == (found[name][0], end), name
