"""`check_op`: tests whether all rules of an op agree with its `reference`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import get_annotations
from typing import Any

import numpy as np

from graphc.base.errors import GraphError, RuleError, counted, failure_text, rule_failure, shown
from graphc.check.central_differences import checked_steps, widened, wrong_entries
from graphc.check.gradient_text import formula_mistakes
from graphc.check.op_kernels import kernel_fault, open_types, rows_of
from graphc.ir.by_formula import ByFormula
from graphc.ir.interpreter import wrong_result
from graphc.ir.op import Array, Op, attributes
from graphc.ir.tensor_type import TensorType, numpy_dtype, shape_at, shape_text
from graphc.ops import OPS
from graphc.ops.fused import Fused
from graphc.ops.shape import StopGradient
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
        If it is not an op, there are no examples, or `h` or `tolerance` is not above 0.

    Examples
    --------
    >>> from graphc.ops.functions import Tanh
    >>> print(gc.check_op(Tanh(), [(np.linspace(-1, 1, 6),)]))
    check_op tanh: ok, infer, reference, scalar, grad and gradient_text agree on 1 example
    """
    if not isinstance(op, Op):
        raise GraphError(f"check_op: {shown(op)} is not an op", hint=HINT)
    h, tolerance = checked_steps("check_op", h, tolerance)
    cases = list(_cases(op, examples))
    reference.derivative.cache_clear()  # what the rules call may have been edited in a notebook
    reference.expanded.cache_clear()
    agree, findings = dict[str, None](), [*_fields(op)] or [*_words(op)]
    for case in cases if not findings else ():
        trial = _Trial(op, case, h, tolerance, agree)
        findings += trial.findings()
        if findings:
            break
    rules = () if findings else tuple(agree)
    return OpReport(op.name, len(cases), tuple(findings), _differentiable(op), rules)


HINT = "it takes an op and a list of tuples of arrays: gc.check_op(MyOp(), [(array,)])"


def _cases(op: Op, examples: Sequence[Sequence[Any]]) -> Iterator[Example]:
    """Yield the examples as arrays; raise GraphError for what is none."""
    if not isinstance(examples, (list, tuple)):
        kind = type(examples).__name__
        raise GraphError(f"check_op {op.name}: examples is of type {kind}, not a list", hint=HINT)
    if not examples:
        raise GraphError(f"check_op {op.name}: there are no examples")
    for example in examples:
        if not isinstance(example, (list, tuple)):
            kind = type(example).__name__
            raise GraphError(
                f"check_op {op.name}: an example is of type {kind}, not a tuple", hint=HINT
            )
        try:
            case = tuple(np.array(array) for array in example)
            reference.types_of(case)
        except ValueError as error:
            raise GraphError(f"check_op {op.name}: in an example, {error}") from None
        if _differentiable(op) and not all(np.isfinite(x).all() for x in case):
            raise GraphError(
                f"check_op {op.name}: an example is not finite, so it has no derivative",
                hint="the kernel is tried on infinity and NaN without examples of them",
            )
        yield case


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


def _words(op: Op) -> Iterator[Finding]:
    """Yield the faults of the words of a class: its name, the roles of operands, formulas."""
    if not isinstance(op.name, str):
        yield "name", f"it is {shown(op.name)}, not a word"
    elif op.name in OPS and not type(op).__module__.startswith("graphc.ops."):
        yield "name", f"{op.name!r} is the name of a built-in op; rename it"
    for field, what in (("roles", 'names: write ("x",)'), ("gradient_text", FORMULAS)):
        words: object = getattr(op, field)
        if not isinstance(words, tuple) or not all(isinstance(word, str) for word in words):
            yield field, f"it is {shown(words)}, not a tuple of {what}"


FORMULAS = 'formulas: write ("d_out * ...",)'


