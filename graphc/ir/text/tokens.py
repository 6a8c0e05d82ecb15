"""One line of text as tokens, and the reader of names, types and values.

A value must have the declared type of the field that it is read for.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from graphc.ir.tensor_type import Batch, Dim, TensorType
from graphc.ir.text.graph import bytes_value

_T = TypeVar("_T")
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<bytes>zlib"[A-Za-z0-9+/=]*")
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<number>-?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|inf|nan)(?![A-Za-z0-9_./]))
      | (?P<word>[A-Za-z_][A-Za-z0-9_./]*)
      | (?P<mark>[:=()\[\],*])
      | (?P<end>\#.*|$)
    )""",
    re.VERBOSE,
)
_WORDS = {"True": True, "False": False, "None": None}
_DEEPEST = 32


def tokens_of(line: str) -> list[tuple[str, str]]:
    """Return the (kind, text) of each token and the end; raise ValueError for stray characters."""
    found: list[tuple[str, str]] = []
    position = 0
    while not found or found[-1][0] != "end":
        match = _TOKEN.match(line, position)
        if match is None:
            rest = line[position:].strip()
            raise ValueError(f"{rest[:20]!r} cannot be read")
        found.append((str(match.lastgroup), match[str(match.lastgroup)]))
        position = match.end()
    return found


