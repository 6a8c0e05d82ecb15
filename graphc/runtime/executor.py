"""The executor of a plan: state, workspace, and the programs bound to them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from graphc.base.arguments import takes
from graphc.base.door import Profile, higher
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.base.other_names import Missing
from graphc.compiler.compile import compile
from graphc.compiler.freeze import frozen_graph, refreshed
from graphc.compiler.plan import Plan
from graphc.ir.op import Array
from graphc.runtime import errors
from graphc.runtime.bound import NOTHING
from graphc.runtime.entry import Entry
from graphc.runtime.feeds import gradient_arrays, merged
from graphc.runtime.parameters import Hyper, Parameters, averaged
from graphc.runtime.rows import by_position, evaluate, predict
from graphc.runtime.runs import Runs
from graphc.runtime.state import State

if TYPE_CHECKING:
    from graphc.runtime.distributed.communicator import Communicator


class Executor(Runs, Missing):
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
        super().__init__(plan, errors.checked_seed(seed), state, communicator)
        self._entry = Entry(self._state.lock)
        self._parameters = Parameters(self._state, plan.parameter_names)

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

    def backward(self, **cotangents: Any) -> dict[str, Array]:
        """Return the gradients of the sum of the losses, by name of parameter; copies.

        Follows `forward(train=True)`; further calls return the same.  With cotangents by output
        name (of the outputs' shapes) those are differentiated.  Raise StateError if nothing is
        saved.
        """
        return self._entry(self._backward, cotangents)

    def update(self, gradients: Mapping[str, Any] | None = None) -> None:
        """Let the optimizer update the parameters.

        It takes the gradients of the last `backward`, or those given by name; an optimizer that
        accumulates takes those of the steps so far, and no others.  Raise StateError if the plan
        has no optimizer or if there are no gradients.
        """
        program = self._program("apply")
        given = None if gradients is None else gradient_arrays(program, self.plan, gradients)
        self._entry(self._update, program, given)

    def step(self, feeds: Mapping[str, Any] | None = None, /, **by_name: Any) -> float:
        """Run forward, backward and update on one batch; return the sum of the losses.

        With `accumulate=k` in the optimizer the update follows every k-th step.
        Raise StateError if the plan has no optimizer, FeedError if an array does not fit.
        """
        given = by_name if feeds is None else merged(feeds, by_name)
        return self._entry(self._step, given)

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
