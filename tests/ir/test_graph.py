"""Graph: order, roots, rewriting, verification; and that nothing recurses over its depth."""

from __future__ import annotations

import networkx
import pytest
from hypothesis import given, settings

import graphc as gc
from graphc.base.errors import GraphError
from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import N, TensorType
from graphc.ir.text import parse_graph
from graphc.ir.verify import verify
from graphc.ops.elementwise import Add, Neg
from graphc.ops.functions import Exp
from graphc.ops.source import Input, State
from passes import DEFAULT
from passes.pipeline import run_passes
from passes.specialize import Specialize
from tests.error_text import error_text
from tests.tools.generate import nets

T = TensorType((N, 3), "float32")
X = Node("x", Input((N, 3), "float32"), (), T)
A = Node("a", Exp(), ("x",), T)
B = Node("b", Add(), ("a", "x"), T)
C = Node("c", Add(), ("b", "b"), T)
C_FROM_A = Node("c", Exp(), ("a",), T)


def graph(*nodes: Node, **roots: object) -> Graph:
    return Graph("g", nodes or (X, A, B, C), **roots)  # type: ignore[arg-type]


def test_nodes_are_found_by_name_and_in_order() -> None:
    g = graph()
    assert [node.name for node in g] == ["x", "a", "b", "c"]
    assert (len(g), g["b"], "c" in g, "d" in g) == (4, B, True, False)


def test_a_graph_cannot_be_changed() -> None:
    g = graph(outputs={"y": "c"})
    with pytest.raises(TypeError):
        g.nodes["d"] = A  # type: ignore[index]
    with pytest.raises(TypeError):
        g.outputs["z"] = "a"  # type: ignore[index]
    with pytest.raises(AttributeError):
        A.name = "z"  # type: ignore[misc]


def test_operands_precede_their_users() -> None:
    with pytest.raises(GraphError, match="'a' reads 'x', which is not declared before it"):
        graph(A, X)
    with pytest.raises(GraphError, match="'c' reads 'c', which is not declared before it"):
        graph(X, Node("c", Add(), ("x", "c"), T))


def test_names_are_single() -> None:
    with pytest.raises(GraphError, match="two nodes are named 'a'"):
        graph(X, A, A)


@pytest.mark.parametrize(
    ("roots", "sentence"),
    [
        ({"outputs": {"y": "d"}}, "outputs 'y' reads 'd', which is not in the graph"),
        ({"gradients": {"w": "d"}}, "gradients 'w' reads 'd', which is not in the graph"),
        ({"updates": {"x": "d"}}, "updates 'x' reads 'd', which is not in the graph"),
        ({"updates": {"s": "a"}}, "update of 's', which is not in the graph"),
        ({"losses": ["loss"]}, "loss 'loss' is not an output of the graph"),
    ],
)
def test_roots_are_in_the_graph(roots: dict[str, object], sentence: str) -> None:
    with pytest.raises(GraphError) as caught:
        graph(**roots)
    assert error_text(caught.value) == sentence


def test_users_count_every_reading() -> None:
    g = graph(outputs={"y": "c"})
    assert g.users == {"x": ("a", "b"), "a": ("b",), "b": ("c", "c"), "c": ()}
    assert g.feeds_only("a", "b")
    assert not g.feeds_only("b", "c")  # read twice
    assert not graph(outputs={"y": "a"}).feeds_only("a", "b")  # read from outside, too


def test_roots_are_all_that_is_read_from_outside() -> None:
    s = Node("s", State((3,), "float32"), (), TensorType((3,), "float32"))
    t = Node("t", Neg(), ("s",), s.type)
    g = graph(X, A, B, s, t, outputs={"y": "a"}, gradients={"x": "b"}, updates={"s": "t"})
    assert g.roots == {"a", "b", "t"}


def test_upstream_and_downstream_against_networkx() -> None:
    g = graph()
    for name in g.nodes:
        assert g.upstream([name]) == {name, *networkx.ancestors(g.dag, name)}
        assert g.downstream([name]) == {name, *networkx.descendants(g.dag, name)}


def test_dag_has_an_edge_for_each_operand() -> None:
    edges = [(a, b, data["operand"]) for a, b, data in graph().dag.edges(data=True)]
    assert sorted(edges) == [
        ("a", "b", 0),
        ("b", "c", 0),
        ("b", "c", 1),
        ("x", "a", 0),
        ("x", "b", 1),
    ]
    assert graph().dag.nodes["a"]["node"] is not None


