"""The roles of inputs and states: made with the node, and read from the names in a graph's text."""

from __future__ import annotations

import graphc as gc
from graphc.ir.graph import Graph
from graphc.ir.op import Role
from graphc.ir.text import parse_graph
from graphc.ops import OPS


def plan(**options: object) -> gc.Plan:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3))
    h = gc.dropout(gc.affine(x, 2, name="h"), drop_prob=0.5)
    net.output("h", h)
    net.loss("loss", gc.mean(h * h))
    return gc.compile(net, batch=8, **options)


def roles(graph: Graph) -> dict[str, Role]:
    return {node.name: node.op.role for node in graph if node.op.role.kind}


def reread(graph: Graph) -> dict[str, Role]:
    read = parse_graph(str(graph), OPS)
    assert str(read) == str(graph)
    return roles(read)


def test_those_of_an_optimizer_with_a_name() -> None:
    optimizer = gc.SGD(lr=0.1, momentum=0.9, clip_norm=1.0, name="second")
    graph = plan(optimizer=optimizer, backend="numpy").programs["apply"].graph
    assert roles(graph) == {
        "gradient:h.weight": Role("gradient", "h.weight"),
        "gradient:h.bias": Role("gradient", "h.bias"),
        "h.weight.velocity:second": Role("slot", "h.weight", "velocity", "second"),
        "h.bias.velocity:second": Role("slot", "h.bias", "velocity", "second"),
        "hyper.lr:second": Role("hyper", part="lr", optimizer="second"),
        "hyper.clip_norm:second": Role("hyper", part="clip_norm", optimizer="second"),
    }
    slots = {name: role for name, role in roles(graph).items() if role.kind == "slot"}
    assert reread(graph) == {k: v for k, v in roles(graph).items() if k not in slots}


def test_those_of_a_shard_and_of_a_cotangent() -> None:
    graph = plan(optimizer=gc.SGD(lr=0.1), shards=2, backend="numpy").programs["step"].graph
    assert roles(graph)["shard.first_row"] == Role("first_row")
    assert roles(graph)["shard.share.rows.float32"] == Role("share", part="rows")
    assert roles(graph)["seed"] == Role("seed")
    assert reread(graph) == roles(graph)
    fed = plan(backend="numpy").cotangent_program(("h",)).graph
    assert roles(fed)["cotangent:h"] == Role("cotangent", "h")
    assert reread(fed) == roles(fed)
