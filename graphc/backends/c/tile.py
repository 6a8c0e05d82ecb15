"""The C function at the heart of matrix products: the sums of a tile, kept in registers.

Each element of a tile has one accumulator, which adds the products in the order of k by fused
multiply-add, or by two operations.  Lanes of a vector are columns, so vectors change no bit.
"""

from __future__ import annotations

import re

from graphc.ir.tensor_type import ITEMSIZE

WIDEST = 64
"""The most bytes of a vector."""
VECTORS = 2
"""The vectors side by side in a tile."""


def most_columns(dtype: str) -> int:
    """Return the most columns of a tile, with the widest vectors."""
    return VECTORS * WIDEST // ITEMSIZE[dtype]


TILE_HEAD = """\
#if defined(__AVX512F__)
#include <immintrin.h>
#define GC_VECTOR 64
#define GC_ROWS 8
typedef __m512 gc_float32;
typedef __m512d gc_float64;
#define gc_load_float32 _mm512_loadu_ps
#define gc_load_float64 _mm512_loadu_pd
#define gc_store_float32 _mm512_storeu_ps
#define gc_store_float64 _mm512_storeu_pd
#define gc_all_float32 _mm512_set1_ps
#define gc_all_float64 _mm512_set1_pd
#define gc_fma_float32 _mm512_fmadd_ps
#define gc_fma_float64 _mm512_fmadd_pd
#elif defined(__AVX__) && defined(__FMA__)
#include <immintrin.h>
#define GC_VECTOR 32
#define GC_ROWS 4
typedef __m256 gc_float32;
typedef __m256d gc_float64;
#define gc_load_float32 _mm256_loadu_ps
#define gc_load_float64 _mm256_loadu_pd
#define gc_store_float32 _mm256_storeu_ps
#define gc_store_float64 _mm256_storeu_pd
#define gc_all_float32 _mm256_set1_ps
#define gc_all_float64 _mm256_set1_pd
#define gc_fma_float32 _mm256_fmadd_ps
#define gc_fma_float64 _mm256_fmadd_pd
#elif defined(__aarch64__) && defined(__ARM_NEON)
#include <arm_neon.h>
#define GC_VECTOR 16
#define GC_ROWS 8
typedef float32x4_t gc_float32;
typedef float64x2_t gc_float64;
#define gc_load_float32 vld1q_f32
#define gc_load_float64 vld1q_f64
#define gc_store_float32 vst1q_f32
#define gc_store_float64 vst1q_f64
#define gc_all_float32 vdupq_n_f32
#define gc_all_float64 vdupq_n_f64
#define gc_fma_float32(a, b, c) vfmaq_f32(c, a, b)
#define gc_fma_float64(a, b, c) vfmaq_f64(c, a, b)
#else
#define GC_VECTOR 16
#define GC_ROWS 1
typedef struct { float lane[4]; } gc_float32;
typedef struct { double lane[2]; } gc_float64;
#define GC_PORTABLE
#endif
"""

_PORTABLE = """\
#ifdef GC_PORTABLE
static inline gc_{dtype} gc_load_{dtype}(const {kind} *from)
{{
    gc_{dtype} x;
    for (int l = 0; l < {lanes}; ++l) x.lane[l] = from[l];
    return x;
}}

static inline void gc_store_{dtype}({kind} *to, gc_{dtype} x)
{{
    for (int l = 0; l < {lanes}; ++l) to[l] = x.lane[l];
}}

static inline gc_{dtype} gc_all_{dtype}({kind} number)
{{
    gc_{dtype} x;
    for (int l = 0; l < {lanes}; ++l) x.lane[l] = number;
    return x;
}}

static inline gc_{dtype} gc_fma_{dtype}(gc_{dtype} a, gc_{dtype} b, gc_{dtype} c)
{{
    for (int l = 0; l < {lanes}; ++l) {multiply_add}
    return c;
}}
#endif
"""


_MULTIPLY_ADD = {
    True: "c.lane[l] = gc_fma{suffix}(a.lane[l], b.lane[l], c.lane[l]);",
    False: "{{ const {kind} x = a.lane[l] * b.lane[l]; c.lane[l] = x + c.lane[l]; }}",
}


