"""What a class has not, and other libraries' classes have, is told with how it is done here."""

from __future__ import annotations

from typing import TYPE_CHECKING


class Missing:
    """A base of classes that people look for other libraries' methods on."""

    __slots__ = ()

    if not TYPE_CHECKING:  # to a type checker, what is not there is not there

        def __getattr__(self, name: str) -> object:
            from graphc.other_members import no_member

            raise no_member(type(self), name)
