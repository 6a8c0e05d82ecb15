from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.ir.graph import Graph
from graphc.ops.shape import Cast, Transpose
from graphc.ops.source import Constant
from graphc.ops.sums import BroadcastTo
from graphc.runtime.reference import evaluate
from passes.dead_code import dead_code
from passes.fold_constants import fold_constants
from tests.passes.same import assert_preserved, differentiated, frozen, specialized
from tests.tools.generate import nets

BEFORE = """\
graph net
x: float32[N, 6] = input()
constant_1: float32[] = constant()  data=[0.0]
exp_1: float32[] = exp(constant_1)
mul_1: float32[N, 6] = mul(x, exp_1)
reshape_1: float32[N, 2, 3] = reshape(mul_1)
neg_1: float32[N, 2, 3] = neg(reshape_1)
neg_2: float32[N, 2, 3] = neg(neg_1)
y: float32[N, 3, 2] = reshape(neg_2)
output y = y
"""

AFTER = """\
graph net
x: float32[N, 6] = input()
y: float32[N, 3, 2] = reshape(x)
output y = y
"""


def test_golden() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 6))
    h = x * gc.exp(net.constant(0.0))
    h = gc.neg(gc.neg(gc.reshape(h, (gc.N, 2, 3))))
    net.output("y", gc.reshape(h, (gc.N, 3, 2), name="y"))
    assert str(net.graph()) == BEFORE
    assert str(dead_code(fold_constants(net.graph()))) == AFTER


Make = Callable[[gc.Value], gc.Value]
GONE: dict[str, Make] = {
    "x * 1": lambda x: x * 1,
    "1 * x": lambda x: 1 * x,
    "x / 1": lambda x: x / 1,
    "x - 0": lambda x: x - 0,
    "x ** 1": lambda x: x**1,
    "-(-x)": lambda x: gc.neg(gc.neg(x)),
    "x[:]": lambda x: gc.reshape(x, x.shape),
    "cast to the own dtype": lambda x: gc.apply(Cast("float32"), x),
    "transposed twice": lambda x: gc.transpose(gc.transpose(x, (1, 0, 2)), (1, 0, 2)),
    "broadcast to the own shape": lambda x: gc.apply(BroadcastTo(x.shape), x),
    "joined with nothing": lambda x: gc.concat([x], 1),
    "sliced whole": lambda x: x[:, 0:2],
    "cut out of what it is joined with": lambda x: gc.concat([gc.exp(x), x, x], 1)[:, 2:4],
    "transposed before and after an axis of one entry": lambda x: gc.reshape(
        gc.transpose(gc.unsqueeze(x, 1), (0, 2, 1, 3)), x.shape
    ),
}
KEPT: dict[str, Make] = {
    "x + 0, which makes 0.0 of -0.0": lambda x: x + 0,
    "x - -0.0": lambda x: x - (-0.0),
    "x * 2": lambda x: x * 2,
    "1 / x": lambda x: 1 / x,
    "0 - x": lambda x: 0 - x,
    "a gradient is stopped": gc.stop_gradient,
}


def folded(make: Make) -> tuple[Graph, Graph]:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 2, 3))
    net.output("y", make(x))
    graph = net.graph()
    return graph, dead_code(fold_constants(graph))


@pytest.mark.parametrize("make", GONE.values(), ids=GONE)
def test_what_changes_no_bit_is_left_out(make: Make) -> None:
    _, after = folded(make)
    assert after.outputs["y"] == "x"


@pytest.mark.parametrize("make", KEPT.values(), ids=KEPT)
def test_what_may_change_a_bit_stays(make: Make) -> None:
    _, after = folded(make)
    assert after.outputs["y"] != "x"


@given(st.lists(st.floats(width=32), min_size=6, max_size=6))
def test_identities_keep_every_bit_of_any_number(numbers: list[float]) -> None:
    x = np.array(numbers, np.float32).reshape(1, 2, 3)
    for name, make in GONE.items():
        graph, _ = folded(make)
        with np.errstate(all="ignore"):
            y = evaluate(graph, {"x": x}, {}, 1)[graph.outputs["y"]]
        kept = np.isnan(x) & np.isnan(y) | (x.view(np.int32) == y.view(np.int32))
        assert kept.all(), name  # the payload of a NaN is nobody's number


def test_one_broadcast_up_by_ones_stays() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 1))
    net.output("y", x * net.constant(np.ones((1, 3), np.float32)))
    graph = net.graph()
    assert fold_constants(graph) is graph