def tile_head(fused: bool) -> str:
    """Return the vectors of each target, with fused multiply-adds or separate ones."""
    if fused:
        return TILE_HEAD
    text = TILE_HEAD.replace(" && defined(__FMA__)", "")
    text = re.sub(r" (_mm\d+)_fmadd_(p[sd])", r"(a, b, c) \1_add_\2(\1_mul_\2(a, b), c)", text)
    return re.sub(r"vfmaq_(f\d+)\(c, a, b\)", r"vaddq_\1(vmulq_\1(a, b), c)", text)


def tile_function(dtype: str, fused: bool) -> str:
    """Return `gc_tile_<dtype>`: it adds `k` products to each of the sums of a tile."""
    kind = {"float32": "float", "float64": "double"}[dtype]
    lanes, suffix = 16 // ITEMSIZE[dtype], {"float32": "f", "float64": ""}[dtype]
    line = _MULTIPLY_ADD[fused].format(kind=kind, suffix=suffix)
    portable = _PORTABLE.format(dtype=dtype, kind=kind, lanes=lanes, multiply_add=line)
    columns = f"#define GC_COLUMNS_{dtype} ({VECTORS} * GC_VECTOR / {ITEMSIZE[dtype]})"
    parts = [_tile(dtype, kind, rows) for rows in (8, 4, 1)]
    parts[0] = f"#if GC_ROWS == 8\n{parts[0]}\n#endif\n"
    parts[1] = f"#if GC_ROWS >= 4\n{parts[1]}\n#endif\n"
    chosen = f"""\
/* Adds k products a(i, p) * b(p, j) to each of rows x GC_COLUMNS_{dtype} sums. */
static void gc_tile_{dtype}(ptrdiff_t rows, ptrdiff_t k, const {kind} *a, ptrdiff_t a_i,
                            ptrdiff_t a_p, const {kind} *b, ptrdiff_t b_p, {kind} *sums)
{{
    ptrdiff_t i = 0;
#if GC_ROWS == 8
    for (; i + 8 <= rows; i += 8)
        gc_rows8_{dtype}(k, a + i * a_i, a_i, a_p, b, b_p, sums + i * GC_COLUMNS_{dtype});
#endif
#if GC_ROWS >= 4
    for (; i + 4 <= rows; i += 4)
        gc_rows4_{dtype}(k, a + i * a_i, a_i, a_p, b, b_p, sums + i * GC_COLUMNS_{dtype});
#endif
    for (; i < rows; ++i)
        gc_rows1_{dtype}(k, a + i * a_i, a_i, a_p, b, b_p, sums + i * GC_COLUMNS_{dtype});
}}"""
    return "\n".join([columns, portable, *parts, chosen])


def _tile(dtype: str, kind: str, rows: int) -> str:
    """Return the function for so many rows, with a variable for each vector of sums."""
    of = f"GC_COLUMNS_{dtype} / {VECTORS}"
    names = [(r, c, f"s{r}{c}") for r in range(rows) for c in range(VECTORS)]
    load = [
        f"    gc_{dtype} {s} = gc_load_{dtype}(sums + {r} * GC_COLUMNS_{dtype} + {c} * ({of}));"
        for r, c, s in names
    ]
    store = [
        f"    gc_store_{dtype}(sums + {r} * GC_COLUMNS_{dtype} + {c} * ({of}), {s});"
        for r, c, s in names
    ]
    inner = [
        f"        const gc_{dtype} b{c} = gc_load_{dtype}(b + p * b_p + {c} * ({of}));"
        for c in range(VECTORS)
    ]
    for r in range(rows):
        inner.append(f"        x = gc_all_{dtype}(a[{r} * a_i + p * a_p]);")
        inner += [f"        s{r}{c} = gc_fma_{dtype}(x, b{c}, s{r}{c});" for c in range(VECTORS)]
    head = f"static void gc_rows{rows}_{dtype}(ptrdiff_t k, const {kind} *a, ptrdiff_t a_i,"
    more = f"    ptrdiff_t a_p, const {kind} *b, ptrdiff_t b_p, {kind} *sums)"
    unused = ["    (void)a_i;"] if rows == 1 else []
    loop = "    for (ptrdiff_t p = 0; p < k; ++p) {"
    body = [*unused, *load, loop, f"        gc_{dtype} x;", *inner, "    }", *store]
    return "\n".join([head, more, "{", *body, "}"])
