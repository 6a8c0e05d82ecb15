"""Hints for attributes that PyTorch and Keras users expect: what to write in graphc instead."""

from __future__ import annotations

from typing import TYPE_CHECKING


class Missing:
    """A base of classes on which people look for the methods of other libraries."""

    __slots__ = ()

    if not TYPE_CHECKING:  # type checkers shall report missing attributes

        def __getattr__(self, name: str) -> object:
            from graphc.declare.other_members import no_member

            raise no_member(type(self), name)
