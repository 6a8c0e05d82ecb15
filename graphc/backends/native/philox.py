"""The random words of `graphc.kernels.philox`, Philox4x32-10, sixteen counters at a time.

A 32-bit word lies in the low half of a 64-bit lane, and the high half does not matter: only the
operands of a product are cut to 32 bits, which is how the instructions of x86 and ARM that
multiply 32 by 32 bits read them anyway.  So a round is two products, two shifts and two
exclusive ors of three.
"""

from __future__ import annotations

from graphc.backends.native.ir import Value
from graphc.backends.native.registers import Registers
from graphc.kernels.philox import MULTIPLIERS, ROUNDS, WEYL

GROUP = 64
"""The number of columns in a group: sixteen counters of four words."""
_COUNTERS = 16
_LOW = 0xFFFFFFFF
_State = tuple[Value, Value, Value, Value]


def group_words(
    v: Registers, seed: Value, draws: Value, stream: int, row: Value, group: Value
) -> list[Value]:
    """Return the words of columns 64 * group + (0..63) of a row: four `<16 x i32>`, in order.

    `seed`, `draws`, `row` and `group` are scalars (i64).  The words are those of
    `graphc.kernels.philox.keep_words`, whatever the lanes of `v`.
    """
    w = Registers(v.module, v.function, _COUNTERS)
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


def _round(w: Registers, state: _State, keys: tuple[Value, Value]) -> _State:
    x0, x1, x2, x3 = state
    p0, p1 = _product(w, x0, MULTIPLIERS[0]), _product(w, x2, MULTIPLIERS[1])
    return (_mixed(w, _high(w, p1), x1, keys[0]), p1, _mixed(w, _high(w, p0), x3, keys[1]), p0)


def _product(w: Registers, x: Value, multiplier: int) -> Value:
    low = w.binary("and", x, w.const(_LOW, "uint64"), "uint64")
    return w.mul(low, w.const(multiplier, "uint64"), "uint64")


def _high(w: Registers, x: Value) -> Value:
    return w.binary("lshr", x, w.const(32, "uint64"), "uint64")


def _mixed(w: Registers, a: Value, b: Value, c: Value) -> Value:
    return w.binary("xor", w.binary("xor", a, b, "uint64"), c, "uint64")


def _next(w: Registers, key: Value, step: int) -> Value:
    return w.add(key, w.const(step, "uint64"), "uint64")
