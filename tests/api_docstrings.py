"""What the docstrings of the public API must have, read by numpydoc's validator.

The names are those of the directives in docs/api: their sections list every parameter by its name,
what is returned, the errors that the code raises, and an example.  A field of a dataclass may have
its own docstring instead of an entry.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from numpydoc.validate import Validator, validate

PAGES = sorted((Path(__file__).resolve().parent.parent / "docs" / "api").glob("*.md"))
DIRECTIVE = re.compile(r"^\.\. auto(\w+):: (\S+)((?:\n   :.*)*)", re.M)
CODES = (
    *("GL03", "GL06", "GL07", "GL08"),  # blank lines, sections and their order, no docstring
    *("SS03", "SS05"),  # the summary is a sentence, in the imperative
    *("PR01", "PR02", "PR07", "PR08", "PR09"),  # parameters: all, right names, described
    *("RT01", "RT03", "RT04", "RT05"),  # what is returned
    "YD01",
)


@dataclasses.dataclass(frozen=True)
class Public:
    """A name of the API: `top` if a page lists it by itself, not as a member of another."""

    path: str
    top: bool = True

    @cached_property
    def value(self) -> Any:
        """The object of that name."""
        return Validator._load_obj(self.path)

    @property
    def function(self) -> Any:
        """The plain function behind a method or a decorated function, None of other objects."""
        found = inspect.unwrap(getattr(self.value, "__func__", self.value))
        return found if inspect.isfunction(found) else None

    @property
    def module(self) -> str:
        """The module that defines it."""
        return getattr(self.function or self.value, "__module__", None) or ""


def names() -> Iterator[Public]:
    """Return the names of the API: those of the pages, and the members of listed classes."""
    for page in PAGES:
        for kind, path, options in DIRECTIVE.findall(page.read_text()):
            if kind in ("function", "class", "exception", "method"):
                yield Public(path)
            if kind == "class" and ":members:" in options:
                yield from _members(path, options)


def _members(path: str, options: str) -> Iterator[Public]:
    chosen = re.search(r":members: *(.*)", options)
    listed = [name for name in re.split(r",\s*", chosen[1]) if name] if chosen else []
    cls = Public(path).value
    for name, member in inspect.getmembers_static(cls):
        own = name in vars(cls) and not name.startswith("_")
        if own and (not listed or name in listed) and not _is_data(member):
            yield Public(f"{path}.{name}", top=False)


def _is_data(member: Any) -> bool:
    return not isinstance(member, classmethod | staticmethod) and not inspect.isfunction(member)


def faults(public: Public) -> list[str]:
    """Return what the docstring of a name lacks, a line each."""
    if isinstance(public.value, type) and issubclass(public.value, BaseException):
        return []  # nobody makes one; its sentence says when it is raised
    documented = _documented_fields(public.value)
    found = []
    for code, text in validate(public.path)["errors"]:
        if code == "PR01":
            text, lacking = _lacking(text, documented)
            if not lacking:
                continue
        if code in CODES:
            found.append(f"{code}: {text}")
    return found + _unlisted_errors(public) + _no_example(public)


def _lacking(text: str, documented: set[str]) -> tuple[str, set[str]]:
    lacking = set(re.findall(r"'([^']+)'", text)) - documented
    return f"parameters {sorted(lacking)} are not described", lacking


def _documented_fields(value: Any) -> set[str]:
    """Return the fields of a dataclass that a docstring follows in the code."""
    if not (isinstance(value, type) and dataclasses.is_dataclass(value)):
        return set()
    found: set[str] = set()
    for cls in value.__mro__:
        if dataclasses.is_dataclass(cls):
            body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
            for field, after in pairwise(body):
                if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
                    found.add(ast.unparse(field.target))
    return found


def _unlisted_errors(public: Public) -> list[str]:
    """Return the errors that the function's own code raises and its docstring does not list."""
    if public.function is None:
        return []
    tree = ast.parse(textwrap.dedent(inspect.getsource(public.function)))
    raised = [n.exc for n in ast.walk(tree) if isinstance(n, ast.Raise) and n.exc is not None]
    listed = re.search(r"Raises\n *------\n(.*?)(\n\n\S+\n *---|\Z)", _doc(public), re.S)
    made = {ast.unparse(e.func).rpartition(".")[2] for e in raised if isinstance(e, ast.Call)}
    errors = sorted(name for name in made if name[0].isupper())
    if listed is None:
        return [f"raises {errors or 'errors'} without a section Raises"] if raised else []
    return [f"raises {name}, not listed" for name in errors if name not in listed[1]]


def _no_example(public: Public) -> list[str]:
    return ["no example (>>>)"] if public.top and ">>>" not in _doc(public) else []


def _doc(public: Public) -> str:
    return inspect.getdoc(public.value) or ""