def test_two_transposes_become_one() -> None:
    net = gc.Net("net")
    x = net.input("x", (2, 3, 5))
    net.output("y", gc.transpose(gc.transpose(x, (2, 0, 1)), (0, 2, 1), name="y"))
    after = dead_code(fold_constants(net.graph()))
    assert str(after["y"].op) == "Transpose(axes=(2, 1, 0))"
    assert after["y"].inputs == ("x",)


def test_a_slice_of_joined_values_reads_the_part_that_has_it() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 4, 3))
    y = net.input("y", (gc.N, 2, 3))
    joined = gc.concat([y, x], 1)
    for name, rows in {"one": slice(3, 6, 2), "both": slice(1, 3), "back": slice(5, 2, -1)}.items():
        net.output(name, gc.exp(joined[:, rows, :2], name=name))
    graph = net.graph()
    after = fold_constants(graph)
    reads = {name: after[after[name].inputs[0]] for name in after.outputs}
    assert {name: node.inputs[0] for name, node in reads.items()} == {
        "one": "x",
        "both": "concat_1",
        "back": "concat_1",
    }
    assert reads["one"].op.cuts == ((1, 1, 4, 2), (2, 0, 2, 1))
    numbers = np.random.default_rng(0).normal(size=(5, 6, 3)).astype(np.float32)
    feeds = {"y": numbers[:, :2], "x": numbers[:, 2:]}
    found, wanted = (evaluate(g, feeds, {}, 5) for g in (after, graph))
    for name in after.outputs:
        np.testing.assert_array_equal(found[name], wanted[name])


def test_large_results_are_not_folded() -> None:
    net = gc.Net("net")
    small = net.constant(np.ones((1, 50), np.float32))
    x = net.input("x", (50, 50))
    net.output("y", x + gc.broadcast_to(small, (50, 50)))
    net.output("z", gc.exp(net.constant(np.zeros((50, 50), np.float32)), name="z"))
    after = fold_constants(net.graph())
    assert after["broadcast_to_1"].op.name == "broadcast_to"
    assert isinstance(after["z"].op, Constant)


def test_results_that_depend_on_the_batch_are_not_folded() -> None:
    net = gc.Net("net")
    net.input("x", (gc.N,))
    net.output("y", gc.broadcast_to(net.constant(2.0), (gc.N,)))
    graph = net.graph()
    assert fold_constants(graph) is graph


def test_frozen_weights_are_folded_but_not_looked_at() -> None:
    """New weights may come later: ones today are no reason to leave a product out."""
    net = gc.Net("net")
    x = net.input("x", (gc.N, 2))
    scale = net.parameter("scale", (2,), init="ones")
    net.output("y", x * scale + gc.exp(scale))
    graph = frozen(net)
    ones = Constant((2,), "float32", np.ones(2, np.float32).tobytes(), "scale")
    graph = graph.replace({"scale": gc.Node("scale", ones, (), graph["scale"].type)})
    after = fold_constants(graph)
    assert after["mul_1"].op.name == "mul"
    assert isinstance(after["exp_1"].op, Constant)
    assert after["exp_1"].op.label == "exp_1"


def test_a_frozen_weight_beside_a_constant_is_not_looked_at_either() -> None:
    """1 + w of a weight that is zero today, as normalizations write it, takes new numbers."""
    net = gc.Net("net")
    x = net.input("x", (gc.N, 2))
    net.output("y", x * (1 + net.parameter("w", (2,), init="zeros")))
    ex = gc.Executor(gc.compile(net, batch=2, backend="numpy"))
    served = gc.freeze(ex, batch=2)
    ex.parameters["w"] = [2.0, 3.0]
    served.refresh(ex)
    assert served.forward(x=np.ones((2, 2)))["y"].tolist() == [[3, 4]] * 2


@settings(max_examples=12, deadline=None)
@given(net=nets())
def test_random_graphs_keep_every_bit(net: gc.Net) -> None:
    assert_preserved(fold_constants, specialized(net), 3)
    assert_preserved(fold_constants, differentiated(net), 2)
    after = assert_preserved(fold_constants, frozen(net), 2)
    assert fold_constants(after) is after


def test_a_transpose_to_the_same_shape_stays() -> None:
    net = gc.Net("net", dtype="float64")
    x = net.input("x", (3, 3))
    net.output("y", gc.transpose(x, (1, 0)))
    net.output("z", gc.transpose(gc.transpose(net.input("c", (2, 2, 2)), (1, 2, 0)), (1, 2, 0)))
    graph = specialized(net, train=False)
    made = fold_constants(graph)
    assert [n.op for n in made if n.op.name == "transpose"][-1] == Transpose((2, 0, 1))
    assert_preserved(fold_constants, graph, 1)


