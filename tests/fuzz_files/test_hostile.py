"""Two hundred small files that ask for too much: each is read or refused at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz_files.hostile import CASES
from tests.fuzz_files.run import outcome_of

FEW = sorted(CASES)[:: len(CASES) // 20]


def check(name: str, folder: Path) -> None:
    kind, make = CASES[name]
    fault = outcome_of(kind, make(), folder).fault
    assert fault is None, f"{fault.what}\n{fault.trace}"


@pytest.mark.parametrize("name", FEW)
def test_some_hostile_files(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CASES.keys() - {*FEW}))
def test_hostile_files(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


def test_there_are_enough() -> None:
    assert len(CASES) >= 200
