"""The layers that are multiplied in bfloat16 if the compiler chooses: those it makes faster."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.backends.backend import backend
from graphc.features.precision.choice import chosen_precision, relative_times
from graphc.ir.forms import TermOrder
from graphc.runtime.freeze import frozen


def stack(width: int, channels: int = 0) -> gc.Net:
    """A net of a narrow and a wide layer, and perhaps a convolution before them."""
    net = gc.Net("stack")
    x, y = net.input("x", (gc.N, 8, 8, 3) if channels else (gc.N, width)), net.input("y", (gc.N, 9))
    h = gc.flatten(gc.conv2d(x, channels, 3, name="images")) if channels else x
    h = gc.relu(gc.affine(h, width, name="wide"))
    scores = net.output("scores", gc.affine(h, 9, name="narrow"))
    net.loss("loss", gc.mse_loss(scores, y))
    return net


def executor(net: gc.Net, **options: object) -> gc.Executor:
    return gc.Executor(gc.compile(net, batch=2, backend="numpy", **options))  # type: ignore[arg-type]


def chosen(
    net: gc.Net, batch: int, pairs: float, blocks: float = 0, trains: bool = False
) -> dict[str, str]:
    """The layers that are chosen for a frozen net, or for one that trains, given the rates."""
    graph = net.graph() if trains else frozen(executor(net))
    rates: dict[TermOrder, float] = {"pairs": pairs, "blocks": blocks}
    times = relative_times(graph, batch, trains, {to: x for to, x in rates.items() if x})
    return {layer: to for layer, to in chosen_precision(times) if to != "float32"}


@pytest.mark.parametrize("rate", [1.0, 2.0])
def test_few_rows_read_large_constant_weights_in_half_the_time(rate: float) -> None:
    assert chosen(stack(1024), 1, rate)["wide"] == "bf16"
    assert chosen(stack(1024), 6, rate)["wide"] == "bf16"
    assert chosen(stack(100), 1, rate) == {}


@pytest.mark.parametrize(("layers", "found"), [(3, 0), (5, 5)])
def test_weights_that_together_are_large_are_far(layers: int, found: int) -> None:
    net = gc.Net("deep")
    h = net.input("x", (gc.N, 400))
    for _ in range(layers):
        h = gc.relu(gc.affine(h, 400))
    net.output("h", h)
    assert len(chosen(net, 1, 1.0)) == found


def test_weights_that_change_are_rounded_at_every_run() -> None:
    assert chosen(stack(1024), 1, 1.0, trains=True) == {}


def test_many_rows_need_an_instruction() -> None:
    for trains in (False, True):
        assert chosen(stack(1024), 512, 1.0, trains=trains) == {}
        assert chosen(stack(1024), 512, 2.0, trains=trains) == {"wide": "bf16"}
        assert chosen(stack(1024), 512, 0.0, trains=trains) == {}


def test_many_rows_are_multiplied_in_blocks_where_these_are_fast() -> None:
    for trains in (False, True):
        assert chosen(stack(1024), 512, 1.0, 8.0, trains) == {"wide": "bf16_blocks"}
    assert chosen(stack(1024), 512, 2.0, 2.0) == {"wide": "bf16"}
    assert chosen(stack(1024), 1, 1.0, 8.0)["wide"] == "bf16"


def test_a_narrow_layer_fills_a_part_of_its_tiles() -> None:
    rates: dict[TermOrder, float] = {"blocks": 8.0}
    wide, narrow = relative_times(stack(1024).graph(), 512, True, rates).values()
    assert wide["bf16_blocks"] < 0.4 < narrow["bf16_blocks"]


def test_convolutions_are_widened() -> None:
    assert chosen(stack(600, 200), 512, 2.0) == {"wide": "bf16"}
    assert chosen(stack(600, 200), 512, 2.0, 8.0) == {"wide": "bf16_blocks"}


def loop(units: int, steps: int) -> gc.Net:
    """A net of an LSTM."""
    net = gc.Net("loop")
    x, y = net.input("x", (gc.N, steps, units)), net.input("y", (gc.N, steps, units))
    h, _ = gc.lstm(x, units, name="memory")
    net.loss("loss", gc.mse_loss(net.output("h", h), y))
    return net


def test_products_in_the_steps_of_a_loop_are_chosen_by_the_rows_of_a_step() -> None:
    steps = "memory.affine_1", "memory.affine_2"
    for trains in (False, True):
        assert chosen(loop(128, 3), 64, 1.0, 8.0, trains) == dict.fromkeys(steps, "bf16_blocks")
        assert chosen(loop(128, 3), 1, 1.0, 8.0, trains) == {}


def test_few_rows_read_the_large_weights_of_a_loop_at_each_step() -> None:
    assert set(chosen(loop(512, 3), 1, 1.0).values()) == {"bf16"}
    assert chosen(loop(256, 3), 1, 1.0) == {}  # it stays near from step to step


def test_a_loop_rounds_its_weights_once() -> None:
    rates: dict[TermOrder, float] = {"blocks": 8.0}
    nets = [loop(128, steps).graph() for steps in (1, 32)]
    one, many = (relative_times(net, 64, True, rates)["memory.affine_2"] for net in nets)
    assert many["bf16_blocks"] < 0.9 * one["bf16_blocks"]


def test_a_loop_packs_its_weights_once() -> None:
    """So 8 rows of a step gain, which do not in a layer that packs its weight for them."""
    assert set(chosen(loop(128, 32), 8, 1.0, 8.0, trains=True).values()) == {"bf16_blocks"}
    assert chosen(stack(512), 8, 1.0, 8.0, trains=True) == {}


def test_sums_are_stored_and_weights_are_rounded_and_packed_in_each_step_of_training() -> None:
    assert chosen(stack(512), 24, 1.0, 8.0, trains=True) == {}
    assert chosen(stack(512), 64, 1.0, 8.0, trains=True) == {"wide": "bf16_blocks"}


def test_constants_are_copied_unless_their_last_block_is_whole() -> None:
    assert chosen(stack(100), 8, 0.0, 8.0) == {}
    assert chosen(stack(128), 8, 0.0, 8.0) == {"wide": "bf16_blocks"}


def test_a_plan_tells_what_it_chose() -> None:
    net = stack(8)
    assert gc.compile(net, batch=4, backend="numpy", precision="bf16").precision == {}
    given = {"*": "bf16", "narrow": "float32"}
    plan = gc.compile(net, batch=4, backend="numpy", precision=given)  # type: ignore[arg-type]
    assert plan.precision == given
    assert "products of bfloat16: wide\n  products of float32: narrow" in plan.report()


def test_a_report_tells_what_each_layer_would_take() -> None:
    net = stack(1024)
    options = {"backend": "native", "batch": 512, "optimizer": gc.SGD(lr=0.1)}
    plan = gc.compile(net, precision={"narrow": "bf16"}, **options)  # type: ignore[arg-type]
    times = relative_times(net.graph(), 512, True, backend("native").rates_of_orders())
    assert f"  products of bfloat16: narrow ({times['narrow']['bf16']:.2f})" in plan.report()
    assert f"  products of float32: wide ({min(times['wide'].values()):.2f})" in plan.report()


def test_another_precision_is_told() -> None:
    with pytest.raises(gc.GraphError, match=r"neither 'bf16' nor a mapping .*: 'fp16'"):
        gc.compile(stack(8), batch=4, backend="numpy", precision="fp16")  # type: ignore[arg-type]


def test_a_precision_needs_the_passes_that_round() -> None:
    for name in ("set_precision", "round_products"):
        with pytest.raises(gc.GraphError, match=rf"^pass '{name}' is required"):
            gc.passes.without(name)
    passes = gc.passes.PassList(tuple(p for p in gc.passes.DEFAULT if p != "set_precision"))
    with pytest.raises(gc.GraphError, match=r"^precision= needs the pass 'set_precision'"):
        gc.compile(stack(8), batch=4, backend="numpy", passes=passes, precision={"*": "bf16"})
    gc.compile(stack(8), batch=4, backend="numpy", passes=passes, precision={"*": "float32"})


def test_a_frozen_net_has_the_precision_that_is_asked_for() -> None:
    ex, x = executor(stack(8)), np.linspace(-1, 1, 16).reshape(2, 8)
    rounded = gc.freeze(ex, batch=2, precision={"wide": "bf16"})
    other = executor(stack(8), precision={"wide": "bf16"})
    other.parameters.copy_from(ex.parameters)
    assert np.array_equal(rounded.predict(x), other.predict(x))
    assert not np.array_equal(rounded.predict(x), ex.predict(x))
    assert gc.freeze(ex, batch=2).plan.precision == {}
