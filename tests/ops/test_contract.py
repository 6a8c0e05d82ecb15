"""Every op's rules and kernel say the same thing."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator, Sequence
from math import isqrt

import numpy as np
import pytest

import graphc  # noqa: F401  (loads every module that defines ops)
from graphc.ir.op import Array, Layer, Op, Source
from graphc.ir.tensor_type import TensorType, numpy_dtype, shape_at
from graphc.ir.text.parse import check_count
from graphc.ops import OPS
from graphc.ops.autodiff import Gradient
from graphc.ops.loops.op import Scan
from tests.ops.example import Example
from tests.ops.examples import DOUBLE, EXAMPLES
from tests.ops.harness import Bound, program_of
from tests.together import together

ROWS = 5
ALIASES = {"reshape", "stop_gradient", "after"}
"""Ops that need no instruction: their result is the bytes of their operand."""
BETWEEN_SHARDS = {"send", "receive", "total"}
"""They stand in pairs; the tests of shards run them."""
FUNCTIONS = "sin cos tan asin acos atan sinh cosh asinh acosh atanh expm1 log1p mod fmod"
SEARCHES = "cumsum topk gather_elements last_write scatter_elements flat_index"
REFERRED = set(FUNCTIONS.split()) | set(SEARCHES.split())
"""Ops without a generated form: their reference runs, whatever their operands."""

OP_EXAMPLES = [e for e in EXAMPLES if not isinstance(e.op, Layer)]


def is_called(example: Example) -> bool:
    """Whether the op has a kernel of its own that one process can run."""
    op = example.op
    return not isinstance(op, Layer) and op.name not in ALIASES | BETWEEN_SHARDS


CALLED = [e for e in EXAMPLES if is_called(e)]


def by_op(examples: Sequence[Example]) -> dict[str, list[Example]]:
    """One test for each op, so that a failure names it."""
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(_key(type(example.op)), []).append(example)
    return groups


def _key(op: type[Op]) -> str:
    return f"layer {op.name}" if issubclass(op, Layer) else op.name


def each(examples: Sequence[Example]) -> pytest.MarkDecorator:
    groups = by_op(examples)
    return pytest.mark.parametrize("examples", groups.values(), ids=groups)


def close(found: Array, wanted: Array) -> bool:
    if wanted.dtype.kind != "f":
        return bool(np.array_equal(found, wanted))
    tolerance = 1e-12 if wanted.dtype == np.float64 else 1e-5
    scale = max(1.0, float(np.abs(wanted).max(initial=0)))
    return bool((np.abs(found - wanted) <= tolerance * scale).all())


def all_subclasses(cls: type[Op]) -> Iterator[type[Op]]:
    for child in cls.__subclasses__():
        yield child
        yield from all_subclasses(child)


def test_every_op_is_in_the_table_under_a_name_of_its_own() -> None:
    every = {cls for cls in all_subclasses(Op) if cls.__module__.startswith("graphc.ops.")}
    leaves = {cls for cls in every if not cls.__subclasses__()}
    assert leaves <= set(OPS.values()) <= every
    assert all(_key(cls) == name for name, cls in OPS.items())


def test_every_op_has_examples() -> None:
    without = {name for name, cls in OPS.items() if issubclass(cls, (Source, Gradient, Scan))}
    assert set(by_op(EXAMPLES)) == set(OPS) - without


def test_every_op_is_a_kernel_unless_it_is_known_to_have_none() -> None:
    kinds: dict[str, set[str]] = {}
    for example in CALLED:
        instrs = program_of(example.op, example.types, ROWS).instrs
        found = {instr.kind for instr in instrs} - {"barrier"}
        assert found in ({"kernel"}, {"call"}), f"{example} becomes {found}"
        kinds.setdefault(example.op.name, set()).update(found)
    assert {name for name, found in kinds.items() if "kernel" not in found} == REFERRED


@each([e for e in EXAMPLES if e.op.name in ALIASES])
def test_an_alias_needs_no_instruction(examples: list[Example]) -> None:
    for example in examples:
        assert not program_of(example.op, example.types, ROWS).instrs
        ins = example.operands(ROWS)
        found = Bound(example.op, example.types, ROWS).run(ins)
        assert np.array_equal(found, example.concrete(ROWS).reference(ins)), str(example)


@pytest.mark.one_in(3)
@each(EXAMPLES)
def test_infer_tells_the_type_of_the_reference(examples: list[Example]) -> None:
    for example in examples:
        inferred = example.op.infer(example.types)
        for n in (1, ROWS):
            ins, op = example.operands(n), example.concrete(n)
            if isinstance(op, Layer):
                results = [op.reference_in(ins, train) for train in (True, False)]
            else:
                results = [op.reference(ins)]
            for result in results:
                found = result.shape, result.dtype.name
                assert found == (shape_at(inferred.shape, n), numpy_dtype(inferred.dtype)), str(
                    example
                )
            concrete = [TensorType(array.shape, array.dtype.name) for array in ins]
            assert shape_at(op.infer(concrete).shape, n) == results[0].shape, str(example)


@pytest.mark.one_in(12)
@each(CALLED)
def test_program_equals_reference(examples: list[Example]) -> None:
    for example in examples:
        for n in (1, ROWS):
            bound = Bound(example.op, example.types, n)
            for seed in (0, 1):  # bound once, run on changing operands
                ins = example.operands(n, seed)
                found = bound.run(ins)
                wanted = example.concrete(n).reference(ins)
                assert close(found, wanted), f"{example}: {found} is not {wanted}"
                for mine, given in zip(bound.ins, ins, strict=True):
                    assert np.array_equal(mine, given), f"{example} writes to an operand"


@pytest.mark.one_in(8)
@each(CALLED)
def test_program_of_many_parts_equals_reference(
    examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("body.PART", 4), ("body.PRODUCT_PART", 4), ("products.BLOCK", 8)):
        monkeypatch.setattr(f"graphc.backends.numpy.{name}", size)
    for example in examples:
        ins = example.operands(ROWS)
        found = Bound(example.op, example.types, ROWS).run(ins)
        assert close(found, example.concrete(ROWS).reference(ins)), str(example)


@pytest.mark.one_in(4)
@each([e for e in CALLED if e.op.inplace])
def test_program_may_write_over_the_operands_it_names(examples: list[Example]) -> None:
    tried = 0
    for example in examples:
        result = example.op.infer(example.types)
        for position in example.op.inplace:
            if position < len(example.types) and example.types[position] == result:
                ins = example.operands(ROWS)
                bound = Bound(example.op, example.types, ROWS, onto=position)
                assert np.shares_memory(bound.out, bound.ins[position]) or not bound.out.size
                found = bound.run(ins)
                wanted = example.concrete(ROWS).reference(ins)
                assert close(found, wanted), f"{example} onto operand {position}"
                for i, (mine, given) in enumerate(zip(bound.ins, ins, strict=True)):
                    assert i == position or np.array_equal(mine, given), f"{example} writes to {i}"
                tried += 1
    assert tried


@pytest.mark.one_in(4)
@each(CALLED)
def test_program_serves_a_batch_below_capacity(examples: list[Example]) -> None:
    for example in examples:
        ins = example.operands(ROWS)
        found = Bound(example.op, example.types, ROWS, spare=9).run(ins)
        assert close(found, example.concrete(ROWS).reference(ins)), str(example)


MANY = 20_000
"""Rows, for float64 arrays of 160 kB and more."""
BUFFERS = 3 * 8192 * 8 + 4096
"""NumPy's own pieces, of 8,192 elements, for broadcasts, casts and parts; they do not grow."""


