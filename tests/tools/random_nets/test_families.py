"""Families of nets: what they differ in, that they are right, and that short keys are found."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.check.validation.faults import Fault, plant

from . import family_check
from .__main__ import main
from .alarms import quickly_compiled
from .case import Case
from .family import family, other_leaf
from .family_check import check

NATIVE = "graphc.backends.native"


def things(case: Case) -> list[Any]:
    """All that members of a family may differ in."""
    return [case.dtype, case.batch, case.products, case.optimizer, *map(str, case.calls)]


def test_members_differ_in_one_thing() -> None:
    met: Counter[str] = Counter()
    for seed in range(45):
        base, *others = family(seed)
        met[base.products] += 1
        met["loops"] += any(call.function == "loops.scan" for call in base.calls)
        for other in others[:1] if len(others) == 1 else []:
            pairs = zip(things(base), things(other), strict=True)
            assert sum(a != b for a, b in pairs) == 1
            met["dtypes"] += base.dtype != other.dtype
            met["extents"] += [*base.inputs.values()] != [*other.inputs.values()]
            met["pairs"] += 1
    assert met["pairs"] > 30 and met["loops"] > 12
    assert {"dtypes", "extents", "bf16", "bf16_blocks", "int8"} <= {*+met}


def test_a_changed_number_may_be_equal() -> None:
    rng = np.random.default_rng(0)
    found = [other_leaf(0.0, rng) for _ in range(40)] + [other_leaf(1, rng) for _ in range(40)]
    assert {"-0.0", "0", "1.0", "2"} <= {*map(repr, found)}


@pytest.mark.needs("native")
@pytest.mark.parametrize("count", [2, pytest.param(150, marks=pytest.mark.slow)])
def test_families_are_right(count: int, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given = ["--only", "families", "--nets", str(count), "--seed", "11", "--found", str(tmp_path)]
    assert main(given) == 0
    assert "families in native" in capsys.readouterr().out


FAULTS = {
    "constants": (f"{NATIVE}.exact_text:_form", "len(x), _digest(x))", "len(x))"),
    "dtypes": (
        f"{NATIVE}.cache_keys:program_key",
        "sorted(skip)))",
        'sorted(skip))).replace("float64", "float32")',
    ),
    "paddings": (f"{NATIVE}.gemm_windows:emit_image", "window.before, ", ""),
    "signs of zeros": ("graphc.ir.exact:same", 'pack("d", a) == pack("d", b)', "a == b"),
}
SEEDS = {"constants": 25, "dtypes": 238, "paddings": 55, "signs of zeros": 542}
"""Of each fault, what a key lacks, and a family that finds it."""


@pytest.mark.needs("native")
@pytest.mark.parametrize(
    "lacks", ["constants", *(pytest.param(x, marks=pytest.mark.slow) for x in [*FAULTS][1:])]
)
def test_a_short_key_is_found(lacks: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path))  # others may have left right code
    family_check.forget()
    plant(Fault(lacks, gc.Net, *FAULTS[lacks], ""), monkeypatch)
    monkeypatch.setattr(family_check, "_judged", lambda *_: "far")  # without another process
    with quickly_compiled():
        assert check(family(SEEDS[lacks]), SEEDS[lacks], Counter()) == "native: far"
