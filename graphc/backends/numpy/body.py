"""The plan of a kernel's body: its steps as actions in order, and the memory of each value.

Steps that do not depend on elements are computed once, the others part by part, so that
intermediate values stay in the cache.  A value is computed in the buffer that it is stored to if
nothing reads that later, else in a temporary that several values use in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from graphc.backends.numpy import access, functions
from graphc.backends.numpy.actions import Action, action_of, copied, form_of
from graphc.backends.numpy.values import Part, Sizes, Value
from graphc.ir.expr import Broadcast, Step, Store
from graphc.ir.tensor_type import ITEMSIZE, Batch, align
from graphc.kernels.kernel import BatchedGemm, Convolution, Gemm, Loop, Single

PART = 1 << 15
"""The elements of a part of a loop: a few values of that size fit into a core's own cache."""
PRODUCT_PART = 1 << 16
"""The elements of a part of a product."""
PRODUCT_ROWS = 256
"""The fewest rows of a part of a product."""
NOT_COMPUTED = ("load", "const", "size", "index", "offset")
"""The steps whose values need no call."""
Shared = tuple[tuple[str, str, str], ...]
"""Pairs of buffers that share bytes, the second of them written, and "same" or "part"."""


@dataclass(frozen=True, slots=True, eq=False)
class BodyPlan:
    """The actions of a kernel that run once, part by part and last, and its temporaries.

    The first `whole` temporaries hold whole values, the others parts.
    """

    kernel: Single
    shared: Shared
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
            offset += align(prod(sizes.shape(value.broadcast, part)) * ITEMSIZE[value.dtype])
        offsets.append(offset)
        work = [
            sum(align(prod(w.shape(sizes, p)) * ITEMSIZE[w.dtype]) for w in action.work)
            for actions, p in ((self.once, sizes.whole), (self.parts, largest))
            for action in actions
        ]
        return offsets, offset + max(work, default=0)


