"""Planners and schedules of the user's own: what they are given, and checks of what they return.

What cannot be a plan at all is refused here.  Whether a plan is right, such as whether buffers that
are live together share bytes, or whether a barrier is missing, `plan.verify()` says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import unwrap
from itertools import chain
from typing import Any

from graphc.base.arguments import takes_one, whole
from graphc.base.errors import GraphError, Operand, first_of
from graphc.base.loc import Loc, caller_loc
from graphc.compiler.memory import peak_bytes
from graphc.ir.graph import Graph
from graphc.ir.tensor_type import ALIGNMENT, LARGEST, align
from graphc.kernels.barriers import ALL, Access, Arrangement, accesses
from graphc.kernels.program import Arena, Instr, LiveRange


@dataclass(frozen=True, eq=False)
class Instruction:
    """A kernel or a call, as a schedule of your own gets it.

    In an epoch threads run ahead of each other.  Two instructions need a barrier between them if
    they touch one buffer, one of them writes it, and their regions differ or are `all`.

    Parameters
    ----------
    name
        The name of the last buffer that it writes, mostly that of a node.
    accesses
        What it reads and writes; each access has `buffer`, `writes` and `region`, the part of
        the buffer that a thread touches.  An updated state has the name of the state.
    alone
        Whether it must be in an epoch of its own: it is a call, which one thread runs.

    Examples
    --------
    >>> net = gc.Net("net")
    >>> _ = net.output("y", gc.affine(net.input("x", (gc.N, 3)), 2))
    >>> def one_by_one(instructions):
    ...     print(*(one.name for one in instructions))
    ...     return [[one] for one in instructions]
    >>> plan = gc.compile(net, batch=8, wrt=[], schedule=one_by_one)
    affine_1
    """

    name: str
    accesses: tuple[Access, ...]
    alone: bool


Planner = Callable[[tuple[LiveRange, ...]], Mapping[str, int]]
"""Gives each live range its offset in the arena."""
Scheduler = Callable[[tuple[Instruction, ...]], Iterable[Iterable[Instruction]]]
"""Puts instructions into order: a list for each epoch."""


def check_own(**functions: object) -> None:
    """Raise GraphError for a planner or schedule that cannot be called with one argument."""
    takes = {"planner": "the live ranges", "schedule": "the instructions"}
    for option, function in functions.items():
        what = f"{option}= takes a function of one argument, {takes[option]}"
        if function is None:
            continue
        if not callable(function):
            raise GraphError(f"{what}, not {function!r}", loc=caller_loc())
        if not takes_one(function):
            raise GraphError(f"{what}; {_name(function)!r} takes others", loc=caller_loc())


def _name(function: object) -> str:
    return getattr(function, "__name__", None) or type(function).__name__


class _Asked:
    """The result of a user's function for a program, and the errors about it."""

    def __init__(
        self, option: str, function: Callable[[Any], Any], program: str, given: object
    ) -> None:
        """Call the function; an exception of it says where it was called."""
        self.who, self.program = f"{option} {_name(function)!r}", program
        code = getattr(unwrap(function), "__code__", None)
        self.loc = code and Loc(code.co_filename, code.co_firstlineno, code.co_name)
        try:
            gave = function(given)
            self.gave: Any = list(gave) if isinstance(gave, Iterator) else gave
        except Exception as error:
            error.add_note(f"in {self.who}, for program {program!r}")
            raise

    def error(self, sentence: str, hint: str = "", operands: Sequence[Operand] = ()) -> GraphError:
        """Return an error that names the function and the line that defines it."""
        return GraphError(f"{self.who} {sentence}", operands=operands, loc=self.loc, hint=hint)


# ------------------------------------------------------------------ planners


def planned(planner: Planner, program: str, graph: Graph, ranges: Sequence[LiveRange]) -> Arena:
    """Return the arena of a user's planner; raise GraphError for what cannot be one."""
    asked = _Asked("planner", planner, program, tuple(ranges))
    if not isinstance(asked.gave, Mapping):
        raise asked.error(
            f"returned {_shown(asked.gave)}, not a dict from names to offsets",
            "return {live.name: offset, ...} with an offset for each live range",
        )
    known = {live.name for live in ranges}
    for name in asked.gave:
        if name not in known:
            raise asked.error(f"gave an offset to {name!r}, not a live range of {program!r}")
    offsets = {live.name: _offset(asked, graph, live) for live in ranges}
    end = max(offsets[live.name] + align(live.nbytes) for live in ranges)
    return Arena(offsets, end, peak_bytes(ranges))


def _offset(asked: _Asked, graph: Graph, live: LiveRange) -> int:
    """Return the offset of a live range, a multiple of the alignment."""
    node, name = graph.nodes.get(live.name), live.name
    described = f"{live.nbytes:,} bytes, epochs {live.first} to {live.last} of {asked.program!r}"
    operands = [Operand("live range", name, described, None if node is None else node.loc)]
    if name not in asked.gave:
        raise asked.error(f"gave no offset to {name!r}", operands=operands)
    number = whole(asked.gave[name], 0)
    if number is None or number % ALIGNMENT or number > LARGEST - align(live.nbytes):
        hint = f"an offset is a whole number of bytes from 0 to 2**47, a multiple of {ALIGNMENT}"
        sentence = f"gave {name!r} the offset {_shown(asked.gave[name])}"
        raise asked.error(sentence, hint, operands)
    return number


