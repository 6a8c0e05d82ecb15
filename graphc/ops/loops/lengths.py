"""The numbers of steps of a batch's rows, and the mask of the steps that there are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.base.arguments import checked_whole
from graphc.base.errors import GraphError
from graphc.base.memory import check_memory
from graphc.ir.build import Builder, Value, as_value, misfit
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array, Layer
from graphc.ir.tensor_type import Dim, N, TensorType
from graphc.ops.apply import with_attributes
from graphc.ops.select import less, where
from graphc.ops.shape import cast, reshape
from graphc.ops.source import Input, constant

__all__ = ["length_mask", "lengths"]


def lengths(x: Value, *others: Value) -> Value:
    """Return the number of steps that each row of an input has in a run, (N,).

    Such an input (N, T, ...) may be fed with fewer steps than T: an array (n, t, ...) has t steps
    in each row, and a list of n arrays (t_i, ...) has rows of their own lengths, from 1 to T.
    Zeros take the place of the steps behind a row's end.  Give the lengths to `gc.scan` and other
    loops, to `gc.length_mask`, and to the pooling over steps; without them a net takes the zeros
    for steps like others.

    Parameters
    ----------
    x
        An input (N, T, ...) with T steps.
    *others
        Further inputs with T steps whose rows have the same lengths, such as labels of each step:
        one call names all of them.  A run in which they differ is refused.

    Returns
    -------
    Value
        An input of the dtype int32, which is fed by itself: by the lengths of x.  Feed it by its
        name, such as "lengths:x", to say the lengths of an array that is padded already.

    Raises
    ------
    GraphError
        If something else than an input (N, T, ...) is given, if inputs have different numbers of
        steps, or if one of them has lengths already, together with other inputs.

    Examples
    --------
    >>> net = gc.Net("example")
    >>> x = net.input("x", (gc.N, 7, 2))
    >>> h0 = gc.broadcast_to(net.constant(np.zeros(3, "float32")), (gc.N, 3))
    >>> def step(x, h):
    ...     h = gc.tanh(gc.affine(x, 3) + gc.affine(h, 3))
    ...     return h, h
    >>> _, last = gc.scan(step, x, h0, lengths=gc.lengths(x))
    >>> last = net.output("last", last)
    >>> ex = gc.Executor(gc.compile(net, batch=4))
    >>> ex.predict([np.ones((5, 2)), np.ones((7, 2)), np.ones((1, 2))]).shape
    (3, 3)
    """
    given = [as_value("lengths", value) for value in (x, *others)]
    steps = given[0].shape[1] if given[0].type.rank > 1 else 0
    for value in given:
        _check(value, steps, given[0])
    b = given[0].builder
    names = list(dict.fromkeys(value.name for value in given))
    name = f"lengths:{','.join(names)}"
    if name in b.nodes and with_lengths(b.nodes[name]):
        return b.value(name)
    for node in b.nodes.values():
        if node.op.is_input and (shared := set(names) & set(with_lengths(node))):
            raise GraphError(
                f"lengths: {min(shared)!r} has lengths already, which are {node.name!r}",
                operands=[node.described("lengths")],
                hint="name all inputs with the same lengths in one call: gc.lengths(x, y)",
            )
    block, b.prefix = b.prefix, ""
    try:
        return b.apply(Input((N,), "int32").named(name), name=name)
    finally:
        b.prefix = block


def with_lengths(node: Node) -> tuple[str, ...]:
    """Return the inputs whose rows have the lengths that a node is, if it is an input of lengths.

    The first one is that of which `gc.lengths` was asked.
    """
    role = node.op.role
    return tuple(role.of.split(",")) if role.kind == "lengths" else ()


class WithinLengths(Layer):
    """x with zeros behind the end of each row, which an executor feeds to an input with lengths."""

    roles = ("x", "lengths")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of x."""
        x, lengths = ins
        if x.rank < 2 or not isinstance(x.shape[1], int) or lengths.shape != x.shape[:1]:
            raise ValueError(f"x is {x} and lengths {lengths}, not one length for each row of x")
        return x

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        """Choose x at the steps that a row has."""
        x, lengths = ins
        rows, steps, *rest = x.shape
        assert isinstance(steps, int)
        mask = length_mask(lengths, steps, dtype="bool", name=f"{name}.mask")
        mask = reshape(mask, (rows, steps, *[1] * len(rest)))
        return where(mask, x, constant(b, 0, x.dtype), name=name)

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        """Return a copy with zeros."""
        found = np.array(ins[0])
        found[np.arange(found.shape[1]) >= np.asarray(ins[1])[:, None]] = 0
        return found


