"""Answers to the lab about recomputation."""

RIGHT = {
    "the cheapest for their bytes": """
def choose(values, arena, budget):
    names, need = [], arena - budget
    for value in sorted(values, key=lambda v: v.flops / v.nbytes):
        if need <= 0:
            break
        if not value.kept:
            names.append(value.name)
            need -= 0.8 * value.nbytes
    return names
""",
    "elementwise values by size": """
def choose(values, arena, budget):
    cheap = [v for v in values if not v.kept and v.flops <= v.nbytes]
    cheap.sort(key=lambda v: v.nbytes * (v.first - v.last), reverse=True)
    chosen, freed = set(), 0
    while cheap and freed < 1.1 * (arena - budget):
        value = cheap.pop(0)
        chosen.add(value.name)
        freed += value.nbytes
    return chosen
""",
    "the bytes of each moment": """
def choose(values, arena, budget):
    end = max(v.first for v in values) + 1
    live = [0] * end
    for v in values:
        for t in range(v.last, v.first):
            live[t] += v.nbytes
    other = arena - max(live)
    names = []
    for v in sorted(values, key=lambda v: (v.flops / v.nbytes, -v.nbytes)):
        if arena <= budget or other + max(live) <= 0.97 * budget:
            return names
        if v.kept:
            continue
        names.append(v.name)
        for t in range(v.last + 1, v.first):
            live[t] -= v.nbytes
    return names
""",
}

GREEDY = RIGHT["the cheapest for their bytes"]


def but(old: str, new: str) -> str:
    assert old in GREEDY, old
    return GREEDY.replace(old, new)


def all_with(condition: str) -> str:
    return (
        f"def choose(values, arena, budget):\n    return [v.name for v in values if {condition}]\n"
    )


WRONG = {
    "no answer": ("def choose(values, arena, budget):\n    pass\n", "returns None, not the names"),
    "a number": ("def choose(values, arena, budget):\n    return 5\n", "returns 5, not the names"),
    "nothing": (all_with("False"), "nothing is recomputed"),
    "everything": (all_with("not v.kept"), "free the values that cost least for their bytes"),
    "products": (all_with("v.flops > v.nbytes"), "free the values that cost least for their bytes"),
    "even without need": (all_with("v.flops <= v.nbytes"), "more operations, 0.00% would do"),
    "one value": (
        "def choose(values, arena, budget):\n"
        "    return [] if arena <= budget else [max(values, key=lambda v: v.nbytes).name]\n",
        "too small",
    ),
    "the most expensive first": (
        but("v.flops / v.nbytes", "-v.flops / v.nbytes"),
        "free the values that cost least for their bytes",
    ),
    "half of what is needed": (but("0.8 * value", "2 * value"), "too small"),
    "values, not names": (but("append(value.name)", "append(value)"), "is not the name of a value"),
    "names of operands": (
        but("append(value.name)", "append(value.name + '.operand')"),
        "is not the name of a value",
    ),
    "the names in one text": (
        but("return names", "return ' '.join(names)"),
        "not the names of values",
    ),
    "a key that there is not": (
        but("value.kept", "value['kept']"),
        "your function fails: TypeError",
    ),
    "the smallest by far": (
        all_with("arena > budget and v.nbytes < 10_000"),
        "too small, or are not free at the peak",
    ),
}
