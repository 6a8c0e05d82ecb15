"""The IR text of a call of a program from Python: a builtin of one argument, the number of rows.

`self` is the address, as an int, of a frame of 64-bit words in the order of `WORDS`.
"""

from __future__ import annotations

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

WORDS = (
    "pool",
    "function",
    "table",
    "epochs",  # of the program
    "long",  # 0: the run keeps the interpreter's lock, and is never shared nor timed
    "review",  # called without arguments when `left` is used up
    "none",
    "threads",  # how many share the next run
    "left",  # runs until the next review
    "deadline",  # nanoseconds from which a shared run continues alone, and is late
    "most",  # nanoseconds that a run counts for at most
    "runs",  # timed since they were last set to 0
    "time",  # of these, in nanoseconds
    "stalled",  # nanoseconds of a run that was late since a worker stopped amid a part, or 0
)


def word(name: str) -> int:
    """Return the offset of a word in the frame, in bytes."""
    return 8 * WORDS.index(name)


def _load(name: str, type: str = "i64") -> str:
    return (
        f"%{name}_at = getelementptr i8, ptr %frame, i64 {word(name)}\n"
        f"  %{name} = load {type}, ptr %{name}_at"
    )


# One caller at a time has the workers; one that finds them taken runs alone, with equal results.
_RUN = f"""\
define internal void @run(ptr %frame, i64 %n) nounwind {{
entry:
  $save_mode
  {_load("pool", "ptr")}
  {_load("function", "ptr")}
  {_load("table", "ptr")}
  {_load("threads")}
  {_load("epochs")}
  {_load("deadline")}
  %begin = call i64 @now()
  %several = icmp sgt i64 %threads, 1
  br i1 %several, label %ask, label %alone
ask:
  %closing_at = getelementptr i8, ptr %pool, i64 256
  %closing = load atomic i32, ptr %closing_at acquire, align 4
  %closes = icmp ne i32 %closing, 0
  br i1 %closes, label %untimed, label %take
take:
  %pair = cmpxchg ptr %pool, i32 0, i32 1 acquire monotonic
  %got = extractvalue {{ i32, i1 }} %pair, 1
  br i1 %got, label %together, label %untimed
untimed:
  call void %function(ptr %table, i64 %n, i64 0, i64 1, i64 -1)
  br label %done
together:
  %until = add i64 %begin, %deadline
  call void @together(ptr %pool, ptr %function, ptr %table, i64 %n, i64 %threads, i64 %epochs,
                      i64 %until)
  %slept_at = getelementptr i8, ptr %pool, i64 200
  %slept = load i32, ptr %slept_at
  store atomic i32 0, ptr %pool release, align 4
  br label %timed
alone:
  call void %function(ptr %table, i64 %n, i64 0, i64 1, i64 -1)
  br label %timed
timed:
  %stall = phi i32 [ %slept, %together ], [ 0, %alone ]
  %end = call i64 @now()
  %took = sub i64 %end, %begin
  {_load("most")}
  %counted = call i64 @llvm.smin.i64(i64 %took, i64 %most)
  {_load("runs")}
  {_load("time")}
  %one_more = add i64 %runs, 1
  store i64 %one_more, ptr %runs_at
  %longer = add i64 %time, %counted
  store i64 %longer, ptr %time_at
  %over = icmp sgt i64 %took, %deadline
  %is_late = and i1 %over, %several
  br i1 %is_late, label %late, label %done
late:
  %left_at = getelementptr i8, ptr %frame, i64 {word("left")}
  store i64 0, ptr %left_at
  %stops = icmp ne i32 %stall, 0
  br i1 %stops, label %stalled, label %done
stalled:
  %stalled_at = getelementptr i8, ptr %frame, i64 {word("stalled")}
  store i64 %took, ptr %stalled_at
  br label %done
done:
  $restore_mode
  ret void
}}"""

_CALL = f"""\
define ptr @call(ptr %self, ptr %rows) nounwind {{
entry:
  %frame = call ptr @PyLong_AsVoidPtr(ptr %self)
  %n = call i64 @PyLong_AsLongLong(ptr %rows)
  %negative = icmp slt i64 %n, 0
  br i1 %negative, label %doubt, label %bound
doubt:
  %error = call ptr @PyErr_Occurred()
  %failed = icmp ne ptr %error, null
  br i1 %failed, label %raise, label %bound
raise:
  ret ptr null
bound:
  {_load("function", "ptr")}
  {_load("table", "ptr")}
  {_load("long")}
  {_load("none", "ptr")}
  %keeps = icmp eq i64 %long, 0
  br i1 %keeps, label %at_once, label %count
at_once:
  call void @at_once(ptr %function, ptr %table, i64 %n)
  br label %answer
count:
  {_load("left")}
  %fewer = sub i64 %left, 1
  store i64 %fewer, ptr %left_at
  %due = icmp sle i64 %left, 0
  br i1 %due, label %think, label %free
think:
  {_load("review", "ptr")}
  %reviewed = call ptr @PyObject_CallNoArgs(ptr %review)
  %refused = icmp eq ptr %reviewed, null
  br i1 %refused, label %raise, label %thought
thought:
  call void @Py_DecRef(ptr %reviewed)
  br label %free
free:
  %state = call ptr @PyEval_SaveThread()
  call void @run(ptr %frame, i64 %n)
  call void @PyEval_RestoreThread(ptr %state)
  br label %answer
answer:
  %result = call ptr @Py_NewRef(ptr %none)
  ret ptr %result
}}"""

_AT_ONCE = """\
define internal void @at_once(ptr %function, ptr %table, i64 %n) nounwind {
entry:
  $save_mode
  call void %function(ptr %table, i64 %n, i64 0, i64 1, i64 -1)
  $restore_mode
  ret void
}"""

FUNCTIONS = (_RUN, _AT_ONCE, _CALL)