def _shown(given: object) -> str:
    text = repr(given)
    return text if len(text) <= 60 else f"{type(given).__name__}(...)"


# ------------------------------------------------------------------ schedules


class Scheduled(Arrangement):
    """Instructions in the order of a user's schedule, with a barrier between two epochs."""

    def __init__(
        self,
        schedule: Scheduler,
        program: str,
        instrs: Sequence[Instr],
        boundary: int,
        memory: Callable[[str], str],
    ) -> None:
        """Arrange instructions, of which `boundary` are forward; `memory` names a buffer's."""
        super().__init__()
        self._ask = partial(_Asked, "schedule", schedule, program)
        self._add({_instruction(instr, memory): instr for instr in instrs[:boundary]})
        self.boundary = len(self.instrs)
        self._next_epoch()
        self._add({_instruction(instr, memory): instr for instr in instrs[boundary:]})

    def _add(self, known: Mapping[Instruction, Instr]) -> None:
        """Add the instructions of the forward or of the backward part, if there are any."""
        if not known:
            return
        asked = self._ask(tuple(known))
        epochs = list(_epochs(asked, known))
        _check_order(asked, known, list(chain.from_iterable(epochs)))
        for epoch in epochs:
            if epoch[0].alone:
                self._alone(known[epoch[0]])
                continue
            if self.touched[-1]:
                self._barrier()
            for one in epoch:
                self._emit(known[one], one.accesses)


def _instruction(instr: Instr, memory: Callable[[str], str]) -> Instruction:
    if instr.body is not None:
        return Instruction(instr.outs[-1], tuple(accesses(instr.body, memory)), False)
    reads = (Access(memory(name), False, ALL) for name in dict.fromkeys(instr.ins))
    writes = (Access(memory(name), True, ALL) for name in instr.outs)
    return Instruction(instr.outs[-1], (*reads, *writes), True)


_EPOCHS = "return a list of epochs, each a list of some of the instructions given"


def _epochs(asked: _Asked, known: Collection[Instruction]) -> Iterator[list[Instruction]]:
    """Yield the epochs that are not empty; raise GraphError unless each instruction is in one."""
    program = f"of program {asked.program!r}"
    if not isinstance(asked.gave, Iterable):
        raise asked.error(f"returned {_shown(asked.gave)}, not a list of epochs", _EPOCHS)
    left = dict.fromkeys(known)
    for epoch in asked.gave:
        if not isinstance(epoch, Iterable):
            raise asked.error(f"has {_shown(epoch)} for an epoch, not a list", _EPOCHS)
        found = [_checked(asked, one, known) for one in epoch]
        for one in found:
            if one not in left:
                raise asked.error(f"runs {one.name!r} {program} twice", _EPOCHS)
            del left[one]
            if one.alone and len(found) > 1:
                sentence = f"runs {one.name!r} {program} beside others, but it is a call"
                raise asked.error(sentence, "put it into an epoch of its own")
        if found:
            yield found
    if left:
        names = first_of((repr(one.name) for one in left), 4)
        raise asked.error(f"never runs {names} {program}", _EPOCHS)


def _checked(asked: _Asked, one: object, known: Collection[Instruction]) -> Instruction:
    """Return an instruction of an epoch; raise GraphError if it is not one of those given."""
    if not isinstance(one, Instruction):
        raise asked.error(f"has {_shown(one)} in an epoch", _EPOCHS)
    if one not in known:
        raise asked.error(f"runs {one.name!r}, which is not one of the instructions given", _EPOCHS)
    return one


def _check_order(asked: _Asked, known: Iterable[Instruction], order: Sequence[Instruction]) -> None:
    """Raise GraphError if values are read or overwritten too early; `known` is a right order."""
    place = {one: i for i, one in enumerate(order)}
    writers: dict[str, list[Instruction]] = {}
    readers: dict[str, list[Instruction]] = {}
    for one in known:
        for access in one.accesses:
            for other in (readers if access.writes else writers).get(access.buffer, ()):
                if place[other] > place[one]:
                    raise _disorder(asked, one, other, access)
        for access in one.accesses:
            (writers if access.writes else readers).setdefault(access.buffer, []).append(one)


def _disorder(asked: _Asked, early: Instruction, late: Instruction, access: Access) -> GraphError:
    does, other = ("overwrites", "reads") if access.writes else ("reads", "writes")
    return asked.error(
        f"runs {early.name!r}, which {does} {access.buffer!r}, before {late.name!r}, which "
        f"{other} it, in program {asked.program!r}",
        "the order in which the instructions are given is a right one",
    )
