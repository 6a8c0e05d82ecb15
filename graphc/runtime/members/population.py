"""A population: its members, the calls that run them, and what each call returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from graphc.backends.backend import Call
from graphc.base.arguments import checked_whole
from graphc.base.docstrings import with_shared
from graphc.base.door import higher
from graphc.base.errors import FeedError, GraphError, StateError
from graphc.compiler.plan import Plan
from graphc.compiler.sizes import block_bytes
from graphc.ir.op import Array
from graphc.runtime import errors
from graphc.runtime.columns import Columns
from graphc.runtime.distributed.communicator import Communicator, ranks_of
from graphc.runtime.entry import Entry, run_all
from graphc.runtime.executor import Executor
from graphc.runtime.feeds import merged
from graphc.runtime.members.feeds import MemberFeeds
from graphc.runtime.members.results import Combine, combined, stacked
from graphc.runtime.members.runs import MemberRuns
from graphc.runtime.members.states import (
    MemberHyper,
    MemberStates,
    Stacked,
    check_ranks,
    checked_seeds,
)
from graphc.runtime.row_axis import has_plain_rows
from graphc.runtime.rows import (
    Means,
    Together,
    by_position,
    check_one_batch,
    evaluate_together,
    predict,
    scalars,
)

AT_ONCE = 1 << 14
"""The rows of all members for which outputs are inferred by one call, at least a batch of each."""


class Population:
    """Many members of one plan, which differ in their seeds, hyper-parameters and rows.

    Each member has the bits of the same net trained alone, by `gc.Executor(plan, seed=...)`.

    Parameters
    ----------
    plan
        What `gc.compile` returned.
    members
        The number of members; by default that of the seeds.
    seeds
        A whole number for each member, 0, 1, 2, ... by default.
    hyper
        Hyper-parameters by name: a number for all members, or one for each.
    communicator
        The ranks that share the members; all of them make the same calls.

    Raises
    ------
    StateError
        If an argument is of another kind, or does not have one value for each member; or if the
        plan is itself for several ranks or shards.
    RankError
        If the ranks make different populations, or one with fewer members than ranks.
    OutOfMemoryError
        If there is not enough memory.

    Examples
    --------
    >>> net = gc.Net("line")
    >>> x, y = net.input("x", (gc.N, 1)), net.input("y", (gc.N, 1))
    >>> line = net.output("line", gc.affine(x, 1, name="line"))
    >>> loss = net.loss("loss", gc.mse_loss(line, y))
    >>> plan = gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1))
    >>> population = gc.Population(plan, members=3, hyper={"lr": [0.1, 0.05, 0.01]})
    >>> xs = np.arange(4.0)[:, None]
    >>> losses = [population.step(x=xs, y=2 * xs) for _ in range(50)]
    >>> losses[-1] < losses[0]
    array([ True,  True,  True])
    >>> population.predict(xs, combine="mean").shape
    (4, 1)
    """

    def __init__(
        self,
        plan: Plan,
        *,
        members: int | None = None,
        seeds: Sequence[int] | None = None,
        hyper: Mapping[str, Any] | None = None,
        communicator: Communicator | None = None,
    ) -> None:
        if not isinstance(plan, Plan):
            raise errors.no_plan(plan, "Population")
        checked, ranks = checked_seeds(plan, members, seeds), ranks_of(communicator)
        if ranks.size > 1:
            check_ranks(ranks, plan, checked)
        self.plan = plan = plan.without_kept
        self._members = MemberStates(plan, checked, ranks)
        self._entry = Entry(self._members.lock)
        self._runs = MemberRuns(plan)
        self._executors: dict[int, Executor] = {}
        if hyper is not None and not isinstance(hyper, Mapping):
            raise StateError(
                f"Population: hyper is {hyper!r}, not numbers by name", hint='hyper={"lr": 0.1}'
            )
        for name, value in (hyper or {}).items():
            self.hyper[name] = value

    # ------------------------------------------------------------------ members

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Executor]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, member: int) -> Executor:
        """Return the executor of a member, which shares its state with the population.

        Raise StateError if there is none of that number, or if another rank holds it.
        """
        place = self._members.place(self._members.number(member))
        if place not in self._executors:
            self._executors[place] = Executor(self.plan, state=self._members.states[place])
        return self._executors[place]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each member."""
        return tuple(self._members.seeds())

    @property
    def ranks(self) -> Communicator:
        """The ranks that share the members; without any, this process as the only one."""
        return self._members.ranks

    @property
    def own(self) -> range:
        """The numbers of the members that this rank holds, all without ranks."""
        return self._members.own

    @property
    def local(self) -> Population:
        """The members that this rank holds, as a population without ranks that shares them."""
        found = object.__new__(Population)
        found.__dict__.update(self.__dict__)
        found._members = self._members.local()
        return found

    @property
    def hyper(self) -> MemberHyper:
        """The hyper-parameters of all members by name, each an array of one number a member."""
        return MemberHyper(self._members)

    @property
    def parameters(self) -> Stacked:
        """Copies of the parameters of all members by name; the first axis numbers the members."""
        return Stacked(self._members, self.plan.parameter_names, "parameter")

    @property
    def state(self) -> Stacked:
        """Copies of all that lasts between steps, by name; the first axis numbers the members."""
        return Stacked(self._members, self.plan.state_nodes, "state")

    @state.setter
    def state(self, values: Mapping[str, Any]) -> None:
        self._members.assign(values)

    @property
    def columns(self) -> Columns | None:
        """The names of the table that the members were trained on, if any; files keep them."""
        return self._members.states[0].columns

    @columns.setter
    def columns(self, columns: Columns | None) -> None:
        for state in self._members.states:
            state.columns = columns

    @property
    def nbytes(self) -> int:
        """The bytes that this rank holds, without the executors that indexing makes."""
        return block_bytes(self._members.memory.nbytes) + self._runs.nbytes

    @with_shared(Executor.snapshot.__doc__)
    def snapshot(self) -> dict[str, Array]:
        """Return copies of all arrays that last between steps, of all members.

        Returns
        -------
        dict
            The arrays by name, all of one moment; `population.state = saved` restores them.
        """
        return self._entry(self._copies)

    def __reduce__(self) -> tuple[Any, ...]:
        pickled: tuple[Any, ...] = higher("pickled")(self)
        return pickled

    def __deepcopy__(self, memo: dict[int, Any]) -> Population:
        """Return a copy with the same plan."""
        twin = Population(self.plan, seeds=self.seeds, communicator=self.ranks)
        twin.state, twin.columns = self.snapshot(), self.columns
        return twin

    def _copies(self) -> dict[str, Array]:
        self._members.lock.begin(writes=False)
        return dict(self.state)

    def keep(self, members: Sequence[int]) -> None:
        """Keep some members in this order, and forget the others.

        Parameters
        ----------
        members
            Their numbers, each once.  They become 0, 1, 2, ...  The memory stays as it is; ranks
            share the members anew, so that executors of those that move are no longer theirs.

        Raises
        ------
        StateError
            If a number is not that of a member, or comes twice.
        """
        self._entry(self._keep, self._members.numbers(members))

    def _keep(self, members: Sequence[int]) -> None:
        for place in self._members.keep(members):
            self._executors.pop(place, None)

    def copy(self, source: int, target: int) -> None:
        """Let a member take the whole state of another: parameters, slots, counters, rates, seed.

        Parameters
        ----------
        source, target
            The numbers of the member that is read, and of the one that is written.

        Raises
        ------
        StateError
            If a number is not that of a member, or an earlier step failed half-way.
        """
        self._entry(self._members.copy, self._members.number(source), self._members.number(target))

    # ------------------------------------------------------------------ running

    def step(
        self,
        feeds: Mapping[str, Any] | None = None,
        /,
        *,
        rows: Sequence[Any] | Array | None = None,
        members: Sequence[int] | None = None,
        **by_name: Any,
    ) -> Array:
        """Run forward, backward and update of each member.

        Parameters
        ----------
        feeds, **by_name
            Arrays by the names of inputs, with 1 to `batch` rows: one for all members or, with a
            first axis more, one for each that runs.
        rows
            The numbers of the rows that each member takes, 1 to `batch` from arrays of any length.
        members
            The numbers of the members that run, all by default.

        Returns
        -------
        ndarray
            The sum of the losses of each member, from before the update.

        Raises
        ------
        StateError
            If the plan has no optimizer, if an earlier step failed half-way, or if another thread
            is running.
        FeedError
            If an array does not fit its input; then no member has changed.
        """
        given = self._given(feeds, by_name, rows, members)
        return self._entry(self._step, given)

    @with_shared(step.__doc__)
    def steps(
        self,
        feeds: Mapping[str, Any] | None = None,
        /,
        *,
        rows: Sequence[Any] | Array,
        batch: int,
        members: Sequence[int] | None = None,
        **by_name: Any,
    ) -> list[Array]:
        """Make the steps of each member over its rows, `batch` of them a step.

        A thread makes all steps of a member, so that its state stays in the cache.

        Parameters
        ----------
        feeds, **by_name
            Arrays by the names of inputs, which all members share.
        rows
            The numbers of the rows of each member, any number of them.
        batch
            The rows of a step; the last one takes the rest.

        Returns
        -------
        list
            An array for each member: the sum of the losses of each step.
        """
        whole = checked_whole("batch", batch, hint="batch=32")
        rows = () if rows is None else rows
        given = self._given(feeds, by_name, rows, members)._replace(batch=whole)
        losses = self._entry(self._step, given)
        return [losses[slice(*pair)] for pair in pairwise(accumulate(given.steps, initial=0))]

    def _step(self, given: MemberFeeds) -> Array:
        """Make the steps of all members, and return the loss of each."""
        if not self._members.shared:
            return self._checked_step(given)(given.members)
        step = self._members.agreed(partial(self._checked_step, given.held(self.own)))
        found: Array = self._members.written(given.numbers, step)
        return found

    def _checked_step(self, given: MemberFeeds) -> Callable[[Any], Array]:
        """Return the function that makes steps whose feeds have been checked."""
        self._members.lock.begin(writes=True)
        made = self._runs.side_by_side(given, self._members, train=True)
        if made is not None:
            return partial(self._step_side_by_side, *made)
        in_turns, steps = self._runs.in_turns, self._runs.checked(given)
        return lambda _: np.array(in_turns(given, self._members, self._runs.step, steps))

    def _step_side_by_side(
        self, calls: Sequence[Call], losses: Mapping[str, Array], _: Any
    ) -> Array:
        self._members.lock.write(calls)
        first, *others = losses.values()
        return np.asarray(sum(losses.values()) if others else first, np.float64)  # 0 + -0 is 0

    @with_shared(Executor.forward.__doc__)
    def forward(
        self,
        feeds: Mapping[str, Any] | None = None,
        /,
        *,
        rows: Sequence[Any] | Array | None = None,
        members: Sequence[int] | None = None,
        **by_name: Any,
    ) -> dict[str, Array]:
        """Infer every output and loss that the feeds determine, of each member.

        Parameters
        ----------
        feeds, **by_name
            Arrays by the names of inputs, with 1 to `batch` rows: one for all members or, with a
            first axis more, one for each that runs.
        rows
            The numbers of the rows that each member takes, equally many of each.
        members
            The numbers of the members that run, all by default.

        Returns
        -------
        dict
            The arrays of outputs and losses by name; the first axis numbers the members.
        """
        given = self._given(feeds, by_name, rows, members)
        if len({len(chosen) for chosen in given.rows or ()}) > 1:
            raise FeedError(
                "forward: the members take different numbers of rows",
                hint="outputs are arrays of all members, which need equally many; "
                "population[i].forward runs one member",
            )
        return self._entry(self._on_all, given, self._forward)

    def _on_all(
        self, given: MemberFeeds, infer: Callable[[MemberFeeds], dict[str, Array]]
    ) -> dict[str, Array]:
        """Return what each rank infers for its members, of all members that run."""
        held = given.held(self.own) if self._members.shared else given
        found: dict[str, Array] = self._members.gathered(given.members, lambda _: infer(held))
        return found

    def _forward(self, given: MemberFeeds) -> dict[str, Array]:
        found = self._at_once(given)
        if found is None:
            found = stacked(self._runs.in_turns(given, self._members, self._runs.forward))
        return found

    def _at_once(self, given: MemberFeeds) -> dict[str, Array] | None:
        """Return the outputs of runs made side by side, or None if members cannot."""
        self._members.lock.begin(writes=False)
        made = self._runs.side_by_side(given, self._members, train=False)
        if made is None:
            return None
        calls, outputs = made
        run_all(calls)
        return outputs

    @with_shared(Executor.predict.__doc__)
    def predict(
        self,
        *arrays: Any,
        combine: Combine | None = None,
        members: Sequence[int] | None = None,
        **by_name: Any,
    ) -> Any:
        """Compute the outputs for any number of rows, which all members share.

        Parameters
        ----------
        combine
            "mean" averages the outputs of members.  "vote" gives for each row the class that most
            members find the likeliest, the first of several.
        members
            The numbers of the members that are asked, all by default.

        Returns
        -------
        ndarray or dict
            The output, or several by name, whose first axis numbers the members unless they are
            combined.

        Raises
        ------
        GraphError
            If `combine` is another word.
        FeedError
            If an array does not fit its input.
        """
        if combine not in (None, "mean", "vote"):
            raise GraphError(
                f"predict: combine is {combine!r}",
                hint='combine="mean", combine="vote", or leave it out for the outputs of each',
            )
        feeds = by_position(self.plan.data_names, arrays, by_name)
        found = self._entry(self._predict, feeds, self._members.numbers(members))
        if isinstance(found, dict):
            return {name: combined(array, combine, name) for name, array in found.items()}
        return combined(found, combine, "the output")

    def _predict(self, feeds: Mapping[str, Any], members: Sequence[int]) -> Any:
        runs, together = self._runs, self._together
        return self._members.gathered(members, lambda own: predict(runs, (), feeds, together(own)))

    def _together(self, members: Sequence[int]) -> Together:
        """Return members as those who infer pieces of rows together."""
        batch = self.plan.batch
        size = max(1, AT_ONCE // (batch * len(members))) * batch
        states = [self._members.state(i).arrays for i in members]
        return Together(partial(self._infer, members), states, size)

    def _infer(
        self, members: Sequence[int], feeds: Mapping[str, Any], n: int
    ) -> dict[str, Array] | None:
        """Return the outputs of members for `n` rows, or None if these are too many."""
        if n <= self.plan.batch:
            return self._forward(MemberFeeds.of(self.plan, feeds, None, members))
        rows = [np.arange(n)] * len(members)
        given = MemberFeeds.of(self.plan, feeds, rows, members, self.plan.batch)
        program = self.plan.programs["infer"]
        types = [program.buffers[value].type for value in program.outputs.values()]
        found = self._at_once(given) if all(map(has_plain_rows, types)) else None
        if found is None:
            return None
        return {k: x.reshape(len(members), -1, *x.shape[2:]) for k, x in found.items()}

    @with_shared(Executor.evaluate.__doc__)
    def evaluate(
        self,
        *arrays: Any,
        rows: Sequence[Any] | Array | None = None,
        members: Sequence[int] | None = None,
        **by_name: Any,
    ) -> dict[str, Array]:
        """Compute the losses and scalar outputs of any number of rows together, of each member.

        Parameters
        ----------
        *arrays, **by_name
            The inputs, in declared order or by name: one array for all members or, with a first
            axis more, one for each.
        rows
            The numbers of the rows that each member takes.
        members
            The numbers of the members that run, all by default.

        Returns
        -------
        dict
            The numbers of each member by name.
        """
        feeds = by_position(self.plan.data_names, arrays, {})
        given = self._given(feeds, by_name, rows, members)
        return self._entry(self._on_all, given, self._evaluate)

    def _evaluate(self, given: MemberFeeds) -> dict[str, Array]:
        if given.same:
            together = self._together(given.members)
            return evaluate_together(self._runs, given.shared, together)
        self._members.lock.begin(writes=False)
        found = None if given.rows is None else self._evaluate_at_once(given)
        if found is None:
            found = stacked(self._runs.in_turns(given, self._members, self._runs.evaluate))
        return found

    def _evaluate_at_once(self, given: MemberFeeds) -> dict[str, Array] | None:
        """Return what members evaluate on rows of their own by one call, or None if they cannot."""
        given = given._replace(batch=self.plan.batch)
        most = max(map(len, given.rows or ()))
        check_one_batch(self._runs, "evaluate", most, given.shared, scalars(self.plan))
        outputs = self._at_once(given)
        if outputs is None:
            return None
        means = {i: Means(self.plan, self._members.state(i).arrays) for i in given.members}
        rows = given.chosen()[0].tolist()
        for number, (member, feeds) in enumerate(given.runs()):
            out = {name: array[number] for name, array in outputs.items()}
            means[member].add(rows[number], feeds, out)
        return stacked([one.checked() for one in means.values()])

    # ------------------------------------------------------------------ arguments

    def _given(
        self,
        feeds: Mapping[str, Any] | None,
        by_name: Mapping[str, Any],
        rows: Sequence[Any] | Array | None,
        members: Sequence[int] | None,
    ) -> MemberFeeds:
        given = by_name if feeds is None else merged(feeds, by_name)
        return MemberFeeds.of(self.plan, given, rows, self._members.numbers(members))
