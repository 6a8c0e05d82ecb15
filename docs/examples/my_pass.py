"""A pass of one's own: a relu right behind a relu does nothing."""

import sys

import numpy as np

import graphc as gc
from graphc.ops.select import Relu


@gc.passes.graph_pass(preserves="bitwise")
def single_relu(graph: gc.Graph) -> gc.Graph:
    """relu(relu(x)) becomes relu(x)."""
    double = {}
    for node in graph:
        if isinstance(node.op, Relu) and isinstance(graph[node.inputs[0]].op, Relu):
            double[node.name] = double.get(node.inputs[0], node.inputs[0])
    return graph.rename_reads(double) if double else graph


def net() -> gc.Net:
    net = gc.Net("two_relus")
    h = gc.relu(gc.affine(net.input("x", (gc.N, 4)), 8), name="first")
    net.output("out", gc.affine(gc.relu(h, name="second"), 2))
    return net


def main(folder: str = ".") -> tuple[int, int]:
    own = gc.passes.after("cse", single_relu)  # dead_code, later, takes the unread relu away
    plans = [gc.compile(net(), batch=3, passes=passes) for passes in (None, own)]
    for plan, name in zip(plans, ("before", "after"), strict=True):
        plan.render(f"{folder}/{name}.svg")
    x = np.random.default_rng(0).normal(size=(3, 4))
    before, after = (gc.Executor(plan, seed=0).predict(x) for plan in plans)
    assert before.tobytes() == after.tobytes()  # bitwise is what the pass declares
    return tuple(len(plan.programs["infer"].graph) for plan in plans)


if __name__ == "__main__":
    print("nodes before and after:", *main(*sys.argv[1:2]))
