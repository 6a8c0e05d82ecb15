"""The plan of a kernel's body: its steps as actions in order, and the memory of each value.

Steps that do not depend on elements are computed once, the others part by part, so that what is
between them stays in the cache.  A value lies in the buffer that it is stored to if nothing that
lies there is read later, else in a temporary that several values use in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import NamedTuple

import numpy as np

from graphc.backends.backend import Call
from graphc.backends.numpy import access, functions, products
from graphc.backends.numpy.values import Part, Sizes, Value
from graphc.compiler.memory import align
from graphc.ir.op import Array
from graphc.ir.tensor_type import FLOATS, ITEMSIZE, dim_at
from graphc.kernels.body import Attribute, Span, Step, Store
from graphc.kernels.kernel import Added, Gemm, Kernel, Loop
from graphc.kernels.philox import fill_words, mask_scratch

PART = 1 << 14
"""The elements of a part of a loop: a few values of that size fit into the fastest cache."""
PRODUCT_PART = 1 << 16
"""The elements of a part of a product."""
Overlaps = Mapping[str, Mapping[str, str]]
"""For each buffer that is written, those that share bytes with it: "same" or in "part"."""


class Work(NamedTuple):
    """Memory that an action alone needs: its dtype, and its shape for a part."""

    dtype: str
    shape: Callable[[Sizes, Part], tuple[int, ...]]


class Action(NamedTuple):
    """The calls that write `out`: `rule(sizes, part, out, *ins, *work)`."""

    rule: Callable[..., Sequence[Call]]
    out: Value
    ins: tuple[Value, ...] = ()
    work: tuple[Work, ...] = ()


@dataclass(frozen=True, slots=True)
class BodyPlan:
    """What a kernel computes once, what part by part, what it stores last, and its temporaries.

    A temporary is a value's span and dtype; those from `whole` on hold parts.
    """

    kernel: Kernel
    once: tuple[Action, ...]
    parts: tuple[Action, ...]
    last: tuple[Action, ...]
    temporaries: tuple[Value, ...]
    whole: int

    def cuts(self, sizes: Sizes, most: Sizes) -> Iterator[Part]:
        """Yield the parts for these sizes, the largest first: no larger than for the most rows."""
        return _cuts(self.kernel, self.parts, sizes, most)

    def layout(self, sizes: Sizes, most: Sizes) -> tuple[list[int], int]:
        """Return the offset of each temporary in the scratch, and the bytes of all with work."""
        largest = next(self.cuts(sizes, most))
        offsets, offset = [], 0
        for i, value in enumerate(self.temporaries):
            offsets.append(offset)
            part = sizes.whole if i < self.whole else largest
            offset += align(prod(sizes.shape(value.span, part)) * ITEMSIZE[value.dtype])
        offsets.append(offset)
        work = [
            sum(align(prod(w.shape(sizes, p)) * ITEMSIZE[w.dtype]) for w in action.work)
            for actions, p in ((self.once, sizes.whole), (self.parts, largest))
            for action in actions
        ]
        return offsets, offset + max(work, default=0)


def _cuts(kernel: Kernel, actions: Sequence[Action], sizes: Sizes, most: Sizes) -> Iterator[Part]:
    """Yield the parts of an iteration space, cut along an axis that is not reduced.

    How it is cut depends on the most rows alone: fewer never need more memory.
    """
    whole = sizes.whole
    limit = PRODUCT_PART if isinstance(kernel, Gemm) else PART
    axes = {step.value for step in kernel.body.steps if step.op in ("sum", "max")}
    line = prod(most.places) * most.columns
    if len(actions) < 2 or most.lines * line <= limit or not _may_cut(kernel):
        yield whole
    elif "rows" not in axes and most.lines > 1:
        step = max(limit // max(line, 1), 1)
        for start in range(0, max(sizes.lines, 1), step):
            yield Part(slice(start, min(start + step, sizes.lines)), whole.columns)
    elif axes <= {"rows"} and isinstance(kernel, Loop) and not kernel.places and most.rows <= 64:
        step = max(limit // most.rows, 1)
        for start in range(0, sizes.columns, step):
            yield Part(whole.rows, slice(start, min(start + step, sizes.columns)))
    else:
        yield whole


def _may_cut(kernel: Kernel) -> bool:
    if isinstance(kernel, Gemm):
        return kernel.stack is None and not (kernel.trans_a and kernel.window is not None)
    drawn = any(step.op == "philox" for step in kernel.body.steps)
    return not (drawn and kernel.rows == 1)


def plan_body(kernel: Kernel, overlaps: Overlaps) -> BodyPlan:
    """Return the plan of a kernel."""
    return _Planning(kernel, overlaps).plan()


class Read(NamedTuple):
    """A read of a buffer: when, and how: by its span, or None at other places too.

    `over` is whether the step that reads it may write its result there.
    """

    position: int
    buffer: str
    span: Span | None = None
    over: bool = False


class _Planning:
    """The plan of a body under construction."""

    def __init__(self, kernel: Kernel, overlaps: Overlaps) -> None:
        self.kernel, self.overlaps = kernel, overlaps
        self.steps, self.stores = kernel.body.steps, kernel.body.stores
        inner = self._inner_steps()
        self.order = sorted(range(len(self.steps)), key=lambda i: (i in inner, i))
        self.position = {i: p for p, i in enumerate(self.order)}
        self.inner = len(self.steps) - len(inner)
        """The position of the first step that is computed part by part."""
        self.end = len(self.steps)
        self.forms = [form_of(self.steps, step) for step in self.steps]
        self.views = {i for i, step in enumerate(self.steps) if self._is_view(step)}
        """The gathers that are a view of the buffer."""
        self.last = self._last_uses()
        self.reads: dict[str, list[Read]] = {}
        """The reads of each buffer."""
        for read in self._reads():
            self.reads.setdefault(read.buffer, []).append(read)
        self.placed: dict[int, str] = {}
        self.values: dict[int, Value] = {}
        self.temporaries: list[Value] = []
        self.free: dict[tuple[str, str], list[int]] = {}
        self.actions: list[Action] = []

    def plan(self) -> BodyPlan:
        """Place the values, and make the actions in order."""
        for store in self.stores:
            self._place(store.step, store)
        for i in self.order[: self.inner]:
            self._compute(i)
        once, whole = tuple(self.actions), len(self.temporaries)
        self.actions, self.free = [], {}
        for i in self.order[self.inner :]:
            self._compute(i)
        self._store_copies(inner=True)
        parts, self.actions = tuple(self.actions), []
        self._store_copies(inner=False)  # parts may read what these overwrite
        last, temporaries = tuple(self.actions), tuple(self.temporaries)
        return BodyPlan(self.kernel, once, parts, last, temporaries, whole)

    # ------------------------------------------------------------------ when

    def _inner_steps(self) -> set[int]:
        """Return the steps that are computed part by part: those that depend on elements."""
        found: set[int] = set()
        for i, step in enumerate(self.steps):
            reduced = step.op in ("sum", "max") and self.steps[step.args[0]].span == "each"
            if step.span == "each" or reduced or not found.isdisjoint(step.args):
                found.add(i)
        return found

    def _last_uses(self) -> dict[int, int]:
        """Return the position of the last step that uses each value."""
        last: dict[int, int] = {}
        for i, (_, args, _) in enumerate(self.forms):
            for arg in args:
                last[arg] = max(last.get(arg, -1), self.position[i])
        last.update((store.step, self.end) for store in self.stores)
        return last

    def _reads(self) -> Iterator[Read]:
        for i, (name, args, _) in enumerate(self.forms):
            p, step = self.position[i], self.steps[i]
            for buffer in self._whole_reads(step):
                yield Read(p, buffer)
            function = functions.FUNCTIONS.get(name)
            for at, arg in enumerate(args):
                operand = self.steps[arg]
                if arg in self.views:
                    yield Read(p, operand.buffer)
                elif operand.op == "load":
                    over = function is not None and at in function.over
                    yield Read(p, operand.buffer, operand.span, over)
        for store in self.stores:
            if self.steps[store.step].op == "load" or store.step in self.views:
                yield Read(self.end, self.steps[store.step].buffer)

    def _whole_reads(self, step: Step) -> Sequence[str]:
        """Return the buffers that a step reads at other places than its own."""
        kernel = self.kernel
        if step.op == "fetch":
            return (step.buffer,)  # of a view when it is used, too
        if step.op == "product":
            assert isinstance(kernel, Gemm), "only a Gemm has a product"
            return kernel.a, kernel.b
        if step.op == "added":
            assert isinstance(kernel, Loop) and kernel.added is not None
            return kernel.added.rows, kernel.added.indices
        return ()

    # ------------------------------------------------------------------ where

    def _place(self, i: int, store: Store) -> None:
        """Let a value be computed where it is stored, and the operands that die there, too."""
        if self.steps[i].span != store.span or i in self.placed or not self._may_lie(i, store):
            return
        at: int | None = i
        while at is not None:
            self.placed[at] = store.buffer
            at = self._placeable_operand(at, store)

    def _placeable_operand(self, i: int, store: Store) -> int | None:
        """Return an operand that a step may overwrite, the last to use it, or None."""
        name, args, _ = self.forms[i]
        over = functions.FUNCTIONS[name].over if name in functions.FUNCTIONS else ()
        for at in over:
            if at >= len(args) or args.count(args[at]) > 1:
                continue
            arg, mine = self.steps[args[at]], self.steps[i]
            alike = (arg.span, arg.dtype) == (mine.span, mine.dtype)
            together = self._is_inner(args[at]) == self._is_inner(i)
            dies = self.last[args[at]] == self.position[i] and args[at] not in self.placed
            if alike and together and dies and self._may_lie(args[at], store):
                return args[at]
        return None

    def _may_lie(self, i: int, store: Store) -> bool:
        """Return whether a value may be computed in a buffer: nothing reads what it overwrites.

        What earlier steps of the same parts read must be the very elements that are overwritten.
        """
        own, inner = self.position[i], self._is_inner(i)
        if self.steps[i].op in NOT_COMPUTED or i in self.views:
            return False
        for buffer, how in self.overlaps.get(store.buffer, {}).items():
            for read in self.reads.get(buffer, ()):
                before = read.position < own
                if before and not (inner and read.position >= self.inner):
                    continue
                if read.position > own or how != "same" or read.span != self.steps[i].span:
                    return False
                if not before and not read.over:
                    return False
        return True

    def _is_view(self, step: Step) -> bool:
        if step.op != "fetch":
            return False
        assert isinstance(self.kernel, Loop), "only a loop gathers"
        return access.is_view(self.kernel, step)

    def _is_inner(self, i: int) -> bool:
        return self.position[i] >= self.inner

    def _out(self, i: int) -> Value:
        """Return where a value is written: its store, a dying operand, or a temporary."""
        step, (name, args, _) = self.steps[i], self.forms[i]
        if i in self.placed:
            return Value("buffer", self.placed[i], step.span, step.dtype)
        over = functions.FUNCTIONS[name].over if name in functions.FUNCTIONS else ()
        for at in over:
            if at < len(args) and self._dies(args[at], i) and args.count(args[at]) == 1:
                value = self.values[args[at]]
                if value[2:] == (step.span, step.dtype):
                    self.last[args[at]] = -1  # so that it is not freed
                    return value
        return self._temporary(step)

    def _dies(self, arg: int, i: int) -> bool:
        """Return whether a temporary, of parts where the step is of parts, has its last use."""
        here = self._is_inner(arg) == self._is_inner(i)
        dies = self.last[arg] == self.position[i]
        return here and dies and self.values[arg].memory == "temporary"

    def _number(self, arg: int) -> int:
        key = self.values[arg].key
        assert isinstance(key, int), "a temporary has a number"
        return key

    def _temporary(self, step: Step) -> Value:
        free = self.free.get((step.span, step.dtype))
        if free:
            return Value("temporary", free.pop(), step.span, step.dtype)
        value = Value("temporary", len(self.temporaries), step.span, step.dtype)
        self.temporaries.append(value)
        return value

    # ------------------------------------------------------------------ actions

    def _compute(self, i: int) -> None:
        """Add the action of a step."""
        step, form = self.steps[i], self.forms[i]
        if step.op == "load":
            self.values[i] = Value("buffer", step.buffer, step.span, step.dtype)
        elif step.op == "const":
            assert isinstance(step.value, (int, float)), "a constant is a number"
            self.values[i] = Value("number", step.value, "one", step.dtype)
        elif step.op == "size":
            assert isinstance(step.value, (int, str)), "the value is what the size is of"
            self.values[i] = Value("size", step.value, "one", step.dtype)
        elif step.op == "index":
            self.values[i] = Value("index", "", step.span, step.dtype)
        elif i in self.views:
            self.values[i] = Value("gathered", step, step.span, step.dtype)
        else:
            ins = [self.values[arg] for arg in form.args]
            out = self.values[i] = self._out(i)
            self.actions.append(action_of(self.kernel, step, form, out, ins))
            for arg in set(form.args):
                if self._dies(arg, i):
                    key = self.values[arg].span, self.values[arg].dtype
                    self.free.setdefault(key, []).append(self._number(arg))

    def _store_copies(self, inner: bool) -> None:
        """Add copies of the values that do not lie where they are stored."""
        for store in self.stores:
            if self._is_inner(store.step) == inner and self.placed.get(store.step) != store.buffer:
                value = self.values[store.step]
                out = Value("buffer", store.buffer, store.span, value.dtype)
                self.actions.append(Action(_copied, out, (value,)))


NOT_COMPUTED = ("load", "const", "size", "index")


def _copied(sizes: Sizes, part: Part, out: Array, value: Array) -> Sequence[Call]:
    return (partial(np.copyto, out, value, casting="unsafe"),)


class Form(NamedTuple):
    """The function of a step and its arguments, in a cheaper form where there is one."""

    name: str
    args: tuple[int, ...]
    rule: functions.Rule | None = None
    """The rule of a form that has a constant in it."""


def form_of(steps: Sequence[Step], step: Step) -> Form:
    """Return the form of a step."""
    op, args = step.op, step.args
    constants = {at: steps[a].value for at, a in enumerate(args) if steps[a].op == "const"}
    if op == "select":
        return _form_of_select(steps, step, constants)
    if op == "pow" and step.dtype in FLOATS:
        cheap = {2.0: "square", 0.5: "sqrt", -1.0: "reciprocal"}
        name = cheap.get(constants.get(1))  # type: ignore[arg-type]
        return Form(op, args) if name is None else Form(name, args[:1])
    if op in ("maximum", "minimum") and step.dtype in FLOATS and step.span == "each":
        bound = constants.get(1)
        if isinstance(bound, float) and bound == bound:
            ends = (bound, np.inf) if op == "maximum" else (-np.inf, bound)
            return Form("clip", args[:1], partial(functions.clip, low=ends[0], high=ends[1]))
    return Form(op, args)


def _form_of_select(steps: Sequence[Step], step: Step, constants: Mapping[int, Attribute]) -> Form:
    """Return the form of a choice: of a value or 0, or of the larger of a value and 0."""
    condition, _, other = step.args
    if constants.get(2) == 0:
        return Form("select_or_zero", step.args[:2])
    test = steps[condition]
    if constants.get(1) == 0 and test.op == "greater" and test.args[1] == other:
        bound = steps[test.args[0]]
        if bound.op == "const" and bound.value == 0:
            return Form("clip", (other,), partial(functions.clip, low=0.0, high=np.inf))
    return Form("select", step.args)


def action_of(kernel: Kernel, step: Step, form: Form, out: Value, ins: Sequence[Value]) -> Action:
    """Return the action of a step."""
    if step.op in ("sum", "max"):
        return _reduction(kernel, step, out, ins[0])
    if step.op == "product":
        assert isinstance(kernel, Gemm), "only a Gemm has a product"
        work = tuple(Work(dtype, shape) for dtype, shape in products.works(kernel))
        return Action(
            partial(products.multiply, kernel), out, (_raw(kernel.a), _raw(kernel.b)), work
        )
    if step.op == "fetch":
        rule = access.take_rows if ins else access.fetch
        return Action(partial(rule, step), out, (_raw(step.buffer), *ins))
    if step.op == "added":
        assert isinstance(kernel, Loop) and kernel.added is not None
        added = kernel.added
        work = (Work("int64", partial(_places_shape, added)),)
        ins = (_raw(added.rows), _raw(added.indices))
        return Action(partial(access.scatter_add, added), out, tuple(ins), work)
    if step.op == "offset":
        return Action(partial(_offset, step), out)
    if step.op == "philox":
        work = tuple(Work("uint64", partial(_random_shape, i)) for i in range(2))
        return Action(partial(_random, step), out, tuple(ins), work)
    return _elementwise(step, form, out, ins)


def _raw(buffer: str) -> Value:
    """Return a buffer as it is, whatever the kernel's iteration space."""
    return Value("buffer", buffer, "one", "")


