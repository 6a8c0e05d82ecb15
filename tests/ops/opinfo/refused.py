"""What a translation raises for arguments that graphc has no words for."""

from __future__ import annotations


class Refused(Exception):
    """A sample that graphc does not express, with the reason."""


def refuse(reason: str, when: object = True) -> None:
    """Raise Refused with the reason, when it holds."""
    if when:
        raise Refused(reason)
