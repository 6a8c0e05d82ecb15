"""The declaration API: `Net`, a graph under construction."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from graphc.base.arguments import sizes_of
from graphc.base.docstrings import with_shared
from graphc.base.door import higher
from graphc.base.errors import GraphError, UnknownName, close_names
from graphc.base.missing import Missing
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph
from graphc.ir.init import FromArray, generator, resolve
from graphc.ir.op import Op
from graphc.ir.tensor_type import FLOATS, Batch, Dim, dtype_name, shape_text
from graphc.ops.source import Constant, Input, Parameter, State, check_plain_name, constant_op

_LASTING = """
Parameters
----------
name
    The name in the state.
shape
    The dimensions, without the batch.
dtype
    The dtype; by default the net's.

Returns
-------
Value
    The array.
"""


class Net(Missing):
    """A network being declared.

    Functions such as `gc.affine` add nodes to the net of the values that they take.  `net["name"]`
    is the value of that name.

    Parameters
    ----------
    name
        The name in pictures, texts and errors.
    dtype
        The dtype of inputs and parameters unless they are given another: "float32" or "float64".

    Raises
    ------
    GraphError
        If a float dtype of that name does not exist.

    Examples
    --------
    >>> net = gc.Net("digits")
    >>> x = net.input("x", (gc.N, 64))
    >>> scores = net.output("scores", gc.affine(x, 10))
    >>> print(net)  # doctest: +ELLIPSIS
    graph digits...
    """

    def __init__(self, name: str = "net", dtype: str = "float32") -> None:
        if dtype not in FLOATS:
            raise GraphError(f"net {name!r}: dtype {dtype!r} is not one of {', '.join(FLOATS)}")
        self.name = name
        self.builder = Builder(name, dtype)
        self.for_inference = ""
        """Why training is likely a mistake, which compiling with an optimizer warns of."""

    @property
    def dtype(self) -> str:
        """The dtype of floats if nothing else decides it."""
        return self.builder.dtype

    @dtype.setter
    def dtype(self, name: str) -> None:
        self.builder.dtype = name

    def input(self, name: str, shape: Sequence[Dim] | Dim, *, dtype: str | None = None) -> Value:
        """Declare an array to be fed.

        Parameters
        ----------
        name
            The name to feed it by.
        shape
            The dimensions; `gc.N` is the batch, `()` a scalar.
        dtype
            The dtype; by default the net's.

        Returns
        -------
        Value
            The array, for functions such as `gc.affine`.

        Raises
        ------
        GraphError
            If the name is taken, or the shape or dtype is not valid.
        """
        return self._source(Input(sizes_of(shape), dtype_name(dtype or self.dtype)), name)

    @with_shared(_LASTING)
    def parameter(
        self, name: str, shape: Sequence[int] | int, init: Any = "he", *, dtype: str | None = None
    ) -> Value:
        """Declare a trainable array.

        Parameters
        ----------
        init
            The start: an initializer such as `gc.He()`, its name, a number or an array.

        Raises
        ------
        GraphError
            If the shape has the batch dimension, or `init` does not fit it.
        """
        sizes, dtype = _fixed_sizes("parameter", name, shape), dtype_name(dtype or self.dtype)
        try:
            op = Parameter(sizes, dtype, resolve(init, sizes))
        except ValueError as error:
            raise GraphError(
                f"parameter {name!r}: {error}",
                hint="say gc.He(), gc.Normal(0.01), 'zeros', a number, or an array of its shape",
            ) from None
        return self._source(op, name)

    @with_shared(_LASTING)
    def state(
        self, name: str, shape: Sequence[int] | int, start: Any = 0.0, *, dtype: str | None = None
    ) -> Value:
        """Declare an array that lasts between steps and that no optimizer trains.

        Parameters
        ----------
        start
            The number, or the array, that it starts at.

        Returns
        -------
        Value
            The array; `net.update` gives it its next value.

        Raises
        ------
        GraphError
            If the shape has the batch dimension, or `start` does not fit it.

        Examples
        --------
        >>> net = gc.Net("net")
        >>> x, seen = net.input("x", (gc.N, 3)), net.state("seen", (3,))
        >>> net.update(seen, 0.99 * seen + 0.01 * gc.mean(x, axis=0))
        """
        sizes, dtype = _fixed_sizes("state", name, shape), dtype_name(dtype or self.dtype)
        start = start.item() if isinstance(start, np.generic) else start
        try:
            given = start if isinstance(start, (int, float)) else FromArray.of(start)
            op = State(sizes, dtype, given)
            if isinstance(given, FromArray):
                given.sample(generator(0, name), sizes, op.dtype)
        except (ValueError, TypeError) as error:
            hint = "start is a number, or an array of the shape of the state"
            raise GraphError(f"state {name!r}: {error}", hint=hint) from None
        return self._source(op, name)

    def update(self, state: Value, value: Value) -> None:
        """Set the next value of a state, or of a parameter that is not trained.

        Training alone updates it: a step, or `forward(train=True)`, sets it at the end, and all
        reads in the step see the value from before.

        Parameters
        ----------
        state
            A state or a parameter of this net.
        value
            The next value, of the same type.

        Raises
        ------
        GraphError
            If either is not of this net, the types differ, or the state is updated already.
        """
        for given in (state, value):
            self._check_own(given, "net.update(state, value) takes values of this net")
        if not state.node.op.persistent:
            sentence, hint = "is neither a state nor a parameter", 'net.state("seen", (3,))'
        elif state.name in self.builder.updates:
            sentence, hint = "is updated already", "update it once"
        elif state.type != value.type:
            sentence = f"is {state.type}, and its next value {value.type}"
            hint = "reduce over the rows, or cast it"
        else:
            self.builder.update(state, value)
            return
        described = [state.node.described("state"), value.node.described("value")]
        raise GraphError(f"update: {state.name!r} {sentence}", operands=described, hint=hint)

    def constant(self, array: Any, *, name: str | None = None, dtype: str | None = None) -> Value:
        """Declare a fixed array.

        Parameters
        ----------
        array
            An array or a number; Python floats, also in lists, take the net's dtype.
        name
            The name of the node.
        dtype
            The dtype; by default that of the array.

        Returns
        -------
        Value
            The array.

        Raises
        ------
        GraphError
            If graphc does not have the dtype.
        """
        try:
            op: Constant = constant_op(array, dtype, self.dtype)
        except (ValueError, TypeError) as error:
            raise GraphError(f"constant: {error}") from None
        return self.builder.apply(op, name=name)

    def output(self, name: str, value: Value) -> Value:
        """Make a value public under a name.

        Parameters
        ----------
        name
            The name, by which `forward` returns it.
        value
            A value of this net.

        Returns
        -------
        Value
            The value itself.

        Raises
        ------
        GraphError
            If the value is of another net, or an output has that name already.
        """
        self._check_public(name, value)
        self.builder.outputs[name] = value.name
        return value

    def loss(self, name: str, value: Value) -> Value:
        """Make a scalar an output that training minimises.

        Several losses add up.

        Parameters
        ----------
        name
            The name, by which `forward` returns it.
        value
            One float of this net.

        Returns
        -------
        Value
            The value itself.

        Raises
        ------
        GraphError
            If the value is not one float of this net, or an output has that name already.
        """
        self._check_public(name, value)
        if value.shape != () or not value.type.is_float:
            raise GraphError(
                f"loss {name!r} is {value.type}, it must be one float",
                operands=[value.node.described("value")],
                hint="reduce it: gc.mean(value), or reduction='mean' in the loss",
            )
        self.builder.outputs[name] = value.name
        self.builder.losses.append(name)
        return value

    def block(self, name: str) -> AbstractContextManager[None]:
        """Group the nodes declared inside, in names (`name/...`) and in pictures.

        Parameters
        ----------
        name
            The name of the block.

        Returns
        -------
        AbstractContextManager
            A context: `with net.block("encoder"): ...`.
        """
        return self.builder.block(name)

    def __getitem__(self, name: str) -> Value:
        try:
            return self.builder.value(name)
        except KeyError:
            raise UnknownName(
                f"net {self.name!r} has no value {name!r}", hint=_found_instead(name, self.builder)
            ) from None

    def graph(self) -> Graph:
        """Return the immutable graph of all declarations so far.

        Returns
        -------
        Graph
            The graph; the net can be extended further.
        """
        return self.builder.graph()

    def summary(self) -> None:
        """Print the layers with their shapes and numbers of parameters, as Keras does."""
        print(higher("Net.summary")(self.graph()))  # noqa: T201 - what the method is for

    def render(self, path: str | Path, *, fold: bool = True) -> Path:
        """Draw the declared layers; `plan.render` draws what they are compiled to.

        Parameters
        ----------
        path
            The file; its suffix chooses the format: svg, png, pdf, dot or html.
        fold
            Whether a block of layers that is repeated is drawn once.  A page has both pictures.

        Returns
        -------
        Path
            The file that was written.

        Raises
        ------
        GraphError
            If the suffix is of no known format, or nothing is found that draws it.

        Examples
        --------
        >>> net = gc.Net("net")
        >>> y = net.output("y", gc.relu(net.input("x", (gc.N, 3))))
        >>> net.render("net.dot").name
        'net.dot'
        """
        drawn: Path = higher("Net.render")(self.graph(), path, fold=fold)
        return drawn

    @classmethod
    def of(cls, graph: Graph, dtype: str = "float32") -> Net:
        """Return a net with all declarations of a graph, to which more can be added.

        Parameters
        ----------
        graph
            A graph, such as that of a plan or of a model file.
        dtype
            The dtype of new inputs and parameters.

        Returns
        -------
        Net
            A new net.
        """
        net = cls(graph.name, dtype)
        net.builder = Builder.extending(graph)
        net.builder.dtype, net.builder.locs = dtype, None
        return net

    def __reduce__(self) -> tuple[Any, ...]:
        pickled: tuple[Any, ...] = higher("pickled")(self)
        return pickled

    def __deepcopy__(self, memo: dict[int, Any]) -> Net:
        return Net.of(self.graph(), self.dtype)  # nodes are immutable, so they can be shared

    def __str__(self) -> str:
        return str(self.graph())

    def __repr__(self) -> str:
        return f"<Net {self.name!r}: {len(self.builder.nodes)} nodes>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Return text and, if a renderer is installed, the picture for a notebook."""
        bundle: dict[str, str] = higher("notebook")(self.graph(), str(self))
        return bundle

    def _source(self, op: Op, name: str) -> Value:
        """Add an input or parameter; raise GraphError if its type is not valid."""
        try:
            op.infer(())
        except ValueError as error:
            sentence, _, hint = str(error).partition("\n")
            raise GraphError(f"{op.name} {name!r}: {sentence}", hint=hint) from None
        if isinstance(op, Input | State):
            check_plain_name(op, name)
        return self.builder.apply(op, name=name)

    def _check_public(self, name: str, value: Value) -> None:
        """Raise GraphError unless the value is of this net and the name is free."""
        hint = 'give the name, then a value of this net: net.output("scores", scores)'
        self._check_own(value, hint, f" given as {name!r}")
        if name in self.builder.outputs:
            raise GraphError(
                f"net {self.name!r} has an output {name!r} already", hint="choose another name"
            )

    def _check_own(self, value: object, hint: str, given: str = "") -> None:
        """Raise GraphError unless this is a value of this net."""
        if isinstance(value, Value) and value.builder is self.builder:
            return
        found = f"of type {type(value).__name__}"
        if isinstance(value, Value):
            found = f"{value.name!r} of net {value.builder.name!r}"
        raise GraphError(
            f"the value{given} is {found}, not a value of net {self.name!r}", hint=hint
        )


def _found_instead(name: str, b: Builder) -> str:
    """Return the hint for a missing value: an output of that name, or similar names."""
    if name in b.outputs:
        return f"the output of that name is the value {b.outputs[name]!r}"
    close = close_names(name, b.nodes)
    return f"did you mean {' or '.join(close)}?" if close else "print(net) lists what is declared"


def declared_graph(call: str, net: object, hint: str = "") -> Graph:
    """Return the graph of a net, or the graph itself; raise GraphError for anything else."""
    if not isinstance(net, (Net, Graph)):
        raise GraphError(f"{call} takes a net, not {type(net).__name__}", hint=hint)
    return net if isinstance(net, Graph) else net.graph()


def _fixed_sizes(kind: str, name: str, shape: Any) -> tuple[int, ...]:
    """Return the sizes of a shape; raise GraphError if it has the batch dimension."""
    sizes = sizes_of(shape)
    fixed = tuple(size for size in sizes if not isinstance(size, Batch))
    if fixed != sizes:
        raise GraphError(
            f"{kind} {name!r}: its shape has the batch dimension, {shape_text(sizes)}",
            hint=f"a {kind} is the same for all rows; declare an array with rows as an input",
        )
    return fixed
