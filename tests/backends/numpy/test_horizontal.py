"""Equal updates of neighbouring states are one loop, and change no bit of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.backends.numpy import horizontal
from graphc.compiler.plan import Plan
from graphc.ir.op import Array

OPTIMIZERS: Mapping[str, Callable[[], Any]] = {
    "sgd": lambda: gc.SGD(lr=0.1),
    "momentum": lambda: gc.SGD(lr=0.1, momentum=0.9, weight_decay=1e-3),
    "nesterov": lambda: gc.SGD(lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda: gc.Adam(lr=0.01),
    "adamw": lambda: gc.AdamW(lr=0.01, weight_decay=0.1),
    "clipped": lambda: gc.Adam(lr=0.01, clip_norm=0.5),
    "averaged": lambda: gc.SGD(lr=0.1, ema=0.9),
    "summed": lambda: gc.SGD(lr=0.1, momentum=0.9, accumulate=2),
}


def net(widths: Sequence[int], *, shared: bool = False) -> gc.Net:
    """Affine layers, and if a weight is shared more: its gradient is a sum of two."""
    made = gc.Net("net")
    h = x = made.input("x", (gc.N, widths[0]))
    for width in widths[1:]:
        h = gc.relu(gc.affine(h, width))
    if shared:
        weight = made.parameter("square", (widths[-1], widths[-1]))
        h = gc.batchnorm(gc.tanh(gc.affine(h, widths[-1], weight=weight)))
        h = gc.affine(h, widths[-1], weight=weight) + gc.affine(x, widths[-1], name="skip")
    made.output("h", h)
    made.loss("loss", gc.softmax_loss(h, made.input("y", (gc.N,), dtype="int64")))
    return made


def plan(made: gc.Net, optimizer: Any) -> Plan:
    """Return the plan of a net for batches of up to 8 rows."""
    return gc.compile(made, batch=8, optimizer=optimizer, backend="numpy")


def alone(patch: pytest.MonkeyPatch) -> None:
    """Let every update be a kernel of its own."""
    patch.setattr(horizontal, "_groups", lambda program, kernels: [])
    patch.setattr(horizontal, "_KNOWN", {})


def trained(made: Plan, steps: int = 4) -> tuple[dict[str, Array], list[float]]:
    """Return the state after some steps and updates, and the losses."""
    ex = gc.Executor(made, seed=1)
    rng = np.random.default_rng(0)
    losses = []
    for n in (8, 5, 8, 1)[:steps]:
        x, y = rng.normal(size=(n, 6)).astype(np.float32), rng.integers(0, 5, n)
        feeds: dict[str, Array] = {"x": x, "y": y}
        losses.append(ex.step(feeds))
        ex.forward(feeds, train=True)
        ex.backward()
        if made.accumulate == 1:
            ex.update()
    return ex.snapshot(), losses


def calls(made: Plan, name: str) -> int:
    """Return how many calls a run of a program takes."""
    ex = gc.Executor(made)
    ex._workspace._gradient_block(made.programs["grad"])
    return len(ex._binder.bound(made.programs[name], 1 if name == "apply" else 8).calls)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("shared", [False, True])
def test_no_bit_changes(
    optimizer: Callable[[], Any], shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = trained(plan(net((6, 17, 5), shared=shared), optimizer()))
    alone(monkeypatch)
    wanted = trained(plan(net((6, 17, 5), shared=shared), optimizer()))
    assert joined[1] == wanted[1]
    for name, array in wanted[0].items():
        np.testing.assert_array_equal(joined[0][name], array, name)


def test_small_updates_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four parameters and their velocities, although padding lies between them."""
    joined = plan(net((6, 17, 5)), gc.SGD(lr=0.1, momentum=0.9))
    counts = {name: calls(joined, name) for name in ("step", "apply")}
    alone(monkeypatch)
    apart = plan(net((6, 17, 5)), gc.SGD(lr=0.1, momentum=0.9))
    padding = 3
    assert calls(apart, "step") - counts["step"] == 3 * 4 - padding
    assert calls(apart, "apply") - counts["apply"] == 3 * 4


def test_padding_stays_zero() -> None:
    """What the scratch holds between heads is not taken for a gradient."""
    made = plan(net((6, 17, 5)), gc.Adam(lr=0.01))
    ex = gc.Executor(made, seed=1)
    ex._workspace.scratch[:] = 0xFF
    rng = np.random.default_rng(0)
    for _ in range(3):
        ex.step(x=rng.normal(size=(8, 6)).astype(np.float32), y=rng.integers(0, 5, 8))
    for block in ex.state.blocks:
        left = block.copy()
        for array in ex.state.arrays.values():
            if np.may_share_memory(array, block):
                start = array.ctypes.data - block.ctypes.data
                left[start : start + array.nbytes] = 0
        assert not left.any()


def test_states_that_are_not_neighbours_are_updated_too() -> None:
    """The second plan trains what the first one has made, in other memory than its slots."""
    first = plan(net((6, 17, 5)), None)
    ex = gc.Executor(first, seed=1)
    second = plan(net((6, 17, 5)), gc.Adam(lr=0.01))
    both = gc.Executor(second, state=ex.state)
    own = gc.Executor(second, seed=1)
    x, y = np.ones((8, 6), np.float32), np.zeros(8, np.int64)
    for _ in range(3):
        assert both.step(x=x, y=y) == own.step(x=x, y=y)
    for name in own.parameters:
        np.testing.assert_array_equal(both.parameters[name], own.parameters[name])


def test_large_updates_stay_in_their_kernels() -> None:
    """Heads write no more than a few hundred kilobytes."""
    made = plan(net((6, 300, 300)), gc.SGD(lr=0.1, momentum=0.9))
    found = horizontal.horizontal(made.programs["step"])
    joined = [update.nbytes for group in found.groups for update in group.updates.values()]
    assert joined
    assert max(joined) < 300 * 300 * 4
    assert all(group.room <= horizontal.MOST for group in found.groups)


def test_a_loop_between_updates_leaves_their_gradients() -> None:
    """Temporaries of a step lie beside the heads of updates that wait."""
    made = gc.Net("net")
    x = made.input("x", (gc.N, 3, 4))

    def step(a: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        h = gc.tanh(gc.affine(gc.softmax(gc.affine(a, 16)), 4) + h)
        return h, h

    _, last = gc.scan(step, x, x[:, 0])
    made.loss("loss", gc.mean(gc.affine(last, 3) ** 2))
    ex = gc.Executor(plan(made, gc.SGD(lr=0.1, accumulate=2)), seed=0)
    rows = np.random.default_rng(0).normal(size=(8, 3, 4)).astype(np.float32)
    ex.forward(x=rows, train=True)
    gradients = ex.backward()
    ex.step(x=rows)
    for name, gradient in gradients.items():
        assert (ex.state[f"{name}.accumulated"] == gradient).all(), name