def test_replace_exchanges_in_place_and_leaves_out() -> None:
    negative = Node("a", Neg(), ("x",), T)
    g = graph(outputs={"y": "b"})
    changed = g.replace({"a": negative, "c": None})
    assert list(changed) == [X, negative, B]
    assert list(g) == [X, A, B, C]
    assert dict(changed.outputs) == {"y": "b"}
    with pytest.raises(GraphError, match="'c' reads 'b'"):
        g.replace({"b": None})


def test_rename_reads_moves_readers_and_roots() -> None:
    g = graph(outputs={"y": "a"}, gradients={"x": "a"})
    moved = g.rename_reads({"a": "x"})
    assert moved["b"].inputs == ("x", "x")
    assert (moved.outputs["y"], moved.gradients["x"]) == ("x", "x")
    assert moved["c"] is C
    assert g.rename_reads({}) is g


def test_verify_infers_every_type_again() -> None:
    verify(graph())
    wrong = Node("a", Exp(), ("x",), TensorType((N, 2), "float32"))
    with pytest.raises(GraphError) as caught:
        verify(graph(X, wrong))
    assert error_text(caught.value) == "'a' has type float32[N, 2], its op infers float32[N, 3]"


def test_verify_checks_nodes_whose_operands_changed() -> None:
    before = graph(X, A)
    whole = Input((N, 3), "int64")
    after = before.replace({"x": Node("x", whole, (), TensorType((N, 3), "int64"))})
    with pytest.raises(GraphError, match="exp 'a': x is int64, exp takes floats"):
        verify(after, before)


def test_verify_finds_changes_among_nodes_that_moved() -> None:
    other = Node("d", Exp(), ("x",), T)
    before = graph(X, A, other, B, C)
    wrong = Node("c", Add(), ("b", "b"), TensorType((N, 2), "float32"))
    verify(graph(X, other, A, C_FROM_A), before)
    with pytest.raises(GraphError, match="'c' has type"):
        verify(graph(X, other, A, B, wrong), before)


def test_pruned_keeps_what_is_asked_for() -> None:
    g = graph(X, A, B, C, outputs={"y": "a"})
    assert list(g.pruned().nodes) == ["x", "a"]
    assert (g.pruned().outputs, len(g)) == ({"y": "a"}, 4)
    whole = graph(outputs={"y": "c"})
    assert whole.pruned() is whole


def test_replace_and_rename_at_once() -> None:
    g = graph(outputs={"y": "b"}).replace({"a": None, "c": None}, reads={"a": "x"})
    assert [(node.name, node.inputs) for node in g] == [("x", ()), ("b", ("x", "x"))]
    with pytest.raises(GraphError, match="'b' reads 'a'"):
        graph().replace({"a": None})


def test_equal_types_are_one_object_and_are_checked_all_the_same() -> None:
    assert TensorType((N, 1), "float32") is TensorType((N, 1), "float32")
    with pytest.raises(ValueError, match="dimension True"):
        TensorType((N, True), "float32")


def test_verify_checks_updates() -> None:
    s = Node("s", State((2,), "float32"), (), TensorType((2,), "float32"))
    with pytest.raises(GraphError) as caught:
        verify(graph(X, A, s, updates={"s": "a"}))
    assert error_text(caught.value) == "update of 's' has type float32[N, 3], the state float32[2]"


@pytest.mark.slow
def test_a_chain_of_20000_nodes_needs_no_recursion() -> None:
    """The default limit is 1,000 calls; everything over a graph is a loop."""
    net = gc.Net("chain")
    h = x = net.input("x", (N, 2))
    for _ in range(20_000):
        h = gc.tanh(h)
    net.output("y", h)
    g = net.graph()
    verify(g)
    assert len(g.upstream([h.name])) == len(g.downstream([x.name])) == 20_001
    assert networkx.is_directed_acyclic_graph(g.dag)
    assert str(parse_graph(str(g), {"input": Input, "tanh": type(h.node.op)})) == str(g)
    result, _ = run_passes(g, DEFAULT.fill({"specialize": Specialize(train=False)}))
    assert len(result) == 20_001


@settings(max_examples=12, deadline=None)
@given(net=nets())
def test_random_graphs_are_acyclic_and_verified(net: gc.Net) -> None:
    g = net.graph()
    verify(g)
    assert networkx.is_directed_acyclic_graph(g.dag)
    assert {n: len(users) for n, users in g.users.items()} == dict(g.dag.out_degree())
