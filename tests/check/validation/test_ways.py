"""Faults in int8, populations, training and exchange files: validation names the way that shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

import graphc as gc
from graphc.check.validation import ValidationError
from graphc.check.validation.executors import Others
from graphc.check.validation.plans import validate_plan
from graphc.check.validation.run import draws_for, far, source_arrays
from passes.segment_scans import segment
from tests.check.validation.faults import Fault, plant
from tests.check.validation.run_nets import layers, slices
from tests.extras import needs


class Planted(NamedTuple):
    """A fault, and the layer that validation must name."""

    layer: str
    where: str
    old: str
    new: str
    net: Callable[[], gc.Net] = layers


QUANTIZE = "passes.quantize_products"
FAULTS = {
    "a weight's scale of all columns": Planted(
        "quantize",
        f"{QUANTIZE}:rounded",
        "axis=tuple(range(wide.ndim - 1))",
        "axis=None",
    ),
    "a step of 128 parts": Planted(
        "quantize", f"{QUANTIZE}:_Rewriter._product", "/ LIMIT, SMALLEST", "/ (LIMIT + 5), SMALLEST"
    ),
    "a range of the first rows": Planted(
        "quantize",
        "graphc.runtime.quantize:_ranges",
        "np.abs(array).max(",
        "np.abs(array[:1]).max(",
    ),
    "no limit of int8": Planted(
        "quantize", "graphc.ops.arithmetic:Quantize.reference", "steps.clip(-127, 127)", "steps"
    ),
    "rates of members that were there before": Planted(
        "population",
        "graphc.runtime.members.states:MemberStates.write",
        "self.places",
        "slice(0, len(self))",
    ),
    "a copy without its seed": Planted(
        "population",
        "graphc.runtime.members.states:MemberStates._put_whole",
        "self.states[row].seed = seed",
        "pass",
    ),
    "rows of members in another order": Planted(
        "population",
        "graphc.runtime.members.feeds:MemberFeeds.of",
        "_chosen(rows, members)",
        "_chosen(rows, members)[::-1]",
    ),
    "the same row again and again": Planted(
        "training",
        "graphc.train.source:ArraySource._since",
        "np.take(source, rows,",
        "np.take(source, 0 * rows,",
    ),
    "an order of rows that goes on from the last": Planted(
        "training",
        "graphc.train.source:ArraySource._batches",
        "self._order.sort()",
        "pass",
    ),
    "padding on the other side": Planted(
        "exchange file",
        "graphc.onnx.export.standard:_pads",
        "for side in (0, 1)",
        "for side in (1, 0)",
        slices,
    ),
}


def other_ways() -> Others:
    """The ways to run a net as an ONNX model."""
    needs("onnx")
    from graphc.onnx.verified import OTHER_WAYS

    return OTHER_WAYS


def judged(net: Callable[[], gc.Net], thorough: bool) -> ValidationError | None:
    plan = gc.compile(net(), batch=5, optimizer=gc.SGD(lr=0.1, momentum=0.9), backend="numpy")
    try:
        validate_plan(plan, thorough, other_ways() if thorough else None)
    except ValidationError as error:
        return error
    return None


@pytest.mark.one_in(3)
@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_is_caught_by_the_way_that_shows_it(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = FAULTS[what]
    plant(Fault(what, fault.net, fault.where, fault.old, fault.new, ""), monkeypatch)
    error = judged(fault.net, fault.layer in ("training", "exchange file"))
    assert error is not None
    assert error.layer == fault.layer, str(error)


def test_right_ways_are_accepted_and_named() -> None:
    plan = gc.compile(slices(), batch=5, optimizer=gc.SGD(lr=0.1), backend="numpy")
    ways = other_ways()
    ran = validate_plan(plan, thorough=True, others=ways)
    assert {"quantize", "members of a population", "gc.fit and its checkpoints"} < {*ran.ways}
    assert {*ways} < {*ran.ways}
    assert "infer in int8" in ran.programs
    assert not ran.left


def test_one_draw_has_ties_and_numbers_at_which_functions_saturate() -> None:
    net = gc.Net("far")
    net.output("y", gc.tanh(net.input("x", (gc.N, 40))))
    graph = net.graph()
    (draw,) = draws_for(graph, [7])
    x = source_arrays(graph, far(graph, draw))["x"]
    assert np.abs(x).max() > 50
    assert {0.5, 1.5, -2.5, 1 + 2.0**-8} <= {*x.ravel().tolist()}
    steep = gc.Net("steep")
    steep.output("y", gc.exp(2 * steep.input("x", (gc.N, 40))))
    graph = steep.graph()
    (draw,) = draws_for(graph, [7])
    assert 3 < np.abs(source_arrays(graph, far(graph, draw))["x"]).max() < 40


def test_lengths_end_where_segments_begin_and_the_longest_row_is_the_last() -> None:
    steps = 64
    net = gc.Net("loop")
    x = net.input("x", (gc.N, steps, 2))
    net.output("y", gc.lstm(x, 3, lengths=gc.lengths(x))[0])
    graph, size = net.graph(), segment(steps)
    assert size is not None
    one, several = draws_for(graph, [1, 9])
    (name,) = several.most
    alone, rows = (source_arrays(graph, draw)[name] for draw in (one, several))
    assert alone.tolist() == [size + 1]
    assert rows[-1] == steps and rows[0] < steps
    assert size + 1 in rows.tolist()
