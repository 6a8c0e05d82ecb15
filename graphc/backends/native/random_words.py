"""Random words in native code: those of `graphc.kernels.philox`, Philox4x32-10.

A 32-bit word is the low half of a 64-bit lane, and the high half is ignored: only the operands of a
product are cut to 32 bits, as the instructions of x86 and ARM that multiply 32 by 32 bits read
them anyway.
"""

from __future__ import annotations

from graphc.backends.native.ir import Value
from graphc.backends.native.vectors import Vectors
from graphc.kernels.philox import MULTIPLIERS, ROUNDS, WEYL

GROUP = 64
"""The number of columns in a group: sixteen counters of four words."""
_COUNTERS = 16
_LOW = 0xFFFFFFFF
_State = tuple[Value, Value, Value, Value]


def group_words(
    v: Vectors, seed: Value, draws: Value, stream: int, row: Value, group: Value
) -> list[Value]:
    """Emit the words of columns 64 * group + (0..63) of a row: four `<16 x i32>`, in order.

    `seed`, `draws`, `row` and `group` are scalars (i64).  The words are those of
    `graphc.kernels.philox.keep_words`, whatever the lanes of `v`.
    """
    w = Vectors(v.function, _COUNTERS)
    first = w.splat(w.function.mul(group, _COUNTERS), "uint64")
    state = (
        w.add(first, w.lane_numbers("uint64"), "uint64"),
        w.splat(row, "uint64"),
        w.splat(draws, "uint64"),
        w.const(stream & _LOW, "uint64"),
    )
    keys = w.splat(seed, "uint64"), _high(w, w.splat(seed, "uint64"))
    for number in range(ROUNDS):
        if number:
            keys = _next(w, keys[0], WEYL[0]), _next(w, keys[1], WEYL[1])
        state = _round(w, state, keys)
    return [w.cast(word, "uint64", "uint32") for word in state]


def words_at(
    v: Vectors, seed: Value, draws: Value, stream: int, row: Value, column: Value | int
) -> Value:
    """Emit the call for the words of as many columns as `v` has lanes, which divide sixteen."""
    arguments = "i64 %seed, i64 %draws, i64 %stream, i64 %row, i64 %column"
    result = v.type("uint32")
    name = v.function.module.function(
        "philox", arguments, lambda f: _some_words(Vectors(f, v.lanes)), ("philox", v.lanes), result
    )
    return v.function.call_for(result, name, seed, draws, stream & _LOW, row, column)


def _some_words(w: Vectors) -> Value:
    """Emit the words of neighbouring columns: the same one of neighbouring counters."""
    f = w.function
    inside = f.remainder("%column", GROUP)
    first = f.mul(f.quotient("%column", GROUP), _COUNTERS)
    first = f.add(first, f.remainder(inside, _COUNTERS))
    counters = w.add(w.splat(first, "uint64"), w.lane_numbers("uint64"), "uint64")
    state = [counters, *(w.splat(x, "uint64") for x in ("%row", "%draws", "%stream"))]
    keys = w.splat("%seed", "uint64"), _high(w, w.splat("%seed", "uint64"))

    def round(_: Value, carried: list[Value]) -> list[Value]:
        x0, x1, x2, x3, low, high = carried
        found = _round(w, (x0, x1, x2, x3), (low, high))
        return [*found, _next(w, low, WEYL[0]), _next(w, high, WEYL[1])]

    carried = [(w.type("uint64"), x) for x in (*state, *keys)]
    words = f.loop(0, ROUNDS, 1, round, carried)[:4]
    found = words[0]
    for number, word in enumerate(words[1:], start=1):
        later = f.value(f"icmp uge i64 {inside}, {number * _COUNTERS}")
        found = f.value(f"select i1 {later}, {w.type('uint64')} {word}, {w.type('uint64')} {found}")
    return w.cast(found, "uint64", "uint32")


def _round(w: Vectors, state: _State, keys: tuple[Value, Value]) -> _State:
    x0, x1, x2, x3 = state
    p0, p1 = _times(w, x0, MULTIPLIERS[0]), _times(w, x2, MULTIPLIERS[1])
    return (_mixed(w, _high(w, p1), x1, keys[0]), p1, _mixed(w, _high(w, p0), x3, keys[1]), p0)


def _times(w: Vectors, x: Value, multiplier: int) -> Value:
    low = w.binary("and", x, w.const(_LOW, "uint64"), "uint64")
    return w.mul(low, w.const(multiplier, "uint64"), "uint64")


def _high(w: Vectors, x: Value) -> Value:
    return w.binary("lshr", x, w.const(32, "uint64"), "uint64")


def _mixed(w: Vectors, a: Value, b: Value, c: Value) -> Value:
    return w.binary("xor", w.binary("xor", a, b, "uint64"), c, "uint64")


def _next(w: Vectors, key: Value, step: int) -> Value:
    return w.add(key, w.const(step, "uint64"), "uint64")
