"""The barrier of a program as IR text.

A program is `void (ptr table, i64 n, i64 tid, i64 threads, ptr barrier)`.  Waiting spins: a
while with the processor's pause, then giving way to other threads, since a spinning thread may
keep from its core the very one it waits for.
"""

from __future__ import annotations

from graphc.backends.native.ir import Module
from graphc.backends.native.machine_ir import fill, pause
from graphc.backends.native.target import Target

PAUSES = 1000
"""Turns of a waiting loop without giving way: some 20 to 50 us."""


def add_barrier(module: Module, target: Target) -> None:
    """Add `internal void @barrier(ptr %barrier, i64 %threads)`: returns when all have come.

    What any thread wrote before it, every thread sees after it.  With one thread it is free.
    The barrier's memory is 128 bytes, zero at first: i32 arrived; 64 bytes further i32
    generation.
    """
    module.declare("declare i32 @sched_yield()")
    module.declare(pause(target)[0])
    module.functions += [fill(_RELAX, target, pauses=PAUSES), _BARRIER]


_RELAX = """\
define internal void @relax(i64 %turns) nounwind {
entry:
  $pause
  %long = icmp ugt i64 %turns, $pauses
  br i1 %long, label %give_way, label %done
give_way:
  call i32 @sched_yield()
  br label %done
done:
  ret void
}"""

_BARRIER = """\
define internal void @barrier(ptr %barrier, i64 %threads) nounwind noinline {
entry:
  %alone = icmp sle i64 %threads, 1
  br i1 %alone, label %done, label %arrive
arrive:
  %generation_at = getelementptr i8, ptr %barrier, i64 64
  %generation = load atomic i32, ptr %generation_at acquire, align 4
  %before = atomicrmw add ptr %barrier, i32 1 acq_rel
  %before_wide = zext i32 %before to i64
  %arrived = add i64 %before_wide, 1
  %last = icmp eq i64 %arrived, %threads
  br i1 %last, label %open, label %look
open:
  store atomic i32 0, ptr %barrier monotonic, align 4
  %next = add i32 %generation, 1
  store atomic i32 %next, ptr %generation_at release, align 4
  br label %done
look:
  %turns = phi i64 [ 0, %arrive ], [ %more, %wait ]
  %now = load atomic i32, ptr %generation_at acquire, align 4
  %same = icmp eq i32 %now, %generation
  br i1 %same, label %wait, label %done
wait:
  call void @relax(i64 %turns)
  %more = add i64 %turns, 1
  br label %look
done:
  ret void
}"""
