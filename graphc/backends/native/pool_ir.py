"""The pool of workers as IR text.

All waiting spins, pausing, then giving way; workers without work end by sleeping.

The pool's memory is zeroed, 64-byte aligned, and `bytes_of_pool` long:

       0  i32 taken         by the one caller whose program the workers run
      64  the job           ptr function, ptr table, i64 n, i64 threads
     128  i64 workers       that are there; i64 most, the threads that could be
     192  the barrier       i32 arrived; 64 bytes further i32 generation
    256+  128 bytes for each worker, by tid from 1: i32 go, i32 asleep, i32 ready; 64 bytes
          further i32 seen, the last `go` that it has finished
"""

from __future__ import annotations

from graphc.backends.native import call_ir
from graphc.backends.native.ir import Module
from graphc.backends.native.machine_ir import fill, float_mode, sleeping
from graphc.backends.native.target import Target
from graphc.backends.native.threads_ir import add_barrier

WORKERS, MOST = 128, 136
READY = 8
IDLE = 2000
"""Turns after which a worker sleeps: some 0.5 ms, about ten times what it costs to wake it."""


def bytes_of_pool(workers: int) -> int:
    """The memory of a pool that may have so many workers."""
    return offset_of(workers + 1)


def offset_of(tid: int) -> int:
    """Where a worker's 128 bytes start."""
    return 256 + 128 * tid


def pool_ir(target: Target) -> str:
    """The module of the pool: `worker` and `release`, and `call`, a builtin of Python's."""
    module = Module()
    add_barrier(module, target)
    for declaration in (*float_mode(target)[0], *sleeping(target)[0], *call_ir.DECLARATIONS):
        module.declare(declaration)
    parts = (_PART, _RECORD, _SLEEP, _START, _FINISH, _DISPATCH, _NEXT, _WORKER, _RELEASE)
    for part in (*parts, call_ir.CALL):
        module.functions.append(fill(part, target, idle=IDLE, first=offset_of(0)))
    return module.text()


_PART = """\
define internal void @part(ptr %function, ptr %table, i64 %n, i64 %tid, i64 %threads,
                           ptr %pool) nounwind {
entry:
  $save_mode
  %barrier = getelementptr i8, ptr %pool, i64 192
  call void %function(ptr %table, i64 %n, i64 %tid, i64 %threads, ptr %barrier)
  $restore_mode
  ret void
}"""

_RECORD = """\
define internal ptr @record(ptr %pool, i64 %tid) nounwind {
entry:
  %far = mul i64 %tid, 128
  %offset = add i64 %far, $first
  %record = getelementptr i8, ptr %pool, i64 %offset
  ret ptr %record
}"""

_SLEEP = """\
define internal void @sleep_while(ptr %word, i32 %seen) nounwind {
entry:
  %asleep = getelementptr i8, ptr %word, i64 4
  store atomic i32 1, ptr %asleep seq_cst, align 4
  $sleep
  store atomic i32 0, ptr %asleep monotonic, align 4
  ret void
}"""

_START = """\
define internal void @start(ptr %pool, i64 %team) nounwind {
entry:
  br label %next
next:
  %tid = phi i64 [ 1, %entry ], [ %following, %started ]
  %more = icmp slt i64 %tid, %team
  br i1 %more, label %go, label %done
go:
  %word = call ptr @record(ptr %pool, i64 %tid)
  atomicrmw add ptr %word, i32 1 seq_cst
  %asleep_at = getelementptr i8, ptr %word, i64 4
  %asleep = load atomic i32, ptr %asleep_at seq_cst, align 4
  %sleeps = icmp ne i32 %asleep, 0
  br i1 %sleeps, label %wake, label %started
wake:
  $wake
  br label %started
started:
  %following = add i64 %tid, 1
  br label %next
done:
  ret void
}"""

_FINISH = """\
define internal void @finish(ptr %pool, i64 %team) nounwind {
entry:
  br label %next
next:
  %tid = phi i64 [ 1, %entry ], [ %following, %finished ]
  %unfinished = icmp slt i64 %tid, %team
  br i1 %unfinished, label %ask, label %done
ask:
  %word = call ptr @record(ptr %pool, i64 %tid)
  %go = load atomic i32, ptr %word monotonic, align 4
  %seen_at = getelementptr i8, ptr %word, i64 64
  br label %look
look:
  %turns = phi i64 [ 0, %ask ], [ %more, %wait ]
  %seen = load atomic i32, ptr %seen_at acquire, align 4
  %same = icmp eq i32 %seen, %go
  br i1 %same, label %finished, label %wait
wait:
  call void @relax(i64 %turns)
  %more = add i64 %turns, 1
  br label %look
finished:
  %following = add i64 %tid, 1
  br label %next
done:
  ret void
}"""

