"""Structures in memory, and the shorthands by which LLVM text written by hand uses them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import count

Structure = Mapping[str, tuple[str, int]]
"""The type of each field of a structure in memory, and its offset in bytes."""
_FIELD = re.compile(
    r"^  (?:%(?P<name>\S+) = (?P<how>field|place)|set) %(?P<base>\w+)\.(?P<field>\w+)"
    r"(?: = (?P<value>\S+))?(?: (?P<order>\w+))?$",
    re.M,
)
_IF = re.compile(r"^  if (.+): (\w+), (\w+)$", re.M)


def structure(*fields: str) -> Structure:
    """Return a structure of 64-bit words; each of `fields` is "i64 name" or "ptr name"."""
    pairs = [field.split() for field in fields]
    return {name: (type, 8 * i) for i, (type, name) in enumerate(pairs)}


def written_out(text: str, structures: Mapping[str, Structure]) -> str:
    """Return the text of a function with its shorthands written out.

    `%x = field %pool.epoch` is the value of a field of the structure `pool`, which is at %pool, and
    `%x = place %pool.epoch` its address; `set %pool.epoch = %x` writes it.  With an order at the
    end, such as `acquire`, the access is atomic.  `if eq i64 %a, 0: yes, no` is a comparison and a
    branch.
    """
    numbers = count()

    def access(match: re.Match[str]) -> str:
        """Return the instructions of an access to a field."""
        name, how, base, field, value, order = match.groups()
        type, offset = structures[base][field]
        at = f"%{name}" if how == "place" else f"%at{next(numbers)}"
        address = f"  {at} = getelementptr i8, ptr %{base}, i64 {offset}"
        atomic, end = "", ""
        if order:
            atomic, end = "atomic ", f" {order}, align {4 if type == 'i32' else 8}"
        if how == "place":
            return address
        if how == "field":
            return f"{address}\n  %{name} = load {atomic}{type}, ptr {at}{end}"
        return f"{address}\n  store {atomic}{type} {value}, ptr {at}{end}"

    def branch(match: re.Match[str]) -> str:
        condition, yes, no = match.groups()
        test = f"%if{next(numbers)}"
        return f"  {test} = icmp {condition}\n  br i1 {test}, label %{yes}, label %{no}"

    return _IF.sub(branch, _FIELD.sub(access, text))
