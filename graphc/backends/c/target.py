"""The checks that a C file makes of its compiler, and the instructions that a target may lack.

A target's own instruction is used where there is one; otherwise the file has the operation itself,
with the same bits, so that nothing of the C library is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

PROLOGUE = """\
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || \\
    defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__)
#error "this file needs IEEE arithmetic: compile it without -ffast-math and its parts"
#endif
#if defined(__FLT_EVAL_METHOD__) && \\
    (__FLT_EVAL_METHOD__ < 0 || __FLT_EVAL_METHOD__ == 1 || __FLT_EVAL_METHOD__ == 2)
#error "this file needs float and double without excess precision: on x86, -msse2 -mfpmath=sse"
#endif
/* Every product and every sum rounds by itself; fused ones are asked for.  Loops stay loops: no
   memcpy and memset. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize ("fp-contract=off", "no-tree-loop-distribute-patterns")
#else
#pragma STDC FP_CONTRACT OFF
#endif

#ifdef __GNUC__
#define GC_INFINITY __builtin_inff()
#define GC_NAN __builtin_nanf("")
#define GC_FUNCTION static inline __attribute__((unused))
#else
#include <math.h>
#define GC_INFINITY INFINITY
#define GC_NAN NAN
#define GC_FUNCTION static inline
#endif
/* The instructions that the target has, where the compiler can be asked for them. */
#if defined(__GNUC__) && (defined(__FMA__) || defined(__aarch64__) || defined(__FP_FAST_FMAF) || \\
    (defined(__ARM_FEATURE_FMA) && (__ARM_FP & 4)) || (defined(__riscv_flen) && __riscv_flen >= 32))
#define GC_HAS_FMAF
#endif
#if defined(__GNUC__) && (defined(__FMA__) || defined(__aarch64__) || defined(__FP_FAST_FMA) || \\
    (defined(__ARM_FEATURE_FMA) && (__ARM_FP & 8)) || (defined(__riscv_flen) && __riscv_flen >= 64))
#define GC_HAS_FMA
#endif
#if defined(__GNUC__) && (defined(__SSE4_1__) || defined(__aarch64__))
#define GC_HAS_ROUNDING
#endif
"""

_ROOTS = (
    ("defined(__AVX__)", "vsqrts{letter} %1, %1, %0", "x"),
    ("defined(__SSE2__)", "sqrts{letter} %1, %0", "x"),
    ("defined(__aarch64__)", "fsqrt %{letter}0, %{letter}1", "w"),
    ("defined(__ARM_FP) && (__ARM_FP & {bytes})", "vsqrt.f{bits} %{arm}0, %{arm}1", "{register}"),
    ("defined(__riscv_flen) && __riscv_flen >= {bits}", "fsqrt.{letter} %0, %1", "f"),
)
"""The instruction for a root where a macro holds: __builtin_sqrt would set errno by a call."""
_FORMATS = {
    "float32": {"letter": "s", "arm": "", "register": "t", "bytes": "4", "bits": "32"},
    "float64": {"letter": "d", "arm": "P", "register": "w", "bytes": "8", "bits": "64"},
}
_BUILTIN = {
    "fabs": "__GNUC__",
    "copysign": "__GNUC__",
    "roundeven": "GC_HAS_ROUNDING",
    "floor": "GC_HAS_ROUNDING",
    "ceil": "GC_HAS_ROUNDING",
    "fma": "GC_HAS_FMA",
}
"""The macro under which a compiler has an intrinsic as an instruction."""


def own_instruction(name: str, dtype: str, arguments: str) -> str:
    """Return the lines of a function that use the target's instruction, up to `#else`."""
    suffix, kind = ("f", "float") if dtype == "float32" else ("", "double")
    if name == "sqrt":
        return "\n".join([*_roots(suffix, kind, _FORMATS[dtype]), "#else"])
    macro = _BUILTIN[name] + (suffix.upper() if name == "fma" else "")
    called = "rint" if name == "roundeven" else name
    return f"#ifdef {macro}\n    return __builtin_{called}{suffix}({arguments});\n#else"


def _roots(suffix: str, kind: str, form: Mapping[str, str]) -> Iterator[str]:
    yield "#if defined(__NO_MATH_ERRNO__) && (defined(__SSE2__) || defined(__aarch64__))"
    yield f"    return __builtin_sqrt{suffix}(x);"
    for macro, instruction, register in _ROOTS:
        where, line, place = (text.format(**form) for text in (macro, instruction, register))
        yield f"#elif defined(__GNUC__) && {where}"
        yield f"    {kind} root;"
        yield f'    __asm__("{line}" : "={place}"(root) : "{place}"(x));'
        yield "    return root;"
