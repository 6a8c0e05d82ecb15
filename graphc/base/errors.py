"""Errors for users, all worded in this one place.

Every error reads the same way: one sentence in the op's words, the operands with their
shapes and the lines that declared them, the line at fault, one hint.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.base.loc import Loc, caller_loc, raised_loc

MOST_SHOWN = 10**30
"""The largest number that is written with all its digits; Python writes no more than 4,300."""

UNFIT = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError),
    *(MemoryError, NotImplementedError, RecursionError),
)
"""The exceptions that occur if what a file says is not of the kinds that it must be."""


def counted(number: int, word: str) -> str:
    """Return a count in words: `1 row`, `3,000 rows`."""
    text = f"{number:,}" if number <= MOST_SHOWN else "more than 10**30"
    return f"{text} {word}{'' if number == 1 else 's'}"


def first_of(texts: Iterable[str], most: int = 8) -> str:
    """Return at most `most` texts, joined by commas: `a, b, ...`."""
    known = list(texts)
    return ", ".join(known[:most]) + (", ..." if len(known) > most else "")


def shown(thing: object) -> str:
    """Return an object in words: its repr if that is one short line, or else its type."""
    try:
        text = repr(thing)
    except ValueError:  # a number of more digits than Python writes
        text = ""
    short = 0 < len(text) < 100 and "\n" not in text
    return text if short else f"an object of type {type(thing).__name__}"


LONGEST = 2500
"""The most characters of a sentence or a hint; names in files have up to 1,000."""


@dataclass(frozen=True, slots=True)
class Operand:
    """An operand as an error shows it."""

    role: str
    """The operand's name in the op's words."""
    name: str
    described: str
    """The operand's type as text."""
    loc: Loc | None
    """The user's line that declared it."""


class GraphError(ValueError):
    """A mistake in a graph, a feed or a file.

    Parameters
    ----------
    sentence
        What is wrong.
    operands
        Operands that the text lists with their shapes and the lines that declared them.
    loc
        The line at fault; by default the innermost line outside graphc.
    hint
        What to do.

    Examples
    --------
    >>> try:
    ...     gc.affine(gc.Net("one").input("x", (gc.N, 3)), 0)
    ... except gc.GraphError as error:
    ...     print(error.sentence)
    affine: units is 0, it must be a whole number from 1 up
    """

    def __init__(
        self,
        sentence: str,
        *,
        operands: Sequence[Operand] = (),
        loc: Loc | None = None,
        hint: str = "",
    ) -> None:
        loc = loc or caller_loc()
        self.sentence = sentence
        self.loc = loc
        self.hint = hint
        super().__init__(format_error(sentence, operands, loc, hint))

    def _render_traceback_(self) -> list[str]:
        """Return the lines for a notebook: the message, which names the user's lines, no frames."""
        return f"{type(self).__name__}: {self}".splitlines()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), str(self)), vars(self)


def _rebuilt(kind: type[GraphError], text: str) -> GraphError:
    """Rebuild an unpickled error with the text that it had."""
    return kind.__new__(kind, text)


class RuleError(GraphError):
    """A rule of an op that fails, or that returns what it must not.

    Attributes
    ----------
    rule
        The name of the rule, such as "grad".
    fault
        What is wrong with it, in a sentence without subject.
    """

    def __init__(
        self, op: str, rule: str, fault: str, node: str = "", loc: Loc | None = None, hint: str = ""
    ) -> None:
        self.rule, self.fault = rule, fault
        called = f" {node!r}" if node else ""
        super().__init__(f"{op}{called}: its {rule} rule {fault}", loc=loc, hint=hint)

    @classmethod
    def of(
        cls, op: str, rule: str, error: Exception, node: str = "", loc: Loc | None = None
    ) -> RuleError:
        """Return the error for an exception that a rule raised, with the line that raised it."""
        return cls(op, rule, rule_failure(error), node, loc)


def rule_failure(error: Exception, what: str = "fails") -> str:
    """Return the exception of a rule in words; of one that is not written, that it is missing."""
    missing = isinstance(error, NotImplementedError)
    return "is missing" if missing else failure_text(error, what)


def failure_text(error: Exception, what: str = "fails") -> str:
    """Return what a user's code does, the exception that it raised, and the line that did."""
    raised = raised_loc(error)
    at = f", at {raised}" if raised else ""
    text = f": {error}".partition("\n")[0] if str(error) else ""
    return f"{what}: {type(error).__name__}{text}{at}"


class FeedError(GraphError):
    """An array that does not fit the input it is fed to."""


class StateError(GraphError):
    """A call that the executor's state does not allow now."""


class UnknownName(StateError, KeyError):
    """A name that a mapping, such as the parameters, does not contain."""

    __str__ = Exception.__str__  # KeyError's would show the message in quotes


class NotFiniteError(GraphError):
    """A loss or a state that has become infinite or NaN, with the node where that began."""


class BudgetError(GraphError):
    """A plan that needs more memory than its budget."""


class OutOfMemoryError(GraphError, MemoryError):
    """A plan for which the system does not have enough memory."""


class DataError(GraphError):
    """A data file that cannot be used."""


class ModelFileError(GraphError):
    """A model file that cannot be read."""


class RankError(GraphError):
    """A rank that failed or hangs, or whose numbers differ from those of the others."""


class RendererMissing(GraphError):
    """A picture that no installed renderer can draw."""


def format_error(sentence: str, operands: Sequence[Operand], loc: Loc | None, hint: str) -> str:
    """Return the text of an error, at most 15 lines."""
    lines = [_shortened(sentence)]
    width = max((len(operand.role) for operand in operands), default=0)
    for operand in operands[:8]:
        where = f"  declared at {operand.loc}" if operand.loc else ""
        lines.append(f"  {operand.role:<{width}}  {operand.name} {operand.described}{where}")
    if loc is not None:
        source = f": {loc.text}" if loc.text else ""
        at = str(loc) if loc.caller is None else str(Loc(loc.file, loc.line, loc.function))
        lines.append(f"  at {at}{source}")
        if loc.caller is not None:
            called = f": {loc.caller.text}" if loc.caller.text else ""
            lines.append(f"  called at {loc.caller}{called}")
    if hint:
        lines.append(f"  hint: {_shortened(hint)}")
    return "\n".join(lines)


def _shortened(text: str) -> str:
    """Return the text, cut if a shape or a list from a file makes it very long."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def close_names(name: str, known: Iterable[str], n: int = 3, cutoff: float = 0.6) -> list[str]:
    """Return at most `n` of the known names that may be meant by a name, the closest first."""
    from difflib import get_close_matches  # mistakes alone need it

    return get_close_matches(name, list(known), n=n, cutoff=cutoff)
