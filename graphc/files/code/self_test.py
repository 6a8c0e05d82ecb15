"""The self-test of an exported model: a `main` that runs it and compares what it computes.

Inputs come from a generator of a few lines, the same here and in C; results are hashed, so that a
test of any size takes a few lines, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import NamedTuple

import numpy as np

from graphc.backends.interface import C_TYPES, Argument, Entry, Interface
from graphc.files.code.interface import Expected
from graphc.ir.op import Array
from graphc.ir.tensor_type import count, dim_at, shape_at

ROWS = 4
"""The most rows of a test."""
STEPS = 3
"""The training steps of a test."""
SEED = 20
FACTOR, TERM = 6364136223846793005, 1442695040888963407
"""The multiplier and increment of Knuth's generator of 64 bits (MMIX)."""
PRIME = 1099511628211
"""The factor between the words of a hash."""

_HEAD = """\
#ifdef {upper}_SELF_TEST
#include <stdio.h>

static uint64_t test_random;

/* Returns 31 random bits. */
static uint32_t test_bits(void)
{{
    test_random = test_random * UINT64_C({factor}) + UINT64_C({term});
    return (uint32_t)(test_random >> 33);
}}

/* Returns a hash of the bytes of an array. */
static uint64_t test_hash(const void *array, size_t bytes)
{{
    const unsigned char *const byte = array;
    uint64_t hash = 0;
    for (size_t i = 0; i < bytes; ++i) hash = hash * UINT64_C({prime}) + byte[i];
    return hash;
}}

/* Prints whether a hash is as expected, and returns 1 if it is not. */
static int test_equal(const char *what, uint64_t hash, uint64_t expected)
{{
    printf("%s: %s\\n", what, hash == expected ? "right" : "WRONG");
    return hash != expected;
}}
"""


class Generator:
    """The generator of inputs."""

    def __init__(self, seed: int) -> None:
        self._state = seed

    def bits(self, size: int) -> Array:
        """Return arrays of 31 random bits."""
        found = np.empty(size, np.int64)
        for i in range(size):
            self._state = (self._state * FACTOR + TERM) % 2**64
            found[i] = self._state >> 33
        return found

    def array(self, argument: Argument, n: int, bound: int) -> Array:
        """Return an input: floats from -1 to below 1, or whole numbers from 0 to below a bound."""
        shape = shape_at(argument.type.shape, n)
        bits = self.bits(prod(shape)).reshape(shape)
        if argument.type.is_float:
            return (bits.astype(np.float64) / 2.0**30 - 1.0).astype(argument.type.dtype)
        return (bits % bound).astype(argument.type.dtype)


def hashed(array: Array | bytes) -> int:
    """Return the hash of an array's bytes."""
    content = array if isinstance(array, bytes) else np.ascontiguousarray(array).tobytes()
    found = 0
    for byte in content:
        found = (found * PRIME + byte) % 2**64
    return found


class Run(NamedTuple):
    """A call of a function in a test."""

    entry: Entry
    feeds: Mapping[str, Array]
    results: Mapping[str, Array]
    """The arrays that it must write, by declared names."""


def test_text(model: Interface, expected: Expected) -> str:
    """Return the text of a test with its expected results."""
    upper = model.prefix.upper()
    n = min(ROWS, model.batch)
    runs = [*_runs(model, expected, n)]
    lines = [f"test_random = {SEED};"]
    if model.state:
        lines.append(f"{model.prefix}_init(test_state);")
    for run in runs:
        lines += _called(model, run, n)
    if model.state:
        given = f"test_hash(test_state, {upper}_STATE_BYTES)"
        lines.append(_compared("state", given, hashed(model.state_image(expected.state))))
    memory = [f"static uint64_t test_work[{upper}_WORK_BYTES / 8 + 1];"]
    if model.state:
        memory.append(f"static uint64_t test_state[{upper}_STATE_BYTES / 8];")
    return "\n".join(
        [
            _HEAD.format(upper=upper, factor=FACTOR, term=TERM, prime=PRIME),
            *memory,
            "",
            "int main(void)\n{\n    int wrong = 0;",
            *(f"    {line}" for line in lines),
            "    return wrong != 0;\n}\n#endif\n",
        ]
    )


def _runs(model: Interface, expected: Expected, n: int) -> Iterator[Run]:
    """Yield one call of each function, and several of the training step."""
    generator = Generator(SEED)
    for entry in model.entries:
        for _ in range(STEPS if entry.program.name == "step" else 1):
            feeds = {}
            for argument in entry.feeds:
                bound = dim_at(entry.program.index_bounds.get(argument.declared, 2), n)
                feeds[argument.declared] = generator.array(argument, n, bound)
            yield Run(entry, feeds, expected(entry, feeds))


def _called(model: Interface, run: Run, n: int) -> Iterator[str]:
    """Yield the lines of a call: its inputs, the call, and what it wrote."""
    yield "{"
    entry = run.entry
    for argument in entry.feeds:
        size = dim_at(count(argument.type.shape), n)
        kind = C_TYPES[argument.type.dtype]
        bits = "test_bits()"
        value = f"({kind})((double){bits} / 1073741824.0 - 1.0)"
        if not argument.type.is_float:
            bound = dim_at(entry.program.index_bounds.get(argument.declared, 2), n)
            value = f"({kind})({bits} % {bound}u)"
        yield f"    static {kind} {argument.name}[{size}];"
        yield f"    for (int i = 0; i < {size}; ++i) {argument.name}[i] = {value};"
    for argument, _ in entry.results:
        size = dim_at(count(argument.type.shape), n)
        yield f"    static {C_TYPES[argument.type.dtype]} {argument.name}[{size}];"
    memory = ["test_state"] if model.state else []
    names = [argument.name for argument in (*entry.feeds, *(a for a, _ in entry.results))]
    yield f"    {entry.name}({', '.join([*memory, 'test_work', str(n), *names])});"
    for argument, _ in entry.results:
        what = f"{entry.name}: {argument.declared}"
        given = f"test_hash({argument.name}, sizeof {argument.name})"
        yield f"    {_compared(what, given, hashed(run.results[argument.declared]))}"
    yield "}"


def _compared(what: str, given: str, expected: int) -> str:
    return f'wrong += test_equal("{what}", {given}, UINT64_C({expected}));'
