"""A number that is not finite is traced to the node and the line where it began."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.train import nonfinite
from tests.train.nets import bits, executor, table

X, Y = table(45)
GROWN = "numbers have grown too large: a smaller lr, or clip_norm= in the optimizer"
BACKENDS = pytest.mark.parametrize("backend", ["numpy", None])


def line_of(function, text: str) -> int:
    """The number of the line of a function that has this text."""
    lines, start = inspect.getsourcelines(function)
    return start + next(i for i, line in enumerate(lines) if text in line)


def failed(ex: gc.Executor, data, **options) -> gc.NotFiniteError:
    with pytest.raises(gc.NotFiniteError) as caught:
        gc.fit(ex, data, **options)
    assert len(str(caught.value).splitlines()) <= 15
    assert all(np.isfinite(array).all() for array in ex.snapshot().values())
    return caught.value


@BACKENDS
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_planted_in_the_data(backend, bad: float) -> None:
    ex = executor(backend=backend)
    x = X.copy()
    x[17, 2] = bad
    error = failed(ex, (x, Y), epochs=2, seed=1)
    order = np.arange(45)
    from graphc.ir.init import generator

    generator(1, "epoch 1").shuffle(order)
    step, row = divmod(int(np.flatnonzero(order == 17)[0]), 8)
    word = "nan" if bad != bad else "inf"
    assert error.sentence == (
        f"loss is nan in epoch 1, step {step + 1}: input 'x' is the first value that is not "
        f"finite, 1 {word} of 32; row {row} of the batch, row 17 of the data"
    )
    assert error.hint == "clean the data: np.isfinite(x) is false there"
    assert error.loc is not None
    assert error.loc.text == 'x = net.input("x", (gc.N, 4))'
    by_hand = executor(backend=backend)
    for start in range(0, step * 8, 8):
        rows = order[start : start + 8]
        by_hand.step(x=x[rows], y=Y[rows])
    assert bits(ex) == bits(by_hand)


def of_log() -> gc.Net:
    net = gc.Net("log")
    x = net.input("x", (gc.N,))
    size = gc.abs(x * net.parameter("scale", (), init=1.0))
    logs = gc.log(size)
    net.loss("loss", gc.mean(logs * logs))
    return net


@BACKENDS
def test_log_of_zero_in_the_forward_pass(backend) -> None:
    ex = executor(of_log(), backend=backend, optimizer=gc.SGD(1e-3))
    x = np.linspace(1, 2, 24).astype(np.float32)
    x[13] = 0
    error = failed(ex, x, shuffle=False, epochs=3)
    assert error.sentence == (
        "loss is inf in epoch 1, step 2: log 'log_1' of the forward pass is the first value "
        "that is not finite, 1 -inf of 8"
    )
    assert error.loc is not None
    assert error.loc.line == line_of(of_log, "logs = gc.log(size)")
    assert "x  abs_1 float32[8] from 0 to" in str(error)
    assert ", 1 zeros  declared at" in str(error)
    assert error.hint == "keep its operand above 0: gc.log(gc.maximum(x, 1e-12))"


def of_ratio() -> gc.Net:
    net = gc.Net("ratio")
    x, y = net.input("x", (gc.N,)), net.input("y", (gc.N,))
    weight = net.parameter("weight", (), init=1.0)
    ratio = (x * weight) / y
    net.loss("loss", gc.mean(ratio**2))
    return net


@BACKENDS
def test_zero_by_zero_in_a_loss_of_the_users_own(backend) -> None:
    ex = executor(of_ratio(), backend=backend, optimizer=gc.SGD(1e-3))
    x, y = np.ones((2, 24), np.float32)
    x[20] = y[20] = 0
    error = failed(ex, (x, y), shuffle=False)
    assert error.sentence == (
        "loss is nan in epoch 1, step 3: div 'div_1' of the forward pass is the first value "
        "that is not finite, 1 nan of 8"
    )
    assert error.loc is not None
    assert error.loc.line == line_of(of_ratio, "ratio = (x * weight) / y")
    assert "y float32[8] from 0 to 1, mean 0.875, 1 zeros" in str(error)


def of_root() -> gc.Net:
    net = gc.Net("root")
    x = net.input("x", (gc.N,))
    moved = x * net.parameter("scale", (), init=1.0)
    root = gc.sqrt(moved)
    net.loss("loss", gc.mean(root))
    return net


@BACKENDS
def test_a_slope_without_end_in_the_backward_pass(backend) -> None:
    ex = executor(of_root(), backend=backend, optimizer=gc.SGD(1e-3))
    x = np.linspace(1, 2, 24).astype(np.float32)
    x[5] = 0  # sqrt(0) is finite, its derivative is not
    before = bits(ex)
    error = failed(ex, x, shuffle=False)
    assert error.sentence.startswith("the state is not finite after epoch 1, step 1: ")
    assert (
        "of the backward pass is the first value that is not finite, 1 inf of 8" in error.sentence
    )
    assert error.loc is not None
    assert error.loc.line == line_of(of_root, "root = gc.sqrt(moved)")
    assert error.hint.startswith("the derivative is infinite or undefined here")
    assert bits(ex) == before


def of_line() -> gc.Net:
    net = gc.Net("line")
    x, y = net.input("x", (gc.N,)), net.input("y", (gc.N,))
    slope = net.parameter("slope", (), init=0.5)
    guess = x * slope
    net.loss("loss", gc.mse_loss(guess, y))
    return net


@BACKENDS
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_rate_that_overflows_the_update(backend, accumulate: int) -> None:
    x = np.linspace(1, 2, 24).astype(np.float32)
    optimizer = gc.SGD(lr=3e38, accumulate=accumulate)
    ex = executor(of_line(), backend=backend, optimizer=optimizer)
    error = failed(ex, (x, 100 * x), shuffle=False)
    assert error.sentence == (
        f"the state is not finite after epoch 1, step {accumulate}: sgd_step 'slope.next' of the "
        "update is the first value that is not finite, 1 inf of 1"
    )
    assert error.loc is not None
    assert error.loc.line == line_of(of_line, 'slope = net.parameter("slope"')
    assert "hyper.lr float32[] is 3e+38" in str(error)
    assert (
        error.hint == "numbers have grown too large: a smaller lr, or clip_norm= in the optimizer"
    )


@BACKENDS
def test_a_rate_that_is_too_large_shows_in_the_forward_pass(backend) -> None:
    x = np.linspace(1, 2, 24).astype(np.float32)
    ex = executor(of_line(), backend=backend, optimizer=gc.SGD(lr=50.0))
    error = failed(ex, (x, x), epochs=30)
    assert "of the forward pass is the first value that is not finite" in error.sentence
    assert error.loc is not None
    assert error.loc.line == line_of(of_line, "net.loss(")
    assert (
        error.hint == "numbers have grown too large: a smaller lr, or clip_norm= in the optimizer"
    )
    ex.hyper["lr"] = 0.01
    ex.parameters["slope"] = np.float32(0.5)
    assert np.isfinite(gc.fit(ex, (x, x)).loss[0])


def test_an_infinity_that_is_meant_is_not_blamed() -> None:
    net = gc.Net("masked")
    x, y = net.input("x", (gc.N, 4)), net.input("y", (gc.N,), dtype="int64")
    mask = net.constant(np.array([0, 0, 0, -np.inf], np.float32), name="mask")
    scores = gc.affine(gc.log(gc.exp(x)), 4, name="scores")
    net.loss("loss", gc.softmax_loss(scores + mask, y))
    ex = executor(net)
    gc.fit(ex, (X, Y))
    x = X.copy()
    x[3] = 1000.0
    error = failed(ex, (x, Y), shuffle=False)
    assert "exp 'exp_1' of the forward pass" in error.sentence
    assert error.hint == "keep its operand small: gc.exp(gc.minimum(x, 80))"


def test_what_makes_nan_of_an_infinity_that_is_meant_is_blamed() -> None:
    net = gc.Net("masked")
    x = net.input("x", (gc.N, 4))
    mask = net.constant(np.array([0, 0, 0, np.inf], np.float32), name="mask")
    scores = gc.affine(x, 4, name="scores") + mask
    away = gc.sub(scores, gc.max(scores, 1, keepdims=True), name="away")
    net.loss("loss", gc.mean(gc.exp(away, name="powers")))
    error = failed(executor(net), X, shuffle=False)
    assert "sub 'away' of the forward pass" in error.sentence


@pytest.mark.parametrize("every", [1, 4, 256])
@pytest.mark.parametrize("stream", [False, True])
def test_found_however_long_ago_the_copy_was_made(monkeypatch, every: int, stream: bool) -> None:
    monkeypatch.setattr(nonfinite, "EVERY", every)
    monkeypatch.setattr("graphc.train.run.EVERY", every)
    x = X.copy()
    x[44] = np.nan

    def batches(epoch: int):
        source = x if epoch == 3 else X
        return ((source[i : i + 8], Y[i : i + 8]) for i in range(0, 45, 8))

    error = failed(executor(), batches, epochs=4) if not stream else failed(executor(), batches(3))
    assert f"in epoch {1 if stream else 3}, step 6: input 'x'" in error.sentence
    assert "row 4 of the batch" in error.sentence


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_no_copy_is_made_of_a_state_that_has_just_become_bad(monkeypatch, steps: int) -> None:
    monkeypatch.setattr("graphc.train.run.EVERY", steps)
    ex = executor(of_root(), optimizer=gc.SGD(1e-3))
    x = np.linspace(1, 2, 24).astype(np.float32)
    x[8 * steps - 3] = 0  # in the step after which a copy is due
    error = failed(ex, x, shuffle=False, epochs=2, callbacks=[lambda epoch: None])
    assert f"epoch 1, step {steps}: div 'd_mul_1' of the backward pass" in error.sentence


def test_batches_that_are_not_the_same_again() -> None:
    calls = []

    def batches(epoch: int):
        calls.append(epoch)
        yield (X[:8] if len(calls) > 1 else X[:8] * np.nan), Y[:8]

    error = failed(executor(), batches)
    assert error.sentence == (
        "the loss nan is not finite by epoch 1, step 1, but all is finite when the steps are run "
        "again"
    )


def test_no_checkpoint_holds_a_bad_state(tmp_path: Path) -> None:
    ex = executor(of_root(), optimizer=gc.SGD(1e-3))
    x = np.linspace(1, 2, 24).astype(np.float32)
    x[20] = 0
    run = gc.Checkpoints(tmp_path, every=1)
    failed(ex, x, shuffle=False, checkpoint=run)
    assert run.last == tmp_path / "step-000000002.gc"
    assert bits(gc.load(run.last)) == bits(ex)


def test_what_was_bad_from_the_start_is_said_so() -> None:
    ex = executor()
    weight = np.array(ex.parameters["hidden.weight"])
    weight[1, 1] = np.nan
    ex.parameters["hidden.weight"] = weight
    with pytest.raises(gc.NotFiniteError) as caught:
        gc.fit(ex, (X, Y))
    assert "parameter 'hidden.weight' is the first value" in caught.value.sentence
    assert caught.value.hint == "it was not finite before the step either: assign finite values"


def test_a_callback_that_breaks_the_state_is_found_out() -> None:
    def broken(epoch: gc.Epoch) -> None:
        epoch.ex.parameters["scores.bias"] = np.full(3, np.nan)

    with pytest.raises(gc.NotFiniteError, match=r"epoch 2, step 1: parameter 'scores\.bias'"):
        gc.fit(executor(), (X, Y), epochs=3, callbacks=[broken])


def test_keeping_copies_changes_no_bit() -> None:
    ex, by_hand = executor(), executor()
    gc.fit(ex, (X, Y), epochs=50, shuffle=False)  # 300 steps
    for _ in range(50):
        for start in range(0, 45, 8):
            by_hand.step(x=X[start : start + 8], y=Y[start : start + 8])
    assert bits(ex) == bits(by_hand)


def of_steps() -> gc.Net:
    net = gc.Net("steps")
    x = net.input("x", (gc.N, 5, 2))
    scale = net.parameter("scale", (2,), init=1.0)

    def step(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        grown = gc.log(x * scale + h * h)
        return grown, grown * 0

    logs, _ = gc.scan(step, x, x[:, 0] * 0, name="loop")
    net.loss("loss", gc.mean(logs * logs))
    return net


@BACKENDS
def test_log_of_zero_in_a_step_of_a_loop(backend) -> None:
    ex = executor(of_steps(), backend=backend, optimizer=gc.SGD(1e-3))
    x = np.linspace(1, 2, 240).astype(np.float32).reshape(24, 5, 2)
    x[13, 3, 1] = 0
    error = failed(ex, x, shuffle=False)
    begun, _, rest = error.sentence.partition(" at position 3 of loop ")
    assert begun == "loss is nan in epoch 1, step 2: log 'log_1'"
    assert "of the forward pass is the first value that is not finite, 1 -inf of 16" in rest
    assert error.loc is not None
    assert error.loc.line == line_of(of_steps, "grown = gc.log(x * scale + h * h)")
    assert error.hint == "keep its operand above 0: gc.log(gc.maximum(x, 1e-12))"


def of_nested_roots() -> gc.Net:
    net = gc.Net("nested")
    x = net.input("x", (gc.N, 2, 3))
    scale = net.parameter("scale", (), init=1.0)

    def inner(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        h = gc.sqrt(x * scale) + gc.tanh(h)
        return h, h

    def outer(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        states, last = gc.scan(inner, gc.reshape(x, (gc.N, 3, 1)), h, name="inner")
        return states, last

    _, last = gc.scan(outer, x, x[:, 0, :1] * 0, name="outer")
    net.loss("loss", gc.mean(last))
    return net


@BACKENDS
def test_an_infinite_slope_in_a_loop_inside_a_loop(backend) -> None:
    ex = executor(of_nested_roots(), backend=backend, optimizer=gc.SGD(1e-3))
    x = np.linspace(1, 2, 144).astype(np.float32).reshape(24, 2, 3)
    x[2, 1, 0] = 0  # sqrt(0) is finite, its derivative is not
    error = failed(ex, x, shuffle=False)
    assert error.sentence.startswith("the state is not finite after epoch 1, step 1: ")
    assert "of the backward pass is the first value that is not finite, 1 inf" in error.sentence
    assert " at position " in error.sentence
    assert error.loc is not None
    assert error.loc.line == line_of(of_nested_roots, "h = gc.sqrt(x * scale) + gc.tanh(h)")
