"""`check_op`: tests whether all rules of an op agree with its `reference`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import get_annotations
from typing import Any

import numpy as np

from graphc.base.errors import GraphError, RuleError, counted
from graphc.check.central_differences import (
    formula_mistakes,
    rule_mistake,
    widened,
    wrong_entries,
)
from graphc.check.op_kernels import first_line, kernel_rule, wrong_kernels
from graphc.ir.graph import Graph
from graphc.ir.op import Array, Op, attributes
from graphc.ir.tensor_type import N, TensorType, shape_at, shape_text
from graphc.ops import OPS
from graphc.runtime import reference
from graphc.runtime.reference import evaluate

Example = tuple[Array, ...]
Finding = tuple[str, str]
"""The name of a rule, and its fault."""


@dataclass(frozen=True)
class OpReport:
    """The result of `check_op`, whose text lists the rules that are wrong.

    Examples
    --------
    >>> from graphc.ops.functions import Tanh
    >>> gc.check_op(Tanh(), [(np.linspace(-1, 1, 6),)]).rules
    ('infer', 'reference', 'scalar', 'grad', 'gradient_text')
    """

    op: str
    """The name of the op."""
    examples: int
    """The number of examples."""
    findings: tuple[Finding, ...]
    """The names of wrong rules, and their faults."""
    differentiable: bool
    """True if it has a gradient rule."""
    rules: tuple[str, ...] = ()
    """The rules that agree, if none is wrong."""

    @property
    def ok(self) -> bool:
        """Return whether no rule is wrong."""
        return not self.findings

    def __str__(self) -> str:
        if self.findings:
            lines = (f"\n  {rule}: {text}" for rule, text in self.findings)
            return f"check_op {self.op}: wrong{''.join(lines)}"
        rules = f"{', '.join(self.rules[:-1])} and {self.rules[-1]}"
        without = "" if self.differentiable else "; it has no gradient rule"
        examples = counted(self.examples, "example")
        return f"check_op {self.op}: ok, {rules} agree on {examples}{without}"


def check_op(
    op: Op, examples: Sequence[Sequence[Any]], *, h: float = 1e-5, tolerance: float = 1e-6
) -> OpReport:
    """Check that the rules of an op agree with each other on examples.

    Ops with equal attributes must be equal and have equal hashes.  The name must differ from those
    of built-in ops.  `infer` must give the type that `reference` computes, also with an open
    batch.  `reference` must not write to operands or depend on their memory order.  The expansion
    of a layer must compute its reference.  The rule that makes the op a kernel, such as `scalar`,
    must agree with `reference` in the interpreter of kernels and on each backend, for several
    batches and for edge values: zeros, large numbers, and for an op on elements infinity and NaN.
    `grad`, if there is one, must agree with central differences in float64, and `gradient_text`
    with `grad`.

    Parameters
    ----------
    op
        The op or layer, with its attributes.
    examples
        Tuples with an array for each operand.
    h
        The step of the differences, relative to entries above 1.
    tolerance
        The largest relative error of a derivative that passes.

    Returns
    -------
    OpReport
        Its text says which rule is wrong, and for which operands; `ok` whether none is.

    Raises
    ------
    GraphError
        If there are no examples.

    Examples
    --------
    >>> from graphc.ops.functions import Tanh
    >>> print(gc.check_op(Tanh(), [(np.linspace(-1, 1, 6),)]))
    check_op tanh: ok, infer, reference, scalar, grad and gradient_text agree on 1 example
    """
    if not examples:
        raise GraphError(f"check_op {op.name}: there are no examples")
    cases = [tuple(np.array(array) for array in example) for example in examples]
    reference.derivative.cache_clear()  # what the rules call may have been edited in a notebook
    reference.expanded.cache_clear()
    findings = list(_fields(op)) or [*_name(op), *_first_wrong(op, cases, h, tolerance)]
    rules = () if findings else _rules(op, cases)
    return OpReport(op.name, len(cases), tuple(findings), _differentiable(op), rules)


def _rules(op: Op, cases: Sequence[Example]) -> tuple[str, ...]:
    """Return the names of the rules that were compared."""
    found = ["infer", "reference"]
    if not op.is_layer:
        found += dict.fromkeys(rule for case in cases if (rule := kernel_rule(op, case)))
    if _differentiable(op):
        found.append("grad")
        found += ["gradient_text"] * any(op.gradient_text)
    return tuple(found)


def _first_wrong(op: Op, cases: Sequence[Example], h: float, tolerance: float) -> Iterator[Finding]:
    """Yield the findings of the first wrong rule, on the first example that shows one."""
    for case in cases:
        concrete = op.at(_rows(case))
        # In this order: later rules rely on the earlier ones.
        for rule in (_types, _operands, _open_batch, _expansion):
            found = list(rule(op, concrete, case))
            yield from found
            if found:
                return
        rest = [wrong_kernels(op, case) if not op.is_layer else ()]
        if _differentiable(op):
            rest += [_gradient(concrete, case, h, tolerance), _formulas(concrete, case, tolerance)]
        for found in map(list, rest):
            yield from found
            if found:
                return


def _fields(op: Op) -> Iterator[Finding]:
    """Yield the faults of attributes: they must make ops comparable and hashable."""
    fields, kind = attributes(op), type(op)
    for name, annotation in get_annotations(kind).items():
        if name not in fields and "ClassVar" not in str(annotation):
            fault = f"{name} is not an attribute, since the class is not a dataclass"
            yield "attributes", f"{fault}; put @dataclass(frozen=True) before it"
            return
    twin = copy.copy(op)
    try:
        same = bool(twin == op) and hash(twin) == hash(op)
    except (TypeError, ValueError) as error:
        hint = "keep numbers, strings and tuples in them, and freeze the dataclass"
        yield "attributes", f"two ops with equal attributes cannot be compared: {error}; {hint}"
        return
    if not same:
        yield "attributes", "two ops with equal attributes are not equal, or their hashes differ"


def _name(op: Op) -> Iterator[Finding]:
    if op.name in OPS and not type(op).__module__.startswith("graphc.ops."):
        yield "name", f"{op.name!r} is the name of a built-in op; rename it"


def _types(op: Op, concrete: Op, case: Example) -> Iterator[Finding]:
    """Yield the faults of `infer` on an example."""
    try:
        type = concrete.infer(reference.types_of(case))
    except ValueError as error:
        yield "infer", f"it refuses {_shapes(case)}: {error}"
        return
    except Exception as error:
        yield "infer", f"it fails on {_shapes(case)}: {first_line(error)}"
        return
    if not isinstance(type, TensorType):
        yield "infer", f"it returns {type.__class__.__name__}, not a TensorType"
        return
    for train, value in _values(concrete, case):
        if isinstance(value, Exception):
            yield "reference", f"it fails on {_shapes(case)}: {first_line(value)}"
        elif value.dtype == object:
            yield "reference", f"it returns {value.item().__class__.__name__}, not an array"
        elif (value.shape, value.dtype.name) != (type.shape, type.dtype):
            found = f"{value.dtype}{list(value.shape)}{_in(concrete, train)}"
            yield "infer", f"it says {type} for {_shapes(case)}, reference gives {found}"


def _operands(op: Op, concrete: Op, case: Example) -> Iterator[Finding]:
    """Yield the faults of a reference that writes to operands or depends on their memory order."""
    given = tuple(np.array(array) for array in case)
    first = [value for _, value in _values(concrete, given, copied=False)]
    names = reference.operand_names(op, len(case))
    for i, (name, before, after) in enumerate(zip(names, case, given, strict=True)):
        if not np.array_equal(before, after, equal_nan=before.dtype.kind == "f"):
            yield "reference", f"it writes to operand {i}, {name}; make a new array"
            return
    strided = tuple(np.array(array, order="F") for array in case)
    for value, (_, other) in zip(first, _values(concrete, strided), strict=True):
        if isinstance(other, Exception) or not np.allclose(value, other, equal_nan=True):
            yield "reference", "it gives a different result when operands are in Fortran order"


def _open_batch(op: Op, concrete: Op, case: Example) -> Iterator[Finding]:
    """Yield the faults of `infer` with N as the first dimension; it may also refuse."""
    rows = _rows(case)
    types = [_opened(type, rows) for type in reference.types_of(case)]
    try:
        result = op.infer(types)
    except ValueError:
        return
    except Exception as error:
        hint = "so compare them, or count them by graphc.ir.tensor_type.count"
        fault = f"it fails when a dimension is the open batch: {first_line(error)}"
        yield "infer", f"{fault}; dimensions may be N, {hint}"
        return
    (_, value), *_ = _values(concrete, case)
    if shape_at(result.shape, rows) != value.shape:
        says = f"{shape_text(result.shape)}, which is {shape_at(result.shape, rows)} for N = {rows}"
        yield "infer", f"with an open batch it says {says}; reference gives {value.shape}"


def _expansion(op: Op, concrete: Op, case: Example) -> Iterator[Finding]:
    """Yield the faults of the ops that a layer expands to, in training and in inference."""
    if not concrete.is_layer:
        return
    for train, value in _values(concrete, case):
        graph: Graph = reference.expanded(concrete, reference.types_of(case), train)
        names = reference.operand_names(concrete, len(case))
        expanded = evaluate(graph, dict(zip(names, case, strict=True)), {}, 1)
        if not np.allclose(expanded[graph.outputs["out"]], value, rtol=1e-5, atol=1e-6):
            yield "expand", f"its result differs from that of reference_in{_in(op, train)}"


def _gradient(op: Op, case: Example, h: float, tolerance: float) -> Iterator[Finding]:
    """Yield the faults of the gradient rule."""
    wide = widened(op)
    ins = [x.astype("float64") if x.dtype.kind == "f" else x for x in case]
    try:
        types = reference.types_of(ins)
        mistake = "" if op.is_layer else rule_mistake(wide, types)
        if mistake:
            yield "grad", f"it {mistake}"
            return
        for train in _modes(op):
            for wrong in wrong_entries(wide, ins, train=train, h=h, tolerance=tolerance):
                yield "grad", f"{wrong}{_in(op, train)}"
    except RuleError as error:
        yield error.rule, f"it {error.fault}"
    except Exception as error:
        yield "grad", f"it fails: {first_line(error)}"


def _formulas(op: Op, case: Example, tolerance: float) -> Iterator[Finding]:
    """Yield the faults of the text of a gradient."""
    if not op.is_layer:
        wide = [x.astype("float64") if x.dtype.kind == "f" else x for x in case]
        for text in formula_mistakes(widened(op), wide, tolerance):
            yield "gradient_text", f"it {text}"


def _values(op: Op, case: Example, copied: bool = True) -> list[tuple[bool, Any]]:
    """Return the reference's results, or the exceptions it raises; for a layer in both modes."""
    found: list[tuple[bool, Any]] = []
    case = tuple(array.copy("K") for array in case) if copied else case
    for train in _modes(op):
        try:
            found.append((train, np.asarray(op.reference_in(case, train))))
        except Exception as error:
            found.append((train, error))
    return found


def _modes(op: Op) -> tuple[bool, ...]:
    """Return the values of `train` to check: both for a layer, False for other ops."""
    return (True, False) if op.is_layer else (False,)


def _differentiable(op: Op) -> bool:
    return op.is_layer or type(op).grad is not Op.grad


def _rows(case: Example) -> int:
    return next((len(array) for array in case if array.ndim), 1)


def _opened(type: TensorType, rows: int) -> TensorType:
    return type.with_shape((N, *type.shape[1:])) if type.shape[:1] == (rows,) else type


def _in(op: Op, train: bool) -> str:
    if not op.is_layer:
        return ""
    return " in training" if train else " in inference"


def _shapes(case: Example) -> str:
    return ", ".join(str(type) for type in reference.types_of(case))
