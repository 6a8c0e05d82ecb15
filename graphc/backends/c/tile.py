"""The C function at the heart of matrix products, which adds products to a block of sums.

Each sum has one accumulator, which adds the products in the order of k by fused multiply-add, or
by two operations in an unfused plan.  Lanes of a vector are columns, so vectors change no bit.
With vectors a block has many rows and columns, and columns that are not side by side in memory are
packed into a panel on the stack; without them it is one sum, and takes no memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from graphc.ir.forms import BLOCK
from graphc.ir.tensor_type import ITEMSIZE

PLAIN_DEPTH = 32
"""The depth of panels without vectors."""
BLOCK_HEAD = f"""\
/* Vectors, where the compiler has them: define GRAPHC_NO_VECTORS to do without. */
#if defined(__AVX512F__) && !defined(GRAPHC_NO_VECTORS)
#include <immintrin.h>
#define GC_VECTOR 64
#define GC_TILE 8
typedef __m512 gc_float32;
typedef __m512d gc_float64;
#define gc_load_float32 _mm512_loadu_ps
#define gc_load_float64 _mm512_loadu_pd
#define gc_store_float32 _mm512_storeu_ps
#define gc_store_float64 _mm512_storeu_pd
#define gc_all_float32 _mm512_set1_ps
#define gc_all_float64 _mm512_set1_pd
#define gc_part_float32(from, n) _mm512_maskz_loadu_ps((__mmask16)((1u << (n)) - 1u), from)
#define gc_part_float64(from, n) _mm512_maskz_loadu_pd((__mmask8)((1u << (n)) - 1u), from)
#define gc_fma_float32 _mm512_fmadd_ps
#define gc_fma_float64 _mm512_fmadd_pd
#ifdef __AVX512BW__
typedef __m512i gc_int32;
#define gc_load_int32 _mm512_loadu_si512
#define gc_store_int32 _mm512_storeu_si512
#define gc_all_int32 _mm512_set1_epi32
#define gc_fma_int32(a, b, c) _mm512_add_epi32(c, _mm512_madd_epi16(a, b))
#endif
#elif defined(__AVX__) && defined(__FMA__) && !defined(GRAPHC_NO_VECTORS)
#include <immintrin.h>
#define GC_VECTOR 32
#define GC_TILE 4
typedef __m256 gc_float32;
typedef __m256d gc_float64;
#define gc_load_float32 _mm256_loadu_ps
#define gc_load_float64 _mm256_loadu_pd
#define gc_store_float32 _mm256_storeu_ps
#define gc_store_float64 _mm256_storeu_pd
#define gc_all_float32 _mm256_set1_ps
#define gc_all_float64 _mm256_set1_pd
#define gc_part_float32(from, n) _mm256_maskload_ps(from, _mm256_castps_si256(_mm256_cmp_ps( \\
    _mm256_set1_ps((float)(n)), _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7), _CMP_GT_OQ)))
#define gc_part_float64(from, n) _mm256_maskload_pd(from, _mm256_castpd_si256(_mm256_cmp_pd( \\
    _mm256_set1_pd((double)(n)), _mm256_setr_pd(0, 1, 2, 3), _CMP_GT_OQ)))
#define gc_fma_float32 _mm256_fmadd_ps
#define gc_fma_float64 _mm256_fmadd_pd
#ifdef __AVX2__
typedef __m256i gc_int32;
#define gc_load_int32(from) _mm256_loadu_si256((const __m256i *)(from))
#define gc_store_int32(to, x) _mm256_storeu_si256((__m256i *)(to), x)
#define gc_all_int32 _mm256_set1_epi32
#define gc_fma_int32(a, b, c) _mm256_add_epi32(c, _mm256_madd_epi16(a, b))
#endif
#elif defined(__aarch64__) && defined(__ARM_NEON) && !defined(GRAPHC_NO_VECTORS)
#include <arm_neon.h>
#define GC_VECTOR 16
#define GC_TILE 8
typedef float32x4_t gc_float32;
typedef float64x2_t gc_float64;
#define gc_load_float32 vld1q_f32
#define gc_load_float64 vld1q_f64
#define gc_store_float32 vst1q_f32
#define gc_store_float64 vst1q_f64
#define gc_all_float32 vdupq_n_f32
#define gc_all_float64 vdupq_n_f64
#define gc_part_float32(from, n) vld1q_f32((float[4]){{(from)[0], \\
    (n) > 1 ? (from)[1] : 0, (n) > 2 ? (from)[2] : 0, 0}})
