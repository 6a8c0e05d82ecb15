"""The self-test of an exported model: a `main` that runs it and compares what it computes.

Inputs come from a generator of a few lines, the same here and in C; results are hashed, so that a
test of any size takes a few lines, too.  What a function must write is filled before with a byte
that its results have the least, so that one that leaves it as it is fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from math import prod
from operator import add
from typing import NamedTuple

import numpy as np

from graphc.backends.interface import C_TYPES, Argument, Entry, Interface
from graphc.backends.names import LONGEST, string
from graphc.files.code.interface import Expected
from graphc.ir.op import Array
from graphc.ir.tensor_type import FLOATS, count, dim_at, shape_at
from graphc.ir.text.graph import name_text

ROWS = 4
"""The most rows of a test."""
STEPS = 3
"""The training steps of a test."""
MOVED = 0.0625
"""The bound of what is added to parameters after the first inference: some start as zeros."""
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
    uint64_t hash = bytes;
    for (size_t i = 0; i < bytes; ++i) hash = hash * UINT64_C({prime}) + byte[i];
    return hash;
}}

/* Sets the bytes of an array. */
static void test_fill(void *array, size_t bytes, unsigned char value)
{{
    unsigned char *const byte = array;
    for (size_t i = 0; i < bytes; ++i) byte[i] = value;
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

    def floats(self, shape: tuple[int, ...], dtype: str, most: float = 1.0) -> Array:
        """Return numbers from `-most` to below `most`."""
        bits = self.bits(prod(shape)).reshape(shape)
        return ((bits.astype(np.float64) / 2.0**30 - 1.0) * most).astype(dtype)

    def array(self, argument: Argument, n: int, bound: int) -> Array:
        """Return an input: floats from -1 to below 1, or whole numbers from 0 to below a bound."""
        shape = shape_at(argument.type.shape, n)
        if argument.type.is_float:
            return self.floats(shape, argument.type.dtype)
        return (self.bits(prod(shape)).reshape(shape) % bound).astype(argument.type.dtype)


def hashed(array: Array | bytes) -> int:
    """Return the hash of an array's bytes."""
    content = array if isinstance(array, bytes) else np.ascontiguousarray(array).tobytes()
    found = len(content)
    for byte in content:
        found = (found * PRIME + byte) % 2**64
    return found


class Run(NamedTuple):
    """A call of a function in a test."""

    entry: Entry
    feeds: Mapping[str, Array]
    results: Mapping[str, Array]
    """The arrays that it must write, by declared names."""
    loss: Array | None
    """The sum of losses that it must return."""


def test_text(model: Interface, expected: Expected) -> str:
    """Return the text of a test with its expected results."""
    upper = model.prefix.upper()
    n = min(ROWS, model.batch)
    lines = [f"test_random = {SEED};"]
    memory = [f"static uint64_t test_work[{upper}_WORK_BYTES / 8 + 1];"]
    if model.state:
        memory.append(f"static uint64_t test_state[{upper}_STATE_BYTES / 8];")
        lines.append("test_fill(test_state, sizeof test_state, 255u);")
        lines.append(f"{model.prefix}_init(test_state);")
    lines += _lines(model, expected, n)
    if model.state:
        given = f"test_hash(test_state, {upper}_STATE_BYTES)"
        image = model.state_image(expected.state, gap=255)
        lines.append(_compared("state", given, hashed(image)))
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


def _lines(model: Interface, expected: Expected, n: int) -> Iterator[str]:
    """Yield the calls of all functions, after an inference with the first parameters."""
    generator = Generator(SEED)
    entries = model.entries
    if model.state:
        for entry in entries:
            if entry.program.name == "infer":
                yield from _called(model, _run(entry, expected, generator, n), n)
        yield from _moved(model, expected, generator)
    for entry in entries:
        for _ in range(STEPS if entry.program.name == "step" else 1):
            yield from _called(model, _run(entry, expected, generator, n), n)


def _run(entry: Entry, expected: Expected, generator: Generator, n: int) -> Run:
    """Return a call of a function with inputs of the generator."""
    feeds = {}
    for argument in entry.feeds:
        bound = dim_at(entry.program.index_bounds.get(argument.declared, 2), n)
        feeds[argument.declared] = generator.array(argument, n, bound)
    found = expected(entry, feeds)
    results = {a.declared: np.array(found[a.declared]) for a, _ in entry.results}
    losses = [found[name] for name in entry.program.graph.losses] if entry.losses else []
    return Run(entry, feeds, results, np.asarray(reduce(add, losses)) if losses else None)


def _moved(model: Interface, expected: Expected, generator: Generator) -> Iterator[str]:
    """Move the parameters, and yield the lines that do so."""
    for name, array in model.state.items():
        dtype = array.dtype.name
        if name in expected.parameters and dtype in FLOATS:
            moved = generator.floats(array.shape, dtype, MOVED)
            expected.parameters[name] = expected.parameters[name] + moved
            kind, place = C_TYPES[dtype], f"(unsigned char *)test_state + {model.offsets[name]}"
            value = f"({kind})({_FLOAT} * {MOVED})"
            yield f"for (int i = 0; i < {array.size}; ++i) (({kind} *)({place}))[i] += {value};"


_FLOAT = "((double)test_bits() / 1073741824.0 - 1.0)"
"""A number from -1 to below 1 in C."""


def _called(model: Interface, run: Run, n: int) -> Iterator[str]:
    """Yield the lines of a call: its inputs, the call, and what it wrote."""
    entry, returns = run.entry, ""
    yield "{"
    for argument in entry.feeds:
        size = dim_at(count(argument.type.shape), n)
        kind = C_TYPES[argument.type.dtype]
        value = f"({kind}){_FLOAT}"
        if not argument.type.is_float:
            bound = dim_at(entry.program.index_bounds.get(argument.declared, 2), n)
            value = f"({kind})(test_bits() % {bound}u)"
        yield f"    static {kind} {argument.name}[{size}];"
        yield f"    for (int i = 0; i < {size}; ++i) {argument.name}[i] = {value};"
    for argument, _ in entry.results:
        size = dim_at(count(argument.type.shape), n)
        yield f"    static {C_TYPES[argument.type.dtype]} {argument.name}[{size}];"
        rarest = _rarest(run.results[argument.declared])
        yield f"    test_fill({argument.name}, sizeof {argument.name}, {rarest}u);"
    yield "    test_fill(test_work, sizeof test_work, 255u);"
    memory = ["test_state"] if model.state else []
    names = [argument.name for argument in entry.arguments]
    if run.loss is not None:
        returns = f"const {C_TYPES[run.loss.dtype.name]} loss = "
    yield f"    {returns}{entry.name}({', '.join([*memory, 'test_work', str(n), *names])});"
    for argument, _ in entry.results:
        what = f"{entry.name}: {_shown(argument.declared)}"
        given = f"test_hash({argument.name}, sizeof {argument.name})"
        yield f"    {_compared(what, given, hashed(run.results[argument.declared]))}"
    if run.loss is not None:
        given = "test_hash(&loss, sizeof loss)"
        yield f"    {_compared(f'{entry.name} returns', given, hashed(run.loss))}"
    yield "}"


def _rarest(array: Array) -> int:
    """Return the byte that an array has the least."""
    content = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
    return int(np.bincount(content, minlength=256).argmin())


def _shown(name: str) -> str:
    return name_text(name if len(name) <= LONGEST else f"{name[:LONGEST]}...")


def _compared(what: str, given: str, expected: int) -> str:
    return f"wrong += test_equal({string(what)}, {given}, UINT64_C({expected}));"
