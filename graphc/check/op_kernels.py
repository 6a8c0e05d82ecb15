"""Checks of the rules by which an op becomes a kernel, against its reference.

The op is compiled alone, and between two negations that it may be fused with.  Its kernel runs in
the interpreter and on each backend, for several batches, on the examples and on edge values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from graphc.backends.backend import PORTABLE, USUAL, backend, bind_reference
from graphc.base.errors import RuleError, failure_text
from graphc.check.central_differences import widened
from graphc.compiler.compile import compile
from graphc.compiler.plan import Plan
from graphc.ir.graph import Graph, Node
from graphc.ir.init import generator
from graphc.ir.op import Array, Op
from graphc.ir.tensor_type import N, TensorType, dim_at
from graphc.kernels.interpret import run
from graphc.ops.elementwise import Neg
from graphc.ops.source import Input
from graphc.runtime.executor import Executor
from graphc.runtime.reference import operand_names, types_of
from graphc.runtime.workspace import memory_of
from passes.pipeline import PassList

Case = Sequence[Array]

EDGES = (0.0, -0.0, 1.0, -1.0, 0.5, -1.5, 2.5, 1 + 2.0**-8, -1 - 3 * 2.0**-8, 20.0, 1e3, -1e3)
"""The edge values for every op: halves, numbers between two of bfloat16, and some at which a
function saturates, large enough to overflow exp."""
MORE_EDGES = (*EDGES, np.nan, np.inf, -np.inf, 1e30, -1e30)
"""More for an op on elements; in a sum or a product the order would decide what becomes NaN."""
SEEDS = 3
"""The number of draws of edge values."""
ROUNDINGS = 64
"""The roundings of the largest number by which a kernel may differ from the reference."""
BARE = PassList(("specialize",))
"""The passes that leave a graph of ops as it is."""


def kernel_fault(op: Op, case: Case) -> tuple[str, str]:
    """Return the rule by which an op becomes a kernel, "" if it is called, and what is wrong.

    The fault is "" if the rule agrees on the example and on edge values.
    """
    if type(op).scalar is not Op.scalar and type(op).iteration is Op.iteration:
        hint = 'write iteration, which returns "elements" if each element is computed by itself'
        return "scalar", f"it is never used, since the op has no iteration rule; {hint}"
    form = _Form.of(op, case)
    if not form.rows:
        return "", ""  # a plan has a row
    rule = fault = ""
    for fused in (False, True):
        graph = form.graph(fused)
        try:
            plan = compile(graph, batch=2 * form.rows + 1, backend=PORTABLE, passes=BARE)
        except RuleError as error:
            return error.rule, f"it {error.fault}"
        except Exception as error:
            return form.rule, f"it {failure_text(error, 'cannot be compiled')}"
        if all(instr.body is None for instr in plan.programs["infer"].instrs):
            break
        rule, fault = form.rule, _Comparison(form, graph, plan, fused).fault(list(form.cases(case)))
        if fault:
            break
    return rule, fault


# ------------------------------------------------------------------ graphs and operands


def rows_of(case: Case) -> int:
    """Return the rows of an example: the first dimension of its first array that has one."""
    return next((len(array) for array in case if array.ndim), 1)


def open_types(case: Case) -> list[TensorType]:
    """Return the types of an example with the open batch where a first dimension is its rows."""
    rows, types = rows_of(case), types_of(case)
    return [t.with_shape((N, *t.shape[1:])) if t.shape[:1] == (rows,) else t for t in types]


@dataclass(frozen=True)
class _Form:
    """An op with the types of its operands, and the rows of an example."""

    op: Op
    types: Sequence[TensorType]
    rows: int

    @classmethod
    def of(cls, op: Op, case: Case) -> _Form:
        """Return the form with an open batch if the op takes that."""
        fixed, opened, rows = list(types_of(case)), open_types(case), rows_of(case)
        for types in (opened, [*opened[:1], *fixed[1:]]):
            if types != fixed and rows and _fits(op, types, fixed, rows):
                return cls(op, types, rows)
        return cls(op.at(rows), fixed, rows)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the operands."""
        return operand_names(self.op, len(self.types))

    @cached_property
    def result(self) -> TensorType:
        """The type of the result."""
        return self.op.infer(self.types)

    @cached_property
    def rule(self) -> str:
        """The name of the rule by which the op becomes a kernel."""
        op = self.op
        if op.gather(self.types, self.result) is not None:
            return "gather"
        if op.product(self.types) is not None:
            own = type(op).epilogue is not Op.epilogue
            return "product or epilogue" if own else "product"
        if op.permutation is not None:
            return "permutation"
        return "is_scatter_add" if op.is_scatter_add(self.result) else "scalar"

    def graph(self, fused: bool) -> Graph:
        """Return the graph of the op; `fused` puts it between negations, of its floats."""
        nodes, operands, outputs = [], [], {"result": "result"}
        for name, type in zip(self.names, self.types, strict=True):
            nodes.append(Node(name, Input(type.shape, type.dtype), (), type))
            operands.append(name)
            if fused and type.is_float:
                operands[-1] = f"{name}.negated"
                nodes.append(Node(operands[-1], Neg(), (name,), type))
        nodes.append(Node("result", self.op, tuple(operands), self.result))
        if fused and self.result.is_float:
            outputs["negated"] = "result.negated"
            nodes.append(Node(outputs["negated"], Neg(), ("result",), self.result))
        return Graph(self.op.name, nodes, outputs=outputs)

    def cases(self, case: Case) -> Iterator[tuple[int, list[Array]]]:
        """Yield rows and operands: those of the example, and with edge values in them."""
        rows, batched = self.rows, any(type.batched for type in self.types)
        alone = self.rule == "scalar" and self.op.iteration(self.types) == "elements"
        for n in dict.fromkeys((rows, 1, 2 * rows + 1)) if batched else (rows,):
            ins = [
                np.resize(array, (n, *array.shape[1:])) if type.batched else array
                for array, type in zip(case, self.types, strict=True)
            ]
            yield n, ins
            if any(array.dtype.kind == "f" and array.size for array in ins):
                for seed in range(SEEDS):
                    name = f"{self.op.name}:{n}:{seed}"
                    yield n, _with_edges(ins, MORE_EDGES if alone else EDGES, name)


