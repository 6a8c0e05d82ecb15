"""Native code that multiplies bfloat16 has the bits of exported C, and of either kind of word."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import pytest

from graphc.backends.native import cache_keys, target
from graphc.ir.op import Array
from tests.extras import missing
from tests.tools.fuzz.case import Case
from tests.tools.fuzz.run import run

Results = list[dict[str, Array]]


def other_bits(case: Case, found: Results) -> str | None:
    """A result of a native case that has other bits elsewhere, if one has."""
    for what, results in _elsewhere(case):
        for number, (one, other) in enumerate(zip(found, results, strict=True)):
            for name, array in one.items():
                if array.tobytes() != other[name].tobytes():
                    return f"event {number}, {name}: other bits {what}"
    return None


def _elsewhere(case: Case) -> Iterator[tuple[str, Results]]:
    if missing("c") is None:
        yield "in C", run(replace(case, backend="c"))[0]
    if target.has_dots(target.host().features):
        with _other_pairs():
            yield "with the other code for pairs", run(replace(case))[0]
    if target.host().words["blocks"] == target.TILES:
        with without_tiles():
            yield "without registers of tiles", run(replace(case))[0]


def _other_pairs() -> AbstractContextManager[None]:
    """The words of pairs that this processor would not take, as far as they are known to it."""
    usual = target.host().words["pairs"] == target.DOTS
    return _changed("FAST_DOTS", () if usual else ("",))


def without_tiles() -> AbstractContextManager[None]:
    """The words of blocks of a processor without registers of tiles."""
    return _changed("has_tiles", lambda features: False)


@contextmanager
def _changed(name: str, value: object) -> Iterator[None]:
    """What a target is made of, changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, name, value)
        patch.setattr(cache_keys, "_writers", lambda: None)  # the text alone tells what is known
        yield