def _cuts(kernel: Single, actions: Sequence[Action], sizes: Sizes, most: Sizes) -> Iterator[Part]:
    """Yield the parts of an iteration space, cut on an axis that is not reduced.

    The cut depends on the most rows alone, so that fewer rows never need more memory.
    """
    whole = sizes.whole
    limit, fewest = PART, 1
    if isinstance(kernel, Gemm):  # a product of fewer rows takes as long
        limit, fewest = PRODUCT_PART, 1 if kernel.places else PRODUCT_ROWS
    axes = {step.value for step in kernel.body.steps if step.op in ("sum", "max")}
    line = prod(most.places) * most.columns
    if len(actions) < 2 or most.lines * line <= limit or not _may_cut(kernel):
        yield whole
    elif "rows" not in axes and most.lines > 1:
        step = max(limit // max(line, 1), fewest)
        for start in range(0, max(sizes.lines, 1), step):
            yield Part(slice(start, min(start + step, sizes.lines)), whole.columns)
    elif axes <= {"rows"} and isinstance(kernel, Loop) and not kernel.places and most.rows <= 64:
        step = max(limit // most.rows, 1)
        for start in range(0, sizes.columns, step):
            yield Part(whole.rows, slice(start, min(start + step, sizes.columns)))
    else:
        yield whole


def _may_cut(kernel: Single) -> bool:
    if isinstance(kernel, Convolution):
        return not kernel.trans_a
    if isinstance(kernel, Gemm):
        return not isinstance(kernel, BatchedGemm)
    drawn = any(step.op == "philox" for step in kernel.body.steps)
    return not (drawn and kernel.rows == 1)


def plan_body(kernel: Single, shared: Shared) -> BodyPlan:
    """Return the plan of a kernel; `shared` lists its buffers that share bytes."""
    return _Planning(kernel, shared).plan()


class Read(NamedTuple):
    """A read of a buffer: its position in the order, and its broadcast kind.

    The kind is None if a step reads other elements than its own; `over` allows it to overwrite it.
    """

    position: int
    buffer: str
    broadcast: Broadcast | None = None
    over: bool = False


class _Planning:
    """The plan of a body under construction."""

    def __init__(self, kernel: Single, shared: Shared) -> None:
        self.kernel, self.shared = kernel, shared
        self.overlaps: dict[str, dict[str, str]] = {}
        """For each written buffer, those that share bytes with it: "same" or "part"."""
        for one, written, how in shared:
            self.overlaps.setdefault(written, {})[one] = how
        self.steps, self.stores = kernel.body.steps, kernel.body.stores
        self.forms = [form_of(self.steps, step) for step in self.steps]
        needed = self._needed()
        inner = self._inner_steps() & needed
        self.order = sorted(needed, key=lambda i: (i in inner, i))
        self.position = {i: p for p, i in enumerate(self.order)}
        self.inner = len(needed - inner)
        """The position of the first step that is computed part by part."""
        self.end = len(self.order)
        self.views = {i for i, step in enumerate(self.steps) if self._is_view(step)}
        """The gathers that are a view of the buffer."""
        self.last = self._last_uses()
        self.reads: dict[str, list[Read]] = {}
        """The reads of each buffer."""
        for read in self._reads():
            self.reads.setdefault(read.buffer, []).append(read)
        self.placed: dict[int, str] = {}
        self.kept: dict[int, Value] = {}
        """The temporaries of values that are only loaded and stored, but overwritten in between."""
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
        self._keep_overwritten_values()
        once, whole = tuple(self.actions), len(self.temporaries)
        self.actions, self.free = [], {}
        for i in self.order[self.inner :]:
            self._compute(i)
        self._store_copies(inner=True)
        parts, self.actions = tuple(self.actions), []
        self._store_copies(inner=False)  # parts may read what these overwrite
        last, temporaries = tuple(self.actions), tuple(self.temporaries)
        return BodyPlan(self.kernel, self.shared, once, parts, last, temporaries, whole)

    # ------------------------------------------------------------------ order

    def _inner_steps(self) -> set[int]:
        """Return the steps that are computed part by part: those that depend on elements."""
        found: set[int] = set()
        for i, step in enumerate(self.steps):
            reduced = step.op in ("sum", "max") and self.steps[step.args[0]].broadcast == "each"
            if step.broadcast == "each" or reduced or not found.isdisjoint(step.args):
                found.add(i)
        return found

    def _needed(self) -> set[int]:
        """Return the steps that stores need: a cheaper form may do without an argument."""
        found: set[int] = set()
        todo = [store.step for store in self.stores]
        while todo:
            i = todo.pop()
            if i not in found:
                found.add(i)
                todo.extend(self.forms[i].args)
        return found

    def _last_uses(self) -> dict[int, int]:
        """Return the position of the last step that uses each value."""
        last: dict[int, int] = {}
        for p, i in enumerate(self.order):
            for arg in self.forms[i].args:
                last[arg] = p
        last.update((store.step, self.end) for store in self.stores)
        return last

    def _reads(self) -> Iterator[Read]:
        for p, i in enumerate(self.order):
            (name, args, _), step = self.forms[i], self.steps[i]
            for buffer in self._whole_reads(step):
                yield Read(p, buffer)
            function = functions.function(name)
            for at, arg in enumerate(args):
                operand = self.steps[arg]
                if arg in self.views:
                    yield Read(p, operand.buffer)
                elif operand.op == "load":
                    over = function is not None and at in function.over
                    yield Read(p, operand.buffer, operand.broadcast, over)
        for store in self.stores:
            if self.steps[store.step].op == "load" or store.step in self.views:
                yield Read(self.end, self.steps[store.step].buffer)

    def _whole_reads(self, step: Step) -> Sequence[str]:
        """Return the buffers that a step reads at other elements than its own."""
        if step.op == "fetch":
            return (step.buffer,)  # users of a view read it once more
        if step.op in ("product", "scatter_add"):
            return [operand.buffer for operand in self.kernel.operands]
        return ()

    # ------------------------------------------------------------------ placement

    def _place(self, i: int, store: Store) -> None:
        """Place a value in the buffer it is stored to, and its dying operands, if possible."""
        alike = self._shape(self.steps[i].broadcast) == self._shape(store.broadcast)
        if not alike or i in self.placed or not self._may_compute_in(i, store):
            return
        at: int | None = i
        while at is not None:
            self.placed[at] = store.buffer
            at = self._placeable_operand(at, store)

    def _shape(self, broadcast: Broadcast) -> tuple[bool, bool]:
        """Return whether a value of a broadcast kind has several rows, and several columns."""
        rows, columns = self.kernel.space
        return (
            broadcast in ("each", "row") and rows != 1,
            broadcast in ("each", "column") and columns != 1,
        )

    def _placeable_operand(self, i: int, store: Store) -> int | None:
        """Return an operand that a step, its last user, may overwrite, or None."""
        args = self.forms[i].args
        for at in self._over(i):
            if at >= len(args) or args.count(args[at]) > 1:
                continue
            arg, mine = self.steps[args[at]], self.steps[i]
            alike = (arg.broadcast, arg.dtype) == (mine.broadcast, mine.dtype)
            together = self._is_inner(args[at]) == self._is_inner(i)
            dies = self.last[args[at]] == self.position[i] and args[at] not in self.placed
            if alike and together and dies and self._may_compute_in(args[at], store):
                return args[at]
        return None

    def _over(self, i: int) -> Sequence[int]:
        """Return the arguments that a step may overwrite; NumPy is slow to overwrite one number."""
        function = functions.function(self.forms[i].name)
        one = not any(self._shape(self.steps[i].broadcast))
        return () if function is None or one else function.over

    def _may_compute_in(self, i: int, store: Store) -> bool:
        """Return whether a value may be computed in a buffer, because nothing reads that later.

        Earlier steps of the same parts may read only the elements that are overwritten.
        """
        own, inner = self.position[i], self._is_inner(i)
        if self.steps[i].op in NOT_COMPUTED or i in self.views:
            return False
        for buffer, how in self.overlaps.get(store.buffer, {}).items():
            for read in self.reads.get(buffer, ()):
                before = read.position < own
                if before and not (inner and read.position >= self.inner):
                    continue
                if (
                    read.position > own
                    or how != "same"
                    or read.broadcast != self.steps[i].broadcast
                ):
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
        step, args = self.steps[i], self.forms[i].args
        if i in self.placed:
            return Value("buffer", self.placed[i], step.broadcast, step.dtype)
        for at in self._over(i):
            if at < len(args) and self._dies(args[at], i) and args.count(args[at]) == 1:
                value = self.values[args[at]]
                if value[2:] == (step.broadcast, step.dtype):
                    self.last[args[at]] = -1  # so that it is not freed
                    return value
        return self._temporary(step)

    def _dies(self, arg: int, i: int) -> bool:
        """Return whether a step is the last use of a temporary of its own phase."""
        here = self._is_inner(arg) == self._is_inner(i)
        dies = self.last[arg] == self.position[i]
        return here and dies and self.values[arg].memory == "temporary"

    def _number(self, arg: int) -> int:
        key = self.values[arg].key
        assert isinstance(key, int), "a temporary has a number"
        return key

    def _temporary(self, step: Step) -> Value:
        free = self.free.get((step.broadcast, step.dtype))
        if free:
            return Value("temporary", free.pop(), step.broadcast, step.dtype)
        value = Value("temporary", len(self.temporaries), step.broadcast, step.dtype)
        self.temporaries.append(value)
        return value

    # ------------------------------------------------------------------ actions

    def _compute(self, i: int) -> None:
        """Record the memory of a step's value, and add the action that computes it, if any."""
        step, form = self.steps[i], self.forms[i]
        source = self._source(i)
        if source is not None:
            self.values[i] = source
        elif step.op == "const":
            assert isinstance(step.value, (int, float)), "a constant is a number"
            self.values[i] = Value("number", step.value, "one", step.dtype)
        elif step.op == "size":
            assert isinstance(step.value, (Batch, str)), "the value is what the size is of"
            self.values[i] = Value("size", step.value, "one", step.dtype)
        elif step.op == "index":
            self.values[i] = Value("index", "", step.broadcast, step.dtype)
        elif step.op == "offset":
            self.values[i] = Value("index", step, self._kind_of_users(i), step.dtype)
        else:
            ins = [self.values[arg] for arg in form.args]
            out = self.values[i] = self._out(i)
            self.actions.append(action_of(self.kernel, step, form, out, ins))
            for arg in set(form.args):
                if self._dies(arg, i):
                    key = self.values[arg].broadcast, self.values[arg].dtype
                    self.free.setdefault(key, []).append(self._number(arg))

    def _keep_overwritten_values(self) -> None:
        """Copy loaded values to temporaries if stores overwrite them before they are stored."""
        for store in self.stores:
            source = self._source(store.step)
            written = [other.buffer for other in self.stores if other is not store]
            read = self.steps[store.step].buffer
            overwritten = any(read in self.overlaps.get(buffer, ()) for buffer in written)
            if source is not None and overwritten and store.step not in self.kept:
                out = self.kept[store.step] = self._temporary(self.steps[store.step])
                self.actions.append(Action(copied, out, (source,)))

    def _kind_of_users(self, i: int) -> Broadcast:
        """Return the broadcast kind of an offset: "each" if all users have it and it is quicker."""
        users = {
            s.broadcast for k in self.order for s in [self.steps[k]] if i in self.forms[k].args
        }
        stored = any(store.step == i for store in self.stores)
        columns = self.kernel.columns if isinstance(self.kernel, Loop) else 0
        few = isinstance(columns, int) and columns < access.SHORT
        return "each" if few and users == {"each"} and not stored else self.steps[i].broadcast

    def _source(self, i: int) -> Value | None:
        """Return the memory of a value that is only loaded or viewed; None if it is computed."""
        step = self.steps[i]
        if i in self.views:
            return Value("gathered", step, step.broadcast, step.dtype)
        if step.op == "load":
            return Value("buffer", step.buffer, step.broadcast, step.dtype)
        return None

    def _store_copies(self, inner: bool) -> None:
        """Copy the values that were not computed in the buffer that they are stored to."""
        for store in self.stores:
            if self._is_inner(store.step) == inner and self.placed.get(store.step) != store.buffer:
                value = self.kept.get(store.step) or self.values[store.step]
                out = Value("buffer", store.buffer, store.broadcast, value.dtype)
                self.actions.append(Action(copied, out, (value,)))
