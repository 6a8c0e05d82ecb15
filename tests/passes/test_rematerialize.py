"""Clones: what they read, where they stand, and that they change no bit."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.compiler.program import build_program
from graphc.compiler.remat.values import Values
from graphc.ir.graph import Graph, boundary
from graphc.ir.op import Source
from graphc.kernels.program import Program
from graphc.ops.fused import After
from graphc.ops.source import Parameter
from passes.cse import cse
from passes.dead_code import dead_code
from passes.rematerialize import Rematerialize
from passes.update import Update
from tests.compiler.remat.nets import BACKENDS, SGD, deep, residual
from tests.passes.same import assert_preserved, differentiated
from tests.tools.generate import nets


def small() -> gc.Net:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 4))
    w = net.parameter("w", (4, 4))
    t = gc.dropout(gc.tanh(gc.matmul(x, w, name="a"), name="t"), keep_prob=0.5, name="h")
    net.loss("loss", gc.sum(gc.tanh(gc.matmul(t, w, name="c"), name="u"), name="loss"))
    return net


GOLDEN = """\
d_c = mul(d_u, d_u.sub_1)
d_h = matmul(d_c, w)
a.late = after(a, d_c)
t.recomputed = tanh(a.late)
seed.late = after(seed, d_c)
h.mask.recomputed = dropout_mask(seed.late, draws)
h.recomputed = mul(t.recomputed, h.mask.recomputed)
d_w.1 = matmul(h.recomputed, d_c)
d_t = mul(d_h, h.mask.recomputed)
d_t.mul_1 = mul(t.recomputed, t.recomputed)
"""


def test_golden() -> None:
    before = dead_code(differentiated(small()))
    after = Rematerialize(frozenset({"t", "h.mask", "h"}))(before)
    told = [f"{node.name} = {node.op.name}({', '.join(node.inputs)})" for node in after]
    first = told.index("d_c = mul(d_u, d_u.sub_1)")
    expected = GOLDEN.splitlines()
    assert told[first : first + len(expected)] == expected
    assert (after.outputs, after.gradients, after.updates) == (
        before.outputs,
        before.gradients,
        before.updates,
    )


def test_nothing_to_do_gives_the_same_graph() -> None:
    graph = differentiated(small())
    assert Rematerialize(frozenset())(graph) is graph
    assert Rematerialize(frozenset({"loss"}))(graph) is graph  # nothing behind it reads it


def test_a_step_reads_its_states_without_a_copy() -> None:
    """The update of the counter waits for the clone instead; where a run stops it cannot."""
    graph = dead_code(Update(SGD)(differentiated(small())))
    after = Rematerialize(frozenset({"h.mask"}))(graph)
    assert after["h.mask.recomputed"].inputs == ("seed.late", "draws")
    place = first_runs(build_program("step", after, 3, "numpy"))
    assert place["h.mask"] < place["h.mask.recomputed"] < place["draws.next"]
    assert "draws.before" not in place
    halves = Rematerialize(frozenset({"h.mask"}))(dead_code(differentiated(small())))
    place = first_runs(build_program("grad", halves, 3, "numpy"))
    assert place["draws.before"] <= place["draws.next"] < place["h.mask.recomputed"]


def test_what_is_not_read_before_the_losses_is_only_moved() -> None:
    graph = dead_code(differentiated(small()))
    made = Rematerialize(frozenset({"t"}))(graph)
    assert "t" in made  # the forward part reads it
    net = small()
    net.output("seen", gc.relu(net["a"], name="seen"))
    graph = dead_code(differentiated(net))
    assert "u.recomputed" in Rematerialize(frozenset({"u"}))(graph)


def test_names_that_are_taken_are_left_alone() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 4))
    h = gc.tanh(gc.affine(x, 4), name="h")
    net.loss("loss", gc.mean(gc.tanh(h + gc.exp(x, name="h.recomputed"))))
    after = Rematerialize(frozenset({"h"}))(differentiated(net))
    assert after["h.recomputed"].op.name == "exp"
    assert after["h.recomputed_"].op.name == "tanh"


def chosen(graph: Graph, seed: int) -> frozenset[str]:
    """Some of what may be computed again, and the other names of it."""
    r = random.Random(seed)
    values = [value for value in Values(graph, 3).all if value.may_recompute and r.random() < 0.6]
    return frozenset(name for value in values for name in value.names)


@given(nets(), st.integers(0, 99), st.sampled_from([1, 3]))
@settings(max_examples=12, deadline=None)
def test_results_keep_every_bit(net: gc.Net, seed: int, n: int) -> None:
    graph = dead_code(differentiated(net))
    assert_preserved(Rematerialize(chosen(graph, seed)), graph, n)
    graph = dead_code(Update(SGD)(graph))
    assert_preserved(Rematerialize(chosen(graph, seed)), graph, n)


@given(nets(), st.integers(0, 99))
@settings(max_examples=12, deadline=None)
def test_no_clone_is_merged_with_what_it_repeats(net: gc.Net, seed: int) -> None:
    graph = cse(dead_code(Update(SGD)(differentiated(net))))
    made = Rematerialize(chosen(graph, seed))(graph)
    clones = {n.name for n in made if n.name not in graph and not isinstance(n.op, After)}
    assert clones <= cse(made).nodes.keys()


@given(nets(), st.integers(0, 99))
@settings(max_examples=12, deadline=None)
def test_states_change_once_and_by_what_the_forward_part_computes(net: gc.Net, seed: int) -> None:
    graph = dead_code(Update(SGD)(differentiated(net)))
    made = Rematerialize(chosen(graph, seed))(graph)
    assert made.updates == graph.updates
    for state, value in graph.updates.items():
        if not isinstance(graph[state].op, Parameter) and "velocity" not in state:
            assert made[value] == graph[value]


# ---------------------------------------------------------------- the order of what runs


def first_runs(program: Program) -> dict[str, int]:
    """For each node the instruction that computes it; aliases run with what they alias."""
    found: dict[str, int] = {}
    for i, instr in enumerate(program.instrs):
        for name in (instr.node, *instr.nodes, *instr.outs):
            found.setdefault(name, i)
    return found


@pytest.mark.one_in(3)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["step", "grad"])
@pytest.mark.parametrize("net", [deep(6, 32), residual(4, 32)], ids=["deep", "residual"])
def test_clones_run_late(net: gc.Net, name: str, backend: str) -> None:
    """Not before the losses, nor before the value that they wait for is begun."""
    plan = gc.compile(net, batch=64, optimizer=SGD, backend=backend)
    graph = plan.programs[name].graph
    made = Rematerialize(chosen(graph, 1))(graph)
    program = build_program(name, made, 64, backend)
    place = first_runs(program)
    losses = place[made.outputs["loss"]]
    forward = made.forward()
    last = max(place[n] for n in forward if n in place and n != made.outputs["loss"])
    clones = [n for n in made if n.name not in graph and not isinstance(n.op, (After, Source))]
    assert clones
    for clone in clones:
        assert place[clone.name] > last or place[clone.name] > losses
        for operand in clone.inputs:
            if isinstance(made[operand].op, After):
                event = made[operand].inputs[1]
                assert place.get(event, -1) < place[clone.name] or event == made.outputs["loss"]
    if name == "grad":
        assert min(place[clone.name] for clone in clones) >= program.boundary


def test_the_border_is_the_last_node_that_an_output_needs() -> None:
    graph = differentiated(small())
    order = list(graph)
    assert order[boundary(graph, order)].name == "loss"
