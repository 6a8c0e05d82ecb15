"""The LLVM IR that runs a program: epochs shared with the workers, and the call from Python.

pool_ir describes the memory of the pool, `structures.written_out` the shorthands of the text.
The call is a builtin of one argument, the number of rows; `self` is the address, as an int, of a
`FRAME`.
"""

from __future__ import annotations

from graphc.backends.native.structures import structure

# Claims part `part` of epoch `number` unless another thread has; returns whether it did.
_CLAIM = """\
define internal i1 @claim(ptr %pool, i64 %part, i64 %number) nounwind {
entry:
  %record = call ptr @record(ptr %pool, i64 %part)
  %claimed_at = place %record.claimed
  %seen = field %record.claimed monotonic
  if ult i64 %seen, %number: try, no
try:
  %pair = cmpxchg ptr %claimed_at, i64 %seen, i64 %number acq_rel monotonic
  %got = extractvalue { i64, i1 } %pair, 1
  ret i1 %got
no:
  ret i1 0
}"""

# Computes the unclaimed parts of an epoch, one's own first; returns how many.
_TAKE_PARTS = """\
define internal i64 @take_parts(ptr %pool, i64 %own, i64 %number, i64 %parts) nounwind {
entry:
  br label %next
next:
  %turn = phi i64 [ 0, %entry ], [ %following, %after ]
  %part = phi i64 [ %own, %entry ], [ %wrapped, %after ]
  %done = phi i64 [ 0, %entry ], [ %done_now, %after ]
  if ult i64 %turn, %parts: try, out
try:
  %mine = call i1 @claim(ptr %pool, i64 %part, i64 %number)
  br i1 %mine, label %compute, label %after
compute:
  %function = field %pool.function
  %table = field %pool.table
  %n = field %pool.n
  %epoch = field %pool.epoch
  call void %function(ptr %table, i64 %n, i64 %part, i64 %parts, i64 %epoch)
  %one_more = add i64 %done, 1
  br label %after
after:
  %done_now = phi i64 [ %done, %try ], [ %one_more, %compute ]
  %following = add i64 %turn, 1
  %beside = add i64 %part, 1
  %end = icmp uge i64 %beside, %parts
  %wrapped = select i1 %end, i64 0, i64 %beside
  br label %next
out:
  ret i64 %done
}"""

# Announces an epoch to the workers, and wakes those that sleep.  By seq_cst, either this thread
# sees that a worker falls asleep, or the worker sees the epoch.
_PUBLISH = """\
define internal void @publish(ptr %pool, i64 %number, i64 %parts) nounwind {
entry:
  %high = shl i64 %number, 12
  %middle = shl i64 %parts, 1
  %both = or i64 %high, %middle
  %word = or i64 %both, 1
  set %pool.arrived = 0 monotonic
  set %pool.published = %word seq_cst
  call void @wake_sleepers(ptr %pool, i64 %parts)
  ret void
}"""

# Each is woken once: until it is up, the epochs that follow find it awake.
_WAKE_SLEEPERS = """\
define internal void @wake_sleepers(ptr %pool, i64 %threads) nounwind {
entry:
  br label %next
next:
  %tid = phi i64 [ 1, %entry ], [ %following, %after ]
  if ult i64 %tid, %threads: ask, done
ask:
  %record = call ptr @record(ptr %pool, i64 %tid)
  %asleep = field %record.asleep seq_cst
  if ne i32 %asleep, 0: wake, after
wake:
  set %record.asleep = 0 seq_cst
  atomicrmw add ptr %record, i32 1 seq_cst
  call void @poke(ptr %record)
  br label %after
after:
  %following = add i64 %tid, 1
  br label %next
done:
  ret void
}"""

# Waits until workers have finished `parts` parts: awake for a while, then asleep.
# The time is asked for every 16 looks only: asking costs more than looking.
_AWAIT = """\
define internal void @await(ptr %pool, i64 %parts, i64 %begun) nounwind {
entry:
  %wanted = trunc i64 %parts to i32
  %arrived_at = place %pool.arrived
  %early = field %pool.arrived acquire
  if eq i32 %early, %wanted: done, plan
plan:
  %now = call i64 @now()
  %took = sub i64 %now, %begun
  %long = icmp sgt i64 %took, $patience
  %awake = select i1 %long, i64 %took, i64 $patience
  %until = add i64 %now, %awake
  br label %look
look:
  %turns = phi i64 [ 0, %plan ], [ %more, %turn ], [ %more, %ask ]
  %arrived = field %pool.arrived acquire
  if eq i32 %arrived, %wanted: done, wait
wait:
  $pause
  %more = add i64 %turns, 1
  %some = and i64 %more, 15
  if eq i64 %some, 0: ask, turn
turn:
  br label %look
ask:
  %time = call i64 @now()
  if sgt i64 %time, %until: doze, look
doze:
  set %pool.slept = 1
  set %pool.asleep = 1 seq_cst
  %last = field %pool.arrived seq_cst
  if eq i32 %last, %wanted: up, lie
lie:
  call void @sleep_on(ptr %arrived_at, i32 %last)
  %woken = field %pool.arrived acquire
  if eq i32 %woken, %wanted: up, doze
up:
  set %pool.asleep = 0 monotonic
  br label %done
done:
  ret void
}"""

