"""check_pass finds what is wrong with a pass, on random nets, and accepts what is right."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.check import random_net
from graphc.check.check_pass import PassReport, check_pass, named_ops
from graphc.check.random_net import DRAWS
from graphc.check.validation import validate_pass
from graphc.check.validation.validate import stages
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array, Op
from graphc.ir.tensor_type import TensorType
from graphc.ops.dropout import DropoutMask
from graphc.ops.elementwise import Add, Mul, Neg, Power, Sub
from graphc.ops.functions import Abs, Tanh
from graphc.ops.optim import Momentum, SgdStep
from graphc.ops.reduce import Mean, MeanGrad, Min
from graphc.ops.select import Relu, ReluGrad, Where
from graphc.ops.source import Constant, Parameter
from graphc.ops.sums import BroadcastTo, Sum
from passes.contract import Pass, graph_pass
from passes.recompute_scans import recompute_scans
from passes.repeat_elements import repeat_elements
from passes.segment_scans import segment_scans
from passes.specialize import Specialize
from passes.split_scans import split_scans
from passes.transpose_factors import transpose_factors
from passes.widen_sums import widen_sums
from tests.check.validation.test_validate import run_test
from tests.together import together

Change = Callable[[Graph, Node], "Node | str | None"]
"""A node for a node, the name of a node to read instead, or None to leave it."""


def rewrite(*kinds: type[Op], to: Change, preserves: Any = "bitwise", bound: Any = None) -> Pass:
    """The pass that changes each node of these kinds."""

    def mine(graph: Graph) -> Graph:
        changed: dict[str, Node | None] = {}
        reads: dict[str, str] = {}
        for node in graph:
            if isinstance(node.op, kinds):
                made = to(graph, node)
                if isinstance(made, str):
                    reads[node.name] = reads.get(made, made)
                elif made is not None and made != node:
                    changed[node.name] = made
        return graph.replace(changed, reads).pruned() if changed or reads else graph

    return graph_pass(preserves, bound)(mine)


def number_of(graph: Graph, name: str) -> float | None:
    """The number of a constant of one element."""
    op = graph[name].op
    return float(op.array().reshape(-1)[0]) if isinstance(op, Constant) and op.shape == () else None


def other(graph: Graph, node: Node, number: float, positions: tuple[int, ...] = (0, 1)) -> Any:
    """The operand beside a constant of that number and sign, if it has the node's type."""
    for position in positions:
        found = number_of(graph, node.inputs[position])
        name = node.inputs[1 - position]
        if found == number and np.signbit(found) == np.signbit(number):
            return name if graph[name].type == node.type else None
    return None


def with_op(node: Node, op: Op, *inputs: str) -> Node:
    return Node(node.name, op, inputs or node.inputs, node.type, node.locs)


def roots(graph: Graph, **kept: Any) -> Graph:
    """The graph with other roots."""
    own = {
        "outputs": graph.outputs,
        "losses": graph.losses,
        "gradients": graph.gradients,
        "updates": graph.updates,
    }
    return (
        graph
        if all(own[k] == v for k, v in kept.items())
        else Graph(graph.name, graph, **{**own, **kept})
    )


def without_first(found: Any) -> dict[str, str]:
    return dict(list(found.items())[1:])


def raising(error: Exception) -> Pass:
    def mine(graph: Graph) -> Graph:
        raise error

    return graph_pass("bitwise")(mine)


@graph_pass("bitwise")
def fails(graph: Graph) -> Graph:
    raise KeyError("relu")


@graph_pass("bitwise")
def keeps_a_type(graph: Graph) -> Graph:
    """relu(x) for sum(x), of the sum's type."""
    changed: dict[str, Node | None] = {
        n.name: with_op(n, Relu()) for n in graph if isinstance(n.op, Sum)
    }
    return graph.replace(changed)


@graph_pass("bitwise")
def reads_nowhere(graph: Graph) -> Graph:
    """tanh of a node that is not there."""
    changed: dict[str, Node | None] = {
        n.name: with_op(n, n.op, "nowhere") for n in graph if isinstance(n.op, Tanh)
    }
    return graph.replace(changed)


