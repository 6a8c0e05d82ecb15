from __future__ import annotations

from graphc.ops.linalg import MatMul
from graphc.ops.loops.op import Scan, loops
from graphc.ops.shape import Transpose
from passes.split_scans import split_scans
from passes.transpose_factors import transpose_factors
from tests.passes.loop_nets import recurrent
from tests.passes.same import assert_preserved, differentiated, specialized


def test_the_gradient_reads_the_weight_transposed_once() -> None:
    graph = split_scans(differentiated(recurrent()))
    after = assert_preserved(transpose_factors, graph, 3)
    (transposed,) = [node for node in after if node.name not in graph]
    assert transposed.inputs == ("u",)
    assert transposed.op == Transpose((1, 0))
    for nodes in loops(after).values():
        op = nodes[0].op
        assert isinstance(op, Scan)
        if op.step.carried:
            products = [node.op for node in op.step.nodes if isinstance(node.op, MatMul)]
            assert not any(product.trans_b for product in products)
    assert transpose_factors(after) is after


def test_a_loop_without_transposed_factors_stays() -> None:
    graph = split_scans(specialized(recurrent()))
    assert transpose_factors(graph) is graph