# Runs the epochs of a program in order: those that are not `shared` alone, others with the workers,
# and all of them alone once it is past the deadline.
# `closed` has the number of the last epoch, without the open bit: numbers must keep growing.
_TOGETHER = """\
define internal void @together(ptr %pool, ptr %function, ptr %table, i64 %n, i64 %parts,
                               i64 %epochs, ptr %shared, i64 %deadline) nounwind {
entry:
  %before = field %pool.published monotonic
  %last = lshr i64 %before, 12
  set %pool.function = %function
  set %pool.table = %table
  set %pool.n = %n
  set %pool.slept = 0
  br label %next
next:
  %epoch = phi i64 [ 0, %entry ], [ %following, %after ]
  %number = phi i64 [ %last, %entry ], [ %this, %after ]
  %alone = phi i1 [ 0, %entry ], [ %late, %after ]
  if ult i64 %epoch, %epochs: work, close
work:
  %flag_at = getelementptr i8, ptr %shared, i64 %epoch
  %flag = load i8, ptr %flag_at
  %short = icmp eq i8 %flag, 0
  %by_one = or i1 %alone, %short
  br i1 %by_one, label %single, label %share
single:
  call void %function(ptr %table, i64 %n, i64 0, i64 1, i64 %epoch)
  br label %after
share:
  %new = add i64 %number, 1
  set %pool.epoch = %epoch
  call void @publish(ptr %pool, i64 %new, i64 %parts)
  %begun = call i64 @now()
  %mine = call i64 @take_parts(ptr %pool, i64 0, i64 %new, i64 %parts)
  %theirs = sub i64 %parts, %mine
  call void @await(ptr %pool, i64 %theirs, i64 %begun)
  %over = icmp sgt i64 %begun, %deadline
  br label %after
after:
  %this = phi i64 [ %number, %single ], [ %new, %share ]
  %late = phi i1 [ %alone, %single ], [ %over, %share ]
  %following = add i64 %epoch, 1
  br label %next
close:
  %closed = shl i64 %number, 12
  set %pool.published = %closed release
  ret void
}"""

SHARING = (_CLAIM, _TAKE_PARTS, _WAKE_SLEEPERS, _PUBLISH, _AWAIT, _TOGETHER)

DECLARATIONS = (
    "declare ptr @PyLong_AsVoidPtr(ptr)",
    "declare i64 @PyLong_AsLongLong(ptr)",
    "declare ptr @PyErr_Occurred()",
    "declare ptr @PyEval_SaveThread()",
    "declare void @PyEval_RestoreThread(ptr)",
    "declare ptr @PyObject_CallNoArgs(ptr)",
    "declare void @Py_DecRef(ptr)",
    "declare ptr @Py_NewRef(ptr)",
)

FRAME = structure(
    "ptr pool",
    "ptr function",
    "ptr table",
    "i64 epochs",  # of the program
    "ptr shared",  # a byte for each epoch: 0 if the caller computes it alone
    "i64 timed",  # 0: the run is never shared nor timed, and keeps the interpreter's lock
    "i64 unlocks",  # whether a timed run releases the interpreter's lock
    "ptr review",  # called without arguments when `left` is used up
    "ptr none",
    "i64 threads",  # how many share the next run
    "i64 left",  # runs until the next review
    "i64 longest_pause",  # nanoseconds after a run; one that begins later is alone, and not timed
    "i64 ended",  # when the last run ended
    "i64 deadline",  # nanoseconds from which a shared run continues alone, and is late
    "i64 most",  # nanoseconds that a run counts for at most
    "i64 runs",  # timed since they were last set to 0
    "i64 time",  # of these, in nanoseconds
    "i64 stalled",  # nanoseconds of a run that was late since a worker stopped amid a part, or 0
)
"""The words of one bound program, which its calls and `pool.Choice` share."""
WORDS = tuple(FRAME)