@graph_pass("bitwise")
def careless_cse(graph: Graph) -> Graph:
    """Merges nodes of one kind and the same operands, whatever their attributes."""
    known: dict[Any, str] = {}
    reads: dict[str, str] = {}
    for node in graph:
        key = node.op.name, node.inputs, node.type
        if node.inputs and known.setdefault(key, node.name) != node.name:
            reads[node.name] = known[key]
    return graph.rename_reads(reads)


numbers = itertools.count()


@graph_pass("bitwise")
def unsteady(graph: Graph) -> Graph:
    return Graph(f"{graph.name}{next(numbers)}", graph, outputs=graph.outputs, losses=graph.losses,
                 gradients=graph.gradients, updates=graph.updates)  # fmt: skip


@graph_pass("bitwise")
def dropped_states(graph: Graph) -> Graph:
    """Drops the updates of states that are no parameters."""
    kept = {k: v for k, v in graph.updates.items() if graph[k].op.is_parameter}
    return roots(graph, updates=kept)


def other_sum(graph: Graph, node: Node) -> Node | None:
    """y + (x + y) for (x + y) + z."""
    first = graph[node.inputs[0]]
    if not isinstance(first.op, Add) or first.type != node.type:
        return None
    x, y = first.inputs
    same = all(graph[n].type == node.type for n in (x, y, node.inputs[1]))
    return with_op(node, Add(), y, first.name) if same and y != x else None


# fmt: off
WRONG: dict[str, tuple[Pass, str]] = {
    "losses dropped": (
        graph_pass("bitwise")(lambda g: roots(g, losses=())), "loss 'loss' is no longer a loss"),
    "an output dropped": (
        graph_pass("bitwise")(lambda g: roots(g, outputs={
            k: v for k, v in g.outputs.items() if k != "out0"})), "output 'out0' is gone"),
    "gradients dropped": (
        graph_pass("bitwise")(lambda g: roots(g, gradients={})), "gradient 'p' is gone"),
    "updates dropped": (
        graph_pass("bitwise")(lambda g: roots(g, updates=without_first(g.updates))), "is gone"),
    "running statistics dropped": (dropped_states, "is gone"),
    "an output added": (
        graph_pass("bitwise")(lambda g: roots(g, outputs={**g.outputs, "more": g.outputs["loss"]}
            if "loss" in g.outputs else g.outputs)), "output 'more' was not there before"),
    "never fires": (rewrite(Min, to=lambda g, n: None), "not judged, as it never fired on"),
    "returns None": (graph_pass("bitwise")(lambda g: None), "gave NoneType, not a Graph"),
    "returns nodes": (graph_pass("bitwise")(lambda g: list(g)), "gave list, not a Graph"),
    "raises": (fails, "it fails: KeyError: 'relu', at test_check_pass.py:"),
    "asserts": (raising(AssertionError()), "it fails: AssertionError, at test_check_pass.py:"),
    "a type that is wrong": (keeps_a_type, "its op infers"),
    "a node that is not there": (reads_nowhere, "reads 'nowhere', which"),
    "nothing changed": (
        graph_pass("bitwise")(lambda g: g.with_nodes(list(g))), "in which nothing is changed: ret"),
    "another graph each time": (unsteady, "two runs on one graph make different graphs"),
    "relu's gradient flows everywhere": (
        rewrite(ReluGrad, to=lambda g, n: n.inputs[1]), "gradient"),
    "mean's gradient not divided": (
        rewrite(MeanGrad, to=lambda g, n: with_op(n, BroadcastTo(n.type.shape))), "gradient"),
    "momentum of another factor": (
        rewrite(Momentum, to=lambda g, n: with_op(n, replace(n.op, mu=0.5))),  # type: ignore
        "update 'p.velocity'"),
    "no weight decay": (
        rewrite(SgdStep, to=lambda g, n: with_op(n, n.op, *n.inputs[:3])),
        "update '"),
    "a step up": (
        rewrite(SgdStep, to=lambda g, n: with_op(n, n.op, n.inputs[0], n.inputs[0], n.inputs[2])),
        "update 'p'"),
    "a parameter that starts as ones": (
        rewrite(Parameter, to=lambda g, n: with_op(n, replace(n.op, init=gc.Zeros()))),  # type: ignore
        "start 'p' starts as"),
    "x + 0 is x": (
        rewrite(Add, to=lambda g, n: other(g, n, 0.0)), "is -0.0"),
    "x - -0 is x": (
        rewrite(Sub, to=lambda g, n: other(g, n, -0.0, (1,))), "is -0.0"),
    "0 - x is -x": (
        rewrite(Sub, to=lambda g, n: with_op(n, Neg(), x)
            if (x := other(g, n, 0.0, (0,))) else None),
        "is -0.0"),
    "-(a - b) is b - a": (
        rewrite(Neg, to=lambda g, n: with_op(n, Sub(), *g[n.inputs[0]].inputs[::-1])
            if isinstance(g[n.inputs[0]].op, Sub) else None), "it was -0.0"),
    "x * 0 is 0": (
        rewrite(Mul, to=lambda g, n: with_op(n, Sub(), n.inputs[0], n.inputs[0])
            if number_of(g, n.inputs[1]) == 0 else None), "the pass declares bitwise"),
    "b - a for a - b": (
        rewrite(Sub, to=lambda g, n: with_op(n, n.op, *n.inputs[::-1])
            if g[n.inputs[0]].type == g[n.inputs[1]].type else None), " is "),
    "attributes forgotten": (careless_cse, " is "),
    "a sum for a mean": (
        rewrite(Mean, to=lambda g, n: with_op(n, Sum(n.op.axes, n.op.keepdims)),  # type: ignore
            preserves="reassociated"), " is "),
    "rounded in another order": (
        rewrite(Add, to=other_sum), "the pass declares bitwise"),
    "nearer than it is": (
        rewrite(Tanh, to=lambda g, n: n.inputs[0], preserves="approximate", bound=1e-6),
        "states a bound of 1e-06"),
    "no dropout": (
        rewrite(DropoutMask, to=lambda g, n: with_op(n, replace(n.op, keep_prob=1.0))),  # type: ignore
        " is "),
}
# fmt: on


