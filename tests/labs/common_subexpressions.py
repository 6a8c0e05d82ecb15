"""Answers to the lab about common subexpressions."""

RIGHT = {
    "a dict of what was seen": """
def merge(graph):
    seen, renamed = {}, {}
    for node in graph:
        if node.op.is_source and not node.op.is_constant:
            continue
        inputs = tuple(renamed.get(name, name) for name in node.inputs)
        key = node.op, inputs
        if key in seen:
            renamed[node.name] = seen[key]
        else:
            seen[key] = node.name
    if not renamed:
        return graph
    return graph.replace(dict.fromkeys(renamed), reads=renamed)
""",
    "one pair at a time": """
def pair(graph):
    nodes = [node for node in graph if node.op.is_constant or not node.op.is_source]
    for i, first in enumerate(nodes):
        for other in nodes[i + 1:]:
            if first.inputs == other.inputs and first.op == other.op:
                if str(first.op) == str(other.op):
                    return first.name, other.name

def merge(graph):
    while (found := pair(graph)) is not None:
        first, other = found
        graph = graph.replace({other: None}, reads={other: first})
    return graph
""",
    "numbers of values": """
def merge(graph):
    numbers, owner, gone = {}, {}, {}
    for node in graph:
        source = node.op.is_source and not node.op.is_constant
        what = node.name if source else (node.op, repr(node.op), *[numbers[i] for i in node.inputs])
        number = numbers[node.name] = hash(what)
        if number in owner:
            gone[node.name] = owner[number]
        else:
            owner[number] = node.name
    return graph.replace({name: None for name in gone}, reads=gone) if gone else graph
""",
}

RESULT = "return graph.replace(dict.fromkeys(renamed), reads=renamed) if renamed else graph"
SEEN = """
def merge(graph):
    seen, renamed = {}, {}
    for node in graph:
        if SKIPPED:
            continue
        inputs = INPUTS
        key = KEY
        if key in seen:
            renamed[node.name] = seen[key]
        else:
            seen[key] = node.name
    RESULT
"""


def wrong(
    skipped: str = "node.op.is_source and not node.op.is_constant",
    inputs: str = "tuple(renamed.get(name, name) for name in node.inputs)",
    key: str = "node.op, inputs",
    result: str = RESULT,
) -> str:
    made = SEEN.replace("SKIPPED", skipped).replace("INPUTS", inputs)
    return made.replace("KEY", key).replace("RESULT", result)


WRONG = {
    "nothing is merged": ("def merge(graph):\n    return graph\n", "same op and operands"),
    "the operands do not count": (wrong(key="node.op"), "are"),
    "the attributes do not count": (wrong(key="type(node.op), inputs"), "exponents 2 and 3 differ"),
    "operands by their old names": (
        wrong(inputs="node.inputs"),
        "compare operands by what they became",
    ),
    "the order does not count": (
        wrong(key="node.op, tuple(sorted(inputs))"),
        "the order of operands counts",
    ),
    "inputs are merged": (wrong(skipped="False"), "inputs and parameters are different arrays"),
    "constants are not merged": (wrong(skipped="node.op.is_source"), "are enough"),
    "-0.0 is 0.0": (
        wrong(key="type(node.op), *vars(node.op).values(), inputs"),
        "slopes 0.0 and -0.0 are equal",
    ),
    "users are not renamed": (
        wrong(result="return graph.replace(dict.fromkeys(renamed)) if renamed else graph"),
        "your pass fails",
    ),
    "always a new graph": (
        wrong(result="return graph.replace(dict.fromkeys(renamed), reads=renamed)"),
        "returns a new graph, not the same",
    ),
    "one argument more": (
        "def merge(graph, deep):\n    return graph\n",
        "your pass fails: TypeError: merge() missing 1 required positional argument: 'deep'",
    ),
    "nothing is returned": (wrong(result="merged = graph"), "returns NoneType, not a Graph"),
    "neighbours only": (
        """
def merge(graph):
    renamed, last = {}, None
    for node in graph:
        if last is not None and not node.op.is_source:
            if last.op == node.op and last.inputs == node.inputs:
                renamed[node.name] = last.name
                continue
        last = node
    return graph.replace(dict.fromkeys(renamed), reads=renamed) if renamed else graph
""",
        "once exp_2 is exp_1",
    ),
}
