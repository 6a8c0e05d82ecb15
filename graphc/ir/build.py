"""Builder and Value: how users, gradient rules and passes make nodes.

The builder infers each node's type at once and records the user's line, so that the error about a
mistake names the line that made it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from graphc.base.errors import GraphError, Operand, RuleError
from graphc.base.loc import Loc, caller_loc
from graphc.base.work import spend_nodes
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Layer, Op, inferred
from graphc.ir.operators import Operators
from graphc.ir.tensor_type import Shape, TensorType


class Value(Operators):
    """The result of a node, which you pass on to layers and operators.  It holds no numbers.

    Functions such as `gc.relu` and methods of a net return it.

    Parameters
    ----------
    builder
        The graph under construction.
    name
        The name of the node.

    Examples
    --------
    >>> net = gc.Net("net")
    >>> x = net.input("x", (gc.N, 3))
    >>> (2 * x + 1).shape
    (N, 3)
    """

    __slots__ = ("builder", "name")

    def __init__(self, builder: Builder, name: str) -> None:
        self.builder = builder
        self.name = name

    @property
    def node(self) -> Node:
        """The node that yields the value."""
        return self.builder.nodes[self.name]

    @property
    def type(self) -> TensorType:
        """Shape and dtype of the value."""
        return self.builder.nodes[self.name].type

    @property
    def shape(self) -> Shape:
        """The dimensions; the batch dimension stays a multiple of N."""
        return self.type.shape

    @property
    def dtype(self) -> str:
        """The dtype's name, such as `float32`."""
        return self.type.dtype

    def __repr__(self) -> str:
        return f"<{self.name}: {self.type}>"

    def __bool__(self) -> bool:
        raise GraphError(
            f"{self.name!r} has no truth value: it is declared, not computed",
            loc=caller_loc(),
            hint="use gc.where(condition, a, b) to choose between values",
        )

    def __iter__(self) -> Iterator[Value]:
        raise GraphError(
            f"{self.name!r} cannot be iterated over: it is declared, not computed",
            loc=caller_loc(),
            hint="take its parts by index: x[:, 0], x[:, 1:3]",
        )

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise GraphError(
            f"{self.name!r} holds no numbers: it is declared, not computed",
            loc=caller_loc(),
            hint="use graphc's own functions: gc.exp(x), gc.sum(x)",
        )