def faults_of(name: str, folder: Path | None = None) -> PassReport:
    return check_pass(WRONG[name][0], nets=60, folder=folder)


@pytest.mark.one_in(8)
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_pass_is_reported_with_its_cause(name: str) -> None:
    report = faults_of(name)
    assert not report.ok, report
    assert WRONG[name][1] in str(report)


@pytest.mark.parametrize("name", ["returns None", "losses dropped"])
def test_the_report_says_why_no_test_is_written(name: str, tmp_path: Path) -> None:
    report = faults_of(name, tmp_path)
    assert report.path is None
    assert "\n  no test was written, since a lambda has no name: make the" in str(report)


@dataclass(frozen=True)
class Scaled:
    """A pass with an option: k * x as x * k."""

    name = "scaled"
    preserves = "bitwise"
    most: int = 9

    def __call__(self, graph: Graph) -> Graph:
        changed: dict[str, Node | None] = {}
        for node in graph:
            numbers = [number_of(graph, name) is not None for name in node.inputs]
            if isinstance(node.op, Mul) and numbers == [True, False] and len(changed) < self.most:
                changed[node.name] = with_op(node, Mul(), *node.inputs[::-1])
        return graph.replace(changed) if changed else graph


@graph_pass("bitwise")
def renamed(graph: Graph) -> Graph:
    """tanh nodes under other names."""
    new = {n.name: f"{n.name}.mine" for n in graph if isinstance(n.op, Tanh)}
    new = {old: name for old, name in new.items() if not old.endswith(".mine")}
    nodes = [replace(node, name=new.get(node.name, node.name)) for node in graph]
    return _renamed(graph, nodes, new) if new else graph


def _renamed(graph: Graph, nodes: list[Node], new: dict[str, str]) -> Graph:
    def read(found: Any) -> dict[str, str]:
        return {k: new.get(v, v) for k, v in found.items()}

    return Graph(
        graph.name,
        [node.reading(new) for node in nodes],
        outputs=read(graph.outputs),
        losses=graph.losses,
        gradients=read(graph.gradients),
        updates=read(graph.updates),
    )


