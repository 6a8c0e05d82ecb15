"""The pool of workers as IR text.

A program is `void (ptr table, i64 n, i64 part, i64 parts, i64 epoch)`: it computes one part of one
epoch, or all epochs in order where `epoch` is negative.  An epoch is the code between two
barriers.  Its parts do not depend on each other, so any thread may compute any of them.

The caller publishes an epoch, and it and the workers claim parts, each its own first.  The caller
computes the parts that no worker has begun, and waits only for claimed ones.  So a worker that the
system does not run costs nothing, unless it stops in the middle of a part.

The pool's memory is zeroed, 64-byte aligned, and `bytes_of_pool` long:

       0  i32 taken         by the one caller whose program the workers run
      64  i64 published     the number of an epoch << 12 | its parts << 1 | whether it is open
     128  the job           ptr function, ptr table, i64 n, i64 epoch
     192  i32 arrived       parts that workers have finished; i32 asleep, whether the caller sleeps;
          i32 slept, whether it did in this run
     256  i32 closing       whether workers must end
     320  the probe         i32 asked, i32 answered, i64 time of the answer in nanoseconds
     384+ 128 bytes for each thread, the caller first: i32 go, i32 asleep; 64 bytes further i64
          claimed, the number of the last epoch whose part of this number was claimed

Numbers of epochs only grow.  Whoever claims a part of an epoch knows that it has not ended, so that
the job in memory is its own.
"""

from __future__ import annotations

from graphc.backends.native import call_ir, parts_ir, worker_ir
from graphc.backends.native.ir import Module
from graphc.backends.native.machine_ir import fill, float_mode, pause, sleeping
from graphc.backends.native.target import Target

ASKED, ANSWERED, ANSWER_TIME = 320, 324, 328
ASLEEP = 4
"""The offset in a worker's bytes of the flag that it sleeps."""
MOST_PARTS = 2047
"""The largest number of parts that a published epoch can have."""
PAUSES = 1000
"""The checks that a waiting worker makes without giving way: some 20 to 50 us."""
IDLE = 2000
"""The checks after which a worker sleeps: some 0.5 ms, about ten times the cost of waking it."""
PATIENCE = 100_000
"""The nanoseconds that the caller waits awake for a part, if its own part took no longer."""


def bytes_of_pool(threads: int) -> int:
    """Return the size of the memory of a pool for `threads` threads."""
    return offset_of(threads)


def offset_of(tid: int) -> int:
    """Return where the 128 bytes of a thread start."""
    return 384 + 128 * tid


def pool_ir(target: Target) -> str:
    """Return the module with `worker`, `prober`, `send_home` and `poke`, and the builtin `call`."""
    module = Module()
    for declaration in (
        "declare i32 @sched_yield()",
        "declare i32 @clock_gettime(i32, ptr)",
        pause(target)[0],
        *float_mode(target)[0],
        *sleeping(target)[0],
        *call_ir.DECLARATIONS,
    ):
        module.declare(declaration)
    numbers = {
        "idle": IDLE,
        "pauses": PAUSES,
        "patience": PATIENCE,
        "first": offset_of(0),
        "monotonic": 6 if target.apple else 1,
    }
    for part in (*parts_ir.FUNCTIONS, *worker_ir.FUNCTIONS, *call_ir.FUNCTIONS):
        module.functions.append(fill(part, target, **numbers))
    return module.text()
