"""Functions as parts of modules that are compiled apart: their names and declarations, as text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from string import digits

GLOBAL = re.compile(r"@([\w.]+)")


def named_by_text(functions: Sequence[str]) -> list[str]:
    """Return the functions once each, those of the module alone named after their texts.

    A function only calls those before it.
    """
    names: dict[str, str] = {}
    found: dict[str, None] = {}
    for function in functions:
        text = GLOBAL.sub(lambda name: "@" + names.get(name[1], name[1]), function)
        if text.startswith("define internal"):
            name = declaration(text)[0]
            digest = hashlib.blake2b(text.replace(f"@{name}(", "@(", 1).encode(), digest_size=8)
            names[name] = f"{name.rstrip(digits)}.{digest.hexdigest()}"
            text = text.replace(f"@{name}(", f"@{names[name]}(", 1)
        found[text] = None
    return [*found]


def declaration(function: str) -> tuple[str, str]:
    """Return the name of a function, and its declaration for the modules that call it."""
    head = function.partition(" {\n")[0]
    declared = re.sub(r" %\w+", "", head).replace("define internal", "declare hidden", 1)
    return GLOBAL.findall(head)[0], declared