def inner_first(graph: Graph, node: Node) -> Node | None:
    """(y + x) + z for (x + y) + z, as one order of many."""
    first = graph[node.inputs[0]]
    return with_op(node, Add(), node.inputs[1], first.name) if isinstance(first.op, Add) else None


def sorted_operands(graph: Graph, node: Node) -> Node | None:
    return with_op(node, node.op, *sorted(node.inputs)) if len(node.inputs) == 2 else None


def double_negation(graph: Graph, node: Node) -> str | None:
    inner = graph[node.inputs[0]]
    return inner.inputs[0] if isinstance(inner.op, Neg) else None


def minus_negation(graph: Graph, node: Node) -> Node | None:
    """a - (-b) as a + b."""
    inner = graph[node.inputs[1]]
    negated = isinstance(inner.op, Neg)
    return with_op(node, Add(), node.inputs[0], inner.inputs[0]) if negated else None


def squares(graph: Graph, node: Node) -> Node | None:
    return with_op(node, Power(2.0), node.inputs[0]) if len(set(node.inputs)) == 1 else None


def product_of_squares(graph: Graph, node: Node) -> Node | None:
    return with_op(node, Mul(), *node.inputs * 2) if node.op.exponent == 2 else None  # type: ignore[attr-defined]


def same_choice(graph: Graph, node: Node) -> str | None:
    _, a, b = node.inputs
    return a if a == b and graph[a].type == node.type else None


# fmt: off
RIGHT: dict[str, Pass] = {
    **{name: getattr(gc.passes, name) for name in ("cse", "fold_constants", "dead_code",
        "channels_last", "share_batchnorm_statistics", "fold_batchnorm", "fuse_affine_relu")},
    "repeat_elements": repeat_elements,
    "scaled": Scaled(),
    "scaled at most once": Scaled(1),
    "renamed": renamed,
    "operands sorted": rewrite(Mul, Add, to=sorted_operands),
    "a double negation": rewrite(Neg, to=double_negation),
    "minus a negation": rewrite(Sub, to=minus_negation),
    "x * 1 is x": rewrite(Mul, to=lambda g, n: other(g, n, 1.0)),
    "x + -0 is x": rewrite(Add, to=lambda g, n: other(g, n, -0.0)),
    "x - 0 is x": rewrite(Sub, to=lambda g, n: other(g, n, 0.0, (1,))),
    "x + 0 is x but for rounding": rewrite(
        Add, to=lambda g, n: other(g, n, 0.0), preserves="reassociated"),
    "squares": rewrite(Mul, to=squares, preserves="reassociated"),
    "squares as products": rewrite(Power, to=product_of_squares, preserves="reassociated"),
    "the same on both sides": rewrite(Where, to=same_choice),
    "sums in another order": rewrite(Add, to=inner_first, preserves="reassociated"),
    "tanh as its operand, within a wide bound": rewrite(
        Tanh, to=lambda g, n: n.inputs[0], preserves="approximate", bound=1e9),
}
# fmt: on


@pytest.mark.one_in(3)
@pytest.mark.slow
@pytest.mark.parametrize("name", RIGHT)
def test_a_right_pass_is_accepted(name: str) -> None:
    report = check_pass(RIGHT[name])
    assert report.ok, report
    assert report.fired.total() >= 5, report