class Builder:
    """A graph under construction."""

    def __init__(self, name: str, dtype: str = "float32") -> None:
        self.name = name
        self.dtype = dtype
        """The dtype of parameters and floats for which no operand decides it."""
        self.nodes: dict[str, Node] = {}
        self.outputs: dict[str, str] = {}
        self.losses: list[str] = []
        self.gradients: dict[str, str] = {}
        self.updates: dict[str, str] = {}
        self.locs: tuple[Loc, ...] | None = None
        """The lines that new nodes are recorded with; None means the user's line."""
        self.prefix = ""
        """The start of every new name: the block that the node is in."""
        self.scope = ""
        """The start of names that the builder makes up, after the prefix."""
        self._taken: dict[str, int] = {}
        self.reserved: set[str] = set()
        """The names of loops under construction."""
        self.outer: Builder | None = None
        """The graph that has a loop of this one."""
        self.open: Builder | None = None
        """The step of a loop of this graph while it is declared."""
        self.depth = 0
        """The number of loops around it."""
        self.path = ""
        """The names of the loops around it: the start of the names that mean something outside."""
        self.number = ""
        """The input that is the position of the step in the loop."""

    def captured(self, value: Value) -> Value:
        """Return the value as the nodes of this graph read it."""
        return value

    def is_within(self, other: Builder) -> bool:
        """Return whether this is the graph of a step in `other`, or in one of its steps."""
        outer: Builder | None = self
        while outer is not None and outer is not other:
            outer = outer.outer
        return outer is not None

    def apply(self, op: Op, *operands: Value, name: str | None = None) -> Value:
        """Make a node and return its value.

        Raise GraphError, at the user's line, if the operands do not fit the op or belong to
        another graph, or if the name is taken.
        """
        for operand in operands:
            if operand.__class__ is Value and operand.builder.outer is not None:
                inner = operand.builder
                if inner is not self and inner.depth > self.depth and inner.is_within(self):
                    return inner.apply(op, *operands, name=name)
        locs = self._here()
        self._check_operands(op, operands, locs)
        inputs, nodes = tuple([operand.name for operand in operands]), self.nodes
        try:
            type = inferred(op, [nodes[operand].type for operand in inputs])
        except ValueError as error:
            raise self.error(op, str(error), operands, name, locs) from None
        except Exception as error:
            loc = locs[0] if locs else None
            raise RuleError.of(op.name, "infer", error, name or "", loc) from error
        if type.__class__ is not TensorType:
            raise _no_type(op, type, name, locs)
        return self.insert(Node(self._node_name(op, name, locs), op, inputs, type, locs))

    def _here(self) -> tuple[Loc, ...]:
        if self.locs is not None:
            return self.locs
        here = caller_loc()
        return () if here is None else (here,)

    def insert(self, node: Node) -> Value:
        """Add a node as it is, after its operands; raise GraphError if its name is taken."""
        spend_nodes()
        if node.name in self.nodes:
            raise self._taken_already(node.name, node.locs)
        self.nodes[node.name] = node
        return Value(self, node.name)

    def value(self, name: str) -> Value:
        """Return the value of that name; raise KeyError if there is none."""
        if name not in self.nodes:
            raise KeyError(name)
        return Value(self, name)

    def free_name(self, op_name: str, name: str | None) -> str:
        """Return the name, without the block's prefix, that a node would get; for derived names.

        Raise GraphError if the given name is taken.
        """
        if name is not None:
            return self._checked_name(name, self._here())[len(self.prefix) :]
        return self._auto_name(self.prefix + op_name)[len(self.prefix) :]

    def update(self, state: Value, value: Value) -> None:
        """Set the value that a state or parameter gets at the end of the step."""
        self.updates[state.name] = value.name

    def unique(self, base: str) -> str:
        """Return `base`, or `base_2`, `base_3`, ... if it is taken."""
        if base not in self.nodes:
            return base
        index = self._taken.get(base, 1) + 1
        while f"{base}_{index}" in self.nodes:
            index += 1
        self._taken[base] = index
        return f"{base}_{index}"

    @contextmanager
    def block(self, name: str) -> Iterator[None]:
        """Start the names made inside with `name/`."""
        before, self.prefix = self.prefix, f"{self.prefix}{name}/"
        try:
            yield
        finally:
            self.prefix = before

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Remove the nodes made inside if an error leaves the block."""
        before = len(self.nodes)
        try:
            yield
        except BaseException:  # an interrupt must not leave half of a layer, either
            while len(self.nodes) > before:
                self.nodes.popitem()
            raise

    @contextmanager
    def at(self, locs: tuple[Loc, ...]) -> Iterator[None]:
        """Record the nodes made inside with these lines."""
        before, self.locs = self.locs, locs
        try:
            yield
        finally:
            self.locs = before

    def graph(self) -> Graph:
        """Return the immutable graph of all that was built."""
        return Graph(
            self.name,
            self.nodes.values(),
            outputs=self.outputs,
            losses=self.losses,
            gradients=self.gradients,
            updates=self.updates,
        )

    @classmethod
    def like(cls, graph: Graph) -> Builder:
        """Return an empty builder with the graph's name, for a pass that rebuilds all nodes."""
        builder = cls(graph.name)
        builder.locs = ()
        return builder

    @classmethod
    def extending(cls, graph: Graph) -> Builder:
        """Return a builder that starts with all of the graph, for a pass that adds to it."""
        builder = cls.like(graph)
        builder.nodes.update(graph.nodes)
        builder.take_roots(graph, {})
        return builder

    def take_roots(self, graph: Graph, new: Mapping[str, str]) -> None:
        """Add the graph's outputs, losses, gradients and updates, with some nodes renamed."""
        self.outputs.update({k: new.get(v, v) for k, v in graph.outputs.items()})
        self.losses.extend(graph.losses)
        self.gradients.update({k: new.get(v, v) for k, v in graph.gradients.items()})
        self.updates.update({k: new.get(v, v) for k, v in graph.updates.items()})

    def error(
        self,
        op: Op,
        message: str,
        operands: Sequence[Value],
        name: str | None = None,
        locs: tuple[Loc, ...] | None = None,
    ) -> GraphError:
        """Return a GraphError about an op and its operands, at the user's line or `locs[0]`."""
        locs = self._here() if locs is None else locs
        sentence, _, hint = message.partition("\n")
        called = f" {name!r}" if name else ""
        described = [self._describe(op, i, operand) for i, operand in enumerate(operands)]
        loc = locs[0] if locs else None
        return GraphError(f"{op.name}{called}: {sentence}", operands=described, loc=loc, hint=hint)

    def _describe(self, op: Op, position: int, operand: Value) -> Operand:
        role = op.roles[position] if position < len(op.roles) else f"operand {position}"
        return operand.node.described(role)

    def _check_operands(self, op: Op, operands: Sequence[Value], locs: tuple[Loc, ...]) -> None:
        for operand in operands:
            if not isinstance(operand, Value):
                raise not_a_value(op.name, operand, locs[0] if locs else None)
            if operand.builder is not self:
                raise GraphError(
                    f"{op.name}: {operand.name!r} belongs to net {operand.builder.name!r}, "
                    f"not to {self.name!r}",
                    operands=[self._describe(op, i, v) for i, v in enumerate(operands)],
                    loc=locs[0] if locs else None,
                    hint="declare both in one net, or feed one net's output to the other's input",
                )

    def _node_name(self, op: Op, name: str | None, locs: tuple[Loc, ...]) -> str:
        if name is None:
            return self._auto_name(self.prefix + self.scope + op.name)
        return self._checked_name(name, locs)

    def _checked_name(self, name: str, locs: tuple[Loc, ...]) -> str:
        """Return the name with the block's prefix; raise GraphError if it is taken or not text."""
        if not isinstance(name, str):
            raise GraphError(
                f"name is {name!r}, it must be text",
                loc=locs[0] if locs else None,
                hint='gc.affine(x, 10, name="scores")',
            )
        full = self.prefix + name
        if full in self.nodes:
            raise self._taken_already(full, locs)
        return full

    def _taken_already(self, name: str, locs: tuple[Loc, ...]) -> GraphError:
        first = self.nodes[name]
        return GraphError(
            f"the name {name!r} is taken already",
            operands=[first.described(first.op.name)],
            loc=locs[0] if locs else None,
            hint="names must be unique: choose another, or group layers by net.block(name)",
        )

    def _auto_name(self, base: str) -> str:
        """Return `base_1`, or the next free number; one that is refused later stays free."""
        last = self._taken.get(base, 0)
        while f"{base}_{last + 1}" in self.nodes or f"{base}_{last + 1}" in self.reserved:
            last += 1
        self._taken[base] = last
        return f"{base}_{last + 1}"