def _elementwise(step: Step, form: Form, out: Value, ins: Sequence[Value]) -> Action:
    function = functions.FUNCTIONS[form.name]
    rule = partial(_by_function, form.rule or function.rule)
    work = tuple(Work(dtype or step.dtype, partial(_like, step.span)) for dtype in function.work)
    natural = _natural(form.name, ins)
    if natural in ("", step.dtype):
        return Action(rule, out, tuple(ins), work)
    made = Work(natural, partial(_like, step.span))
    return Action(partial(_converted, rule), out, tuple(ins), (made,))


def _natural(name: str, ins: Sequence[Value]) -> str:
    """Return the dtype that NumPy gives a function's result, or "" if it takes any."""
    ufunc = functions.UFUNCS.get(name)
    if ufunc is None:
        return ""
    types = [np.dtype(value.dtype) for value in ins]
    return str(ufunc.resolve_dtypes((*types, *[None] * ufunc.nout))[-1])


def _like(span: Span, sizes: Sizes, part: Part) -> tuple[int, ...]:
    return sizes.shape(span, part)


def _by_function(
    rule: functions.Rule, sizes: Sizes, part: Part, out: Array, *arrays: Array
) -> Sequence[Call]:
    return rule(out, *arrays)


def _converted(
    rule: Callable[..., Sequence[Call]], sizes: Sizes, part: Part, out: Array, *arrays: Array
) -> Sequence[Call]:
    """Return the calls of a rule whose result has another dtype than the step."""
    *ins, made = arrays
    return *rule(sizes, part, made, *ins), *functions.cast(out, made)