#define gc_part_float64(from, n) ((void)(n), vld1q_f64((double[2]){{(from)[0], 0}}))
#define gc_fma_float32(a, b, c) vfmaq_f32(c, a, b)
#define gc_fma_float64(a, b, c) vfmaq_f64(c, a, b)
typedef int32x4_t gc_int32;
#define gc_load_int32 vld1q_s32
#define gc_store_int32 vst1q_s32
#define gc_all_int32 vdupq_n_s32
#define gc_fma_int32(a, b, c) vaddq_s32(c, vpaddq_s32( \\
    vmull_s16(vget_low_s16(vreinterpretq_s16_s32(a)), vget_low_s16(vreinterpretq_s16_s32(b))), \\
    vmull_high_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b))))
#endif
/* The rows of a block of sums, the depth of its panels, and the columns of other sums. */
#ifdef GC_VECTOR
#define GC_ROWS 64
#define GC_DEPTH 64
#define GC_BLOCK 64
typedef uint64_t gc_rows; /* a bit for each row of a block */
#else
#define GC_ROWS 1
#define GC_DEPTH {PLAIN_DEPTH}
#define GC_BLOCK 1
typedef unsigned gc_rows;
#endif
"""
VECTORS = 4
"""The vectors side by side in a block of sums."""
_KINDS = {"float32": ("float", "f"), "float64": ("double", ""), "int32": ("int32_t", "")}
_ARGUMENTS = """\
ptrdiff_t k, const {kind} *a, ptrdiff_t a_i, ptrdiff_t a_p,
    const {kind} *b, ptrdiff_t b_p,"""

_PLAIN = """\
/* Adds the products a(i, p) * b(p, j), p = 0 to k - 1, to each of rows x width sums. */
static void gc_product_{dtype}(ptrdiff_t rows, ptrdiff_t width, {arguments} ptrdiff_t b_j,
    {kind} *sums)
{{
    for (ptrdiff_t i = 0; i < rows; ++i)
        for (ptrdiff_t j = 0; j < width; ++j) {{
            {kind} sum = sums[i * GC_COLUMNS_{dtype} + j];
            for (ptrdiff_t p = 0; p < k; ++p)
                sum = {multiply_add};
            sums[i * GC_COLUMNS_{dtype} + j] = sum;
        }}
}}
"""

_COLUMNS = """\
/* The same for columns that are side by side in b, in whole vectors. */
static void gc_columns_{dtype}(ptrdiff_t rows, int vectors, {arguments} {kind} *sums)
{{
    const ptrdiff_t whole = rows / GC_TILE * GC_TILE;
    if (rows == 1 && vectors == 4) {{
        gc_tile_1x4_{dtype}(k, a, a_i, a_p, b, b_p, sums);
        return;
    }}
    for (int c = 0; c < vectors; c += 2) {{
        const ptrdiff_t at = c * GC_LANES_{dtype};
        if (vectors - c == 1) {{
            for (ptrdiff_t i = 0; i < whole; i += GC_TILE)
                gc_tile_nx1_{dtype}(k, a + i * a_i, a_i, a_p, b + at, b_p,
                    sums + i * GC_COLUMNS_{dtype} + at);
            for (ptrdiff_t i = whole; i < rows; ++i)
                gc_tile_1x1_{dtype}(k, a + i * a_i, a_i, a_p, b + at, b_p,
                    sums + i * GC_COLUMNS_{dtype} + at);
        }} else {{
            for (ptrdiff_t i = 0; i < whole; i += GC_TILE)
                gc_tile_nx2_{dtype}(k, a + i * a_i, a_i, a_p, b + at, b_p,
                    sums + i * GC_COLUMNS_{dtype} + at);
            for (ptrdiff_t i = whole; i < rows; ++i)
                gc_tile_1x2_{dtype}(k, a + i * a_i, a_i, a_p, b + at, b_p,
                    sums + i * GC_COLUMNS_{dtype} + at);
        }}
    }}
}}
"""
_VECTORS = """\
/* Adds the products a(i, p) * b(p, j), p = 0 to k - 1, to each of rows x width sums. */
static void gc_product_{dtype}(ptrdiff_t rows, ptrdiff_t width, {arguments} ptrdiff_t b_j,
    {kind} *sums)
{{
    const int vectors = (int)((width + GC_LANES_{dtype} - 1) / GC_LANES_{dtype});
    const ptrdiff_t columns = vectors * GC_LANES_{dtype};
    const ptrdiff_t whole = width / GC_LANES_{dtype} * GC_LANES_{dtype};
    {kind} panel[GC_DEPTH * GC_COLUMNS_{dtype}];
    if (b_j == 1 && width == columns) {{
        gc_columns_{dtype}(rows, vectors, k, a, a_i, a_p, b, b_p, sums);
        return;
    }}
    if (b_j == 1 && rows == 1 && vectors == 1) {{
        gc_{dtype} s = gc_load_{dtype}(sums);
        for (ptrdiff_t p = 0; p < k; ++p)
            s = gc_fma_{dtype}(gc_all_{dtype}(a[p * a_p]), gc_part_{dtype}(b + p * b_p, width), s);
        gc_store_{dtype}(sums, s);
        return;
    }}
    for (ptrdiff_t first = 0; first < k; first += GC_DEPTH) {{
        const ptrdiff_t depth = k - first < GC_DEPTH ? k - first : GC_DEPTH;
        const {kind} *const right = b + first * b_p;
        if (b_j == 1)
            for (ptrdiff_t p = 0; p < depth; ++p) {{
                const {kind} *const from = right + p * b_p;
                {kind} *const to = panel + p * columns;
                for (ptrdiff_t j = 0; j < whole; j += GC_LANES_{dtype})
                    gc_store_{dtype}(to + j, gc_load_{dtype}(from + j));
                gc_store_{dtype}(to + whole, gc_part_{dtype}(from + whole, width - whole));
            }}
        else
            for (ptrdiff_t j = 0; j < columns; ++j)
                if (j < width)
                    for (ptrdiff_t p = 0; p < depth; ++p)
                        panel[p * columns + j] = right[p * b_p + j * b_j];
                else
                    for (ptrdiff_t p = 0; p < depth; ++p) panel[p * columns + j] = 0;
        gc_columns_{dtype}(rows, vectors, depth, a + first * a_p, a_i, a_p, panel, columns, sums);
    }}
}}
"""


_INT8 = """\
/* Adds the products a(i, p) * b(p, j), p = 0 to k - 1, to each of rows x width sums: pairs of
   factors, of 16 bits each, are the words of a product of words. */
