"""The LLVM IR of the worker threads.

A program is `void (ptr table, i64 n, i64 part, i64 parts, i64 epoch)`: it computes one part of one
epoch, or all epochs in order where `epoch` is negative.  An epoch is the code between two
barriers.  Its parts are independent, so any thread may compute any of them.

The caller publishes an epoch, and it and the workers claim parts, each its own first.  The caller
computes the parts that no worker has begun, and waits only for claimed ones: a worker that the
system does not run costs nothing, unless it stops amid a part.

The pool's memory is zeroed, 64-byte aligned, and `offset_of(threads)` long: a `POOL`, and a
`RECORD` for each thread, the caller first.  Different threads write different cache lines.

Numbers of epochs only grow.  An epoch cannot end before a thread that claimed a part of it is done,
so the job in memory is that epoch's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Template

from graphc.backends.native import call_ir
from graphc.backends.native.ir import Module
from graphc.backends.native.structures import Structure, written_out
from graphc.backends.native.target import Target

POOL: Structure = {
    "taken": ("i32", 0),  # by the one caller whose program the workers run
    "published": ("i64", 64),  # the number of an epoch << 12 | its parts << 1 | whether it is open
    "function": ("ptr", 128),  # with the three below: the job
    "table": ("ptr", 136),
    "n": ("i64", 144),
    "epoch": ("i64", 152),
    "arrived": ("i32", 192),  # parts that workers have finished
    "asleep": ("i32", 196),  # whether the caller sleeps
    "slept": ("i32", 200),  # whether it did in this run
    "closing": ("i32", 256),  # whether workers must end
    "asked": ("i32", 320),  # the number of questions to the prober,
    "answered": ("i32", 324),  # the last one that it answered,
    "answer_time": ("i64", 328),  # and when, in nanoseconds
}
RECORD: Structure = {
    "go": ("i32", 0),
    "asleep": ("i32", 4),
    "claimed": ("i64", 64),  # the last epoch whose part of this number was claimed
}
FIRST_RECORD, RECORD_BYTES = 384, 128
MOST_PARTS = 2047
"""The largest number of parts that a published epoch can have."""
PAUSES = 1000
"""The checks that a waiting worker makes without giving way: some 20 to 50 us."""
IDLE = 2000
"""The checks after which a worker sleeps: some 0.5 ms, about ten times the cost of waking it."""
PATIENCE = 100_000
"""The nanoseconds that the caller waits awake for a part, if its own part took no longer."""


def offset_of(tid: int) -> int:
    """Return where the record of a thread starts."""
    return FIRST_RECORD + RECORD_BYTES * tid


def pool_ir(target: Target) -> str:
    """Return the module of the functions of a pool: `worker`, `call` and others."""
    module = Module()
    declared, code = machine_code(target)
    for declaration in (*_LIBC, *call_ir.DECLARATIONS, *declared):
        module.declare(declaration)
    numbers = {
        "idle": IDLE,
        "pauses": PAUSES,
        "patience": PATIENCE,
        "first": FIRST_RECORD,
        "bytes": RECORD_BYTES,
    }
    structures = {"pool": POOL, "record": RECORD, "frame": call_ir.FRAME}
    for part in (*_BASIC, *call_ir.SHARING, *_WORKERS, *call_ir.CALLING):
        text = written_out(part, structures)
        module.functions.append(Template(text).substitute(code, **numbers))
    return module.text()


_LIBC = ("declare i32 @sched_yield()", "declare i32 @clock_gettime(i32, ptr)")


def machine_code(target: Target) -> tuple[Sequence[str], Mapping[str, object]]:
    """Return a machine's declarations, and its code for `$pause` and so on in the text.

    `pause` hints to the processor that this thread waits.  `save_mode` saves the float mode and
    sets that of IEEE 754, which other libraries may have left: no traps, round to nearest, and
    subnormal numbers are numbers.  `sleep` sleeps while the i32 at %word is %seen, and `wake`
    wakes its sleeper.
    """
    if target.arm:
        hint, read, write = (f"llvm.aarch64.{name}" for name in ("hint", "get.fpcr", "set.fpcr"))
        declared = [f"declare void @{hint}(i32)", f"declare i64 @{read}()"]
        declared.append(f"declare void @{write}(i64)")
        pause = f"call void @{hint}(i32 1)"
        save = f"%mode = call i64 @{read}()\n  call void @{write}(i64 0)"
        restore = f"call void @{write}(i64 %mode)"
    else:
        read, write = "llvm.x86.sse.stmxcsr", "llvm.x86.sse.ldmxcsr"
        declared = [f"declare void @{name}(ptr)" for name in (read, write)]
        declared.append("declare void @llvm.x86.sse2.pause()")
        pause = "call void @llvm.x86.sse2.pause()"
        # 0x1F80 masks traps.
        save = (
            "%mode = alloca i32, align 4\n  %ours = alloca i32, align 4\n"
            f"  call void @{read}(ptr %mode)\n  store i32 {0x1F80}, ptr %ours\n"
            f"  call void @{write}(ptr %ours)"
        )
        restore = f"call void @{write}(ptr %mode)"
    if target.apple:
        declared += ["declare i32 @__ulock_wait(i32, ptr, i64, i32)"]
        declared += ["declare i32 @__ulock_wake(i32, ptr, i64)"]
        sleep = "call i32 @__ulock_wait(i32 1, ptr %word, i64 %wide, i32 0)"
        wake = "call i32 @__ulock_wake(i32 1, ptr %word, i64 0)"
    else:
        declared.append("declare i64 @syscall(i64, ...)")
        # The system call is futex; 128 is a private wait, 129 a private wake.
        futex = f"call i64 (i64, ...) @syscall(i64 {98 if target.arm else 202}, ptr %word, "
        sleep, wake = f"{futex}i64 128, i64 %wide, ptr null)", f"{futex}i64 129, i64 1)"
    code = {
        "pause": pause,
        "save_mode": save,
        "restore_mode": restore,
        "sleep": sleep,
        "wake": wake,
    }
    return declared, code | {"monotonic": 6 if target.apple else 1}


_NOW = """\
define internal i64 @now() nounwind {
entry:
  %time = alloca [2 x i64], align 8
  call i32 @clock_gettime(i32 $monotonic, ptr %time)
  %seconds = load i64, ptr %time
  %rest_at = getelementptr i8, ptr %time, i64 8
  %rest = load i64, ptr %rest_at
  %whole = mul i64 %seconds, 1000000000
  %now = add i64 %whole, %rest
  ret i64 %now
}"""

_SLEEP_ON = """\
define internal void @sleep_on(ptr %word, i32 %seen) nounwind {
entry:
  %wide = zext i32 %seen to i64
  $sleep
  ret void
}"""

_POKE = """\
define void @poke(ptr %word) nounwind {
entry:
  $wake
  ret void
}"""

_RECORD = """\
define internal ptr @record(ptr %pool, i64 %tid) nounwind {
entry:
  %far = mul i64 %tid, $bytes
  %offset = add i64 %far, $first
  %record = getelementptr i8, ptr %pool, i64 %offset
  ret ptr %record
}"""

# Gives way once it has waited for long: a spinning thread may keep its core from the caller.
_RELAX = """\
define internal void @relax(i64 %turns) nounwind {
entry:
  $pause
  if ugt i64 %turns, $pauses: give_way, done
give_way:
  call i32 @sched_yield()
  br label %done
done:
  ret void
}"""

# Computes parts until the pool closes.  The float mode is the thread's own: it is set once.
_WORKER = """\
define void @worker(ptr %pool, i64 %tid) nounwind {
entry:
  $save_mode
  %record = call ptr @record(ptr %pool, i64 %tid)
  %arrived_at = place %pool.arrived
  br label %look
look:
  %turns = phi i64 [ 0, %entry ], [ %more, %wait ], [ 0, %arrive ], [ 0, %wake_caller ], [ 0, %up ]
  %word = field %pool.published acquire
  %open_bit = and i64 %word, 1
  %low = lshr i64 %word, 1
  %parts = and i64 %low, 2047
  %number = lshr i64 %word, 12
  %open = icmp ne i64 %open_bit, 0
  %member = icmp ult i64 %tid, %parts
  %may = and i1 %open, %member
  br i1 %may, label %take, label %idle
take:
  %count = call i64 @take_parts(ptr %pool, i64 %tid, i64 %number, i64 %parts)
  if eq i64 %count, 0: idle, arrive
arrive:
  %finished = trunc i64 %count to i32
  atomicrmw add ptr %arrived_at, i32 %finished seq_cst
  %caller = field %pool.asleep seq_cst
  if ne i32 %caller, 0: wake_caller, look
wake_caller:
  call void @poke(ptr %arrived_at)
  br label %look
idle:
  %closing = field %pool.closing acquire
  if ne i32 %closing, 0: done, stay
stay:
  %more = add i64 %turns, 1
  if ugt i64 %turns, $idle: doze, wait
wait:
  call void @relax(i64 %turns)
  br label %look
doze:
  %go = load atomic i32, ptr %record monotonic, align 4
  set %record.asleep = 1 seq_cst
  %now = field %pool.published seq_cst
  if ne i64 %now, %word: up, check
check:
  %end_now = field %pool.closing seq_cst
  if ne i32 %end_now, 0: up, lie
lie:
  call void @sleep_on(ptr %record, i32 %go)
  br label %up
up:
  set %record.asleep = 0 monotonic
  br label %look
done:
  $restore_mode
  ret void
}"""

# Answers, with the time, each time that it is asked; it runs where a core is idle.
_PROBER = """\
define void @prober(ptr %pool) nounwind {
entry:
  %asked_at = place %pool.asked
  br label %look
look:
  %closing = field %pool.closing seq_cst
  if ne i32 %closing, 0: done, read
read:
  %asked = field %pool.asked seq_cst
  %answered = field %pool.answered
  if eq i32 %asked, %answered: lie, answer
answer:
  %now = call i64 @now()
  set %pool.answer_time = %now
  set %pool.answered = %asked release
  br label %look
lie:
  call void @sleep_on(ptr %asked_at, i32 %asked)
  br label %look
done:
  ret void
}"""

# Ends all threads of the pool.
_SEND_HOME = """\
define void @send_home(ptr %pool, i64 %threads) nounwind {
entry:
  set %pool.closing = 1 seq_cst
  call void @wake_sleepers(ptr %pool, i64 %threads)
  %asked_at = place %pool.asked
  atomicrmw add ptr %asked_at, i32 1 seq_cst
  call void @poke(ptr %asked_at)
  ret void
}"""

# Runs the parts of one epoch for `threads` threads on this one, the last part first.
_IN_TURNS = """\
define void @in_turns(ptr %code, ptr %table, i64 %n, i64 %threads, i64 %epoch) nounwind {
entry:
  $save_mode
  br label %look
look:
  %left = phi i64 [ %threads, %entry ], [ %tid, %look ]
  %tid = sub i64 %left, 1
  call void %code(ptr %table, i64 %n, i64 %tid, i64 %threads, i64 %epoch)
  if ne i64 %tid, 0: look, done
done:
  $restore_mode
  ret void
}"""

_BASIC = (_NOW, _SLEEP_ON, _POKE, _RECORD)
_WORKERS = (_RELAX, _WORKER, _PROBER, _SEND_HOME, _IN_TURNS)
