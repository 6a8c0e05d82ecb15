"""Attributes that a class lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.base.door import ask


class Missing:
    """A base of classes that answers the names of other libraries with a hint."""

    __slots__ = ()

    if not TYPE_CHECKING:  # type checkers shall report missing attributes

        def __getattr__(self, name: str) -> object:
            error = ask("missing attribute", type(self), name)
            raise error or AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
