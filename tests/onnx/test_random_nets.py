"""Random nets of every op: ONNX Runtime computes the same, and the same net comes back."""

from __future__ import annotations

import random
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest

import graphc as gc
from graphc.onnx import load, to_proto
from graphc.ops.loops.op import Scan
from passes.dead_code import dead_code
from tests.onnx.compare import agree
from tests.onnx.test_save import declared
from tests.tools.generate import random_feeds, random_net


def exported(seed: int) -> tuple[gc.Net, bytes] | None:
    """A random net and its model; None where it has a gradient inside, which ONNX cannot say."""
    net = random_net(random.Random(seed), "float32", without=("other_dtype",))
    try:
        return net, to_proto(net).SerializeToString()
    except gc.GraphError as error:
        assert error.sentence.startswith("grad "), error
        return None


def like(read: gc.Net, net: gc.Net) -> dict[str, object]:
    """What a net declares; of pools that count windows beyond the image in `net`, which come back
    with other padding, only operands and type.  Loops are written without what nobody needs; what
    their steps compute is compared in numbers, since what they read may be in another order."""
    pruned, graph = dead_code(read.graph()), net.graph()
    found = declared(gc.Net.of(pruned))
    for node in pruned:
        if node.name in graph and getattr(graph[node.name].op, "ceil", False):
            found[node.name] = (node.inputs, node.type)
        if isinstance(node.op, Scan):
            how = node.op.kind, node.op.steps, node.op.reverse
            found[node.name] = (*how, sorted(node.inputs), node.type)
    return found


def check(seed: int) -> bool:
    made = exported(seed)
    if made is None:
        return False
    net, data = made
    again = load(onnx.load_from_string(data))
    graph = net.graph()
    wanted = like(net, net)
    unread = graph.nodes.keys() - dead_code(graph).forward()
    assert like(again, net) == {key: node for key, node in wanted.items() if key not in unread}
    feeds = random_feeds(graph, 3, seed)
    ours = gc.Executor(gc.compile(net, batch=3, backend="numpy")).forward(feeds)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    feeds = {name: array for name, array in feeds.items() if name not in unread}
    if any(isinstance(node.op, Scan) for node in graph):
        back = gc.Executor(gc.compile(again, batch=3, backend="numpy")).forward(feeds)
        agree(back, ours, f"seed {seed}, read")
    for (name, array), theirs in zip(ours.items(), session.run(list(ours), feeds), strict=True):
        told = f"seed {seed}, {name}"
        assert theirs.shape == array.shape, told
        np.testing.assert_allclose(theirs, array, rtol=2e-3, atol=2e-4, err_msg=told)
    return True


def test_some_random_nets() -> None:
    assert sum(check(seed) for seed in range(10)) >= 6


@pytest.mark.slow
def test_many_random_nets() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert sum(check(seed) for seed in range(10, 300)) >= 240