@pytest.mark.parametrize(("size", "gone"), [(4096, True), (4097, False)])
def test_up_to_4096_ones_are_looked_at(size: int, gone: bool) -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, size))
    net.output("y", x * net.constant(np.ones(size, np.float32)))
    made = fold_constants(net.graph())
    assert (made.outputs["y"] == "x") == gone


@pytest.mark.parametrize(("numbers", "folds"), [(1024, True), (1025, False)])
def test_a_larger_result_is_folded_up_to_4096_bytes(numbers: int, folds: bool) -> None:
    net = gc.Net("net")
    one = net.constant(np.ones((1, 1), np.float32))
    net.output("y", gc.apply(BroadcastTo((1, numbers)), one))
    made = fold_constants(net.graph())
    assert isinstance(made[made.outputs["y"]].op, Constant) == folds


def test_a_result_as_large_as_what_it_is_made_of_is_folded() -> None:
    net = gc.Net("net")
    half = net.constant(np.ones((1, 2000), np.float32))
    other = net.constant(np.zeros((1, 2000), np.float32))
    net.output("both", gc.concat([half, other], 0))
    net.output("more", gc.apply(BroadcastTo((2, 2000)), half))
    made = fold_constants(net.graph())
    assert isinstance(made[made.outputs["both"]].op, Constant)
    assert not isinstance(made[made.outputs["more"]].op, Constant)


def test_a_constant_joined_with_itself_does_not_grow() -> None:
    """Else thirty lines of a file would fold to a gigabyte, which is planned but never run."""
    net = gc.Net("net")
    value = net.constant(np.ones((1, 2000), np.float32))
    for _ in range(30):
        value = gc.concat([value, value], 0)
    net.output("y", value)
    made = fold_constants(net.graph())
    assert not isinstance(made["concat_1"].op, Constant)


def test_the_bytes_of_folded_results_are_bounded() -> None:
    net = gc.Net("net")
    value = net.constant(np.ones((1, 2000), np.float32))
    for _ in range(30):
        value = gc.concat([value, gc.neg(value)], 0)
    net.output("y", value)
    made = fold_constants(net.graph())
    folded = [node.type.nbytes(1) for node in made if isinstance(node.op, Constant)]
    assert sum(folded) < 20_000_000


@pytest.mark.parametrize("wrong", ["shape", "dtype"])
def test_an_op_that_breaks_its_word_is_left_to_be_told_of(wrong: str) -> None:
    class Liar(gc.Op):
        name = "liar"

        def infer(self, ins):  # type: ignore[no-untyped-def]
            return ins[0]

        def reference(self, ins):  # type: ignore[no-untyped-def]
            return ins[0][:1] if wrong == "shape" else ins[0].astype("float64")

    net = gc.Net("net")
    net.output("y", gc.apply(Liar(), net.constant(np.ones(3, np.float32)), name="y"))
    graph = net.graph()
    assert fold_constants(graph) is graph


def test_what_overflows_is_folded_without_a_warning() -> None:
    net = gc.Net("net")
    net.output("y", gc.exp(net.constant(1000.0)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = fold_constants(net.graph())
    op = made[made.outputs["y"]].op
    assert isinstance(op, Constant)
    assert np.isinf(op.array())


def test_a_pin_keeps_only_what_is_pinned() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 2))
    net.output("y", gc.tanh(x * 1) + gc.exp(net.constant(0.0)))
    graph = net.graph()
    pinned = Graph("net", graph, outputs=graph.outputs, gradients={"tanh_1": "tanh_1"})
    made = fold_constants(pinned)
    assert isinstance(made["exp_1"].op, Constant)
    pinned = Graph("net", graph, outputs=graph.outputs, gradients={"mul_1": "mul_1"})
    assert "mul_1" in fold_constants(pinned)


def test_what_takes_long_stays_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of constants are computed as long as their operations are few."""
    net = gc.Net("products")
    h = net.constant(np.ones((8, 8), np.float32))
    for _ in range(4):
        h = gc.matmul(h, h)
    net.output("y", gc.sum(h))
    flops, moved = 2 * 8**3, 4 * 4 * 8 * 8
    limits = vars(sys.modules["passes.fold_constants"])
    monkeypatch.setitem(limits, "WORK", 2 * (flops + moved))
    monkeypatch.setitem(limits, "WORK_EACH", 0)
    made = fold_constants(net.graph())
    assert sum(node.op.name == "matmul" for node in made) == 2