static void gc_product_int32(ptrdiff_t rows, ptrdiff_t width, {arguments} ptrdiff_t b_j,
    int32_t *sums)
{{
    const int vectors = (int)((width + GC_LANES_int32 - 1) / GC_LANES_int32);
    const ptrdiff_t columns = vectors * GC_LANES_int32;
    union {{
        int16_t factors[GC_ROWS * GC_DEPTH];
        int32_t words[GC_ROWS * GC_DEPTH / 2];
    }} left;
    int32_t right[GC_DEPTH * GC_COLUMNS_int32 / 2];
    (void)b_j; /* the columns of b are side by side */
    for (ptrdiff_t first = 0; first < k; first += GC_DEPTH) {{
        const ptrdiff_t depth = k - first < GC_DEPTH ? k - first : GC_DEPTH;
        const ptrdiff_t half = (depth + 1) / 2;
        for (ptrdiff_t i = 0; i < rows; ++i) {{
            const int8_t *const from = a + i * a_i + first * a_p;
            int16_t *const to = left.factors + i * GC_DEPTH;
            for (ptrdiff_t p = 0; p < depth; ++p) to[p] = from[p * a_p];
            if (depth % 2) to[depth] = 0;
        }}
        for (ptrdiff_t q = 0; q < half; ++q) {{
            const int32_t two = 2 * q + 1 < depth;
            const int8_t *const low = b + (first + 2 * q) * b_p, *const high = low + two * b_p;
            int32_t *const to = right + q * columns;
            for (ptrdiff_t j = 0; j < width; ++j)
                to[j] = (int32_t)(((uint32_t)low[j] & 0xffffu) | (uint32_t)(two * high[j]) << 16);
            for (ptrdiff_t j = width; j < columns; ++j) to[j] = 0;
        }}
        gc_columns_int32(rows, vectors, half, left.words, GC_DEPTH / 2, 1, right, columns, sums);
    }}
}}
"""


_PAIRS = """\
/* Returns a number of bfloat16, which is the upper half of a float. */
static float gc_widened(uint16_t bits)
{
    union { uint32_t before; float after; } both;
    both.before = (uint32_t)bits << 16;
    return both.after;
}
/* Adds the products a(i, p) * b(p, j) of bfloat16, p = 1, 0, 3, 2, ... if they go by pairs, to each
   of rows x width sums. */