@dataclass
class _Trial:
    """The rules of an op on one example; checks yield findings, and name rules in `compared`."""

    op: Op
    case: Example
    h: float
    tolerance: float
    compared: dict[str, None]

    def __post_init__(self) -> None:
        self.concrete = self.op.at(rows_of(self.case))
        self.modes = (True, False) if self.op.is_layer else (False,)
        """The values of `train` to check: both for a layer, False for other ops."""
        self.defining = "reference_in" if self.op.is_layer else "reference"
        """The name of the rule that defines the result."""

    def findings(self) -> list[Finding]:
        """Return the findings of the first check that has some."""
        # In this order: later rules rely on the earlier ones.
        checks = [self._types, self._operands, self._open_batch]
        checks.append(self._expansion if self.op.is_layer else self._kernels)
        if _differentiable(self.op):
            checks += [self._gradient, self._formulas]
        return next(filter(None, (list(check()) for check in checks)), [])

    def _types(self) -> Iterator[Finding]:
        """Yield the faults of `infer`."""
        self.compared |= dict.fromkeys(("infer", self.defining))
        types = reference.types_of(self.case)
        shapes = ", ".join(map(str, types)) or "no operands"
        try:
            result = self.concrete.infer(types)
        except ValueError as error:
            yield "infer", f"it refuses {shapes}: {'; '.join(str(error).splitlines())}"
            return
        except Exception as error:
            yield "infer", f"it {rule_failure(error, f'fails on {shapes}')}"
            return
        if not isinstance(result, TensorType):
            yield "infer", f"it returns {type(result).__name__}, not a TensorType"
            return
        for train, value in self._values(self.case):
            rule, fault = self._misfit(value, result, shapes)
            if fault:
                yield rule, f"it {fault}{self._in(train)}"
                return

    def _misfit(self, value: Any, type: TensorType, shapes: str) -> Finding:
        """Return the rule by which a result is not of its type, and its fault, or ""."""
        if isinstance(value, Exception):
            return self.defining, rule_failure(value, f"fails on {shapes}")
        if value.dtype == object:
            return self.defining, wrong_result(value, value.shape, type.dtype)
        same = (value.shape, value.dtype) == (type.shape, numpy_dtype(type.dtype))
        found = f"{value.dtype}{list(value.shape)}"
        fault = f"says {type} for {shapes}, {self.defining} gives {found}"
        return "infer", "" if same else fault

    def _operands(self) -> Iterator[Finding]:
        """Yield the faults of a reference that writes to operands or depends on their order."""
        given = tuple(np.array(array) for array in self.case)
        first = self._values(given, copied=False)
        for i, (name, before, after) in enumerate(zip(self._names, self.case, given, strict=True)):
            if not np.array_equal(before, after, equal_nan=before.dtype.kind == "f"):
                yield self.defining, f"it writes to operand {i}, {name}; make a new array"
                return
        strided = tuple(np.array(array, order="F") for array in self.case)
        for (_, value), (_, other) in zip(first, self._values(strided), strict=True):
            if isinstance(other, Exception) or not np.allclose(value, other, equal_nan=True):
                fault = "it gives a different result when operands are in Fortran order"
                yield self.defining, fault

    def _open_batch(self) -> Iterator[Finding]:
        """Yield the faults of `infer` with N as the first dimension; it may also refuse."""
        rows = rows_of(self.case)
        try:
            result = self.op.infer(open_types(self.case))
        except ValueError:
            return
        except Exception as error:
            hint = "so compare them, or count them by graphc.ir.tensor_type.count"
            fault = rule_failure(error, "fails when a dimension is the open batch")
            yield "infer", f"it {fault}; dimensions may be N, {hint}"
            return
        (_, value), *_ = self._values(self.case)
        if not isinstance(result, TensorType):
            found = f"{type(result).__name__}, not a TensorType"
            yield "infer", f"with an open batch it returns {found}"
        elif shape_at(result.shape, rows) != value.shape:
            shape = f"{shape_text(result.shape)}, which is {shape_at(result.shape, rows)}"
            found = f"{shape} for N = {rows}; {self.defining} gives {value.shape}"
            yield "infer", f"with an open batch it says {found}"

    def _expansion(self) -> Iterator[Finding]:
        """Yield the faults of the ops that a layer expands to, in training and in inference."""
        for train, value in self._values(self.case):
            try:
                graph = reference.expanded(self.concrete, reference.types_of(self.case), train)
                feeds = dict(zip(self._names, self.case, strict=True))
                out = evaluate(graph, feeds, {}, 1)[graph.outputs["out"]]
            except RuleError as error:
                yield error.rule, f"it {error.fault}{self._in(train)}"
                return
            if not np.allclose(out, value, rtol=1e-5, atol=1e-6, equal_nan=True):
                yield "expand", f"its result differs from that of reference_in{self._in(train)}"

    def _kernels(self) -> Iterator[Finding]:
        """Yield the fault of the rule that makes the op a kernel."""
        rule, fault = kernel_fault(self.op, self.case)
        if fault:
            yield rule, fault
        elif rule:
            self.compared[rule] = None

    def _gradient(self) -> Iterator[Finding]:
        """Yield the faults of the gradient rule."""
        if not self._has_derivative:
            return
        self.compared["grad"] = None
        op = widened(self.concrete)
        try:
            for train in self.modes:
                for wrong in wrong_entries(
                    op, self._wide, train=train, h=self.h, tolerance=self.tolerance
                ):
                    yield "grad", f"{wrong}{self._in(train)}"
        except RuleError as error:
            yield error.rule, f"it {error.fault}"
        except Exception as error:
            yield "grad", f"it {failure_text(error)}"

    def _formulas(self) -> Iterator[Finding]:
        """Yield the faults of the text of a gradient."""
        if not self._has_derivative:
            return
        if not self.op.is_layer:
            for text in formula_mistakes(widened(self.concrete), self._wide, self.tolerance):
                yield "gradient_text", f"it {text}"
        if any(self.op.gradient_text):
            self.compared["gradient_text"] = None

    @property
    def _has_derivative(self) -> bool:
        """True if the result is of floats, and not to be treated as a constant."""
        is_float = self.concrete.infer(reference.types_of(self.case)).is_float
        return is_float and not isinstance(self.op, StopGradient)

    @property
    def _names(self) -> tuple[str, ...]:
        return reference.operand_names(self.op, len(self.case))

    @property
    def _wide(self) -> list[Array]:
        """The operands, floats in float64."""
        return [x.astype("float64") if x.dtype.kind == "f" else x for x in self.case]

    def _values(self, case: Example, copied: bool = True) -> list[tuple[bool, Any]]:
        """Return the results of the reference, or its exceptions, and for which `train`."""
        found: list[tuple[bool, Any]] = []
        case = tuple(array.copy("K") for array in case) if copied else case
        for train in self.modes:
            try:
                found.append((train, np.asarray(self.concrete.reference_in(case, train))))
            except Exception as error:
                found.append((train, error))
        return found

    def _in(self, train: bool) -> str:
        if not self.op.is_layer:
            return ""
        return " in training" if train else " in inference"


def _differentiable(op: Op) -> bool:
    """Return whether an op has a gradient rule; fused ones are made when gradients are there."""
    rule = type(op).grad
    said = rule is not ByFormula.grad or bool(op.gradient_text)
    return op.is_layer or (said and rule not in (Op.grad, Fused.grad))
