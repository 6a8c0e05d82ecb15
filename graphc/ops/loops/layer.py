"""The declaration of a loop over the steps of sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

from graphc.base.arguments import checked_whole, takes
from graphc.base.errors import GraphError, counted
from graphc.ir.build import Builder, Value, as_value, misfit
from graphc.ir.step_graph import Carried, Kind, StepGraph
from graphc.ir.tensor_type import TensorType
from graphc.ops.apply import with_attributes
from graphc.ops.loops.lengths import check_lengths
from graphc.ops.loops.op import Scan
from graphc.ops.loops.step_builder import StepBuilder
from graphc.ops.select import less, where
from graphc.ops.shape import cast, reshape, transpose

__all__ = ["scan"]

Several = Value | Sequence[Value]
POSITIONAL = Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD


@takes(
    "states, last = gc.scan(step, x, h0)",
    sequence="it is inputs",
    init="it is initial",
    length="it is steps, and lengths if each row has its own",
)
@with_attributes(
    step="A function of the slices of the inputs at one position, (N, ...), and of the carried\n"
    "values.  It declares one step with ordinary layers and returns two things: its outputs, and\n"
    "the next carried values.  Values from outside and parameters are the same at each step.",
    inputs="A sequence (N, T, ...) or several, with T steps each.",
    initial="The carried values before the first step, one or several.",
    lengths="The number of steps of each row, whole numbers (N,).  Behind a row's end outputs are\n"
    "0, and carried values stay as they are.",
    reverse="True if the last step comes first.",
    steps="The number of steps if there is no input.",
    name="The name of the loop, and the start of the names of its parameters.",
    found="tuple",
    returns="The outputs of all steps, (N, T, ...), and the carried values after the last step.\n"
    "Each is a Value or a tuple, as the step returns them.",
    raises="If the inputs have different numbers of steps, or the step does not return outputs\n"
    "and next values of the types of the initial ones.",
)
def scan(
    step: Callable[..., tuple[Any, Any]],
    inputs: Several,
    initial: Several = (),
    *,
    lengths: Value | None = None,
    reverse: bool = False,
    steps: int | None = None,
    name: str | None = None,
) -> tuple[Any, Any]:
    """Return what a step computes at each position of sequences, and the last carried values.

    The step is declared once and compiled once, for any number of steps.

    Examples
    --------
    >>> net = gc.Net("example")
    >>> x, h0 = net.input("x", (gc.N, 7, 4)), net.input("h0", (gc.N, 5))
    >>> w, u = net.parameter("w", (4, 5)), net.parameter("u", (5, 5))
    >>> def step(x, h):
    ...     h = gc.tanh(x @ w + h @ u)
    ...     return h, h
    >>> states, last = gc.scan(step, x, h0)
    >>> states.shape, last.shape
    ((N, 7, 5), (N, 5))
    """
    given, starts = _listed("inputs", inputs), _listed("initial", initial)
    if lengths is not None:
        lengths = as_value("scan: lengths", lengths)
    sources = [*given, *starts, *([] if lengths is None else [lengths])]
    if not sources:
        raise GraphError(
            "scan: it has neither inputs nor carried values",
            hint="give a sequence (N, T, ...) as inputs, or initial values and steps=",
        )
    b = _innermost(sources)
    loop = _loop_name(b, name)
    with b.all_or_nothing(), _reserved(b, b.prefix + loop):
        made = _Loop(b, loop, [b.captured(x) for x in given], [b.captured(x) for x in starts])
        made.trace(step, _steps(given, steps), None if lengths is None else b.captured(lengths))
        return made.results(reverse)


def _loop_name(b: Builder, name: str | None) -> str:
    """Return the name of a loop; a name that is not given leaves those of its results free, too.

    A step may read the result "scan_1.last" of a loop around it.
    """
    loop = b.free_name("scan", name)
    while name is None and any(other.startswith(f"{b.prefix}{loop}.") for other in b.nodes):
        b.reserved.add(b.prefix + loop)
        loop = b.free_name("scan", None)
    return loop


@contextmanager
def _reserved(b: Builder, name: str) -> Iterator[None]:
    """Keep a name from loops that the step declares outside."""
    b.reserved.add(name)
    try:
        yield
    finally:
        b.reserved.discard(name)


def _listed(role: str, values: Several) -> list[Value]:
    several = values if isinstance(values, (tuple, list)) else [values]
    return [as_value(f"scan: {role}", value) for value in several]


def _innermost(values: Sequence[Value]) -> Builder:
    """Return the innermost step that the values are known in and that is being declared."""
    b = max((value.builder for value in values), key=lambda b: b.depth)
    while b.open is not None:
        b = b.open
    return b


def _steps(inputs: Sequence[Value], steps: int | None) -> int:
    """Return the number of steps that all inputs have; raise GraphError if they differ."""
    if not inputs:
        return checked_whole("scan: steps", steps, hint="say it: gc.scan(step, (), h0, steps=10)")
    for x in inputs:
        if x.type.rank < 2 or not isinstance(x.shape[1], int) or not x.shape[1]:
            raise misfit(
                f"scan: the input {x.name!r} is {x.type}\nit must be (N, T, ...) with T steps", x=x
            )
    first = inputs[0].shape[1]
    for x in inputs[1:]:
        if x.shape[1] != first:
            raise misfit("scan: inputs have different numbers of steps", x=inputs[0], other=x)
    assert isinstance(first, int), "checked above"
    if steps is not None and steps != first:
        raise GraphError(f"scan: steps is {steps}, the inputs have {first}")
    return first


@dataclass
class _Loop:
    """A loop under construction."""

    b: Builder
    name: str
    inputs: Sequence[Value]
    initial: Sequence[Value]

    def trace(self, step: Callable[..., Any], steps: int, lengths: Value | None) -> None:
        """Declare the step, and check what it returns."""
        self.steps, self.lengths = steps, lengths
        self.first = [_swapped(x) for x in self.inputs]
        inner = self.inner = StepBuilder(self.b, self.name)
        names = _names(step, self.inputs, self.initial)
        slices = [inner.input(names.pop(0), _slice(x.type)) for x in self.inputs]
        before = [inner.input(names.pop(0), x.type) for x in self.initial]
        self.number = inner.input("step", TensorType((), "int32"))
        inner.number = self.number.name
        outputs, nexts = self._called(step, *slices, *before)
        self.single = not isinstance(outputs, (tuple, list)), not isinstance(nexts, (tuple, list))
        self.outputs = [self._inside(x) for x in _listed("the step's outputs", outputs)]
        after = [self._inside(x) for x in _listed("the step's next values", nexts)]
        self._check_next(before, after)
        active = None if lengths is None else self._active(lengths)
        if active is not None:
            after = [_chosen(active, new, old) for new, old in zip(after, before, strict=True)]
            self.outputs = [_chosen(active, y, 0) for y in self.outputs]
        inner.ended = True
        self.step = StepGraph(
            tuple(inner.nodes.values()),
            tuple(x.name for x in slices),
            tuple(Carried(x.name, y.name) for x, y in zip(before, after, strict=True)),
            tuple(inner.known.values()),
            self.number.name,
            "" if lengths is None else inner.known[lengths.name],
        )

    def _called(self, step: Callable[..., Any], *given: Value) -> tuple[Any, Any]:
        """Return the two things that the step returns; raise GraphError if there are others."""
        self.b.open = self.inner
        try:
            found = step(*given)
        finally:
            self.b.open = None
        if isinstance(found, tuple) and len(found) == 2:
            return found
        raise GraphError(
            f"scan: the step returned {_shown(found)}",
            hint="it must return two things, outputs and next values: return y, h",
        )

    def _inside(self, value: Value) -> Value:
        """Return a value that the step returns as a node of the step; raise GraphError if not."""
        found = self.inner.captured(value)
        if found.builder is not self.inner:
            raise misfit(
                f"scan: the step returned {value.name!r} of {value.builder.name}\n"
                "return what the step itself computes, or a value from around it",
                value=value,
            )
        return found

    def _active(self, lengths: Value) -> Value:
        """Return whether a row has the step; raise GraphError if lengths are not one a row."""
        check_lengths("scan", lengths)
        number = self.number if lengths.dtype == "int32" else cast(self.number, lengths.dtype)
        inside = self.inner.captured(lengths)
        return less(number, reshape(inside, (*inside.shape, 1)))

    def _check_next(self, before: Sequence[Value], after: Sequence[Value]) -> None:
        if len(before) != len(after):
            raise GraphError(
                f"scan: the step returned {counted(len(after), 'next value')} for "
                f"{counted(len(before), 'initial value')}",
                hint="it must return outputs and next values: return y, (h, c)",
            )
        for start, old, new in zip(self.initial, before, after, strict=True):
            if old.type != new.type:
                raise misfit(
                    f"scan: the next value of {old.name!r} is {new.type}, not {old.type}\n"
                    "a carried value keeps its shape and dtype from step to step",
                    initial=start,
                    next=new,
                )

    def results(self, reverse: bool) -> tuple[Any, Any]:
        """Add the nodes of the loop; return its outputs, and the last carried values."""
        outside = {inside: name for name, inside in self.inner.known.items()}
        whole = [Value(self.b, outside[name]) for name in self.step.whole]
        operands = [*self.first, *self.initial, *whole]

        def result(kind: Kind, of: str, name: str) -> Value:
            return self.b.apply(
                Scan(self.step, self.steps, kind, of, reverse), *operands, name=name
            )

        steps = [
            result("stacked", y.name, f"{self.name}.steps{i or ''}")
            for i, y in enumerate(self.outputs)
        ]
        lasts = [
            result("last", one.input, f"{self.name}.last{i or ''}")
            for i, one in enumerate(self.step.carried)
        ]
        outputs = [
            _swapped(found, self.name if i == 0 else f"{self.name}.{i}")
            for i, found in enumerate(steps)
        ]
        return _as_given(outputs, self.single[0]), _as_given(lasts, self.single[1])


def _names(
    step: Callable[..., Any], inputs: Sequence[Value], initial: Sequence[Value]
) -> list[str]:
    """Return the names of the step's parameters, or those of the values if it has no such.

    Raise GraphError for a step that cannot be called with them.
    """
    given = [*inputs, *initial]
    try:
        found = signature(step)
        found.bind(*given)
    except ValueError:  # a builtin may have none
        return [value.name for value in given]
    except TypeError as error:
        raise GraphError(
            f"scan: the step cannot be called with {counted(len(inputs), 'slice')} and "
            f"{counted(len(initial), 'carried value')}: {error}",
            hint="a slice of each input comes first, then each carried value: def step(x, h)",
        ) from None
    names = [p.name for p in found.parameters.values() if p.kind in POSITIONAL]
    return names if len(names) == len(given) else [value.name for value in given]


def _slice(type: TensorType) -> TensorType:
    return type.with_shape((type.shape[0], *type.shape[2:]))


def _swapped(x: Value, name: str | None = None) -> Value:
    """Return a value with steps first that has rows first, or the other way round."""
    return transpose(x, (1, 0, *range(2, x.type.rank)), name=name)


def _chosen(active: Value, new: Value, old: Value | float) -> Value:
    """Return the new value for rows that have the step, else the old one."""
    ones = (1,) * (new.type.rank - 2)
    if new.type.rank == 0 or new.shape[0] != active.shape[0]:
        raise misfit(
            f"scan: {new.name!r} is {new.type}, but rows have lengths of their own\n"
            "what the step returns must have the rows of the batch first",
            value=new,
        )
    if new.type.rank == 1:
        active = reshape(active, new.shape)
    return where(reshape(active, (*active.shape, *ones)) if ones else active, new, old)


def _as_given(values: list[Value], single: bool) -> Any:
    return values[0] if single else tuple(values)


def _shown(found: object) -> str:
    if isinstance(found, tuple):
        return counted(len(found), "value")
    return f"one {type(found).__name__}"