@pytest.mark.one_in(6)
@each([e for e in DOUBLE if is_called(e)])
def test_kernel_allocates_no_array(examples: list[Example]) -> None:
    for example in examples:
        pairs = any(x.pairs_rows for x in (*example.types, example.op.infer(example.types)))
        bound = Bound(example.op, example.types, isqrt(MANY) if pairs else MANY)
        if any(instr.kind == "call" for instr in bound.program.instrs):
            continue  # a reference makes its result anew
        for array in bound.ins:
            array.fill(1 if array.dtype.kind == "f" else 0)
        with np.errstate(all="ignore"):
            for call in bound.calls:
                call()
        gc.disable()  # its allocations are not the kernel's
        tracemalloc.start()
        try:
            with np.errstate(all="ignore"):
                for call in bound.calls:
                    call()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            gc.enable()
        assert peak < BUFFERS, f"{example} allocates {peak} bytes"


@together("examples", by_op(EXAMPLES).values())
def test_operands_are_counted(examples: list[Example]) -> None:
    for op in {example.op for example in examples if example.op.roles}:
        given = {len(example.types) for example in examples if example.op == op}
        for count in range(len(op.roles) + 2):
            if len(op.roles) - op.optional <= count <= len(op.roles):
                check_count(op, count)
            else:
                assert count not in given
                with pytest.raises(ValueError, match=f"it has {count} operands, {op.name} takes"):
                    check_count(op, count)