def within_lengths(graph: Graph) -> Graph:
    """Return a graph that puts zeros behind the rows' ends itself, for others than an executor."""
    inputs = {node.name: node for node in graph if node.op.is_input}
    ends = {x: end for end in inputs for x in with_lengths(inputs[end]) if x in inputs}
    new: dict[str, str] = {}
    for x in ends:
        name = f"{x}.within"
        while name in graph:
            name += "_"
        new[x] = name
    made = [
        Node(new[x], WithinLengths(), (x, end), inputs[x].type, inputs[x].locs)
        for x, end in ends.items()
    ]
    others = [node.reading(new) for node in graph if node.name not in inputs]
    roots = {
        "outputs": {public: new.get(name, name) for public, name in graph.outputs.items()},
        "updates": {state: new.get(name, name) for state, name in graph.updates.items()},
    }
    return graph.with_nodes([*inputs.values(), *made, *others], **roots) if made else graph


def has_lengths(x: Value, lengths: Value) -> bool:
    """Return whether an executor feeds x zeros behind the ends that these lengths say."""
    return x.name in with_lengths(lengths.node)


def most_steps(graph: Graph) -> dict[str, Dim]:
    """Return the largest length that a row may have, by input of lengths."""
    members = ((node.name, with_lengths(node)) for node in graph)
    return {
        name: graph[of].type.shape[1] for name, several in members for of in several if of in graph
    }


def _check(value: Value, steps: object, first: Value) -> None:
    """Raise GraphError unless a value is an input (N, T, ...) with these steps."""
    type = value.type
    fits = type.rank > 1 and type.shape[0] == N and isinstance(type.shape[1], int)
    if not value.node.op.is_input or value.builder.outer is not None or not fits:
        raise misfit(
            f"lengths: {value.name!r} is {type}\nit must be an input (N, T, ...) with T steps",
            x=value,
        )
    if type.shape[1] != steps:
        raise misfit("lengths: inputs have different numbers of steps", x=first, other=value)


def check_lengths(layer: str, lengths: Value) -> None:
    """Raise GraphError if lengths are not whole numbers, one a row."""
    if lengths.type.rank != 1 or lengths.dtype not in ("int32", "int64"):
        raise misfit(
            f"{layer}: lengths is {lengths.type}\n"
            "it must be whole numbers (N,): the steps of each row",
            lengths=lengths,
        )


@with_attributes(
    lengths="The number of steps of each row, whole numbers (N,), such as `gc.lengths(x)`.",
    steps="The number of steps of the longest row that there may be.",
    dtype='The dtype of the mask, by default the net\'s; "bool" for `gc.where`.',
    returns="The mask.",
    raises="If lengths are not whole numbers (N,), or steps is not a number above 0.",
)
def length_mask(
    lengths: Value, steps: int, *, dtype: str | None = None, name: str | None = None
) -> Value:
    """Return 1 for each step that a row has, and 0 for those behind its end, (N, steps).

    As the weight of a loss of each step it makes the loss a mean over the steps that there are,
    also in `gc.fit` and `evaluate`, where batches are weighted by their numbers of steps.

    Examples
    --------
    >>> net = gc.Net("example")
    >>> x = net.input("x", (gc.N, 7, 2))
    >>> y = net.input("y", (gc.N, 7), dtype="int64")
    >>> n = gc.lengths(x, y)
    >>> mask = gc.length_mask(n, 7)
    >>> scores = gc.transpose(gc.affine(x, 3, axis=-1), (0, 2, 1))  # classes come second
    >>> loss = net.loss("loss", gc.softmax_loss(scores, y, weight=mask))
    >>> count = gc.reshape(gc.cast(n, "float32"), (gc.N, 1))
    >>> gc.sum(x * gc.reshape(mask, (gc.N, 7, 1)), 1) / count  # the mean over a row's steps
    <div_1: float32[N, 2]>
    """
    lengths = as_value("length_mask", lengths)
    count = checked_whole("length_mask: steps", steps)
    check_memory(count, "step", 8, "length_mask: its steps are those of the input")
    check_lengths("length_mask", lengths)
    b = lengths.builder
    node = b.free_name("length_mask", name)
    with b.all_or_nothing():
        wanted = dtype or b.dtype
        numbers = constant(b, range(count), lengths.dtype, f"{node}.steps")
        column = reshape(lengths, (*lengths.shape, 1))
        if wanted == "bool":
            return less(numbers, column, name=node)
        return cast(less(numbers, column), wanted, name=node)
