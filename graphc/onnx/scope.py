"""The reading of the nodes of one graph or function: a scope maps their names to values."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, islice
from typing import Any, TypeGuard

import numpy as np
from onnx import FunctionProto, GraphProto, NodeProto

from graphc.base.errors import UNFIT, GraphError, ModelFileError
from graphc.base.loc import Loc
from graphc.base.work import spend_bytes, spend_nodes
from graphc.declare.net import Net
from graphc.ir.build import Builder, Value, apply
from graphc.ir.init import FromArray
from graphc.ir.op import Array
from graphc.ir.text.parse import check_count, parse_op
from graphc.onnx.call import (
    Binding,
    Call,
    KnownSequence,
    NotSupported,
    Operand,
    RowIndices,
    Weight,
    as_results,
    attributes_of,
    checked_dtype,
    is_known,
    is_symbolic,
    type_of,
)
from graphc.onnx.convert import CONVERTERS
from graphc.onnx.convert.rows import of_rows
from graphc.onnx.convert.unrolled import UNFOLDED
from graphc.onnx.folding import folded
from graphc.onnx.function import body_of, defaults_of
from graphc.onnx.model_file import array_of, names_read
from graphc.onnx.narrow import declared_narrow, held, narrow_inside, narrow_results
from graphc.ops import OPS
from graphc.ops.loops.lengths import WithinLengths, has_lengths
from graphc.ops.random_numbers import Noise, keys_of
from graphc.ops.shape import transpose
from graphc.ops.source import Constant, Parameter, State, constant_op
from graphc.ops.sums import broadcast_to

DOMAIN = "graphc"
"""The domain of functions that represent ops of graphc, and the producer of its files."""
READ = 2
"""The number of nodes made in the time that reading a node, or beginning an inner graph, takes."""
OPERANDS = 16
"""The number of operands that are looked up in the time that making a node takes."""
DEEPEST = 32
"""The greatest depth of functions that call each other, or of graphs inside each other."""


@dataclass
class Reading:
    """The state that all scopes of a model share while it is read."""

    net: Net
    file: str
    """The model's name in errors."""
    functions: Mapping[tuple[str, str], FunctionProto]
    by_graphc: bool = False
    """True if graphc wrote the model."""
    states: frozenset[str] = frozenset()
    """The initializers that graphc wrote as states: no optimizer trains them."""
    as_written: bool = False
    """True if nodes act as written; if not, dropout and batch norm become layers of both modes."""
    made: dict[int, Value] = field(default_factory=dict)
    """The initializers and constants that have become values of the net, by id."""
    flattened: dict[str, Value] = field(default_factory=dict)
    """The values that were flattened, by the name of the flat value."""
    names: dict[int, str] = field(default_factory=dict)
    """The names of known arrays, by id."""
    kept: list[Operand] = field(default_factory=list)
    """References that keep the ids in `made` and `names` valid."""
    builder: Builder = field(init=False)
    """The graph that nodes are read into: that of the net, or the step of a loop."""

    def __post_init__(self) -> None:
        self.builder = self.net.builder


