"""A program called by Python, as IR text: a builtin of one argument, the number of rows."""

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

# `self` is the address, as an int, of
#   ptr pool, ptr function, ptr table, i64 threads, i64 long, ptr start_workers, ptr None
# What is not long keeps the interpreter's lock, and runs on the caller's thread alone.
CALL = """\
define ptr @call(ptr %self, ptr %rows) nounwind {
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
  %pool = load ptr, ptr %frame
  %function_at = getelementptr i8, ptr %frame, i64 8
  %function = load ptr, ptr %function_at
  %table_at = getelementptr i8, ptr %frame, i64 16
  %table = load ptr, ptr %table_at
  %threads_at = getelementptr i8, ptr %frame, i64 24
  %threads = load i64, ptr %threads_at
  %long_at = getelementptr i8, ptr %frame, i64 32
  %long = load i64, ptr %long_at
  %keeps = icmp eq i64 %long, 0
  %none_at = getelementptr i8, ptr %frame, i64 48
  %none = load ptr, ptr %none_at
  br i1 %keeps, label %at_once, label %count
at_once:
  call void @part(ptr %function, ptr %table, i64 %n, i64 0, i64 1, ptr %pool)
  br label %answer
count:
  %most_at = getelementptr i8, ptr %pool, i64 136
  %most = load i64, ptr %most_at
  %wanted = call i64 @llvm.smin.i64(i64 %threads, i64 %most)
  %workers_at = getelementptr i8, ptr %pool, i64 128
  %workers = load atomic i64, ptr %workers_at acquire, align 8
  %there = add i64 %workers, 1
  %few = icmp slt i64 %there, %wanted
  br i1 %few, label %hire, label %free
hire:
  %start_at = getelementptr i8, ptr %frame, i64 40
  %start = load ptr, ptr %start_at
  %started = call ptr @PyObject_CallNoArgs(ptr %start)
  %refused = icmp eq ptr %started, null
  br i1 %refused, label %raise, label %hired
hired:
  call void @Py_DecRef(ptr %started)
  br label %free
free:
  %state = call ptr @PyEval_SaveThread()
  call void @dispatch(ptr %pool, ptr %function, ptr %table, i64 %n, i64 %threads)
  call void @PyEval_RestoreThread(ptr %state)
  br label %answer
answer:
  %result = call ptr @Py_NewRef(ptr %none)
  ret ptr %result
}"""