def apply(op: Op, *values: Value, name: str | None = None) -> Value:
    """Apply an op, which may be your own, to values of a net.

    Parameters
    ----------
    op
        The op with its attributes.
    *values
        The operands, at least one.
    name
        The name of the node; None makes one up from the op's name.

    Returns
    -------
    Value
        The result.

    Raises
    ------
    GraphError
        If `op` is not an op, or the operands do not fit it.

    Examples
    --------
    >>> from graphc.ops.functions import Tanh
    >>> net = gc.Net("net")
    >>> gc.apply(Tanh(), net.input("x", (gc.N, 3))).shape
    (N, 3)
    """
    if not isinstance(op, Op):
        raise GraphError(
            f"apply takes an op, not {type(op).__name__}",
            loc=caller_loc(),
            hint="gc.apply(MyOp(), x); graphc's own are functions: gc.relu(x)",
        )
    if not values:
        raise GraphError(f"{op.name}: it needs at least one value", loc=caller_loc())
    return as_value(op.name, values[0]).builder.apply(op, *values, name=name)


def _no_type(op: Op, given: object, name: str | None, locs: tuple[Loc, ...]) -> RuleError:
    """Return the error for an infer rule that returns something else than a type."""
    fault = f"returns {type(given).__name__}, not a TensorType"
    hint = "return the type of an operand, or gc.TensorType(shape, dtype)"
    return RuleError(op.name, "infer", fault, name or "", locs[0] if locs else None, hint)


def expand(b: Builder, layer: Layer, name: str, operands: Sequence[Value], train: bool) -> Value:
    """Build the ops of a layer and return the last; raise RuleError if its rule does not."""
    loc = b.locs[0] if b.locs else None
    try:
        made = layer.expand(b, name, operands, train)
    except GraphError:
        raise
    except Exception as error:
        raise RuleError.of(layer.name, "expand", error, name, loc) from error
    if not isinstance(made, Value):
        fault = f"returns {type(made).__name__}, not a Value"
        hint = "end the rule with: return b.apply(op, ..., name=name)"
        raise RuleError(layer.name, "expand", fault, name, loc, hint)
    return made


def as_value(op_name: str, value: object) -> Value:
    """Return the value itself; raise GraphError for anything else."""
    if isinstance(value, Value):
        return value
    raise not_a_value(op_name, value)


def misfit(message: str, **operands: Value) -> GraphError:
    """Return the error about operands, by their roles; what follows a newline is the hint."""
    sentence, _, hint = message.partition("\n")
    described = [value.node.described(role) for role, value in operands.items()]
    return GraphError(sentence, operands=described, hint=hint)


def not_a_value(op_name: str, given: object, loc: Loc | None = None) -> GraphError:
    """Return the error for an array, a number or anything else in the place of a value."""
    hint = "make the array a value by net.constant(array), or feed it to a net.input"
    if isinstance(given, tuple) and any(isinstance(one, Value) for one in given):
        hint = "take one of them, as in: states, last = gc.gru(x, width)"
    return GraphError(
        f"{op_name}: {type(given).__name__} is not a value of the net", loc=loc, hint=hint
    )
