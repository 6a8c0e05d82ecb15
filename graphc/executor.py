"""Run a plan: state, workspace, and the programs bound to them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from graphc.backends.numpy.bind import Call
from graphc.errors import StateError
from graphc.loc import caller_loc
from graphc.missing import Missing
from graphc.op import Array
from graphc.plan import Plan, Program
from graphc.runtime import refusals
from graphc.runtime.bound import Binder, Bound
from graphc.runtime.cotangents import CotangentRun, StatesSeen
from graphc.runtime.direct import Direct, Directs
from graphc.runtime.entry import Entry, quiet_context, run_all
from graphc.runtime.exchange import HOLDS, Exchange, made_exchange
from graphc.runtime.feeds import FeedCheck, gradient_arrays, merged, program_check
from graphc.runtime.many_rows import by_position, evaluate, predict
from graphc.runtime.parameters import Hyper, Parameters
from graphc.runtime.sharded_step import ShardedStep
from graphc.runtime.state import State, readonly
from graphc.runtime.workspace import memory_of

if TYPE_CHECKING:
    from graphc.distributed.communicator import Communicator
    from graphc.profile.executor_profile import Profile


class Executor(Missing):
    """Owns state and buffers, and runs the programs of a plan.

    One call at a time: a second thread is refused.  Executors of one plan are independent;
    those that share a state take turns.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        seed: int = 0,
        state: State | None = None,
        communicator: Communicator | None = None,
    ) -> None:
        if not isinstance(plan, Plan):
            raise refusals.no_plan(plan)
        self.plan = plan
        self._state, self._workspace = memory_of(plan, refusals.checked_seed(seed), state)
        self.exchange = made_exchange(plan, communicator, self._state)
        """What a plan with shards adds up, and with whom."""
        self._binder = Binder(self._workspace, plan.recipe.threads, self.exchange)
        self._checks: dict[str, FeedCheck] = {}
        self._cotangents: dict[tuple[str, ...], CotangentRun] = {}
        self._entry = Entry(self._state)
        self._quiet = quiet_context()
        self._sharded: ShardedStep | None = None
        self._saved: Bound | None = None
        self._seen = StatesSeen(plan, self._state)
        self._differentiated = False
        self._last: Mapping[str, Array] = {}
        native = any(program.backend == "native" for program in plan.programs.values())
        self._parameters = Parameters(self._state, plan.parameter_names, native)
        self._step_name = "accumulate" if plan.accumulate > 1 else "step"
        self._direct = {name: Directs() for name in ("infer", self._step_name, HOLDS)}

    # ------------------------------------------------------------------ state

    @property
    def state(self) -> State:
        """Everything that lasts between steps; share it with `Executor(plan, state=...)`."""
        return self._state

    @state.setter
    def state(self, values: Mapping[str, Any]) -> None:
        self._state.restore(values, self.plan.state_nodes)
        self._forget()

    @property
    def parameters(self) -> Parameters:
        """The parameters by name."""
        return self._parameters

    @property
    def hyper(self) -> Hyper:
        """The hyper-parameters of the optimizer by name."""
        return Hyper(self.plan, self._state)

    @property
    def values(self) -> Mapping[str, Array]:
        """Copies of the outputs of the last run, by name."""
        return MappingProxyType({name: readonly(array) for name, array in self._last.items()})

    @property
    def nbytes(self) -> int:
        """The bytes that this executor holds, its state included."""
        extra = sum(run.workspace.nbytes for run in self._cotangents.values())
        exchanged = 0 if self.exchange is None else self.exchange.nbytes
        return self._workspace.nbytes + extra + exchanged + self._state.nbytes

    def snapshot(self) -> dict[str, Array]:
        """Copies of all that lasts between steps and that the plan needs, of one moment.

        StateError when an earlier step failed half-way or another thread is running.
        """
        with self._entry:
            return {name: self._state.arrays[name].copy() for name in self.plan.state_nodes}

    def __reduce__(self) -> tuple[Any, ...]:
        from graphc.files.serialize import pickled

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
        given = by_name if feeds is None else merged(feeds, by_name)
        if not train and (direct := self._direct["infer"].get(tuple(given))) is not None:
            self._entry.enter()
            try:
                if (bound := self._directly(direct, given, writes=False)) is not None:
                    self._forget()
                    return {k: v.copy() if copy else v for k, v in bound.outputs.items()}
            finally:
                self._entry.leave()
        program = self._program("grad" if train else "infer")
        with self._entry:
            bound = self._load(program, given, optional=not train)
            self._forget()
            if train:
                self._seen.note()
            self._run(bound.calls[: bound.border] if train else bound.calls, writes=train)
            self._saved = bound if train else None
            self._last = bound.outputs
            return {k: v.copy() if copy else v for k, v in bound.outputs.items()}

    def backward(self, **cotangents: Any) -> dict[str, Array]:
        """The gradients of the sum of the losses, by name of parameter; copies.

        Follows `forward(train=True)`; asked again, they are the same.  With cotangents by output
        name (of the outputs' shapes) those are differentiated.  StateError when nothing is saved.
        """
        with self._entry:
            saved = self._saved
            if saved is None:
                raise refusals.no_forward()
            if cotangents:
                return self._backward_from(saved, cotangents)
            if not saved.gradients:
                raise StateError(
                    "backward: the plan has no gradients",
                    loc=caller_loc(),
                    hint="declare a loss, or give cotangents: ex.backward(scores=d)",
                )
            if not self._differentiated:  # once: it overwrites the values of the forward pass
                self._run(saved.calls[saved.border :], writes=False)
                self._differentiated = True
            return {name: array.copy() for name, array in saved.gradients.items()}

    def update(self, gradients: Mapping[str, Any] | None = None) -> None:
        """Let the optimizer update the parameters.

        By the gradients of the last `backward`, or by those given by name; an optimizer that
        accumulates takes those of the steps so far, and no others.  StateError when the plan has
        no optimizer or nothing is there.
        """
        program = self._program("apply")
        accumulates = self.plan.accumulate > 1
        with self._entry:
            if gradients is not None:
                self._set_gradients(program, gradients)
            elif not (self._accumulated() if accumulates else self._differentiated):
                raise refusals.no_gradients(accumulates)
            self._keep_outputs()
            self._run(self._binder.bound(program, 1).calls, writes=True)
            self._forget()

    def step(self, feeds: Mapping[str, Any] | None = None, /, **by_name: Any) -> float:
        """Forward, backward and update on one batch; returns the sum of the losses.

        With `accumulate=k` in the optimizer the update follows every k-th step.
        StateError when the plan has no optimizer, FeedError when an array does not fit.
        """
        given = by_name if feeds is None else merged(feeds, by_name)
        if self.exchange is not None:
            return self._sharded_step(self.exchange, given)
        if (direct := self._direct[self._step_name].get(tuple(given))) is not None:
            self._entry.enter()
            try:
                if (bound := self._directly(direct, given, writes=True)) is not None:
                    self._saved = None
                    return self._stepped(bound)
            finally:
                self._entry.leave()
        program = self._program(self._step_name)
        with self._entry:
            bound = self._load(program, given)
            self._saved = None
            self._run(bound.calls, writes=True)
            self._last = bound.outputs
            return self._stepped(bound)

    def _sharded_step(self, exchange: Exchange, feeds: Mapping[str, Any]) -> float:
        """The shards of this rank; the last one updates."""
        if self._sharded is None:
            last = self._program(self._step_name)
            check = self._check(last)
            self._sharded = ShardedStep(self.plan, last, check, exchange, self._ready, self._run)
        with self._entry:
            self._saved = None
            bound = self._sharded(feeds)
            self._last = bound.outputs
            return self._stepped(bound)

    # ------------------------------------------------------------------ many rows

    def rows(self, data: Any, *, train: bool) -> tuple[dict[str, Array], int]:
        """Arrays by input, checked and converted, and how many rows they have: any number.

        `data` is an array, a tuple in the order of the declared inputs, or a mapping by name.
        For training every input that a step reads is needed, otherwise those for the losses.
        Raises FeedError.
        """
        step = "accumulate" if self.plan.accumulate > 1 else "step"
        check = self._check(self._program(step if train else "infer"))
        feeds = by_position(self.plan.input_names, (data,), {})
        return check.arrays(feeds, optional=not train, limit=False)

    def predict(self, *arrays: Any, **by_name: Any) -> Any:
        """The outputs for any number of rows: an array, or a dict when there are several.

        Arrays by position are those of the inputs in declared order.  Losses are left out, and
        so is in a net with a batch what has no batch dimension.  Raises FeedError.
        """
        return predict(self, arrays, by_name)

    def evaluate(self, *arrays: Any, **by_name: Any) -> dict[str, float]:
        """Each loss and scalar output, by name, of all rows together.

        Means over batches count by their rows or weights, sums are added up.  Of arrays as
        `predict` takes them, or of a folder of `.npz` shards.  Raises FeedError.
        """
        return evaluate(self, arrays, by_name)

    def profile(
        self, feeds: Mapping[str, Any] | None = None, /, *, rounds: int = 20, **by_name: Any
    ) -> Profile:
        """The time of each instruction of a step, or of inference.  Raises FeedError."""
        from graphc.profile.executor_profile import profile

        return profile(self, by_name if feeds is None else merged(feeds, by_name), rounds)

    # ------------------------------------------------------------------ other weights

    def averaged(self) -> Executor:
        """A twin with a state of its own whose parameters are their moving averages.

        They are kept by an optimizer with `ema=`; before its first update they are the parameters.
        StateError where none are kept.
        """
        from graphc.runtime.averaged import averaged

        return averaged(self)

    def refresh(self, other: Executor) -> None:
        """Take over the parameters of another executor of the net; for frozen plans.

        Nothing is scheduled or planned again: only the constants are computed anew.
        """
        from graphc.freeze import refreshed

        plan = refreshed(self.plan, other)
        with self._entry:
            self._workspace.load_constants(plan.programs["infer"])
            self.plan = plan
            self._forget()

    # ------------------------------------------------------------------ inside

    def _program(self, name: str) -> Program:
        if name in self.plan.programs:
            return self.plan.programs[name]
        raise refusals.no_program(name)

    def _check(self, program: Program) -> FeedCheck:
        check = self._checks.get(program.name)
        if check is None:
            check = self._checks[program.name] = program_check(program, self.plan)
        return check

    def _load(self, program: Program, feeds: Mapping[str, Any], optional: bool = False) -> Bound:
        check = self._check(program)
        arrays, n = check.arrays(feeds, optional=optional)
        missing = check.undetermined(arrays) if optional else frozenset()
        bound = self._binder.bound(program, n, missing)
        if optional and not bound.outputs:
            raise refusals.no_output(missing & program.feeds.keys())
        bound.feed(arrays)
        if program.name in self._direct:
            types = {name: self.plan.declared[name].type for name in feeds}
            self._direct[program.name].add(self._binder, bound, types, missing)
        return bound

    def _ready(self, program: Program, feeds: Mapping[str, Any]) -> Bound:
        """A program that reads these arrays where they lie, or copies of them."""
        direct = self._direct[program.name].get(tuple(feeds))
        ready = None if direct is None else direct.ready(feeds)
        return ready or self._load(program, feeds)

    def _directly(self, direct: Direct, feeds: Mapping[str, Any], writes: bool) -> Bound | None:
        """Run on arrays where they lie; None, with nothing run, when that cannot be."""
        bound = direct.ready(feeds)
        if bound is None:
            return None
        if direct.quiet:
            try:
                for call in bound.calls:
                    call()
            except BaseException:  # an interrupt comes before or after a native call, never inside
                self._failed(writes and len(bound.calls) > 1)
                raise
        else:
            self._run(bound.calls, writes)
        self._last = bound.outputs
        return bound

    def _stepped(self, bound: Bound) -> float:
        """The loss of a step that has run; the update, when enough has been accumulated."""
        losses = bound.losses
        loss = float(losses[0] if len(losses) == 1 else sum(losses))
        if self._step_name == "accumulate" and self._accumulated() >= self.plan.accumulate:
            self._keep_outputs()
            self._run(self._binder.bound(self._program("apply"), 1).calls, writes=True)
        return loss

    def _accumulated(self) -> int:
        return int(self._state.arrays[self.plan.step_counter])

    def _run(self, calls: list[Call], writes: bool) -> None:
        try:
            self._quiet.run(run_all, calls)
        except BaseException:
            self._failed(writes)
            raise

    def _failed(self, writes: bool) -> None:
        self._state.broken = self._state.broken or writes
        if self.exchange is not None:
            self.exchange.drop()
        self._forget()

    def _keep_outputs(self) -> None:
        """Copy the last run's outputs: the update takes the arena that they lie in."""
        self._last = {name: array.copy() for name, array in self._last.items()}

    def _forget(self) -> None:
        """What a forward pass saved for backward is there no more."""
        self._saved, self._differentiated = None, False

    def _backward_from(self, saved: Bound, cotangents: Mapping[str, Any]) -> dict[str, Array]:
        outputs = tuple(sorted(cotangents))
        run = self._cotangents.get(outputs)
        if run is None:
            run = self._cotangents[outputs] = CotangentRun(self.plan, outputs, self._state)
        bound = run.bind(saved, cotangents)
        with self._seen:
            self._run(bound.calls, writes=False)
        return {name: array.copy() for name, array in bound.gradients.items()}

    def _set_gradients(self, apply: Program, gradients: Mapping[str, Any]) -> None:
        if self.plan.accumulate > 1:
            raise refusals.accumulates()
        arrays = gradient_arrays(apply, self.plan.wrt, gradients)
        self._workspace.put_gradients(self._program("grad"), apply, arrays)
