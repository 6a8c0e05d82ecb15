"""The executor of a plan: state, workspace, and the programs bound to them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from graphc.base.door import ask, higher
from graphc.base.missing import Missing
from graphc.compiler.plan import Plan
from graphc.ir.op import Array
from graphc.runtime import errors
from graphc.runtime.bound import NOTHING
from graphc.runtime.entry import Entry
from graphc.runtime.feeds import gradient_arrays, merged
from graphc.runtime.runs import Runs
from graphc.runtime.state import State

if TYPE_CHECKING:
    from graphc.base.protocols import Profile
    from graphc.runtime.distributed.communicator import Communicator
    from graphc.runtime.parameters import Hyper, Parameters


class Executor(Runs, Missing):
    """Owns state and buffers, and runs the programs of a plan.

    It makes one call at a time and refuses a second thread.  Executors of one plan are
    independent; those that share a state take turns.

    Parameters
    ----------
    plan
        What `gc.compile` returned.
    seed
        A whole number that determines initial parameters and random masks.
    state
        The state of another executor, to share it: `gc.Executor(plan, state=ex.state)`.
    communicator
        The ranks that train together, if the plan is for several.

    Raises
    ------
    StateError
        If an argument is of another kind, if the plan is for another number of ranks, or if the
        state belongs to an optimizer with other settings.
    OutOfMemoryError
        If there is not enough memory.

    Examples
    --------
    >>> net = gc.Net("line")
    >>> x, y = net.input("x", (gc.N, 1)), net.input("y", (gc.N, 1))
    >>> line = net.output("line", gc.affine(x, 1, name="line"))
    >>> loss = net.loss("loss", gc.mse_loss(line, y))
    >>> ex = gc.Executor(gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1)))
    >>> xs = np.arange(4.0)[:, None]
    >>> losses = [ex.step(x=xs, y=2 * xs) for _ in range(50)]
    >>> losses[-1] < losses[0]
    True
    >>> ex.predict(xs).shape
    (4, 1)
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
        self._parameters: Parameters = ask("parameters", self._state, plan.parameter_names)

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
        hyper: Hyper = higher("Executor.hyper")(self.plan, self._state)
        return hyper

    @property
    def values(self) -> Mapping[str, Array]:
        """Copies of the outputs of the last run, by name."""
        return self._outcome.copies()

    @property
    def nbytes(self) -> int:
        """The bytes that this executor holds, its state included."""
        parts = self._workspace, self._cotangents, self._state, self.sharded, self._sequences
        return sum(part.nbytes for part in parts if part is not None)

    def snapshot(self) -> dict[str, Array]:
        """Return copies of all arrays that last between steps and that the plan needs.

        Returns
        -------
        dict
            The arrays by name, all of one moment; `ex.state = saved` restores them.

        Raises
        ------
        StateError
            If an earlier step failed half-way, or another thread is running.
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
        """Compute every output and loss that the feeds determine.

        Parameters
        ----------
        feeds, **by_name
            Arrays by the names of inputs, with 1 to `batch` rows.  Inference does not need the
            inputs that only a loss reads.
        train
            False leaves dropout out and uses running statistics.  True draws masks, uses and
            accumulates batch statistics, and lets `backward` follow.
        copy
            False returns read-only views that the next run overwrites.

        Returns
        -------
        dict
            The arrays of outputs and losses by name.

        Raises
        ------
        FeedError
            If an array does not fit its input.
        StateError
            If an earlier step failed half-way, or another thread is running.
        """
        given = by_name if feeds is None else merged(feeds, by_name)
        return self._entry(self._forward, given, train, copy)

    def backward(self, **cotangents: Any) -> dict[str, Array]:
        """Differentiate the last `forward(train=True)`.

        Parameters
        ----------
        **cotangents
            Gradients by the names of outputs, of their shapes, from which the chain rule starts.
            Without any, the sum of the losses is differentiated.

        Returns
        -------
        dict
            Copies of the gradients, by the names of parameters; a second call returns the same.

        Raises
        ------
        StateError
            If no forward pass is saved, or the plan has no gradients.
        FeedError
            If a cotangent does not fit its output.
        """
        return self._entry(self._backward, cotangents)

    def update(self, gradients: Mapping[str, Any] | None = None) -> None:
        """Let the optimizer update the parameters.

        Parameters
        ----------
        gradients
            Arrays by the names of parameters; by default those of the last `backward`.  An
            optimizer that accumulates takes only the gradients of its own steps.

        Raises
        ------
        StateError
            If the plan has no optimizer, or there are no gradients.
        FeedError
            If a gradient does not fit its parameter.
        """
        program = self._program("apply")
        given = None if gradients is None else gradient_arrays(program, self.plan, gradients)
        self._entry(self._update, program, given)

    def step(self, feeds: Mapping[str, Any] | None = None, /, **by_name: Any) -> float:
        """Run forward, backward and update on one batch.

        With `accumulate=k` in the optimizer the update follows every k-th step.

        Parameters
        ----------
        feeds, **by_name
            Arrays by the names of inputs, with 1 to `batch` rows.

        Returns
        -------
        float
            The sum of the losses, from before the update.

        Raises
        ------
        StateError
            If the plan has no optimizer, if an earlier step failed half-way, or if another thread
            is running.
        FeedError
            If an array does not fit its input.
        """
        given = by_name if feeds is None else merged(feeds, by_name)
        return self._entry(self._step, given)

    # ------------------------------------------------------------------ many rows

    def rows(self, data: Any, *, train: bool) -> tuple[dict[str, Any], int]:
        """Check and convert data of any number of rows.

        Parameters
        ----------
        data
            An array, a tuple of arrays in the order of the declared inputs, or a mapping by name.
        train
            Whether every input that a step reads is required.

        Returns
        -------
        tuple
            The converted arrays by input, and their number of rows.  Where rows have fewer steps
            than declared, they are as given.

        Raises
        ------
        FeedError
            If an array does not fit its input.
        """
        check = self._check(self._program(self._step_name if train else "infer"))
        shown, kept = self.ragged(higher("Executor.rows")(self.plan.data_names, (data,), {}))
        arrays, rows = check.arrays(shown, optional=not train, limit=False)
        return {**arrays, **kept}, rows

    def ragged(self, feeds: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, Any]]:
        """Return feeds of any number of rows with all steps, and the rows that have fewer.

        Parameters
        ----------
        feeds
            Arrays by the names of inputs, or lists of the arrays of rows.

        Returns
        -------
        tuple
            The feeds, with zeros that take no memory in the place of such rows, and these by input.

        Raises
        ------
        FeedError
            If rows do not fit their input, or if inputs with the same lengths have different ones.
        """
        return (feeds, {}) if self._sequences is None else self._sequences.checked(feeds)

    def padded(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        """Add the lengths of rows to feeds, and zeros behind the ends of rows.

        Every run does so by itself.

        Parameters
        ----------
        feeds
            Arrays by the names of inputs, with 1 to `batch` rows, or lists of the arrays of rows.

        Returns
        -------
        Mapping
            The same feeds in a net without `gc.lengths`.  Others with all steps that are declared,
            in memory that the next run overwrites.

        Raises
        ------
        FeedError
            If rows do not fit their input, or if inputs with the same lengths have different ones.
        """
        return feeds if self._sequences is None else self._sequences.whole(feeds)

    def predict(self, *arrays: Any, **by_name: Any) -> Any:
        """Compute the outputs for any number of rows, in pieces of at most `batch` rows.

        Parameters
        ----------
        *arrays, **by_name
            The inputs, in declared order or by name.

        Returns
        -------
        ndarray or dict
            The output, or several by name.  Losses are left out, and in a net with a batch also
            outputs without the batch dimension.

        Raises
        ------
        FeedError
            If an array does not fit its input.
        """
        return higher("Executor.predict")(self, arrays, by_name)

    def evaluate(self, *arrays: Any, **by_name: Any) -> dict[str, float]:
        """Compute the losses and scalar outputs of any number of rows together.

        Means over batches are weighted by rows or by the rows' weights; sums are added.

        Parameters
        ----------
        *arrays, **by_name
            The inputs, in declared order or by name; or the path of a folder of `.npz` part files.

        Returns
        -------
        dict
            The numbers by name.

        Raises
        ------
        FeedError
            If an array does not fit its input, or if there are no rows.
        """
        found: dict[str, float] = higher("Executor.score")(self, arrays, by_name)
        return found

    def profile(
        self, feeds: Mapping[str, Any] | None = None, /, *, rounds: int = 20, **by_name: Any
    ) -> Profile:
        """Measure the time of each instruction of a step; without an optimizer, of inference.

        Parameters
        ----------
        feeds, **by_name
            Arrays by the names of inputs, with 1 to `batch` rows.
        rounds
            The number of runs that are measured.

        Returns
        -------
        Profile
            The times, which `print` shows as a table.

        Raises
        ------
        FeedError
            If an array does not fit its input.
        """
        given = by_name if feeds is None else merged(feeds, by_name)
        profile: Profile = higher("Executor.profile")(self, given, rounds)
        return profile

    # ------------------------------------------------------------------ other weights

    def averaged(self) -> Executor:
        """Return a copy whose parameters are the moving averages of this executor's parameters.

        An optimizer with `ema=` keeps them; before its first update they are the parameters.

        Returns
        -------
        Executor
            The copy, which shares no state with this one.

        Raises
        ------
        StateError
            If the optimizer keeps no averages.
        """
        copy: Executor = higher("Executor.averaged")(self)
        return copy

    def refresh(self, other: Executor) -> None:
        """Take the weights of another executor into this frozen one, without compiling.

        Parameters
        ----------
        other
            An executor of the net that was frozen.

        Raises
        ------
        GraphError
            If this executor is not frozen, or of another net.
        """
        made: Plan = higher("Executor.refresh")(self.plan, other.state.read)
        self._entry(self._take_over, made)