def _fits(op: Op, types: list[TensorType], fixed: list[TensorType], rows: int) -> bool:
    """Return whether the op takes an open batch, which then has the right number of rows."""
    try:
        open_, known = op.infer(types), op.at(rows).infer(fixed)
    except Exception:  # the op's own check, whatever it raises
        return False
    return tuple(dim_at(dim, rows) for dim in open_.shape) == known.shape


def _with_edges(ins: Case, values: Sequence[float], name: str) -> list[Array]:
    """Return the operands with edge values in places chosen at random."""
    rng, found = generator(0, f"edges:{name}"), []
    for array in ins:
        if array.dtype.kind == "f":
            array, places = np.array(array), rng.random(array.shape) < 0.6
            array[places] = np.resize(rng.permutation(values), int(places.sum()))
        found.append(np.asarray(array))
    return found


# ------------------------------------------------------------------ runs and comparison


@dataclass
class _Comparison:
    """An op's kernel in one graph, by the interpreter and on each backend."""

    form: _Form
    graph: Graph
    plan: Plan
    fused: bool

    def fault(self, cases: Sequence[tuple[int, list[Array]]]) -> str:
        """Return what is wrong with the first result that is not the reference's, or ""."""
        names = self.form.names
        expected = [_Expected.of(self.form.op.at(n), ins) for n, ins in cases]
        for way in ("", *(name for name in USUAL if backend(name).missing() is None)):
            try:
                runs = self._runs(way, cases)
                for (n, ins), wanted, found in zip(cases, expected, runs, strict=True):
                    fault = wanted and wanted.fault(found, ins, names)
                    if fault:
                        return f"{self._where(way, n)}{fault}"
            except Exception as error:
                return f"{self._where(way, 0)}it {failure_text(error)}"
        return ""

    def _where(self, way: str, n: int) -> str:
        place = f"on the {way} backend" if way else "in the interpreter of kernels"
        fused = ", fused with other ops" if self.fused else ""
        rows = f" with {n} rows" if n > 1 and self.form.result.batched else ""
        return f"{place}{fused}{rows} "

    def _runs(
        self, way: str, cases: Sequence[tuple[int, list[Array]]]
    ) -> Iterator[Mapping[str, Array]]:
        """Yield the results for each case, by the interpreter or on a backend."""
        plan = self.plan
        if way and way != plan.backend:
            plan = compile(self.graph, batch=plan.batch, backend=way, passes=BARE)
        ex = Executor(plan)
        for n, ins in cases:
            feeds = {
                name: -array if self.fused and array.dtype.kind == "f" else array
                for name, array in zip(self.form.names, ins, strict=True)
            }
            yield ex.forward(feeds) if way else _interpreted(plan, feeds, n)


def _interpreted(plan: Plan, feeds: dict[str, Array], n: int) -> dict[str, Array]:
    """Return the outputs of a plan's inference by the interpreter of kernels."""
    program, memory = plan.programs["infer"], memory_of(plan, 0, None)[1]
    memory.arena.fill(0xFF)  # a NaN wherever nothing is written
    for name in program.feeds:
        memory.view(program, name, n)[...] = feeds[name]
    for instr in program.instrs:
        views = {name: memory.view(program, name, n) for name in (*instr.ins, *instr.outs)}
        if instr.body is not None:
            run(instr.body, views, n)
        elif instr.op is not None:
            bind_reference(instr, n, views.__getitem__)()
    return {k: memory.view(program, name, n).copy() for k, name in program.outputs.items()}


