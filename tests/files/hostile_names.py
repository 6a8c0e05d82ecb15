"""Names that could hurt generated code: words of languages, macros, and ends of comments."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

import graphc as gc

CANARY = "gc_foreign_code_ran"
"""What a file would print if a part of a name were run."""
_WORDS = """
auto break case char const continue default do double else enum extern float for goto if inline int
long register restrict return short signed sizeof static struct switch typedef union unsigned void
volatile while _Bool _Complex _Imaginary _Alignas _Atomic _Generic _Noreturn _Static_assert bool
true false class new delete this template namespace operator private public protected try catch
throw using virtual friend and or not xor asm typeof constexpr nullptr thread_local alignas concept
requires co_await decltype export explicit mutable typeid typename wchar_t char8_t char16_t import
module final override __asm__ __attribute__ __func__ __cplusplus __GNUC__ __FILE__ __LINE__ _Z1xv
linux unix i386 arm mips sun vax M_PI I complex imaginary errno stdin stdout stderr NULL EOF
INFINITY NAN assert offsetof va_list uint64_t ptrdiff_t size_t int8_t float32_t float64_t
SIGINT PATH_MAX BUFSIZ RAND_MAX FILE HUGE_VAL isnan min max near far interrupt __IO PI B0 B1 _N _C
environ main exit abort puts printf malloc memcpy memset y0 y1 yn j0 j1 jn gamma index signbit
state work n i j k l p r o c s q t x first end sums inside pixel image at top start rows width wrong
steps lanes part group depth place offset missing run from channel stop loss hash v1 at2 sums3 m4
test_state test_work test_hash test_equal b_p b_j gc_block gc_product_float32 GC_BLOCK GC_ROWS
infer init train_step backward iris_infer in_x out_x b_x step_x in_ out_ b_ gc_ _ __ _X 0 1x x_2
sem atomic mtx pthread_mutex res in out b step gc test model x.h EOF. state.0 work/1 d_x d_0
"""
WORDS = _WORDS.split()
SYMBOLS = [
    "", " ", "*/", "/*", "//", "x*/", "/*x", "*??/\n/", "??/", "??=define x", "x\\", "\\\n", "\n",
    "\r\n", "\t", "\0", "x\0y", "\x1b[2J", '"', "'", 'x"', "%s%n", "%", "#", "#error x", "a#b",
    "#include </etc/passwd>", "\\u0000", "\\x41", "\\", "\\\\", '\\"', "\xfcn\xefcode", "größe-1",
    "\u65e5\u672c", "\u202e\u2066x", "\u2028", "\ud800", "\U0001f600", "\xb2", "\uff41", "\u2167",
    "a b", "a-b", "a.b", "a/b", "a" * 400, "a" * 5000, "*/" * 300, '"' * 200, "?" * 99, "-1", "$x",
    "@x", "x;", "x,y", "(x)", "{", "}", "x[0]", "<x>", "x&y", "x|y", "a__b", "_a_", "\ufeffx",
    "x\u0301", "\u200bx", "\x7f", "\x85",
]  # fmt: skip
CODE = [
    '*/ __attribute__((constructor)) static void evil(void) {{ puts("{c}"); }} /*',
    '", 0, 0); puts("{c}"); test_equal("',
    '\n#include <stdio.h>\nstatic int evil = puts("{c}");\n',
    '*??/\n/ __attribute__((constructor)) static void evil(void) {{ puts("{c}"); }} /??/\n*',
    '\\"); puts("{c}"); (("',
    '"\n#endif\nint main(void) {{ puts("{c}"); return 0; }}\n#if 0\n"',
    'x, puts("{c}")',
    'x); }} void __attribute__((constructor)) evil(void) {{ puts("{c}"); }} void y(float *z',
    '\r*/ __attribute__((constructor)) void evil(void) {{ puts("{c}"); }} /*\r',
    "x\\\n*/ int {c} = 1/0; /*",
]


def names(count: int, seed: int = 0) -> list[str]:
    """So many different names: lists of words and symbols, and texts made of their parts."""
    known = [*WORDS, *SYMBOLS, *(code.format(c=CANARY) for code in CODE)]
    found, rng = dict.fromkeys(name for name in known if name), random.Random(seed)
    parts = [*WORDS, *SYMBOLS, *(code.format(c=CANARY) for code in CODE)]
    while len(found) < count:
        joined = rng.choice(["", "", " ", "_", "/", "*", "\n"]).join(rng.choices(parts, k=3))
        found[joined[:300]] = None
    chosen = list(found)
    rng.shuffle(chosen)
    return chosen[:count]


def executor(chosen: list[str], backend: str = "numpy") -> gc.Executor:
    """A net with these six names: its own, of two inputs, a parameter, a node and an output."""
    own, first, second, weight, node, output = chosen
    net = gc.Net(own)
    a, b = net.input(first, (gc.N, 3)), net.input(second, (gc.N, 3))
    w = net.parameter(weight, (3, 2))
    h = gc.tanh((a + b * net.constant(np.float32([1, 2, 3]))) @ w, name=node)
    net.output(output, h)
    net.loss(f"{output}*/", gc.mean(h * h))
    return gc.Executor(gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1), backend=backend), seed=0)


def write_callers(folder: Path) -> None:
    """Write programs in C and C++ that include all that there is before the header `x.h`."""
    known = "assert ctype errno limits math signal stdio stdlib string time"
    posix = "complex fcntl pthread semaphore unistd sys/socket netinet/in resolv"
    lines = [f"#include <{name}.h>" for name in f"{known} {posix}".split()]
    head = "\n".join(["#define _GNU_SOURCE", *lines, '#include "x.h"', ""])
    (folder / "caller.c").write_text(f"{head}int main(void) {{ return 0; }}\n")
    listed = [f"#include <c{name}>" for name in known.split()]
    plus = "\n".join([*listed, "#include <atomic>", "#include <complex>", '#include "x.h"', ""])
    (folder / "caller.cpp").write_text(f"{plus}int main() {{ return 0; }}\n")