@together("made, words", [
        (lambda: graph_pass("exact"), "graph_pass has preserves='exact', which is not one of"),  # type: ignore[arg-type]
        (lambda: graph_pass(lambda g: g), "graph_pass has preserves=<function"),  # type: ignore[arg-type]
        (lambda: check_pass(Exact()), "pass 'Exact' has preserves='exact', which is not one of"),
        (lambda: gc.compile(random_net(0), batch=2, backend="numpy", validate=True,
            passes=gc.passes.after("cse", Exact())), "pass 'Exact' has preserves='exact'"),
        (lambda: check_pass(lambda g: g), "pass '<lambda>' does not say what it preserves"),
        (lambda: check_pass(graph_pass("approximate")(lambda g: g)),
            "pass '<lambda>' is approximate, but does not say how near"),
        (lambda: graph_pass("bitwise")(with_op), "graph_pass: <function with_op"),  # type: ignore
        (lambda: check_pass(Scaled), "is not a pass"),  # type: ignore[arg-type]
        (lambda: check_pass(7), "check_pass: 7 is not a pass"),  # type: ignore[arg-type]
        (lambda: check_pass(gc.passes.DEFAULT), "check_pass: an object of type PassList"),  # type: ignore
        (lambda: check_pass(Specialize(True)), "check_pass: pass 'specialize' makes a program"),
        (lambda: check_pass(renamed, nets=0), "check_pass: nets is 0, it must be a whole number"),
        (lambda: check_pass(renamed, batches=()), "check_pass: batches is (), it must be a list"),
        (lambda: check_pass(renamed, batches=(0,)), "check_pass: a number of rows is 0, it must"),
        (lambda: validate_pass(renamed, random_net(0), batches=3), "validate_pass: batches is 3"),  # type: ignore
        (lambda: validate_pass(7, random_net(0)), "validate_pass: 7 is not a pass"),  # type: ignore
        (lambda: check_pass(renamed, ops=["tan"]), "random_net: there is no op 'tan'"),
        (lambda: check_pass(renamed, ops=[]), "ops is [], it must be a list of ops"),
        (lambda: random_net(0, ops="mul"), "ops is 'mul', it must be a list of ops"),
        (lambda: random_net(0, ops=[3]), "random_net: there is no op 3"),  # type: ignore[list-item]
        (lambda: random_net(0, ops=[np.add]), "random_net: there is no op <ufunc 'add'>"),  # type: ignore
        (lambda: random_net(1.5), "random_net: seed is 1.5, it must be a whole number"),  # type: ignore
        (lambda: check_pass(renamed, seed="a"), "check_pass: seed is 'a', it must be a whole"),  # type: ignore
        (lambda: validate_pass(renamed, 3), "validate_pass takes a net, not int"),  # type: ignore
        (lambda: random_net(0, steps=0), "random_net: steps is 0, it must be a whole number from"),
    ])  # fmt: skip
def test_what_is_no_pass_or_no_argument_is_said(made: Callable[[], Any], words: str) -> None:
    with pytest.raises(gc.GraphError) as caught:
        made()
    assert words in str(caught.value)


class Exact:
    preserves = "exact"

    def __call__(self, graph: Graph) -> Graph:
        return graph.with_nodes(list(graph))


def test_the_report_of_a_right_pass() -> None:
    report = check_pass(RIGHT["x * 1 is x"], ops=["mul", "tanh"], nets=4)
    lines = str(report).splitlines()
    assert lines[0].startswith(f"check_pass mine: ok, it fired on {report.fired.total()} of ")
    assert set(report.fired) <= {"infer", "grad", "step", "frozen"}
    assert lines[1] == "  a second run changes nothing"
    assert lines[2].startswith("  saved with 32 rows: ")
    assert report.saved.flops > 0


@pytest.mark.slow
def test_a_second_run_that_changes_something_is_counted() -> None:
    report = check_pass(Scaled(1), ops=["mul"], nets=60)
    assert report.ok
    assert 0 < report.again <= report.fired.total()


@pytest.mark.slow
def test_the_smallest_graph_is_a_test_that_fails(tmp_path: Path) -> None:
    report = check_pass(wrong_way, folder=tmp_path)
    assert report.graph is not None
    assert len(report.graph) <= 3
    assert report.path == tmp_path / "test_wrong_way_1.py"
    assert f"python -m pytest {report.path}" in str(report)
    assert "validate_pass(wrong_way, graph" in report.path.read_text()
    done = run_test(report.path)
    assert done.returncode == 1, done.stdout
    assert "pass 'wrong_way': output" in done.stdout


@graph_pass("bitwise")
def wrong_way(graph: Graph) -> Graph:
    """-x for |x|."""
    changed: dict[str, Node | None] = {
        n.name: with_op(n, Neg()) for n in graph if isinstance(n.op, Abs)
    }
    return graph.replace(changed) if changed else graph


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raises", "a node that is not there", "a type that is wrong"])
def test_a_pass_that_makes_no_graph_is_made_small_too(name: str, tmp_path: Path) -> None:
    report = faults_of(name, tmp_path)
    assert report.graph is not None
    assert len(report.graph) <= 3
    assert report.path is not None
    assert run_test(report.path).returncode == 1


