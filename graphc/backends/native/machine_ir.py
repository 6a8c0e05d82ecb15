"""Machine-dependent IR text that threads need: pausing, sleeping, the mode of floats."""

from __future__ import annotations

from string import Template

from graphc.backends.native.target import Target


def pause(target: Target) -> tuple[str, str]:
    """Return a declaration, and a call by which the processor learns that this thread waits."""
    if target.arm:
        return "declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"
    return "declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"


def float_mode(target: Target) -> tuple[tuple[str, ...], str, str]:
    """Return declarations, code that saves the float mode and sets ours, and code that restores it.

    Ours: no traps, round to nearest, subnormal numbers are zero as operands and as results.
    """
    if target.arm:
        return (
            ("declare i64 @llvm.aarch64.get.fpcr()", "declare void @llvm.aarch64.set.fpcr(i64)"),
            "%mode = call i64 @llvm.aarch64.get.fpcr()\n"
            f"  call void @llvm.aarch64.set.fpcr(i64 {1 << 24})",
            "call void @llvm.aarch64.set.fpcr(i64 %mode)",
        )
    return (
        ("declare void @llvm.x86.sse.stmxcsr(ptr)", "declare void @llvm.x86.sse.ldmxcsr(ptr)"),
        "%mode = alloca i32, align 4\n  %ours = alloca i32, align 4\n"
        "  call void @llvm.x86.sse.stmxcsr(ptr %mode)\n"
        f"  store i32 {0x1F80 | 0x8040}, ptr %ours\n"
        "  call void @llvm.x86.sse.ldmxcsr(ptr %ours)",
        "call void @llvm.x86.sse.ldmxcsr(ptr %mode)",
    )


def sleeping(target: Target) -> tuple[tuple[str, ...], str, str]:
    """Return declarations, a sleep while the i32 at %word is %seen, and a wake of its sleeper."""
    if target.apple:
        return (
            (
                "declare i32 @__ulock_wait(i32, ptr, i64, i32)",
                "declare i32 @__ulock_wake(i32, ptr, i64)",
            ),
            "%wide = zext i32 %seen to i64\n"
            "  call i32 @__ulock_wait(i32 1, ptr %word, i64 %wide, i32 0)",
            "call i32 @__ulock_wake(i32 1, ptr %word, i64 0)",
        )
    futex = f"call i64 (i64, ...) @syscall(i64 {98 if target.arm else 202}, ptr %word, "
    return (
        ("declare i64 @syscall(i64, ...)",),
        f"%wide = zext i32 %seen to i64\n  {futex}i64 128, i64 %wide, ptr null)",
        f"{futex}i64 129, i64 1)",
    )


def fill(template: str, target: Target, **more: int) -> str:
    """Fill in $pause, $save_mode and the like in a function's text with this machine's code."""
    _, save_mode, restore_mode = float_mode(target)
    _, sleep, wake = sleeping(target)
    return Template(template).substitute(
        more,
        pause=pause(target)[1],
        save_mode=save_mode,
        restore_mode=restore_mode,
        sleep=sleep,
        wake=wake,
    )
