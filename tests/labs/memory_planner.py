"""Answers to the lab about a memory planner."""

FIRST_FIT = """
def size(live):
    return -(-live.nbytes // 64) * 64


def plan(ranges):
    offsets = {}
    for live in sorted(ranges, key=ORDER):
        busy = sorted(
            (offsets[o.name], offsets[o.name] + size(o))
            for o in ranges
            if o.name in offsets and OVERLAP
        )
        offset = 0
        for start, end in busy:
            if offset + size(live) <= start:
                break
            offset = max(offset, end)
        offsets[live.name] = offset
    return offsets
"""
OVERLAP = "o.first <= live.last and live.first <= o.last"


def first_fit(
    order: str = "lambda r: (-r.nbytes, r.first, r.name)", overlap: str = OVERLAP, **changes: str
) -> str:
    made = FIRST_FIT.replace("ORDER", order).replace("OVERLAP", overlap)
    for old, new in changes.values():
        assert old in made, old
        made = made.replace(old, new)
    return made


RIGHT = {
    "the largest first": first_fit(),
    "by area": first_fit("lambda r: -r.nbytes * (r.last - r.first + 1)"),
    "by a table of bytes": """
def plan(ranges):
    # lines of 64 bytes; for each the epochs in which it is taken
    taken, found = [], {}
    for live in sorted(ranges, key=lambda r: r.nbytes, reverse=True):
        lines = (live.nbytes + 63) // 64
        wanted = set(range(live.first, live.last + 1))
        start = 0
        while True:
            taken += [set() for _ in range(start + lines - len(taken))]
            clash = [i for i in range(start, start + lines) if taken[i] & wanted]
            if not clash:
                break
            start = clash[-1] + 1
        for i in range(start, start + lines):
            taken[i] |= wanted
        found[live.name] = 64 * start
    return found
""",
    "the best of several orders": FIRST_FIT.replace("def plan(ranges)", "def by(ranges, order)")
    .replace("ORDER", "order")
    .replace("OVERLAP", OVERLAP)
    + """
def plan(ranges):
    orders = (
        lambda r: -r.nbytes,
        lambda r: (r.first, -r.nbytes),
        lambda r: -(r.last - r.first),
        lambda r: r.last,
    )
    plans = [by(ranges, order) for order in orders]
    return min(plans, key=lambda p: max(p[r.name] + size(r) for r in ranges))
""",
}

WRONG = {
    "nothing": ("def plan(ranges):\n    return {}\n", "gave no offset to"),
    "all at the start": (
        "def plan(ranges):\n    return {live.name: 0 for live in ranges}\n",
        "share bytes",
    ),
    "the last epoch is excluded": (
        first_fit(overlap="o.first < live.last and live.first < o.last"),
        "share bytes",
    ),
    "bytes are not rounded up": (
        first_fit(size=("-(-live.nbytes // 64) * 64", "live.nbytes")),
        "an offset is a whole number of bytes from 0 to 2**47, a multiple of 64",
    ),
    "bytes are rounded down": (
        first_fit(size=("-(-live.nbytes // 64) * 64", "live.nbytes // 64 * 64")),
        "share bytes",
    ),
    "nothing is shared": (
        """
def plan(ranges):
    offsets, end = {}, 0
    for live in ranges:
        offsets[live.name] = end
        end += -(-live.nbytes // 64) * 64
    return offsets
""",
        "bytes that are free again are not used",
    ),
    "only ranges that start later count": (
        first_fit(overlap="o.first <= live.first <= o.last"),
        "share bytes",
    ),
    "the first gap that begins, however small": (
        first_fit(gap=("offset + size(live) <= start", "offset < start")),
        "share bytes",
    ),
    "the smallest first": (first_fit("lambda r: r.nbytes"), "that are live at once"),
    "a list": (first_fit(result=("return offsets", "return list(offsets.values())")), "not a dict"),
    "below 0": (
        first_fit(result=("offsets[live.name] = offset", "offsets[live.name] = offset - 64")),
        "the offset -64",
    ),
    "bytes of one epoch": (
        """
def plan(ranges):
    offsets = {}
    for epoch in range(max(r.last for r in ranges) + 1):
        end = 0
        for live in ranges:
            if live.first == epoch:
                offsets[live.name] = end
                end += -(-live.nbytes // 64) * 64
    return offsets
""",
        "share bytes",
    ),
}