# One caller at a time has the workers; who finds them taken runs alone, with equal results.
_DISPATCH = """\
define internal void @dispatch(ptr %pool, ptr %function, ptr %table, i64 %n,
                               i64 %threads) nounwind {
entry:
  %workers_at = getelementptr i8, ptr %pool, i64 128
  %workers = load atomic i64, ptr %workers_at acquire, align 8
  %there = add i64 %workers, 1
  %team = call i64 @llvm.smin.i64(i64 %threads, i64 %there)
  %several = icmp sgt i64 %team, 1
  br i1 %several, label %take, label %alone
take:
  %pair = cmpxchg ptr %pool, i32 0, i32 1 acquire monotonic
  %got = extractvalue { i32, i1 } %pair, 1
  br i1 %got, label %together, label %alone
alone:
  call void @part(ptr %function, ptr %table, i64 %n, i64 0, i64 1, ptr %pool)
  ret void
together:
  %function_at = getelementptr i8, ptr %pool, i64 64
  store ptr %function, ptr %function_at
  %table_at = getelementptr i8, ptr %pool, i64 72
  store ptr %table, ptr %table_at
  %n_at = getelementptr i8, ptr %pool, i64 80
  store i64 %n, ptr %n_at
  %threads_at = getelementptr i8, ptr %pool, i64 88
  store i64 %team, ptr %threads_at
  call void @start(ptr %pool, i64 %team)
  call void @part(ptr %function, ptr %table, i64 %n, i64 0, i64 %team, ptr %pool)
  call void @finish(ptr %pool, i64 %team)
  store atomic i32 0, ptr %pool release, align 4
  ret void
}"""

_NEXT = """\
define internal i32 @next(ptr %word, i32 %seen) nounwind {
entry:
  br label %look
look:
  %turns = phi i64 [ 0, %entry ], [ %more, %wait ], [ 0, %sleep ]
  %go = load atomic i32, ptr %word acquire, align 4
  %same = icmp eq i32 %go, %seen
  br i1 %same, label %idle, label %done
idle:
  %more = add i64 %turns, 1
  %long = icmp ugt i64 %turns, $idle
  br i1 %long, label %sleep, label %wait
wait:
  call void @relax(i64 %turns)
  br label %look
sleep:
  call void @sleep_while(ptr %word, i32 %seen)
  br label %look
done:
  ret i32 %go
}"""

# Runs jobs until one has no function.
_WORKER = """\
define void @worker(ptr %pool, i64 %tid) nounwind {
entry:
  %word = call ptr @record(ptr %pool, i64 %tid)
  %seen_at = getelementptr i8, ptr %word, i64 64
  %function_at = getelementptr i8, ptr %pool, i64 64
  %table_at = getelementptr i8, ptr %pool, i64 72
  %n_at = getelementptr i8, ptr %pool, i64 80
  %threads_at = getelementptr i8, ptr %pool, i64 88
  %ready_at = getelementptr i8, ptr %word, i64 8
  store atomic i32 1, ptr %ready_at release, align 4
  br label %wait
wait:
  %seen = load i32, ptr %seen_at
  %go = call i32 @next(ptr %word, i32 %seen)
  %function = load ptr, ptr %function_at
  %end = icmp eq ptr %function, null
  br i1 %end, label %done, label %work
work:
  %table = load ptr, ptr %table_at
  %n = load i64, ptr %n_at
  %threads = load i64, ptr %threads_at
  call void @part(ptr %function, ptr %table, i64 %n, i64 %tid, i64 %threads, ptr %pool)
  store atomic i32 %go, ptr %seen_at release, align 4
  br label %wait
done:
  ret void
}"""

# Sends the workers home.  A program that runs is waited for, a second or two at most.
_RELEASE = """\
define void @release(ptr %pool) nounwind {
entry:
  %workers_at = getelementptr i8, ptr %pool, i64 128
  %workers = atomicrmw xchg ptr %workers_at, i64 0 seq_cst
  br label %look
look:
  %turns = phi i64 [ 0, %entry ], [ %more, %wait ]
  %pair = cmpxchg ptr %pool, i32 0, i32 1 acquire monotonic
  %got = extractvalue { i32, i1 } %pair, 1
  br i1 %got, label %send, label %wait
wait:
  call void @relax(i64 %turns)
  %more = add i64 %turns, 1
  %patient = icmp ult i64 %more, 5000000
  br i1 %patient, label %look, label %done
send:
  %function_at = getelementptr i8, ptr %pool, i64 64
  store ptr null, ptr %function_at
  %team = add i64 %workers, 1
  call void @start(ptr %pool, i64 %team)
  br label %done
done:
  ret void
}"""