def _reduction(kernel: Kernel, step: Step, out: Value, x: Value) -> Action:
    ufunc = np.add if step.op == "sum" else np.maximum
    ones = step.op == "sum" and step.dtype in FLOATS and x.span == "each"
    work = (Work(step.dtype, partial(_ones_shape, str(step.value))),) if ones else ()
    return Action(partial(_reduced, ufunc, str(step.value)), out, (x,), work)


def _ones_shape(axis: str, sizes: Sizes, part: Part) -> tuple[int, ...]:
    """Return the shape of the ones that a sum is a product with; there are none for one row."""
    rows, columns = part.height * prod(sizes.places), part.width
    if rows == 1 or columns == 1:
        return (0,)
    return (columns,) if axis == "columns" else (rows,)


def _reduced(
    ufunc: np.ufunc, axis: str, sizes: Sizes, part: Part, out: Array, x: Array, *work: Array
) -> Sequence[Call]:
    """Return the calls that reduce an axis; a sum is a product with ones, which is quicker."""
    whole = np.broadcast_to(x, sizes.shape("each", part))
    if work and work[0].size and whole.flags.c_contiguous and out.flags.c_contiguous:
        (ones,) = work
        matrix = whole.reshape(-1, whole.shape[-1])
        left, right = (matrix, ones) if axis == "columns" else (ones, matrix)
        return partial(ones.fill, 1), partial(left.dot, right, out.reshape(-1))
    axes = (whole.ndim - 1,) if axis == "columns" else tuple(range(whole.ndim - 1))
    return (partial(ufunc.reduce, whole, axes, out.dtype, out, keepdims=True),)


