"""The executor of a plan: state, workspace, and the programs bound to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from graphc.backends.backend import Call
from graphc.base.arguments import takes
from graphc.base.door import Profile, higher
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.base.other_names import Missing
from graphc.compiler.compile import compile
from graphc.compiler.freeze import frozen_graph, refreshed
from graphc.compiler.plan import Plan
from graphc.ir.op import Array
from graphc.kernels.program import Program
from graphc.runtime import errors
from graphc.runtime.bound import NOTHING, Binder, Bound, Outcome, ZeroCopyPrograms
from graphc.runtime.cotangents import CotangentRuns
from graphc.runtime.distributed.step import sharded_step
from graphc.runtime.entry import Entry, quiet_context, run_all
from graphc.runtime.feeds import FeedCheck, Feeds, gradient_arrays, merged, program_check
from graphc.runtime.parameters import Hyper, Parameters, averaged
from graphc.runtime.rows import by_position, evaluate, predict
from graphc.runtime.state import State
from graphc.runtime.workspace import memory_of

if TYPE_CHECKING:
    from graphc.runtime.distributed.communicator import Communicator


class Executor(Missing):
    """The owner of state and buffers, which runs the programs of a plan.

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
            raise errors.no_plan(plan)
        self.plan = plan
        self._state, self._workspace = memory_of(plan, errors.checked_seed(seed), state)
        self.sharded = sharded_step(plan, communicator, self._state)
        """The step as the shards of this rank; None if the plan has no shards."""
        link = None if self.sharded is None else self.sharded.exchange
        self._binder = Binder(self._workspace, link)
        self._checks: dict[str, FeedCheck] = {}
        self._cotangents = CotangentRuns(plan, self._state)
        self._entry, self._lock = Entry(self._state.lock), self._state.lock
        self._quiet = quiet_context()
        self._outcome = NOTHING
        self._parameters = Parameters(self._state, plan.parameter_names)
        self._step_name = "accumulate" if plan.accumulate > 1 else "step"
        self._zero_copy = {
            name: ZeroCopyPrograms() for name in plan.programs if name not in ("grad", "apply")
        }

    # ------------------------------------------------------------------ state

    @property
    def state(self) -> State:
        """Everything that lasts between steps; share it with `Executor(plan, state=...)`."""
        return self._state

    @state.setter
    def state(self, values: Mapping[str, Any]) -> None:
        forget = partial(setattr, self, "_outcome", NOTHING)
        self._state.restore(values, self.plan.state_nodes, forget)

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
        return self._outcome.copies()

    @property
    def nbytes(self) -> int:
        """The bytes that this executor holds, its state included."""
        parts = self._workspace, self._cotangents, self._state, self.sharded
        return sum(part.nbytes for part in parts if part is not None)

    def snapshot(self) -> dict[str, Array]:
        """Return copies of all that lasts between steps and that the plan needs, of one moment.

        Raise StateError if an earlier step failed half-way or another thread is running.
        """
        return self._entry(self._state.copies, self.plan.state_nodes)

    def __reduce__(self) -> tuple[Any, ...]:
        pickled: tuple[Any, ...] = higher("pickled")(self)
        return pickled

    def __deepcopy__(self, memo: dict[int, Any]) -> Executor:
        """Return a copy with the same plan; copies of executors that share a state share one."""
        shared = memo.get(id(self._state))
        twin = Executor(self.plan, seed=self._state.seed, state=shared)
        twin._state.assign(self.snapshot())
        twin._state.columns = self._state.columns
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
        """Return every output and loss that the feeds determine, by name.

        Inference leaves dropout out and uses running statistics; inputs that only a loss
        needs may be missing.  With `train=True` batch statistics and masks are used, running
        statistics and the counter of draws advance, and `backward` may follow.  Results are
        copies; with `copy=False` they are read-only views that the next run overwrites.

        Raise FeedError if an array does not fit.
        """
        given = by_name if feeds is None else merged(feeds, by_name)
        return self._entry(self._forward, given, train, copy)

    def _forward(self, feeds: Mapping[str, Any], train: bool, copy: bool) -> dict[str, Array]:
        self._lock.begin(writes=train)
        bound = self._ready("grad" if train else "infer", feeds, optional=not train)
        self._outcome = NOTHING
        if train:
            self._cotangents.note()
            self._write(bound.calls[: bound.forward_calls])
            self._outcome = Outcome(bound.outputs, bound)
        else:
            call = bound.only_call
            if call is not None:
                call()
            else:
                self._run(bound.calls)
            self._outcome = bound.outcome
        return {k: v.copy() if copy else v for k, v in bound.outputs.items()}

    def backward(self, **cotangents: Any) -> dict[str, Array]:
        """Return the gradients of the sum of the losses, by name of parameter; copies.

        Follows `forward(train=True)`; further calls return the same.  With cotangents by output
        name (of the outputs' shapes) those are differentiated.  Raise StateError if nothing is
        saved.
        """
        return self._entry(self._backward, cotangents)

    def _backward(self, cotangents: Mapping[str, Any]) -> dict[str, Array]:
        self._lock.begin(writes=False)
        last = self._outcome
        saved = last.saved
        if saved is None:
            raise errors.no_forward()
        if cotangents:
            saved = self._cotangents.bind(saved, cotangents)
            self._run(saved.calls)
            return {name: array.copy() for name, array in saved.gradients.items()}
        if not saved.gradients:
            raise errors.no_losses()
        if not last.differentiated:  # only once: it overwrites the forward values
            self._outcome = NOTHING
            self._run(saved.calls[saved.forward_calls :])
            self._outcome = Outcome(last.outputs, saved, differentiated=True)
        return {name: array.copy() for name, array in saved.gradients.items()}

    def update(self, gradients: Mapping[str, Any] | None = None) -> None:
        """Let the optimizer update the parameters.

        It takes the gradients of the last `backward`, or those given by name; an optimizer that
        accumulates takes those of the steps so far, and no others.  Raise StateError if the plan
        has no optimizer or if there are no gradients.
        """
        program = self._program("apply")
        given = None if gradients is None else gradient_arrays(program, self.plan, gradients)
        self._entry(self._update, program, given)

    def _update(self, program: Program, gradients: Mapping[str, Array] | None) -> None:
        self._lock.begin(writes=True)
        last = self._outcome
        accumulates = self.plan.accumulate > 1
        there = self._accumulated() if accumulates else last.differentiated
        if gradients is None and not there:
            raise errors.no_gradients(accumulates)
        outputs = last.copies()
        self._outcome = NOTHING
        if gradients is not None:
            self._workspace.put_gradients(self._program("grad"), program, gradients)
        self._write(self._binder.bound(program, 1).calls)
        self._outcome = Outcome(outputs)

    def step(self, feeds: Mapping[str, Any] | None = None, /, **by_name: Any) -> float:
        """Run forward, backward and update on one batch; return the sum of the losses.

        With `accumulate=k` in the optimizer the update follows every k-th step.
        Raise StateError if the plan has no optimizer, FeedError if an array does not fit.
        """
        given = by_name if feeds is None else merged(feeds, by_name)
        return self._entry(self._step, given)

    def _step(self, feeds: Mapping[str, Any]) -> float:
        self._lock.begin(writes=True)
        if self.sharded is not None:
            self._program(self._step_name)  # refuses a plan without an optimizer
            self._outcome = NOTHING
            return self._complete(*self.sharded(feeds, self._ready, self._run))
        bound = self._ready(self._step_name, feeds)
        call = bound.only_call
        if call is None or self._step_name == "accumulate":
            return self._complete(bound, bound.calls)
        self._outcome = NOTHING
        call()
        self._outcome = bound.outcome
        return bound.loss

    def _complete(self, bound: Bound, calls: Iterable[Call]) -> float:
        """Make the last calls of a step, an update included if it is due; return the loss."""
        self._outcome = NOTHING
        if self._step_name == "accumulate" and self._accumulated() + 1 >= self.plan.accumulate:
            apply = self._binder.bound(self._program("apply"), 1)
            bound, keep = bound.kept()
            calls = chain(calls, keep, apply.calls)
        self._write(calls)
        self._outcome = bound.outcome
        return bound.loss

    # ------------------------------------------------------------------ many rows

    def rows(self, data: Any, *, train: bool) -> tuple[dict[str, Array], int]:
        """Return checked and converted arrays by input, and their number of rows, without a limit.

        `data` is an array, a tuple in the order of the declared inputs, or a mapping by name.
        For training every input that a step reads is needed, otherwise those for the losses.
        Raise FeedError if an array does not fit.
        """
        check = self._check(self._program(self._step_name if train else "infer"))
        feeds = by_position(self.plan.input_names, (data,), {})
        return check.arrays(feeds, optional=not train, limit=False)

    def predict(self, *arrays: Any, **by_name: Any) -> Any:
        """Return the outputs for any number of rows: an array, or a dict if there are several.

        Arrays by position are those of the inputs in declared order.  Losses are left out, and in
        a net with a batch also outputs without the batch dimension.  Raise FeedError if an array
        does not fit.
        """
        return predict(self, arrays, by_name)

    def evaluate(self, *arrays: Any, **by_name: Any) -> dict[str, float]:
        """Return each loss and scalar output, by name, of all rows together.

        Means over batches are weighted by rows or weights, sums are added.  The data are arrays
        as for `predict`, or a folder of `.npz` part files.  Raise FeedError if an array does not
        fit.
        """
        return evaluate(self, arrays, by_name)

    def profile(
        self, feeds: Mapping[str, Any] | None = None, /, *, rounds: int = 20, **by_name: Any
    ) -> Profile:
        """Measure the time of each instruction of a step, or of inference.

        Raise FeedError if an array does not fit.
        """
        given = by_name if feeds is None else merged(feeds, by_name)
        profile: Profile = higher("Executor.profile")(self, given, rounds)
        return profile

    # ------------------------------------------------------------------ other weights

    def averaged(self) -> Executor:
        """Return a copy, with a separate state, whose parameters are their moving averages.

        They are kept by an optimizer with `ema=`; before its first update they are the parameters.
        Raise StateError if none are kept.
        """
        return averaged(self)

    def refresh(self, other: Executor) -> None:
        """Copy the parameters of another executor of the net; for frozen plans.

        Nothing is scheduled or planned anew: only the constants are computed from the new weights.
        """
        plan = refreshed(self.plan, other.state.read)
        self._entry(self._take_over, plan)

    def _take_over(self, plan: Plan) -> None:
        self._lock.begin(writes=False)
        self._outcome = NOTHING
        constants = self._workspace.constant_writes(plan.programs["infer"])
        run_all([*constants, partial(setattr, self, "plan", plan)])

    # ------------------------------------------------------------------ inside

    def _program(self, name: str) -> Program:
        if name in self.plan.programs:
            return self.plan.programs[name]
        raise errors.no_program(name)

    def _check(self, program: Program) -> FeedCheck:
        check = self._checks.get(program.name)
        if check is None:
            check = self._checks[program.name] = program_check(program, self.plan)
        return check

    def _ready(self, name: str, feeds: Mapping[str, Any], optional: bool = False) -> Bound:
        """Return a program bound to zero-copy feeds if possible, or else to copies of them."""
        known = self._zero_copy.get(name)
        bound = None if known is None else known.ready(feeds)
        if bound is None:
            program = self._program(name)
            bound = self._load(program, self._check(program).feeds(feeds, optional=optional))
        return bound

    def _load(self, program: Program, feeds: Feeds) -> Bound:
        """Return a program with its feeds copied in."""
        bound = self._binder.bound(program, feeds.n, feeds.missing)
        if feeds.optional and not bound.outputs:
            raise errors.no_output(feeds.missing & program.feeds.keys())
        self._outcome = NOTHING
        bound.feed(feeds.arrays)
        if program.name in self._zero_copy:
            types = {name: self.plan.declared[name].type for name in feeds.names}
            self._zero_copy[program.name].add(self._binder, bound, types, feeds.missing)
        return bound

    def _accumulated(self) -> int:
        return int(self._state.arrays[self.plan.step_counter])

    def _run(self, calls: Iterable[Call]) -> None:
        self._quiet.run(run_all, calls)

    def _write(self, calls: Iterable[Call]) -> None:
        self._quiet.run(self._lock.write, calls)


@takes("gc.freeze(ex, batch=1)")
def freeze(ex: Executor, *, batch: int) -> Executor:
    """Return an executor for inference with the weights of `ex` built in and batchnorm folded.

    Losses are left out.  `frozen.refresh(ex)` takes new weights without compiling.
    """
    if not isinstance(ex, Executor):
        raise GraphError(
            f"freeze takes an executor, not {type(ex).__name__}",
            loc=caller_loc(),
            hint="gc.freeze(ex, batch=1) with ex = gc.Executor(plan)",
        )
    declared = ex.plan.declared
    names = [node.name for node in declared if node.op.persistent]
    graph = frozen_graph(declared, ex.state.read(names))
    recipe = ex.plan.recipe
    plan = compile(
        graph,
        batch=batch,
        backend=recipe.backend,
        threads=recipe.threads,
        passes=recipe.passes,
    )
    frozen = Executor(plan)
    frozen.state.columns = ex.state.columns
    return frozen
