"""Lists of passes, and the loop that runs them: verify, time, record, name them in errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter

from graphc.base.docstrings import with_shared
from graphc.base.errors import GraphError
from graphc.ir.graph import Graph
from graphc.ir.verify import verify
from passes.contract import Pass as Pass
from passes.contract import check_is_pass, name_of
from passes.steps import on_steps


@dataclass(frozen=True)
class PassList:
    """Passes in order, for `gc.compile(..., passes=...)`.

    Parameters
    ----------
    entries
        The passes; a string is a slot for the pass of that name, which compiling makes.
    required
        The names of passes that a plan needs.

    Examples
    --------
    >>> gc.passes.DEFAULT.without("cse").names[2:4]
    ('set_precision', 'channels_last')
    """

    entries: tuple[Pass | str, ...]
    required: frozenset[str] = frozenset()

    def __iter__(self) -> Iterator[Pass | str]:
        return iter(self.entries)

    @property
    def names(self) -> tuple[str, ...]:
        """The names in order; a pass that runs twice is listed twice."""
        return tuple(map(_entry_name, self.entries))

    def without(self, *names: str) -> PassList:
        """Return the list without some passes.

        Parameters
        ----------
        *names
            The names of the passes.

        Returns
        -------
        PassList
            The shorter list.

        Raises
        ------
        GraphError
            If there is no pass of a name, or if a plan needs it.

        Examples
        --------
        >>> "cse" in gc.passes.without("cse").names
        False
        """
        for name in names:
            self.check_known(name)
            if name in self.required:
                optional = dict.fromkeys(n for n in self.names if n not in self.required)
                raise GraphError(
                    f"pass {name!r} is required",
                    hint=f"these can be left out: {', '.join(optional)}",
                )
        kept = tuple(entry for entry in self.entries if _entry_name(entry) not in names)
        return PassList(kept, self.required)

    def after(self, name: str, step: Pass) -> PassList:
        """Return the list with a user's pass right after the first of that name.

        Parameters
        ----------
        name
            The name of a pass of the list.
        step
            The pass to insert.

        Returns
        -------
        PassList
            The longer list.

        Raises
        ------
        GraphError
            If there is no pass of that name, or `step` is not a pass.

        Examples
        --------
        >>> gc.passes.after("cse", lambda graph: graph).names[3:5]
        ('cse', '<lambda>')
        """
        return self._insert(self._position(name) + 1, step)

    @with_shared(after.__doc__)
    def before(self, name: str, step: Pass) -> PassList:
        """Return the list with a user's pass right before the first of that name.

        Examples
        --------
        >>> gc.passes.before("cse", lambda graph: graph).names[3:5]
        ('<lambda>', 'cse')
        """
        return self._insert(self._position(name), step)

    def fill(self, slots: Mapping[str, Pass | None]) -> tuple[Pass, ...]:
        """Return the passes with the slots filled.

        Parameters
        ----------
        slots
            The passes by the names of slots; a slot that is missing or None is left out.

        Returns
        -------
        tuple
            The passes in order.
        """
        filled = (slots.get(entry) if isinstance(entry, str) else entry for entry in self.entries)
        return tuple(step for step in filled if step is not None)

    def _insert(self, position: int, step: Pass) -> PassList:
        check_is_pass(step)
        entries = (*self.entries[:position], step, *self.entries[position:])
        return PassList(entries, self.required)

    def _position(self, name: str) -> int:
        self.check_known(name)
        return self.names.index(name)

    def check_known(self, name: str) -> None:
        """Raise GraphError if there is no pass of that name.

        Parameters
        ----------
        name
            The name of a pass.

        Raises
        ------
        GraphError
            If no pass of the list has it.
        """
        if name not in self.names:
            known = ", ".join(dict.fromkeys(self.names))
            raise GraphError(f"there is no pass {name!r}", hint=f"the passes are {known}")


def _entry_name(entry: Pass | str) -> str:
    return entry if isinstance(entry, str) else name_of(entry)


@dataclass(frozen=True)
class PassRecord:
    """The graph that one pass made.

    Parameters
    ----------
    name
        The name of the pass.
    graph
        The graph after the pass.
    seconds
        The time that the pass took.

    Examples
    --------
    >>> net = gc.Net("line")
    >>> line = net.output("line", gc.affine(net.input("x", (gc.N, 2)), 3))
    >>> gc.compile(net, batch=32).graphs["infer"][0].name
    'specialize'
    """

    name: str
    graph: Graph
    seconds: float


def run_passes(
    graph: Graph,
    passes: Iterable[Pass],
    after: Callable[[Pass, Graph, Graph], object] | None = None,
    *,
    verified: bool = False,
) -> tuple[Graph, tuple[PassRecord, ...]]:
    """Run passes in order, and verify the nodes that each of them changed.

    An exception keeps its type and gets the pass's name as a note.

    Parameters
    ----------
    graph
        The graph to begin with.
    passes
        The passes.
    after
        Called as `after(step, before, made)` for each pass that changed the graph.
    verified
        Whether the first graph is known to be right; otherwise it is verified as a whole.

    Returns
    -------
    tuple
        The last graph, and a `PassRecord` for each pass.

    Raises
    ------
    GraphError
        If a graph is wrong, or a pass does not return one.

    Examples
    --------
    >>> net = gc.Net("line")
    >>> line = net.output("line", gc.affine(net.input("x", (gc.N, 2)), 3))
    >>> graph, records = gc.passes.run_passes(net.graph(), [lambda graph: graph])
    >>> [record.name for record in records]
    ['<lambda>']
    """
    if not verified:
        verify(graph)
    records: list[PassRecord] = []
    settled: list[Pass] = []  # passes that changed nothing in the current graph
    for step in passes:
        name = name_of(step)
        start = perf_counter()
        try:
            known = any([step is one for one in settled])
            made = graph if known else run_pass(step, graph)
        except Exception as error:
            error.add_note(f"in pass {name!r}")
            raise
        records.append(PassRecord(name, made, perf_counter() - start))
        if after is not None and made is not graph:
            after(step, graph, made)
        settled = [*settled, step] if made is graph else []
        graph = made
    return graph, tuple(records)


def run_pass(step: Pass, graph: Graph) -> Graph:
    """Return the graph that a pass makes, verified; raise GraphError if it makes none.

    It also runs on the steps of loops.  A pass that treats them otherwise has `of_step`: the
    function for them, or None.
    """
    made = step(graph)
    if not isinstance(made, Graph):
        raise GraphError(
            f"pass {name_of(step)!r} gave {type(made).__name__}, not a Graph",
            hint="a pass returns a Graph, the one it was given if nothing changes",
        )
    of_step: Pass | None = getattr(step, "of_step", step)
    if of_step is not None:
        made = on_steps(of_step, made)
    if made is not graph:
        verify(made, before=graph)
    return made
