"""The lists beside the tests, each with a reason a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
Outcomes = dict[int, str]
"""Reasons by the numbers of samples."""


def reasons(file: str) -> dict[str, str]:
    """Lines of a name and a reason, between them a tab."""
    pairs = [line.split("\t") for line in _lines(file)]
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


def outcomes(file: str) -> dict[str, Outcomes]:
    """Lines of a name, the numbers of samples, and a reason."""
    found: dict[str, Outcomes] = {}
    for line in _lines(file):
        name, numbers, reason = line.split("\t")
        of_name = found.setdefault(name, {})
        for number in _numbers(numbers):
            assert number not in of_name, line
            of_name[number] = reason
    return found


def _lines(file: str) -> list[str]:
    text = (HERE / file).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line]


def lines_of(name: str, found: Mapping[int, str]) -> list[str]:
    """The lines that say so."""
    by_reason: dict[str, list[int]] = {}
    for number, reason in found.items():
        by_reason.setdefault(reason, []).append(number)
    return [f"{name}\t{_told(numbers)}\t{reason}" for reason, numbers in by_reason.items()]


def _numbers(text: str) -> list[int]:
    """Of `3 5-9 20-30:2`: 3, from 5 to 9, and every second one from 20 to 30."""
    found: list[int] = []
    for part in text.split():
        broadcast, _, step = part.partition(":")
        first, _, last = broadcast.partition("-")
        found.extend(range(int(first), int(last or first) + 1, int(step or 1)))
    return found


def _told(numbers: Sequence[int]) -> str:
    parts: list[str] = []
    at = 0
    while at < len(numbers):
        run = _run(numbers[at:])
        step = numbers[at + 1] - numbers[at] if run > 1 else 1
        first, last = numbers[at], numbers[at + run - 1]
        parts.append(f"{first}" if run == 1 else f"{first}-{last}" + f":{step}" * (step > 1))
        at += run
    return " ".join(parts)


def _run(numbers: Sequence[int]) -> int:
    """How many from the first on stand at equal distances; of fewer than three, one."""
    run = 2
    while run < len(numbers) and numbers[run] - numbers[run - 1] == numbers[1] - numbers[0]:
        run += 1
    return run if 3 <= run <= len(numbers) else 1
