"""The work to plan a net grows with its nodes and no faster: calls are counted, not timed."""

from __future__ import annotations

import sys
from types import FrameType

import pytest

import graphc as gc
from tests.tools.benchmarks.compile_scale import KINDS

SIZES = 250, 1_750
"""The nodes of the steps, about: at the first, what happens once for a plan is a small part."""
GROWTH = 1.3
"""How much more work a node may be in the larger net: sorting and sharing of memory take more."""


@pytest.mark.one_in(6)
@pytest.mark.parametrize("kind", KINDS)
def test_a_node_takes_as_many_calls_in_a_large_net(kind: str) -> None:
    declare = KINDS[kind]
    a_node = []
    for nodes in SIZES:
        net = declare(nodes)
        plan, calls = counted(net)
        a_node.append(calls / len(plan.programs["step"].graph))
    assert a_node[1] < GROWTH * a_node[0]


def counted(net: gc.Net) -> tuple[gc.Plan, int]:
    """A plan to train a net, and the calls of functions, Python's and built-in ones, to make it."""
    calls = 0

    def note(frame: FrameType, event: str, what: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        plan = gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1, momentum=0.9))
    finally:
        sys.setprofile(before)
    return plan, calls
