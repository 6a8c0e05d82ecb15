"""Native code that multiplies bfloat16 has the bits of exported C, and of other instructions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from graphc.backends.backend import backend
from graphc.backends.native import cache_keys, target
from graphc.ir.op import Array
from tests.fuzz.case import Case
from tests.fuzz.run import run

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
    if backend("c").missing() is None:
        yield "in C", run(replace(case, backend="c"))[0]
    host = target.host()
    if target.has_dots(host.features) or host.words["blocks"] == target.TILES:
        with _other_words(host):
            yield "with other instructions", run(replace(case))[0]


@contextmanager
def _other_words(host: target.Target) -> Iterator[None]:
    """The words of bfloat16 that this processor would not take, as far as they are known to it."""
    usual = host.words["pairs"] == target.DOTS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, "FAST_DOTS", () if usual else ("",))
        patch.setattr(target, "has_tiles", lambda features: False)
        patch.setattr(cache_keys, "_writers", lambda: None)  # the text alone tells what is known
        yield