static void gc_product_pairs(ptrdiff_t rows, ptrdiff_t width, ptrdiff_t k,
    const uint16_t *a, ptrdiff_t a_i, ptrdiff_t a_p,
    const uint16_t *b, ptrdiff_t b_p, ptrdiff_t b_j, float *sums, ptrdiff_t pairs)
{
    float left[GC_ROWS * GC_DEPTH];
    float right[GC_DEPTH * GC_COLUMNS_float32];
    for (ptrdiff_t first = 0; first < k; first += GC_DEPTH) {
        const ptrdiff_t depth = k - first < GC_DEPTH ? k - first : GC_DEPTH;
        for (ptrdiff_t p = 0; p < depth; ++p) {
            const ptrdiff_t at = first + ((p ^ pairs) < depth ? p ^ pairs : p);
            for (ptrdiff_t i = 0; i < rows; ++i)
                left[i * GC_DEPTH + p] = gc_widened(a[i * a_i + at * a_p]);
            for (ptrdiff_t j = 0; j < width; ++j)
                right[p * GC_COLUMNS_float32 + j] = gc_widened(b[at * b_p + j * b_j]);
        }
        gc_product_float32(rows, width, depth, left, GC_DEPTH, 1,
            right, GC_COLUMNS_float32, 1, sums);
    }
}"""
_BLOCKS = f"""\
/* Adds such products block by block of {BLOCK} terms: to each sum that of its terms of even number
   plus that of odd number. */
static void gc_product_blocks(ptrdiff_t rows, ptrdiff_t width, ptrdiff_t k,
    const uint16_t *a, ptrdiff_t a_i, ptrdiff_t a_p,
    const uint16_t *b, ptrdiff_t b_p, ptrdiff_t b_j, float *sums)
{{
    float parts[2][GC_ROWS * GC_COLUMNS_float32];
    for (ptrdiff_t first = 0; first < k; first += {BLOCK}) {{
        const ptrdiff_t terms = k - first < {BLOCK} ? k - first : {BLOCK};
        for (ptrdiff_t s = 0; s < rows * GC_COLUMNS_float32; ++s) parts[0][s] = parts[1][s] = 0;
        for (ptrdiff_t odd = 0; odd < 2 && odd < terms; ++odd)
            gc_product_pairs(rows, width, (terms + 1 - odd) / 2,
                a + (first + odd) * a_p, a_i, 2 * a_p,
                b + (first + odd) * b_p, 2 * b_p, b_j, parts[odd], 0);
        for (ptrdiff_t s = 0; s < rows * GC_COLUMNS_float32; ++s)
            sums[s] += parts[0][s] + parts[1][s];
    }}
}}"""


_PRESENT = """\
/* Adds such products with pixels to the sums of a block, but for its absent rows: these have no
   pixels.  Sums between present ones are kept meanwhile. */
