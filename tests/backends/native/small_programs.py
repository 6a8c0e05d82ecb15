"""Small native programs, written by hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graphc.backends.native.ir import Function, Module, Value
from graphc.backends.native.libraries import Library, load
from graphc.backends.native.target import host

ARGUMENTS = "ptr %table, i64 %n, i64 %tid, i64 %threads, i64 %epoch"

SQUARE = """
define float @square(float %x) {
  %y = fmul float %x, %x
  ret float %y
}
"""


def program(module: Module, name: str, write: object) -> Function:
    """A program; `write(function, first)` gets the first address of the table."""
    function = Function(module, name, ARGUMENTS, linkage="")
    write(function, function.value("load ptr, ptr %table"))  # type: ignore[operator]
    function.ret()
    return function


def _count(f: Function, first: Value) -> None:
    """first[tid] += n, and first[8 + tid] = threads."""
    f.do(f"atomicrmw add ptr {f.address(first, '%tid', 'i64')}, i64 %n seq_cst")
    f.do(f"store i64 %threads, ptr {f.address(first, f.add('%tid', 8), 'i64')}")


def _phases(f: Function, first: Value) -> None:
    """first[tid] = epoch, where each is round_down; where odd, count in first[8] what differs."""

    def check(t: Value, _: list[Value]) -> None:
        seen = f.value(f"load i64, ptr {f.address(first, t, 'i64')}")
        wrong = f.value(f"zext i1 {f.value(f'icmp ne i64 {seen}, {before}')} to i64")
        f.do(f"atomicrmw add ptr {f.address(first, 8, 'i64')}, i64 {wrong} monotonic")

    before = f.sub("%epoch", 1)
    odd = f.value("and i64 %epoch, 1")
    round_down = f.value(f"icmp eq i64 {odd}, 0")
    f.when(round_down, lambda: f.do(f"store i64 %epoch, ptr {f.address(first, '%tid', 'i64')}"))

    def check_all() -> None:
        f.loop(0, "%threads", 1, check)

    f.when(f.value(f"icmp ne i64 {odd}, 0"), check_all)
    f.do(f"store i64 %threads, ptr {f.address(first, 9, 'i64')}")


def _halve(f: Function, first: Value) -> None:
    """first[n + tid] = first[tid] / 2 in float32."""
    x = f.value(f"load float, ptr {f.address(first, '%tid', 'float')}")
    half = f.value(f"fmul float {x}, 5.000000e-01")
    place = f.address(first, f.add("%n", "%tid"), "float")
    f.do(f"store float {half}, ptr {place}")


def _wait(f: Function, first: Value) -> None:
    """Raise first[0], and return once first[1] is not zero."""
    f.do(f"atomicrmw add ptr {first}, i64 1 seq_cst")
    _until(f, f.address(first, 1, "i64"), "icmp ne i64 {}, 0")


def _wait_beside(f: Function, first: Value) -> None:
    """Raise first[0]; all parts but the first return once first[1] is not zero, the first once
    another has begun."""
    f.do(f"atomicrmw add ptr {first}, i64 1 seq_cst")
    f.do("%own = icmp eq i64 %tid, 0\n  br i1 %own, label %look, label %wait")
    f.do("\nlook:")
    begun = f.value(f"load atomic i64, ptr {first} acquire, align 8")
    f.do("call i32 @sched_yield()")
    f.do(f"br i1 {f.value(f'icmp sge i64 {begun}, 2')}, label %done, label %look")
    f.do("\nwait:")
    seen = f.value(f"load atomic i64, ptr {f.address(first, 1, 'i64')} acquire, align 8")
    f.do("call i32 @sched_yield()")
    f.do(f"br i1 {f.value(f'icmp ne i64 {seen}, 0')}, label %done, label %wait\ndone:")


def _meet(f: Function, first: Value) -> None:
    """Raise first[0], and return once it is `n` or more: on as many threads at once."""
    f.do(f"atomicrmw add ptr {first}, i64 1 seq_cst")
    _until(f, first, "icmp sge i64 {}, %n")


def _until(f: Function, place: Value, condition: str) -> None:
    f.do("br label %look")
    f.do("\nlook:")
    seen = f.value(f"load atomic i64, ptr {place} acquire, align 8")
    f.do("call i32 @sched_yield()")
    f.do(f"br i1 {f.value(condition.format(seen))}, label %done, label %look\ndone:")


_PROGRAMS = {
    "count": _count,
    "phases": _phases,
    "halve": _halve,
    "wait": _wait,
    "wait_beside": _wait_beside,
    "meet": _meet,
}


def small_programs() -> Library:
    """`count`, `phases`, `halve`, `wait` and `meet`."""
    module = Module()
    module.declare("declare i32 @sched_yield()")
    for name, write in _PROGRAMS.items():
        module.add(program(module, name, write))
    return load(module.text(), tuple(_PROGRAMS), host())


def table_of(array: NDArray[np.generic]) -> NDArray[np.uint64]:
    """A table of one address."""
    return np.array([array.ctypes.data], np.uint64)