# One caller at a time has the workers; one that finds them taken runs alone, with equal results.
_RUN = """\
define internal void @run(ptr %frame, i64 %n, i1 %paused) nounwind {
entry:
  $save_mode
  %pool = field %frame.pool
  %function = field %frame.function
  %table = field %frame.table
  %threads = field %frame.threads
  %epochs = field %frame.epochs
  %shared = field %frame.shared
  %deadline = field %frame.deadline
  %begin = call i64 @now()
  %several = icmp sgt i64 %threads, 1
  br i1 %paused, label %untimed, label %choose
choose:
  br i1 %several, label %ask, label %alone
ask:
  %closing = field %pool.closing acquire
  if ne i32 %closing, 0: untimed, take
take:
  %pair = cmpxchg ptr %pool, i32 0, i32 1 acquire monotonic
  %got = extractvalue { i32, i1 } %pair, 1
  br i1 %got, label %together, label %untimed
untimed:
  call void %function(ptr %table, i64 %n, i64 0, i64 1, i64 -1)
  %later = call i64 @now()
  set %frame.ended = %later
  br label %done
together:
  %until = add i64 %begin, %deadline
  call void @together(ptr %pool, ptr %function, ptr %table, i64 %n, i64 %threads, i64 %epochs,
                      ptr %shared, i64 %until)
  %slept = field %pool.slept
  store atomic i32 0, ptr %pool release, align 4
  br label %timed
alone:
  call void %function(ptr %table, i64 %n, i64 0, i64 1, i64 -1)
  br label %timed
timed:
  %stall = phi i32 [ %slept, %together ], [ 0, %alone ]
  %end = call i64 @now()
  set %frame.ended = %end
  %took = sub i64 %end, %begin
  %most = field %frame.most
  %counted = call i64 @llvm.smin.i64(i64 %took, i64 %most)
  %runs = field %frame.runs
  %time = field %frame.time
  %one_more = add i64 %runs, 1
  set %frame.runs = %one_more
  %longer = add i64 %time, %counted
  set %frame.time = %longer
  %over = icmp sgt i64 %took, %deadline
  %is_late = and i1 %over, %several
  br i1 %is_late, label %late, label %done
late:
  set %frame.left = 0
  if ne i32 %stall, 0: stalled, done
stalled:
  set %frame.stalled = %took
  br label %done
done:
  $restore_mode
  ret void
}"""

# PyLong_AsLongLong reports an error as -1, which may also be the number.
# The interpreter's lock is released around the run alone: a review is Python code, and needs it.
_CALL = """\
define ptr @call(ptr %self, ptr %rows) nounwind {
entry:
  %frame = call ptr @PyLong_AsVoidPtr(ptr %self)
  %n = call i64 @PyLong_AsLongLong(ptr %rows)
  if slt i64 %n, 0: doubt, bound
doubt:
  %error = call ptr @PyErr_Occurred()
  if ne ptr %error, null: raise, bound
raise:
  ret ptr null
bound:
  %function = field %frame.function
  %table = field %frame.table
  %timed = field %frame.timed
  %unlocks = field %frame.unlocks
  %none = field %frame.none
  if eq i64 %timed, 0: at_once, count
at_once:
  call void @at_once(ptr %function, ptr %table, i64 %n)
  br label %answer
count:
  %now = call i64 @now()
  %ended = field %frame.ended
  %pause = sub i64 %now, %ended
  %longest = field %frame.longest_pause
  %paused = icmp sgt i64 %pause, %longest
  br i1 %paused, label %start, label %next
next:
  %left = field %frame.left
  %fewer = sub i64 %left, 1
  set %frame.left = %fewer
  if sle i64 %left, 0: think, start
think:
  %review = field %frame.review
  %reviewed = call ptr @PyObject_CallNoArgs(ptr %review)
  if eq ptr %reviewed, null: raise, thought
thought:
  call void @Py_DecRef(ptr %reviewed)
  br label %start
start:
  if eq i64 %unlocks, 0: hold, free
hold:
  call void @run(ptr %frame, i64 %n, i1 %paused)
  br label %answer
free:
  %state = call ptr @PyEval_SaveThread()
  call void @run(ptr %frame, i64 %n, i1 %paused)
  call void @PyEval_RestoreThread(ptr %state)
  br label %answer
answer:
  %result = call ptr @Py_NewRef(ptr %none)
  ret ptr %result
}"""

_AT_ONCE = """\
define internal void @at_once(ptr %function, ptr %table, i64 %n) nounwind {
entry:
  $save_mode
  call void %function(ptr %table, i64 %n, i64 0, i64 1, i64 -1)
  $restore_mode
  ret void
}"""

CALLING = (_RUN, _AT_ONCE, _CALL)