@dataclass(eq=False)
class Scope:
    """The names of one graph, or of one call of a function, and their values."""

    reading: Reading
    opsets: Mapping[str, int]
    prefix: str = ""
    """The start of the names of nodes."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    depth: int = 0
    values: ChainMap[str, Binding | None] = field(default_factory=lambda: ChainMap({"": None}))
    """The values by name; those of the graphs around this one come after its own."""
    read: set[str] = field(default_factory=set)
    """The names of nodes that nodes read, or that are results of the graph."""
    left_out: str = ""
    """The start of names in the model that names of nodes do not have."""
    narrow: set[str] = field(default_factory=set)
    """The names of values of BFLOAT16, which are held in float32."""

    def scratch(self) -> Scope:
        """Return a scope with a new net, in which a node is computed at once."""
        reading = self.reading
        net = Net("constants")
        net.builder.locs = reading.net.builder.locs
        own = Reading(net, reading.file, reading.functions, as_written=True)
        scope = Scope(own, self.opsets, self.prefix, self.attributes, self.depth)
        scope.read = self.read
        return scope

    def run(self, nodes: Sequence[NodeProto], results: Iterable[str]) -> None:
        """Read the nodes, each after the nodes of its operands, for these results."""
        read = [*results, *names_read(nodes)]
        spend_nodes(len(read) // OPERANDS)
        self.read = set(map(self.named, read))
        for number, node in enumerate(nodes, 1):
            spend_nodes(READ)
            self._run(node, number)

    def look_up(self, name: str, node: NodeProto) -> Binding | None:
        """Return the value of a name; raise ModelFileError if no node before makes it."""
        if name not in self.values:
            raise ModelFileError(f"{described(node)} reads {name!r}, which no earlier node makes")
        found = self.values[name]
        return self._inside(found) if isinstance(found, Value) else found

    def named(self, name: str) -> str:
        """Return the name of the node for a name in the model."""
        return self.prefix + name.removeprefix(self.left_out) if name else ""

    def reads(self, result: str) -> bool:
        """Return whether anything reads a result, by the name of its node."""
        return bool(result) and result in self.read

    def inner(
        self, graph: GraphProto, operands: Sequence[Operand], prefix: str, left_out: str = ""
    ) -> list[Operand]:
        """Return the results of a graph inside a node, which may read the names around it.

        Names of its nodes start with `prefix`, in place of `left_out` if they start with that.
        """
        if self.depth >= DEEPEST:
            raise ModelFileError(f"graphs nested {DEEPEST} deep")
        spend_nodes(READ)
        values = self.values.new_child()
        scope = Scope(self.reading, self.opsets, prefix, self.attributes, self.depth + 1, values)
        scope.left_out, scope.narrow = left_out, {*self.narrow, *declared_narrow(graph)}
        for tensor in graph.initializer:
            scope.define(tensor.name, array_of(tensor))
        for formal, operand in zip(graph.input, operands, strict=False):
            scope.define(formal.name, operand)
        names = [value.name for value in graph.output]
        scope.run(graph.node, names)
        found = [values.get(name) for name in names]
        if any(operand is None for operand in found):
            raise NotSupported("a graph inside it does not make all of its results")
        if any(isinstance(operand, KnownSequence | RowIndices) for operand in found):
            raise NotSupported("a graph inside it makes a sequence, or numbers of rows")
        return [o for o in found if isinstance(o, Value | np.ndarray | Weight)]

    def define(self, name: str, operand: Binding | None) -> None:
        """Define the value of a name; raise ModelFileError if it is defined already."""
        if not name:
            return
        if name in self.values.maps[0]:
            raise ModelFileError(f"{self.reading.file} makes {name!r} twice")
        self.values[name] = operand
        if isinstance(operand, np.ndarray):
            self.reading.names.setdefault(id(operand), self.named(name))
            self.reading.kept.append(operand)

    def value(self, operand: Binding) -> Value:
        """Return the operand as a value of the net; raise NotSupported for a sequence."""
        if isinstance(operand, KnownSequence):
            raise NotSupported("a sequence is not a value of the net")
        if isinstance(operand, RowIndices):
            raise NotSupported("the numbers of rows are not a value of the net")
        return operand if isinstance(operand, Value) else self._inside(self._known(operand))

    def _inside(self, value: Value) -> Value:
        """Return a value as the current step reads it, if graphc wrote the model.

        Then all nodes belong to the step; in other models, those that do not depend on the step
        are left to the graph around it.
        """
        return self.reading.builder.captured(value) if self.reading.by_graphc else value

    def _known(self, operand: Array | Weight) -> Value:
        """Return a known operand as a value of the net, or a number as one of the step."""
        made, b = self.reading.made, self.reading.builder
        if b.outer is not None and isinstance(operand, np.ndarray) and operand.ndim == 0:
            return self._made(operand, b)
        if id(operand) not in made:
            made[id(operand)] = self._made(operand, self.reading.net.builder)
            self.reading.kept.append(operand)
        return made[id(operand)]

    def transposed(self, matrix: Array | Weight) -> Value:
        """Transpose a matrix, at import if it is an initializer that only one node reads."""
        if isinstance(matrix, np.ndarray):
            return self.value(matrix.T)
        if matrix.shared:
            return transpose(self.value(matrix))
        return self.value(Weight(matrix.name, np.ascontiguousarray(matrix.array.T)))

    def _made(self, operand: Array | Weight, b: Builder) -> Value:
        if isinstance(operand, Weight):
            array = operand.array
            of = State if operand.name in self.reading.states else Parameter
            source = of(array.shape, checked_dtype(array), FromArray.of(array))
            return b.apply(source, name=b.unique(operand.name))
        if is_symbolic(operand):
            raise NotSupported("a shape with the batch dimension is not a value of the net")
        checked_dtype(operand)
        if operand.size > 1 and not any(operand.strides):  # one number, repeated
            return broadcast_to(b.apply(constant_op(operand.reshape(-1)[0])), operand.shape)
        spend_bytes(operand.nbytes)
        op = Constant(operand.shape, operand.dtype.name, operand.tobytes())
        name = self.reading.names.get(id(operand))
        return b.apply(op, name=None if name is None else b.unique(name))

    # ------------------------------------------------------------------ one node

    def _run(self, node: NodeProto, number: int) -> None:
        operands = [self.look_up(name, node) for name in node.input]
        names = [self.named(name) for name in node.output]
        b = self.reading.builder
        where = Loc(f"<{self.reading.file}>", number, f"{node.op_type} {node.name!r}")
        before, scope = len(b.nodes), b.scope
        b.scope = f"{next(filter(None, names), node.op_type)}."
        try:
            with b.at((where,)):
                call = self._call(node, operands, names)
                results = self._held(node, call, self._results(node, call), before)
        except NotSupported as error:
            raise GraphError(
                f"{described(node)} cannot be imported: {error}", hint=_types(operands)
            ) from None
        except GraphError:  # it is a ValueError, which `UNFIT` has
            raise
        except UNFIT as error:
            sentence = str(error).partition("\n")[0]
            raise ModelFileError(
                f"{described(node)} does not fit its op: {type(error).__name__} {sentence}",
                hint=_types(operands),
            ) from None
        finally:
            b.scope = scope
        kept = renamed(b, before, [(r, n) for r, n in zip(results, names, strict=False) if n])
        for name, result in zip(node.output, kept(results), strict=False):
            self.define(name, result)
        missing = [n for n in node.output[len(results) :] if self.reads(self.named(n))]
        if missing:
            raise GraphError(f"{described(node)} cannot be imported: it has no {missing[0]!r}")

    def _call(
        self, node: NodeProto, operands: Sequence[Binding | None], names: Sequence[str]
    ) -> Call:
        attributes = attributes_of(node, self.attributes)
        version = self.opsets.get(_domain(node), 1)
        narrow = tuple(name in self.narrow for name in node.input)
        return Call(self, node.op_type, version, tuple(operands), attributes, tuple(names), narrow)

    def _held(
        self, node: NodeProto, call: Call, results: Sequence[Binding | None], before: int
    ) -> Sequence[Binding | None]:
        """Return results with those of BFLOAT16 as they are held; `before` nodes were there."""
        narrow, nodes = set(narrow_results(node, call)), self.reading.builder.nodes
        self.narrow.update(narrow, narrow_inside(node, call))
        if not narrow:
            return results
        ops = [made.op for made in islice(reversed(nodes.values()), len(nodes) - before)]
        named = zip(results, node.output, strict=False)
        return [held(result, ops) if name in narrow else result for result, name in named]

    def _results(self, node: NodeProto, call: Call) -> Sequence[Binding | None]:
        domain, operands, attributes = _domain(node), call.operands, call.attributes
        if any(isinstance(operand, RowIndices) for operand in operands):
            return [of_rows(call)]
        converter = CONVERTERS.get((domain, node.op_type))
        if converter is not None:
            if self._folds(call):
                return as_results(folded(call, converter))
            return as_results(converter(call))
        if domain == DOMAIN and DOMAIN in attributes:
            values = [self.value(operand) for operand in operands if operand is not None]
            op = parse_op(str(attributes[DOMAIN]), OPS)
            if isinstance(op, Noise):
                values += keys_of(self.reading.builder)
            check_count(op, len(values))
            if isinstance(op, WithinLengths) and has_lengths(*values):
                return [values[0]]  # an executor does it
            return [apply(op, *values, name=call.free_name())]
        body = body_of(node, call, self.reading.functions)
        if body is None:
            raise NotSupported("graphc has no such op")
        return self._called(node, body, call)

    def _folds(self, call: Call) -> bool:
        """Return whether a node is computed now, since its numbers are known.

        In models that graphc wrote, which are restored as they were, only shapes are computed.
        """
        if call.op in UNFOLDED or not all(map(is_known, call.operands)):
            return False
        arrays = [o for o in call.operands if isinstance(o, np.ndarray)]
        restored = self.reading.by_graphc and not self.reading.as_written
        return not restored or not arrays or any(map(is_symbolic, arrays))

    def _called(self, node: NodeProto, body: FunctionProto, call: Call) -> Sequence[Binding | None]:
        """Return the results of a function: run its nodes on the operands of the call."""
        if self.depth >= DEEPEST:
            raise ModelFileError(f"functions call each other {DEEPEST} deep")
        attributes = {**defaults_of(node, call, body), **call.attributes}
        opsets = {**self.opsets, **{o.domain: o.version for o in body.opset_import}}
        inner = Scope(self.reading, opsets, f"{call.name}/", attributes, self.depth + 1)
        inner.narrow.update(compress(body.input, call.narrow))
        for position, name in enumerate(body.input):
            inner.define(name, call.operands[position] if position < len(call) else None)
        inner.run(body.node, [name for i, name in enumerate(body.output) if call.is_read(i)])
        results = [inner.values.get(name) for name in body.output]
        if any(result is None and call.is_read(i) for i, result in enumerate(results)):
            raise NotSupported("its function does not make all of its results")
        formals = zip(node.output, body.output, strict=False)
        self.narrow.update(name for name, formal in formals if formal in inner.narrow)
        return results


def _types(operands: Sequence[Binding | None]) -> str:
    types = []
    for operand in operands:
        try:
            types.append("none" if operand is None else str(type_of(operand)))
        except ValueError:
            types.append("another type")
    return f"its operands are {', '.join(types)}" if types else ""


def _domain(node: NodeProto) -> str:
    return "" if node.domain == "ai.onnx" else str(node.domain)


def described(node: NodeProto) -> str:
    """Return the description of the node in errors."""
    op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    name = node.name or next(filter(None, node.output), "")
    return f"node {name!r} ({op})"


def renamed(
    b: Builder, before: int, results: Sequence[tuple[Binding | None, str]]
) -> Callable[[Sequence[Binding | None]], list[Binding | None]]:
    """Rename results among nodes after the first `before`; return the function that maps values."""
    made = list(islice(reversed(b.nodes), len(b.nodes) - before))[::-1]
    new: dict[str, str] = {}

    def is_here(operand: Binding | None) -> TypeGuard[Value]:
        return isinstance(operand, Value) and operand.builder is b

    for result, name in results:
        if not is_here(result) or result.name in new or result.name not in made:
            continue
        if name not in b.nodes and not result.node.op.is_source:
            new[result.name] = name
    if new:
        for old in made:
            node = b.nodes.pop(old)
            inputs = tuple(new.get(operand, operand) for operand in node.inputs)
            b.insert(replace(node, name=new.get(old, old), inputs=inputs))

    def current(operands: Sequence[Binding | None]) -> list[Binding | None]:
        return [Value(b, new[o.name]) if is_here(o) and o.name in new else o for o in operands]

    return current
