"""The function that finds the largest of some unsigned integers, as IR text."""

from __future__ import annotations

from string import Template

from graphc.backends.native.ir import Module


def add_largest(module: Module) -> None:
    """Add `internal i64 @largest32(ptr data, i64 count)` and `@largest64`: 0 for a count of 0."""
    for bits in (32, 64):
        one, many = f"i{bits}", f"<16 x i{bits}>"
        module.declare(f"declare {many} @llvm.umax.v16i{bits}({many}, {many})")
        module.declare(f"declare {one} @llvm.vector.reduce.umax.v16i{bits}({many})")
        module.declare(f"declare {one} @llvm.umax.i{bits}({one}, {one})")
        widened = "zext i32 %top to i64" if bits == 32 else "add i64 %top, 0"
        text = Template(_LARGEST).substitute(bits=bits, align=bits // 8, widened=widened)
        module.functions.append(text)


_LARGEST = """\
define internal i64 @largest${bits}(ptr %data, i64 %count) #0 {
entry:
  %blocks = and i64 %count, -16
  br label %block
block:
  %i = phi i64 [ 0, %entry ], [ %i.next, %more ]
  %most = phi <16 x i${bits}> [ zeroinitializer, %entry ], [ %most.next, %more ]
  %inside = icmp ult i64 %i, %blocks
  br i1 %inside, label %more, label %across
more:
  %from = getelementptr i${bits}, ptr %data, i64 %i
  %some = load <16 x i${bits}>, ptr %from, align ${align}
  %most.next = call <16 x i${bits}> @llvm.umax.v16i${bits}(
    <16 x i${bits}> %most, <16 x i${bits}> %some)
  %i.next = add i64 %i, 16
  br label %block
across:
  %first = call i${bits} @llvm.vector.reduce.umax.v16i${bits}(<16 x i${bits}> %most)
  br label %rest
rest:
  %j = phi i64 [ %blocks, %across ], [ %j.next, %one ]
  %top = phi i${bits} [ %first, %across ], [ %top.next, %one ]
  %left = icmp ult i64 %j, %count
  br i1 %left, label %one, label %done
one:
  %at = getelementptr i${bits}, ptr %data, i64 %j
  %value = load i${bits}, ptr %at, align ${align}
  %top.next = call i${bits} @llvm.umax.i${bits}(i${bits} %top, i${bits} %value)
  %j.next = add i64 %j, 1
  br label %rest
done:
  %widened = ${widened}
  ret i64 %widened
}"""
