"""Run a plan: state, workspace, and the programs bound to them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from graphc.backends.numpy.bind import Call, bind
from graphc.errors import FeedError, StateError
from graphc.feeds import Feed, FeedCheck
from graphc.loc import caller_loc
from graphc.op import Array
from graphc.parameters import Hyper, Parameters
from graphc.plan import Plan, Program
from graphc.state import State, readonly
from graphc.workspace import Workspace

BOUND_BATCHES = 64
"""How many batch sizes of a program stay bound."""


@dataclass(frozen=True, slots=True)
class _Bound:
    """A program bound to memory for one batch size."""

    program: Program
    n: int
    calls: list[Call]
    border: int
    feeds: dict[str, Array]
    outputs: dict[str, Array]
    gradients: dict[str, Array]
    losses: list[Array]


class _Entry:
    """The border of a run.  A class, since a generator costs a microsecond a step."""

    __slots__ = ("_ex", "_quiet")

    def __init__(self, ex: Executor) -> None:
        self._ex = ex
        self._quiet = np.errstate(all="ignore")  # overflow is the model's business, not a warning

    def __enter__(self) -> None:
        ex = self._ex
        if not ex._busy.acquire(blocking=False):
            raise StateError(
                "this executor is running in another thread",
                loc=caller_loc(),
                hint="make one executor a thread: gc.Executor(plan, state=ex.state)",
            )
        if ex._broken:
            ex._busy.release()
            raise StateError(
                "an earlier step failed half-way, so the state cannot be trusted",
                loc=caller_loc(),
                hint="assign a good one: ex.state = saved_state",
            )
        ex._state.lock.acquire()
        self._quiet.__enter__()

    def __exit__(self, *error: object) -> None:
        self._quiet.__exit__(None, None, None)
        self._ex._state.lock.release()
        self._ex._busy.release()


class Executor:
    """Owns state and buffers, and runs the programs of a plan.

    One call at a time: a second thread is refused.  Executors of one plan are independent;
    those that share a state take turns.
    """

    def __init__(self, plan: Plan, *, seed: int = 0, state: State | None = None) -> None:
        if not isinstance(plan, Plan):
            raise StateError(
                f"Executor takes a plan, not {type(plan).__name__}",
                loc=caller_loc(),
                hint="compile the net first: plan = gc.compile(net, batch=128)",
            )
        self.plan = plan
        if state is None:
            self._state = State(plan.state_nodes, _seed(seed))
        else:
            self._state = state
            state.extend(plan.state_nodes)
        self._workspace = Workspace(plan.programs, plan.batch, self._state)
        self._bound: OrderedDict[tuple[str, int, frozenset[str]], _Bound] = OrderedDict()
        self._checks: dict[str, FeedCheck] = {}
        self._busy = threading.Lock()
        self._broken = False
        self._saved: _Bound | None = None
        self._last: Mapping[str, Array] = {}

    # ------------------------------------------------------------------ state

    @property
    def state(self) -> State:
        """Everything that lasts between steps; share it with `Executor(plan, state=...)`."""
        return self._state

    @state.setter
    def state(self, values: Mapping[str, Any]) -> None:
        self._state.assign(values)
        self._broken = False
        self._saved = None

    @property
    def parameters(self) -> Parameters:
        """The parameters by name."""
        return Parameters(self._state, self.plan.parameter_names)

    @property
    def hyper(self) -> Hyper:
        """The hyper-parameters of the optimizer by name."""
        return Hyper(self._state)

    @property
    def values(self) -> Mapping[str, Array]:
        """Copies of the outputs of the last run, by name."""
        return MappingProxyType({name: readonly(array) for name, array in self._last.items()})

    @property
    def nbytes(self) -> int:
        """The bytes that this executor holds, its state included."""
        return self._workspace.nbytes + self._state.nbytes

    def snapshot(self) -> dict[str, Array]:
        """Copies of all that lasts between steps and that the plan needs, of one moment.

        StateError when an earlier step failed half-way or another thread is running.
        """
        with self._entered():
            return {name: self._state.arrays[name].copy() for name in self.plan.state_nodes}

    def __reduce__(self) -> tuple[Any, ...]:
        from graphc.serialize import pickled

        return pickled(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Executor:
        """A twin with the same plan; copies of executors that share a state share one."""
        shared = memo.get(id(self._state))
        twin = Executor(self.plan, seed=self._state.seed, state=shared)
        twin._state.assign(self.snapshot())
        memo[id(self._state)] = twin._state
        return twin

    # ------------------------------------------------------------------ running

    def forward(
        self,
        feeds: Mapping[str, Any] | None = None,
        /,
        *,
        train: bool = False,
        copy: bool = True,
        **by_name: Any,
    ) -> dict[str, Array]:
        """Every output and loss that the feeds determine, by name.

        Inference leaves dropout out and uses running statistics; inputs that only a loss
        needs may be missing.  With `train=True` batch statistics and masks are used, running
        statistics and the counter of draws advance, and `backward` may follow.  Results are
        copies; with `copy=False` they are views that the next run overwrites.

        Raises FeedError when an array does not fit.
        """
        program = self._program("grad" if train else "infer")
        given = {**(feeds or {}), **by_name}
        with self._entered():
            bound = self._load(program, given, optional=not train)
            calls = bound.calls[: bound.border] if train else bound.calls
            self._run(calls, writes=train)
            self._saved = bound if train else None
            self._last = bound.outputs
            return {k: v.copy() if copy else v for k, v in bound.outputs.items()}

    def backward(self, **cotangents: Any) -> dict[str, Array]:
        """The gradients of the sum of the losses, by name of parameter; copies.

        Follows `forward(train=True)`.  With cotangents by output name (arrays of the outputs'
        shapes) it is those outputs that are differentiated.  StateError when nothing is saved.
        """
        with self._entered():
            saved = self._saved
            if saved is None:
                raise StateError(
                    "backward: there is no forward pass to go back through",
                    loc=caller_loc(),
                    hint="call ex.forward(..., train=True) first; any other run discards it",
                )
            if cotangents:
                return self._backward_from(saved, cotangents)
            if not saved.gradients:
                raise StateError(
                    "backward: the plan has no gradients",
                    loc=caller_loc(),
                    hint="declare a loss, or give cotangents: ex.backward(scores=d)",
                )
            self._run(saved.calls[saved.border :], writes=False)
            return {name: array.copy() for name, array in saved.gradients.items()}

    def update(self, gradients: Mapping[str, Any] | None = None) -> None:
        """Let the optimizer update the parameters.

        By the gradients of the last `backward`, by those given by name, or by the ones
        accumulated so far.  StateError when the plan has no optimizer or nothing is there.
        """
        program = self._program("apply")
        with self._entered():
            if gradients is not None:
                self._set_gradients(gradients)
            elif not self._gradients_ready(program):
                raise StateError(
                    "update: there are no gradients",
                    loc=caller_loc(),
                    hint="call ex.backward() first, or pass them: ex.update({name: array})",
                )
            bound = self._bind(program, 1, frozenset())
            self._run(bound.calls, writes=True)
            self._saved = None

    def step(self, feeds: Mapping[str, Any] | None = None, /, **by_name: Any) -> float:
        """Forward, backward and update on one batch; returns the sum of the losses.

        With `accumulate=k` in the optimizer the update follows every k-th step.
        StateError when the plan has no optimizer, FeedError when an array does not fit.
        """
        accumulate = self.plan.accumulate
        program = self._program("accumulate" if accumulate > 1 else "step")
        given = by_name if feeds is None else {**feeds, **by_name}
        with self._entered():
            bound = self._load(program, given)
            self._run(bound.calls, writes=True)
            self._saved = None
            self._last = bound.outputs
            loss = float(bound.losses[0] if len(bound.losses) == 1 else sum(bound.losses))
            if accumulate > 1 and int(self._state.arrays["accumulated"]) >= accumulate:
                # the update takes the arena that the outputs lie in
                self._last = {name: array.copy() for name, array in bound.outputs.items()}
                self._run(self._bind(self._program("apply"), 1, frozenset()).calls, writes=True)
            return loss

    # ------------------------------------------------------------------ many rows

    def rows(self, data: Any, *, train: bool) -> tuple[dict[str, Array], int]:
        """Arrays by input, checked and converted, and how many rows they have: any number.

        `data` is an array, a tuple in the order of the declared inputs, or a mapping by name.
        For training every input that a step reads is needed, otherwise those for the losses.
        Raises FeedError.
        """
        step = "accumulate" if self.plan.accumulate > 1 else "step"
        check = self._check(self._program(step if train else "infer"))
        return check.arrays(self._positional((data,), {}), optional=not train, limit=False)

    def predict(self, *arrays: Any, **by_name: Any) -> Any:
        """The outputs for any number of rows: an array, or a dict when there are several.

        Arrays by position are those of the inputs in declared order.  Losses are left out.
        """
        feeds = self._positional(arrays, by_name)
        parts = [
            {k: v for k, v in out.items() if k not in self.plan.losses}
            for _, out in self._batches(feeds)
        ]
        if not parts[0]:
            raise FeedError("predict: the feeds determine no output", loc=caller_loc())
        joined = {k: _join([part[k] for part in parts]) for k in parts[0]}
        return next(iter(joined.values())) if len(joined) == 1 else joined

    def evaluate(self, *arrays: Any, **by_name: Any) -> dict[str, float]:
        """The mean over all rows of each loss and of each other scalar output, by name."""
        feeds = self._positional(arrays, by_name)
        totals: dict[str, float] = {}
        rows = 0
        for n, out in self._batches(feeds):
            rows += n
            for name, array in out.items():
                if array.ndim == 0:
                    totals[name] = totals.get(name, 0.0) + n * float(array)
        return {name: total / rows for name, total in totals.items()}

    def _positional(self, arrays: tuple[Any, ...], by_name: Mapping[str, Any]) -> dict[str, Any]:
        if len(arrays) == 1 and isinstance(arrays[0], Mapping):
            return {**arrays[0], **by_name}
        if len(arrays) == 1 and isinstance(arrays[0], tuple):
            arrays = arrays[0]
        names = list(self.plan.input_names)
        if len(arrays) > len(names):
            raise FeedError(
                f"{len(arrays)} arrays for {len(names)} inputs: {', '.join(names)}",
                loc=caller_loc(),
            )
        return {**dict(zip(names, arrays, strict=False)), **by_name}

    def _batches(self, feeds: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Array]]]:
        """Runs inference on pieces of at most the planned batch."""
        program = self._program("infer")
        check = self._check(program)
        arrays, rows = check.arrays(feeds, optional=True, limit=False)
        for start in range(0, rows, self.plan.batch):
            stop = min(start + self.plan.batch, rows)
            piece = {k: self._rows(program, k, v, start, stop) for k, v in arrays.items()}
            yield stop - start, self.forward(piece)

    def _rows(self, program: Program, name: str, array: Array, start: int, stop: int) -> Array:
        axis, factor = _batch_axis(program, name)
        if factor == 0:
            return array
        index = [slice(None)] * array.ndim
        index[axis] = slice(start * factor, stop * factor)
        return array[tuple(index)]

    # ------------------------------------------------------------------ frozen plans

    def refresh(self, other: Executor) -> None:
        """Take over the parameters of another executor of the net; for frozen plans.

        Nothing is scheduled or planned again: only the constants are computed anew.
        """
        from graphc.freeze import refreshed

        plan = refreshed(self.plan, other)
        with self._entered():
            self._workspace.load_constants(plan.programs["infer"])
            self.plan = plan
            self._saved = None

    # ------------------------------------------------------------------ inside

    def _program(self, name: str) -> Program:
        if name in self.plan.programs:
            return self.plan.programs[name]
        if name == "grad":
            reason, hint = "the plan is for inference only", "compile the net again, without freeze"
        else:
            reason = "the plan has no optimizer"
            hint = "gc.compile(net, batch=..., optimizer=gc.SGD(lr=0.1))"
        raise StateError(f"{name}: {reason}", loc=caller_loc(), hint=hint)

    def _check(self, program: Program) -> FeedCheck:
        check = self._checks.get(program.name)
        if check is None:
            feeds = {
                name: Feed(program.graph[name], program.index_bounds.get(name))
                for name in program.feeds
            }
            known = (*self.plan.input_names, *feeds)
            check = self._checks[program.name] = FeedCheck(feeds, known, self.plan.batch)
        return check

    def _load(
        self, program: Program, feeds: Mapping[str, Any], optional: bool = False
    ) -> _Bound:
        arrays, n = self._check(program).arrays(feeds, optional=optional)
        missing = frozenset(program.feeds.keys() - arrays.keys()) if optional else frozenset()
        bound = self._bind(program, n, missing)
        if optional and not bound.outputs:
            names = ", ".join(sorted(missing))
            raise FeedError(f"no output can be computed without {names}", loc=caller_loc())
        for name, array in arrays.items():
            np.copyto(bound.feeds[name], array)
        return bound

    def _bind(self, program: Program, n: int, missing: frozenset[str]) -> _Bound:
        key = (program.name, n, missing)
        bound = self._bound.get(key)
        if bound is None:
            bound = self._bound[key] = self._make_bound(program, n, missing)
            if len(self._bound) > BOUND_BATCHES:
                self._bound.popitem(last=False)
        return bound

    def _make_bound(self, program: Program, n: int, missing: frozenset[str]) -> _Bound:
        def view(name: str) -> Array:
            return self._workspace.view(program, name, n)

        unknown = program.graph.downstream(missing) if missing else set()
        skip = frozenset(i for i, instr in enumerate(program.instrs) if instr.node in unknown)
        calls, border = bind(program, n, view, skip)
        outputs = {k: view(v) for k, v in program.outputs.items() if v not in unknown}
        return _Bound(
            program,
            n,
            calls,
            border,
            {name: view(name) for name in program.feeds if name not in missing},
            outputs,
            {wrt: view(name) for wrt, name in program.gradients.items()},
            [outputs[name] for name in program.graph.losses if name in outputs],
        )

    def _run(self, calls: list[Call], writes: bool) -> None:
        try:
            for call in calls:
                call()
        except BaseException:
            self._broken = self._broken or writes
            self._saved = None
            raise

    def _entered(self) -> _Entry:
        """Refuse a second concurrent call, and hold the state while inside."""
        return _Entry(self)

    def _backward_from(self, saved: _Bound, cotangents: Mapping[str, Any]) -> dict[str, Array]:
        program = self.plan.cotangent_program(tuple(sorted(cotangents)))
        workspace = Workspace({program.name: program}, self.plan.batch, self._state)
        feeds = {name: array.copy() for name, array in saved.feeds.items()}
        feeds.update({f"cotangent:{name}": value for name, value in cotangents.items()})
        check = FeedCheck(
            {name: Feed(program.graph[name], None) for name in program.feeds}, feeds, self.plan.batch
        )
        arrays, n = check.arrays(feeds)
        if n != saved.n and any(program.feeds[f"cotangent:{name}"].batched for name in cotangents):
            raise FeedError(f"the cotangents have {n} rows, the forward pass {saved.n}")

        def view(name: str) -> Array:
            return workspace.view(program, name, saved.n)

        calls, _ = bind(program, saved.n, view)
        for name, array in arrays.items():
            np.copyto(view(name), array)
        draws = self._state.arrays.get("draws")
        if draws is not None:
            draws -= 1  # the masks of the forward pass that is differentiated
        try:
            self._run(calls, writes=False)
        finally:
            if draws is not None:
                draws += 1
        return {wrt: view(name).copy() for wrt, name in program.gradients.items()}

    def _gradients_ready(self, apply: Program) -> bool:
        if self.plan.accumulate > 1:
            return int(self._state.arrays["accumulated"]) > 0
        return self._saved is not None and bool(self._saved.gradients)

    def _set_gradients(self, gradients: Mapping[str, Any]) -> None:
        program = self._program("grad")
        self._workspace.attach_gradients(program)
        wanted = program.gradients.keys()
        if gradients.keys() != wanted:
            odd = ", ".join(sorted(gradients.keys() ^ wanted))
            raise FeedError(
                f"update: one gradient for each trained parameter is needed; see {odd}",
                loc=caller_loc(),
            )
        fitted = {}
        for name, value in gradients.items():
            view = self._workspace.view(program, program.gradients[name], 1)
            array = np.asarray(value)
            if array.shape != view.shape or array.dtype.kind not in "fiu":
                raise FeedError(
                    f"update: the gradient of {name!r} has shape {array.shape}, "
                    f"the parameter {view.shape}",
                    loc=caller_loc(),
                )
            fitted[name] = array
        for name, array in fitted.items():
            np.copyto(self._workspace.view(program, program.gradients[name], 1), array)


def _seed(seed: int) -> int:
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool):
        raise StateError(f"seed is a whole number, not {seed!r}", loc=caller_loc())
    return int(seed)


def _batch_axis(program: Program, name: str) -> tuple[int, int]:
    from graphc.tensor_type import Batch

    for axis, dim in enumerate(program.feeds[name].shape):
        if isinstance(dim, Batch):
            return axis, dim.factor
    return 0, 0


def _join(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 or parts[0].ndim == 0 else np.concatenate(parts)