class Reader:
    """A reader that takes item after item from a line; a wrong one raises ValueError."""

    def __init__(self, line: str, classes: Mapping[str, type]) -> None:
        self.tokens = tokens_of(line)
        self.position = 0
        self.classes = classes
        self._depth = 0

    @property
    def kind(self) -> str:
        """The kind of the next token."""
        return self.tokens[self.position][0]

    def next_is(self, text: str, ahead: int = 0) -> bool:
        """Return whether the next token, or one further ahead, is this word or mark."""
        at = min(self.position + ahead, len(self.tokens) - 1)
        return self.tokens[at][1] == text and self.tokens[at][0] in ("word", "mark")

    def take(self) -> tuple[str, str]:
        """Return the next token and pass over it; the end stays."""
        token = self.tokens[self.position]
        if token[0] != "end":
            self.position += 1
        return token

    def skip(self, text: str) -> bool:
        """Pass over this word or mark if it is next, and return whether it was."""
        found = self.next_is(text)
        self.position += found
        return found

    def expect(self, text: str) -> None:
        """Pass over this word or mark; raise ValueError if it is not next."""
        if not self.skip(text):
            self.fail(f"{text!r}")

    def fail(self, wanted: str) -> NoReturn:
        """Raise ValueError that says what should be here instead of what is."""
        kind, text = self.tokens[self.position]
        found = "the line ends" if kind == "end" else f"there is {text[:40]!r}"
        raise ValueError(f"{wanted} is expected where {found}")

    def name(self) -> str:
        """Read a name, bare or quoted."""
        kind, text = self.take()
        if kind == "word":
            return text
        if kind == "string":
            return str(json.loads(text))
        self.position -= kind != "end"
        self.fail("a name")

    def until(self, closing: str, item: Callable[[], _T]) -> list[_T]:
        """Read items between commas up to the closing mark; one comma may precede that."""
        items: list[_T] = []
        while not self.skip(closing):
            items.append(item())
            if not self.skip(","):
                self.expect(closing)
                break
        return items

    def type(self) -> TensorType:
        """Read a tensor type: `float32[N, 64]`."""
        dtype = self.name()
        self.expect("[")
        return TensorType(tuple(self.until("]", self._dim)), dtype)

    def _dim(self) -> Dim:
        value = self.value()
        if isinstance(value, Batch) or type(value) is int:
            return value
        raise ValueError(f"{value!r} is not a dimension")

    def value(self) -> Any:
        """Read an attribute's value."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError("values are nested too deeply")
        kind, text = self.take()
        if kind == "mark" and text in ("(", "["):
            items = self.until(")" if text == "(" else "]", self.value)
            value: Any = tuple(items) if text == "(" else items
        else:
            value = self._single(kind, text)
        self._depth -= 1
        return value

    def _single(self, kind: str, text: str) -> Any:
        if kind == "number":
            return self._number(text)
        if kind == "string":
            return json.loads(text)
        if kind == "bytes":
            return bytes_value(text[5:-1])
        if kind == "word" and text in _WORDS:
            return _WORDS[text]
        if kind == "word" and text == "N":
            return self._rows(1)
        if kind == "word":
            return self._object(text)
        self.position -= kind != "end"
        self.fail("a value")

    def _number(self, text: str) -> Any:
        number: int | float = int(text) if text.lstrip("-").isdigit() else float(text)
        if self.next_is("*") and self.next_is("N", ahead=1):
            self.position += 2
            return self._rows(number)  # type: ignore[arg-type]
        return number

    def _rows(self, factor: int) -> Batch:
        """Read the further powers of a batch dimension, after the first N: `*N`."""
        batch = Batch() * factor
        while self.next_is("*") and self.next_is("N", ahead=1):
            self.position += 2
            batch = batch * Batch()
        return batch

    def _object(self, name: str) -> Any:
        cls = self.classes.get(name)
        if cls is None:
            raise ValueError(f"{name!r} is neither a value nor a class of values")
        self.expect("(")
        return construct(cls, dict(self.until(")", self.attribute)))

    def attribute(self) -> tuple[str, Any]:
        """Read `name=value`."""
        name = self.name()
        self.expect("=")
        return name, self.value()


def construct(cls: type, fields: Mapping[str, Any]) -> Any:
    """Return the dataclass with these fields; raise ValueError unless all exist, of their types."""
    known = field_names(cls)
    for name in fields:
        if name not in known:
            raise ValueError(f"{cls.__name__} has no attribute {name!r}")
    for name in known:
        if name not in fields:
            raise ValueError(f"{cls.__name__} lacks the attribute {name!r}")
        wrong = misfit(cls, name, fields[name])
        if wrong is not None:
            raise ValueError(wrong)
    return cls(**fields)


def field_names(cls: type) -> tuple[str, ...]:
    """Return the fields that an object of the class is made of; none if it is not a dataclass."""
    if not dataclasses.is_dataclass(cls):
        return ()
    return tuple(field.name for field in dataclasses.fields(cls) if field.init and field.compare)


def misfit(cls: type, name: str, value: Any) -> str | None:
    """Return what is wrong with a field's value, in words; None if it fits."""
    hint = _hints(cls).get(name, Any)
    if _fits(value, hint):
        return None
    wanted = getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint)
    return f"{cls.__name__}: {name} is {str(value)[:40]!r}, not of type {wanted}"


@lru_cache(maxsize=1024)
def _hints(cls: type) -> dict[str, Any]:
    """Return the declared types of a class, or none if they cannot be resolved."""
    try:
        return get_type_hints(cls)
    except (NameError, TypeError, AttributeError):  # names that only type checkers know
        return {}


def _fits(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    if isinstance(hint, types.UnionType) or get_origin(hint) is Union:
        return any(_fits(value, one) for one in get_args(hint))
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        return type(value) in (int, float) and _is_number(value)
    if hint in (int, bool, str, bytes):
        return type(value) is hint
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and _fit(value, get_args(hint))
    if isinstance(hint, type) and not issubclass(hint, tuple):
        return isinstance(value, hint)
    return True


def _is_number(value: float) -> bool:
    """Return whether it is neither NaN nor a whole number beyond all floats."""
    try:
        return not math.isnan(value)
    except OverflowError:
        return False


def _fit(values: tuple[Any, ...], hints: tuple[Any, ...]) -> bool:
    if len(hints) == 2 and hints[1] is Ellipsis:
        return all(_fits(value, hints[0]) for value in values)
    return len(values) == len(hints) and all(map(_fits, values, hints))
