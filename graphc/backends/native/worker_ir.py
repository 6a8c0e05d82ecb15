"""The code that a pool's own threads run, as IR text: see pool_ir."""

from __future__ import annotations

# Gives way once it has waited for long: a spinning thread may keep its core from the caller.
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

# Computes parts until the pool closes.  The float mode is the thread's own: it is set once.
_WORKER = """\
define void @worker(ptr %pool, i64 %tid) nounwind {
entry:
  $save_mode
  %word_at = call ptr @record(ptr %pool, i64 %tid)
  %asleep_at = getelementptr i8, ptr %word_at, i64 4
  %published_at = getelementptr i8, ptr %pool, i64 64
  %arrived_at = getelementptr i8, ptr %pool, i64 192
  %caller_at = getelementptr i8, ptr %pool, i64 196
  %closing_at = getelementptr i8, ptr %pool, i64 256
  br label %look
look:
  %turns = phi i64 [ 0, %entry ], [ %more, %wait ], [ 0, %arrive ], [ 0, %wake_caller ], [ 0, %up ]
  %word = load atomic i64, ptr %published_at acquire, align 8
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
  %none = icmp eq i64 %count, 0
  br i1 %none, label %idle, label %arrive
arrive:
  %finished = trunc i64 %count to i32
  atomicrmw add ptr %arrived_at, i32 %finished seq_cst
  %caller = load atomic i32, ptr %caller_at seq_cst, align 4
  %waits = icmp ne i32 %caller, 0
  br i1 %waits, label %wake_caller, label %look
wake_caller:
  call void @poke(ptr %arrived_at)
  br label %look
idle:
  %closing = load atomic i32, ptr %closing_at acquire, align 4
  %ends = icmp ne i32 %closing, 0
  br i1 %ends, label %done, label %stay
stay:
  %more = add i64 %turns, 1
  %long = icmp ugt i64 %turns, $idle
  br i1 %long, label %doze, label %wait
wait:
  call void @relax(i64 %turns)
  br label %look
doze:
  %go = load atomic i32, ptr %word_at monotonic, align 4
  store atomic i32 1, ptr %asleep_at seq_cst, align 4
  %now = load atomic i64, ptr %published_at seq_cst, align 8
  %news = icmp ne i64 %now, %word
  br i1 %news, label %up, label %check
check:
  %end_now = load atomic i32, ptr %closing_at seq_cst, align 4
  %end = icmp ne i32 %end_now, 0
  br i1 %end, label %up, label %lie
lie:
  call void @sleep_on(ptr %word_at, i32 %go)
  br label %up
up:
  store atomic i32 0, ptr %asleep_at monotonic, align 4
  br label %look
done:
  $restore_mode
  ret void
}"""

# Answers, with the time, each time that it is asked; it runs where a core is idle.
_PROBER = """\
define void @prober(ptr %pool) nounwind {
entry:
  %asked_at = getelementptr i8, ptr %pool, i64 320
  %answered_at = getelementptr i8, ptr %pool, i64 324
  %time_at = getelementptr i8, ptr %pool, i64 328
  %closing_at = getelementptr i8, ptr %pool, i64 256
  br label %look
look:
  %closing = load atomic i32, ptr %closing_at seq_cst, align 4
  %ends = icmp ne i32 %closing, 0
  br i1 %ends, label %done, label %read
read:
  %asked = load atomic i32, ptr %asked_at seq_cst, align 4
  %answered = load i32, ptr %answered_at
  %same = icmp eq i32 %asked, %answered
  br i1 %same, label %lie, label %answer
answer:
  %now = call i64 @now()
  store i64 %now, ptr %time_at
  store atomic i32 %asked, ptr %answered_at release, align 4
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
  %closing_at = getelementptr i8, ptr %pool, i64 256
  store atomic i32 1, ptr %closing_at seq_cst, align 4
  call void @wake_sleepers(ptr %pool, i64 %threads)
  %asked_at = getelementptr i8, ptr %pool, i64 320
  atomicrmw add ptr %asked_at, i32 1 seq_cst
  call void @poke(ptr %asked_at)
  ret void
}"""

FUNCTIONS = (_RELAX, _WORKER, _PROBER, _SEND_HOME)
