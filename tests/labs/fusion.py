"""Answers to the lab about fusion."""

RIGHT = {
    "two rules": """
def pair(graph, node):
    if isinstance(node.op, Relu):
        first = graph[node.inputs[0]]
        if isinstance(first.op, Affine):
            return first, AffineRelu(), first.inputs
    if isinstance(node.op, ReluGrad):
        out, dout = node.inputs
        first = graph[dout]
        if isinstance(first.op, MatMul) and out != dout:
            op = MatMulReluGrad(first.op.trans_a, first.op.trans_b)
            return first, op, (*first.inputs, out)

def fuse(graph):
    changed = {}
    for node in graph:
        found = pair(graph, node)
        if found and graph.feeds_only(found[0].name, node.name):
            first, op, inputs = found
            changed[first.name] = None
            locs = first.locs + node.locs
            changed[node.name] = gc.Node(node.name, op, tuple(inputs), node.type, locs)
    return graph.replace(changed) if changed else graph
""",
    "one after the other": """
from dataclasses import replace

def join(graph, first, second, op, inputs):
    locs = tuple(dict.fromkeys([*first.locs, *second.locs]))
    new = replace(second, op=op, inputs=tuple(inputs), locs=locs)
    return graph.replace({first.name: None, second.name: new})

def alone(graph, name):
    return graph.users[name] and len(graph.users[name]) == 1 and name not in graph.roots

def fuse(graph):
    for node in list(graph):
        if type(node.op) is Relu:
            first = graph[node.inputs[0]]
            if type(first.op) is Affine and alone(graph, first.name):
                graph = join(graph, first, node, AffineRelu(), first.inputs)
        elif type(node.op) is ReluGrad:
            first = graph[node.inputs[1]]
            if type(first.op) is MatMul and alone(graph, first.name):
                op = MatMulReluGrad(trans_a=first.op.trans_a, trans_b=first.op.trans_b)
                graph = join(graph, first, node, op, [*first.inputs, node.inputs[0]])
    return graph
""",
    "from the first node on": """
def fuse(graph):
    nodes = {node.name: node for node in graph}
    changed = {}
    for first in graph:
        users = graph.users[first.name]
        if len(users) != 1 or not graph.feeds_only(first.name, users[0]):
            continue
        second = nodes[users[0]]
        match first.op, second.op:
            case Affine(), Relu():
                op, inputs = AffineRelu(), first.inputs
            case MatMul(trans_a=a, trans_b=b), ReluGrad() if second.inputs[1] == first.name:
                op, inputs = MatMulReluGrad(a, b), first.inputs + second.inputs[:1]
            case _:
                continue
        changed.update({
            first.name: None,
            second.name: gc.Node(second.name, op, inputs, second.type, first.locs + second.locs),
        })
    return graph.replace(changed) if changed else graph
""",
}

TWO = RIGHT["two rules"]


def but(old: str, new: str) -> str:
    assert old in TWO, old
    return TWO.replace(old, new)


ALONE = "found and graph.feeds_only(found[0].name, node.name)"
WRONG = {
    "nothing is fused": ("def fuse(graph):\n    return graph\n", "each relu of an affine map"),
    "the forward pass only": (
        but("isinstance(node.op, ReluGrad)", "False"),
        "the product and the mask after it become one",
    ),
    "the backward pass only": (
        but("isinstance(node.op, Relu)", "False"),
        "each relu of an affine map",
    ),
    "other users are forgotten": (but(ALONE, "found"), "the affine map has another user"),
    "outputs are forgotten": (
        but(ALONE, "found and len(graph.users[found[0].name]) == 1"),
        "the affine map is an output",
    ),
    "flags are forgotten": (
        but("MatMulReluGrad(first.op.trans_a, first.op.trans_b)", "MatMulReluGrad()"),
        "with the operands and the flags of the product",
    ),
    "flags are exchanged": (
        but(
            "MatMulReluGrad(first.op.trans_a, first.op.trans_b)",
            "MatMulReluGrad(first.op.trans_b, first.op.trans_a)",
        ),
        "with the operands and the flags of the product",
    ),
    "any op before a relu": (
        but("isinstance(first.op, Affine)", "True"),
        "only with an affine map",
    ),
    "the mask is the gradient": (
        but("(*first.inputs, out)", "(*first.inputs, first.inputs[0])"),
        "with the operands and the flags of the product",
    ),
    "under the name of the first": (
        but("gc.Node(node.name, op,", "gc.Node(first.name, op,"),
        "your pass fails",
    ),
    "lines are lost": (but("first.locs + node.locs", "node.locs"), "has lost lines"),
    "the first node stays": (
        but("            changed[first.name] = None\n", ""),
        "remove the first",
    ),
    "a number instead of a pass": ("fuse = 1\n", "a training step cannot be compiled: "),
    "a tuple is returned": (
        but("return graph.replace(changed) if changed else graph", "return graph, len(changed)"),
        "returns tuple, not a Graph",
    ),
}