@dataclass
class _Expected:
    """A reference's result, in the operands' dtypes and in float64, and the rounding allowed."""

    value: Array
    wide: Array
    bound: Array
    by_elements: bool
    """True if an element of the result is computed from one of each operand."""
    signed: Array
    """True where the sign of a zero counts: where no operand of an op on elements is negative."""
    known: Array
    """True where a whole number or a bool is defined: not where it comes of a huge float."""

    @classmethod
    def of(cls, op: Op, ins: Case) -> _Expected | None:
        """Return the result expected for operands; None if the reference does not take them."""
        types = types_of(ins)
        floats = [x for x in ins if x.dtype.kind == "f"]
        try:
            with np.errstate(all="ignore"):
                value = np.asarray(op.reference([np.array(x) for x in ins]))
                wide, bound = _wide(op, ins, value), _bound(op, ins, value)
                alone = op.iteration(types) == "elements" and not op.product(types)
                # Of zeros of both signs either may be the larger.
                signed = _everywhere([~np.signbit(x) for x in floats], value) & alone
                known = _everywhere([np.abs(x) < 1e6 for x in floats], value)
                return cls(value, wide, bound, alone, signed, known)
        except Exception:  # the op's own check of edge values, whatever it raises
            return None

    def fault(self, found: Mapping[str, Array], ins: Case, names: Sequence[str]) -> str:
        """Return what is wrong with a result, or ""; `negated` is that of a node after the op."""
        for name, after in (("result", ""), ("negated", "a node after it reads ")):
            if name in found:
                ours = -found[name] if after else found[name]
                wrong = self._wrong(ours)
                if wrong.any():
                    return f"{after}{self._described(ours, wrong, ins, names)}"
        return ""

    def _wrong(self, ours: Array) -> Array:
        """Return where a result is neither the reference's nor that in float64."""
        if ours.dtype.kind != "f":
            return np.asarray((ours != self.value) & self.known)
        with np.errstate(all="ignore"):
            wrong = ~(_near(ours, self.value, self.bound) | _near(ours, self.wide, self.bound))
        zeros = (ours == 0) & (self.value == 0) & self.signed
        return np.asarray(wrong | (zeros & (np.signbit(ours) != np.signbit(self.value))))

    def _described(self, ours: Array, wrong: Array, ins: Case, names: Sequence[str]) -> str:
        """Return the first wrong number, with the operands' elements if they are as many."""
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        at = f" at {list(index)}" if index else ""
        operands = [
            f"{name} = {x[index] if x.shape == wrong.shape else x!s}"
            for name, x in zip(names, ins, strict=True)
            if self.by_elements and (x.shape == wrong.shape or not x.ndim)
        ]
        where = f" for {', '.join(operands)}" if operands else ""
        return f"it gives {ours[index]!s}{at}{where}; reference gives {self.value[index]!s}"


def _near(ours: Array, wanted: Array, bound: Array) -> Array:
    same = (ours == wanted) | (np.isnan(ours) & np.isnan(wanted))
    return np.asarray(same | (np.abs(ours.astype(float) - wanted.astype(float)) <= bound))


def _wide(op: Op, ins: Case, value: Array) -> Array:
    """Return the result in float64, rounded: what overflows in float32 alone may be finite."""
    if value.dtype != np.float32:
        return value
    wide = [x.astype(np.float64) if x.dtype == np.float32 else x for x in ins]
    found = np.asarray(widened(op).reference(wide))
    return found.astype(np.float32) if found.shape == value.shape else value


def _everywhere(masks: Sequence[Array], value: Array) -> Array:
    """Return where all masks hold, broadcast to the result; everywhere what cannot be must hold."""
    found = np.ones(value.shape, bool)
    for mask in masks:
        try:
            found &= np.broadcast_to(mask, value.shape)
        except ValueError:
            found &= bool(mask.all())
    return found


def _bound(op: Op, ins: Case, value: Array) -> Array:
    """Return how far rounding may move each number of the result.

    It is what moves it if each operand moves by one rounding, whichever way is less, so that a jump
    at an operand allows nothing; and some roundings of the largest operand, or term of a product.
    """
    if value.dtype.kind != "f":
        return np.zeros(value.shape)
    eps = float(np.finfo(value.dtype).eps)
    bound = np.zeros(value.shape)
    for number in range(4):
        moved = [_moved(op, ins, value, eps * sign, number) for sign in (1, -1)]
        bound = np.maximum(bound, np.minimum(*moved))
    sizes = [np.abs(x[np.isfinite(x)]) for x in ins if x.dtype.kind == "f"]
    small = [float(x[x < 1e6].max(initial=1.0)) for x in sizes]
    terms = prod(small) if op.product(types_of(ins)) else max(small, default=1.0)
    size = np.where(np.isfinite(value), np.abs(value.astype(float)), 0)
    return np.asarray(ROUNDINGS / 4 * bound + ROUNDINGS * eps * (size + terms))


def _moved(op: Op, ins: Case, value: Array, eps: float, number: int) -> Array:
    """Return how far the result moves if its operands move by `eps` parts, up or down."""
    rng, near = generator(number, f"moved:{op.name}"), []
    for x in ins:
        signs = rng.integers(0, 2, x.shape) * 2 - 1 if number else np.ones(x.shape)
        near.append((x * (1 + eps * signs)).astype(x.dtype) if x.dtype.kind == "f" else x)
    with np.errstate(all="ignore"):
        gap = np.abs(np.asarray(op.reference(near)).astype(float) - value.astype(float))
    return np.where(np.isfinite(gap), gap, 0.0)