def _offset(step: Step, sizes: Sizes, part: Part, out: Array) -> Sequence[Call]:
    """Return the call that writes the place of each row within its tile of places."""
    assert isinstance(step.value, tuple), "the value is the tile"
    found = np.zeros((1,) * len(sizes.places), np.int64)
    for axis, (size, tile) in enumerate(zip(sizes.places, step.value, strict=True)):
        shape = [-1 if i == axis else 1 for i in range(len(sizes.places))]
        found = found * tile + (np.arange(size) % tile).reshape(shape)
    return (partial(np.copyto, out, found[None, ..., None], casting="unsafe"),)


def _places_shape(added: Added, sizes: Sizes, part: Part) -> tuple[int, int]:
    return dim_at(added.count, sizes.n), sizes.columns


def _random_shape(number: int, sizes: Sizes, part: Part) -> tuple[int, ...]:
    return mask_scratch(part.height * prod(sizes.places), part.width)[number][0]


def _random(
    step: Step, sizes: Sizes, part: Part, out: Array, seed: Array, draws: Array, *rest: Array
) -> Sequence[Call]:
    """Return the call that writes the random words of a part."""
    first, scratch = rest[:-2], rest[-2:]
    words = out.reshape(-1, out.shape[-1])
    row = part.rows.start * prod(sizes.places)
    assert isinstance(step.value, int), "the value is the stream"
    return (partial(_fill, words, step.value, row, scratch, seed, draws, *first),)


def _fill(words: Array, stream: int, row: int, scratch: Sequence[Array], *keys: Array) -> None:
    seed, draws, *first = (int(key.item()) for key in keys)
    fill_words(words, seed, stream, draws, scratch, sum(first) + row)