static void gc_present_{dtype}(ptrdiff_t rows, ptrdiff_t width, ptrdiff_t k, gc_rows absent,
    const {kind} *a, const {kind} *b, ptrdiff_t b_p, {kind} *sums)
{{
    {kind} kept[GC_ROWS * GC_COLUMNS_{dtype}];
    ptrdiff_t top = 0;
    while (top < rows && absent >> top & 1u) ++top;
    while (top < rows && absent >> (rows - 1) & 1u) --rows;
    if (top == rows) return;
    for (ptrdiff_t i = top; i < rows; ++i)
        for (ptrdiff_t j = 0; j < width && absent >> i & 1u; ++j)
            kept[i * GC_COLUMNS_{dtype} + j] = sums[i * GC_COLUMNS_{dtype} + j];
    gc_product_{dtype}(rows - top, width, k, a + top * GC_DEPTH, GC_DEPTH, 1, b, b_p, 1,
        sums + top * GC_COLUMNS_{dtype});
    for (ptrdiff_t i = top; i < rows; ++i)
        for (ptrdiff_t j = 0; j < width && absent >> i & 1u; ++j)
            sums[i * GC_COLUMNS_{dtype} + j] = kept[i * GC_COLUMNS_{dtype} + j];
}}"""


def block_head(fused: bool) -> str:
    """Return the vectors of each target, with fused multiply-adds or separate ones."""
    if fused:
        return BLOCK_HEAD
    text = BLOCK_HEAD.replace(" && defined(__FMA__)", "")
    text = re.sub(r" (_mm\d+)_fmadd_(p[sd])", r"(a, b, c) \1_add_\2(\1_mul_\2(a, b), c)", text)
    return re.sub(r"vfmaq_(f\d+)\(c, a, b\)", r"vaddq_\1(vmulq_\1(a, b), c)", text)


def product_function(dtype: str, fused: bool) -> tuple[str, str]:
    """Return `gc_product_<dtype>`, which adds `k` products to each of the sums of a block.

    The second text is the function without vectors.  Sums of int32 are of int8 and exact.
    For factors of bfloat16, which are widened to panels of floats, `dtype` is the order of terms.
    """
    if dtype in ("pairs", "blocks"):
        text = _BLOCKS if dtype == "blocks" else _PAIRS
        return text, text
    kind, suffix = _KINDS[dtype]
    a, b, whole = "a[i * a_i + p * a_p]", "b[p * b_p + j * b_j]", dtype == "int32"
    line = f"gc_fma{suffix}({a}, {b}, sum)" if fused and not whole else f"sum + {a} * {b}"
    of = {"dtype": dtype, "kind": kind, "multiply_add": line}
    of["arguments"] = _ARGUMENTS.format(kind="int8_t" if whole else kind)
    columns = _COLUMNS.format(dtype=dtype, kind=kind, arguments=_ARGUMENTS.format(kind=kind))
    tiles = [_tile(dtype, rows, vectors) for rows, vectors in ((8, 2), (8, 1), (4, 2), (4, 1))]
    plain = _PLAIN.format(**of)
    text = "\n".join(
        [
            "#ifdef gc_all_int32" if whole else "#ifdef GC_VECTOR",
            f"#define GC_LANES_{dtype} (GC_VECTOR / {ITEMSIZE[dtype]})",
            f"#define GC_COLUMNS_{dtype} ({VECTORS} * GC_LANES_{dtype})",
            *("#if GC_TILE == 8", *tiles[:2], "#else", *tiles[2:], "#endif"),
            *(_tile(dtype, 1, vectors) for vectors in (1, 2, VECTORS)),
            columns,
            (_INT8 if whole else _VECTORS).format(**of),
            "#else",
            f"#define GC_COLUMNS_{dtype} 1",
            plain + "#endif",
        ]
    )
    return text, plain


def present_function(dtype: str) -> str:
    """Return `gc_present_<dtype>`, which adds products to the rows of a block that have pixels."""
    return _PRESENT.format(dtype=dtype, kind=_KINDS[dtype][0])


def _tile(dtype: str, rows: int, vectors: int) -> str:
    """Return the function for so many rows and vectors, with a variable for each vector of sums."""
    kind, v = _KINDS[dtype][0], f"gc_{dtype}"
    lanes, columns = f"GC_LANES_{dtype}", f"GC_COLUMNS_{dtype}"
    size = f"{'n' if rows > 1 else rows}x{vectors}"

    def sums() -> Iterator[tuple[str, str]]:
        for r in range(rows):
            for c in range(vectors):
                yield f"s{r}{c}", f"sums{_times(r, columns)}{_times(c, lanes)}"

    lines = ["(void)a_i;"] if rows == 1 else []
    lines += [f"{v} {s} = gc_load_{dtype}({at});" for s, at in sums()]
    lines.append("for (ptrdiff_t p = 0; p < k; ++p) {")
    for c in range(vectors):
        lines.append(f"    const {v} b{c} = gc_load_{dtype}(b + p * b_p{_times(c, lanes)});")
    for r in range(rows):
        lines.append(f"    const {v} a{r} = gc_all_{dtype}(a[p * a_p{_times(r, 'a_i')}]);")
        lines += [f"    s{r}{c} = gc_fma_{dtype}(a{r}, b{c}, s{r}{c});" for c in range(vectors)]
    lines.append("}")
    lines += [f"gc_store_{dtype}({at}, {s});" for s, at in sums()]
    head = f"static void gc_tile_{size}_{dtype}({_ARGUMENTS.format(kind=kind)} {kind} *sums)"
    return "\n".join([head, "{", *(f"    {line}" for line in lines), "}", ""])


def _times(number: int, name: str) -> str:
    """Return a multiple of a name to be added, which is empty for 0."""
    return "" if number == 0 else f" + {name}" if number == 1 else f" + {number} * {name}"
