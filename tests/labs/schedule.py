"""Answers to the lab about a schedule with barriers."""

CONFLICT = """
def touches(a, b):
    for x in a.accesses:
        for y in b.accesses:
            if x.buffer == y.buffer and (x.writes or y.writes):
                yield x.region != y.region or x.region.kind == "all"

"""
EARLY = (
    CONFLICT
    + """
def arrange(instructions):
    when = {}
    for one in instructions:
        epochs = [when[other] + conflict for other in when for conflict in touches(one, other)]
        when[one] = max(epochs, default=0)
    last = max(when.values(), default=-1)
    return [[one for one in instructions if when[one] == epoch] for epoch in range(last + 1)]
"""
)
IN_ORDER = (
    CONFLICT
    + """
def arrange(instructions):
    epochs = [[]]
    for one in instructions:
        if any(any(touches(one, other)) for other in epochs[-1]):
            epochs.append([])
        epochs[-1].append(one)
    return epochs
"""
)

RIGHT = {
    "as early as possible": EARLY,
    "epoch by epoch": """
def arrange(instructions):
    left, epochs = list(instructions), []
    while left:
        epoch, later = [], []
        for one in left:
            if all(fits(one, other) for other in epoch) and not any(linked(one, o) for o in later):
                epoch.append(one)
            else:
                later.append(one)
        epochs.append(epoch)
        left = later
    return epochs

def linked(a, b):
    pairs = [(x, y) for x in a.accesses for y in b.accesses if x.buffer == y.buffer]
    return [(x, y) for x, y in pairs if x.writes or y.writes]

def fits(a, b):
    return all(x.region == y.region and x.region.kind != "all" for x, y in linked(a, b))
""",
    "by what each buffer allows": """
def arrange(instructions):
    seen, epochs = {}, {}
    for one in instructions:
        epoch = 0
        for a in one.accesses:
            for writes, region, when in seen.get(a.buffer, []):
                if writes or a.writes:
                    mine = region == a.region and region.kind != "all"
                    epoch = max(epoch, when if mine else when + 1)
        for a in one.accesses:
            seen.setdefault(a.buffer, []).append((a.writes, a.region, epoch))
        epochs.setdefault(epoch, []).append(one)
    return (epochs[epoch] for epoch in sorted(epochs))
""",
}


def but(of: str, old: str, new: str) -> str:
    assert old in of, old
    return of.replace(old, new)


WRONG = {
    "no answer": ("def arrange(instructions):\n    pass\n", "not a list of epochs"),
    "no barrier": (
        "def arrange(instructions):\n    return [instructions]\n",
        "no barrier is between them",
    ),
    "a barrier everywhere": (
        "def arrange(instructions):\n    return [[one] for one in instructions]\n",
        "a barrier is needed only before an instruction that conflicts",
    ),
    "the order stays": (IN_ORDER, "as soon as those that it waits for have run"),
    "a barrier after every third": (
        "def arrange(instructions):\n"
        "    return [instructions[i:i + 3] for i in range(0, len(instructions), 3)]\n",
        "no barrier is between them",
    ),
    "only the instruction before counts": (
        but(IN_ORDER, "for other in epochs[-1])", "for other in epochs[-1][-1:])"),
        "no barrier is between them",
    ),
    "regions do not count": (
        but(IN_ORDER, 'x.region != y.region or x.region.kind == "all"', "True"),
        "a barrier is needed only before an instruction that conflicts",
    ),
    "only what is written first and read then": (
        but(EARLY, "(x.writes or y.writes)", "(y.writes and not x.writes)"),
        "before",
    ),
    "kinds of regions only": (
        but(EARLY, "x.region != y.region or", "x.region.kind != y.region.kind or"),
        "no barrier is between them",
    ),
    "a barrier too late": (
        but(
            IN_ORDER,
            "            epochs.append([])\n        epochs[-1].append(one)",
            "            epochs[-1].append(one)\n            epochs.append([])\n"
            "        else:\n            epochs[-1].append(one)",
        ),
        "no barrier is between them",
    ),
    "backwards": (
        "def arrange(instructions):\n    return [[one] for one in reversed(instructions)]\n",
        "the order in which the instructions are given is a right one",
    ),
    "one is left out": (but(EARLY, "range(last + 1)", "range(last)"), "never runs"),
    "one runs twice": (
        but(EARLY, "when[one] == epoch]", "when[one] in (epoch, epoch + 1)]"),
        "twice",
    ),
    "names": (but(EARLY, "[[one for", "[[one.name for"), "in an epoch"),
    "a flat list": (
        "def arrange(instructions):\n    return list(instructions)\n",
        "for an epoch, not a list",
    ),
}
