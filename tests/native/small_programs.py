"""Small native programs, written by hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graphc.backends.native.ir import Function, Module, Value
from graphc.backends.native.jit import Library, load
from graphc.backends.native.target import host
from graphc.backends.native.threads_ir import add_barrier

ARGUMENTS = [("ptr", "%table"), *[("i64", f"%{name}") for name in ("n", "tid", "threads")]]

SQUARE = """
define float @square(float %x) {
  %y = fmul float %x, %x
  ret float %y
}
"""


def program(name: str, write: object) -> Function:
    """A program; `write(function, first)` gets the first address of the table."""
    function = Function(name, [*ARGUMENTS, ("ptr", "%barrier")], linkage="")
    write(function, function.value("load ptr, ptr %table"))  # type: ignore[operator]
    function.ret()
    return function


def _count(f: Function, first: Value) -> None:
    """first[tid] += n, and first[8 + tid] = threads."""
    f.do(f"atomicrmw add ptr {f.address(first, '%tid', 'i64')}, i64 %n seq_cst")
    f.do(f"store i64 %threads, ptr {f.address(first, f.add('%tid', 8), 'i64')}")


def _phases(f: Function, first: Value) -> None:
    """n times: first[tid] = phase; count in first[8] who does not see all of them equal."""

    def phase(i: Value, _: list[Value]) -> None:
        f.do(f"store i64 {i}, ptr {f.address(first, '%tid', 'i64')}")
        f.do("call void @barrier(ptr %barrier, i64 %threads)")
        f.loop(0, "%threads", 1, lambda t, _: check(t, i))
        f.do("call void @barrier(ptr %barrier, i64 %threads)")

    def check(t: Value, i: Value) -> None:
        seen = f.value(f"load i64, ptr {f.address(first, t, 'i64')}")
        wrong = f.value(f"zext i1 {f.value(f'icmp ne i64 {seen}, {i}')} to i64")
        f.do(f"atomicrmw add ptr {f.address(first, 8, 'i64')}, i64 {wrong} monotonic")

    f.loop(0, "%n", 1, phase)
    f.do(f"store i64 %threads, ptr {f.address(first, 9, 'i64')}")


def _halve(f: Function, first: Value) -> None:
    """first[n + tid] = first[tid] / 2 in float32, and meet at the barrier."""
    x = f.value(f"load float, ptr {f.address(first, '%tid', 'float')}")
    half = f.value(f"fmul float {x}, 5.000000e-01")
    place = f.address(first, f.add("%n", "%tid"), "float")
    f.do(f"store float {half}, ptr {place}")
    f.do("call void @barrier(ptr %barrier, i64 %threads)")


def _wait(f: Function, first: Value) -> None:
    """Raise first[0], and return once first[1] is not zero."""
    f.do(f"atomicrmw add ptr {first}, i64 1 seq_cst")
    f.do("br label %look")
    f.do("\nlook:")
    seen = f.value(f"load atomic i64, ptr {f.address(first, 1, 'i64')} acquire, align 8")
    f.do("call i32 @sched_yield()")
    go = f.value(f"icmp ne i64 {seen}, 0")
    f.do(f"br i1 {go}, label %done, label %look\ndone:")


_PROGRAMS = {"count": _count, "phases": _phases, "halve": _halve, "wait": _wait}


def small_programs() -> Library:
    """`count`, `phases`, `halve` and `wait`."""
    module = Module()
    add_barrier(module, host())
    for name, write in _PROGRAMS.items():
        module.add(program(name, write))
    return load(module.text(), tuple(_PROGRAMS), host())


def table_of(array: NDArray[np.generic]) -> NDArray[np.uint64]:
    """A table of one address."""
    return np.array([array.ctypes.data], np.uint64)