@dataclass(frozen=True)
class Own(Op):
    """k * x."""

    name = "own"
    k: float = 3.0

    def infer(self, ins: Any) -> TensorType:
        return ins[0]  # type: ignore[no-any-return]

    def reference(self, ins: Any) -> Array:
        return np.asarray(ins[0] * ins[0].dtype.type(self.k))

    def grad(self, b: Any, ins: Any, out: Any, dout: Any) -> Any:
        return (dout * self.k,)


def test_a_pass_for_an_op_of_your_own() -> None:
    twice = rewrite(Own, to=lambda g, n: with_op(n, Own(n.op.k + 1)))  # type: ignore[attr-defined]
    unjudged = check_pass(twice, nets=4, folder=None)
    assert not unjudged.ok
    assert "never fired" in str(unjudged)
    report = check_pass(twice, ops=[Own(), "tanh"], folder=None)
    assert "own(" in str(report)
    assert not report.ok


LOOPS_AND_IMAGES = recompute_scans, segment_scans, split_scans, transpose_factors, widen_sums


@pytest.mark.slow
@pytest.mark.parametrize("step", LOOPS_AND_IMAGES)
def test_a_pass_about_loops_or_images_is_accepted(step: Pass) -> None:
    report = check_pass(step, folder=None)
    assert report.ok, report


def test_random_nets_have_what_passes_about_loops_and_images_change() -> None:
    seeds = [("scan", seed) for seed in range(2)] + [("batchnorm", seed) for seed in range(12)]
    nets = [random_net(seed, ops=[op], steps=2) for op, seed in seeds]
    graphs = [graph for net in nets for _, graph in stages(net.graph())]
    for step in LOOPS_AND_IMAGES:
        assert any(step(graph) is not graph for graph in graphs), step


def test_what_the_code_of_a_pass_looks_for() -> None:
    assert set(named_ops(wrong_way)) >= {"neg", "abs"}
    assert "relu" in set(named_ops(gc.passes.fuse_affine_relu))
    assert set(named_ops(rewrite(ReluGrad, to=lambda g, n: None))) == {"relu"}
    assert set(named_ops(lambda graph: graph)) == set()


def test_random_nets_are_the_same_for_the_same_arguments() -> None:
    def text(seed: int, **options: Any) -> str:
        return str(random_net(seed, **options).graph())

    assert text(3) == text(3) != text(4)
    assert text(3, ops=["relu", "affine"]) == text(3, ops=[Relu, "affine"])
    assert len({text(seed) for seed in range(20)}) == 20


@together("name", DRAWS)
def test_a_random_net_of_each_op(name: str) -> None:
    net = random_net(1, ops=[name], steps=3, dtype="float64")
    graph = net.graph()
    assert graph.losses
    assert graph.outputs.keys() - graph.losses
    assert all(node.type.dtype != "float32" for node in graph)


def test_nets_that_cannot_be_drawn() -> None:
    with pytest.raises(gc.GraphError, match="no value of the net fits any of the ops"):
        random_net(0, ops=[Misfit()])


class Misfit(Own):
    def infer(self, ins: Any) -> TensorType:
        raise ValueError("never")


def test_validate_pass_tries_a_net_in_all_programs() -> None:
    net = random_net(0, ops=["relu", "add"])
    for name, words in (("relu's gradient flows everywhere", "gradient"), ("a step up", "update")):
        with pytest.raises(gc.GraphError, match=words):
            validate_pass(WRONG[name][0], net)
    with pytest.warns(UserWarning, match="pass 'mine' changed nothing in 'random_0'"):
        validate_pass(WRONG["never fires"][0], net)
    with pytest.raises(gc.GraphError, match="gave NoneType, not a Graph"):
        validate_pass(WRONG["returns None"][0], net)


def test_the_sign_of_zero_shows_with_one_row() -> None:
    net = gc.Net("zero")
    x = net.input("x", (gc.N, 1))
    net.output("y", x + 0.0)
    with pytest.raises(gc.GraphError, match=r"is -0.0 at \[0, 0\], it was 0.0, with 1 row"):
        validate_pass(WRONG["x + 0 is x"][0], net, batches=(1,))
