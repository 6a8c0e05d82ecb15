"""What a column of a table is: numbers, words that are categories, classes, or names."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from graphc.data.kinds import FEW_WORDS, MOST_CLASSES, MOST_WORDS, Kind


def kind_of(cells: Iterable[object]) -> Kind:
    kind = Kind()
    for cell in cells:
        kind.add(str(cell))
    return kind


def test_classes_that_are_numbers_are_in_the_order_of_numbers() -> None:
    cells = ["10", "9", "-1", "2", "+3", "-20", "10", "007"]
    assert kind_of(cells).classes == ("-20", "-1", "2", "+3", "007", "9", "10")
    assert kind_of(range(12, 0, -1)).classes == tuple(map(str, range(1, 13)))


def test_classes_that_are_words_are_in_the_order_of_letters() -> None:
    assert kind_of(["10", "9", "b", "a", "10"]).classes == ("10", "9", "a", "b")


@pytest.mark.parametrize(
    ("cells", "count"),
    [
        (range(MOST_CLASSES), MOST_CLASSES),
        (range(MOST_CLASSES + 1), 0),
        (["1", "2.5"], 0),
        (["1", "2", "NA", ""], 2),
    ],
)
def test_few_whole_numbers_are_classes(cells: Iterable[object], count: int) -> None:
    assert len(kind_of(cells).classes) == count


@pytest.mark.parametrize(
    ("words", "rows", "names"),
    [
        (FEW_WORDS, FEW_WORDS, False),
        (FEW_WORDS + 1, FEW_WORDS + 1, True),
        (FEW_WORDS + 1, 2 * FEW_WORDS + 1, True),
        (FEW_WORDS + 1, 2 * FEW_WORDS + 2, False),
        (MOST_WORDS, 2 * MOST_WORDS, False),
        (MOST_WORDS + 1, 3 * MOST_WORDS, True),
    ],
)
def test_words_are_names_if_most_rows_have_one_of_their_own(
    words: int, rows: int, names: bool
) -> None:
    assert kind_of(f"word {row % words}" for row in range(rows)).names is names


def test_numbers_are_never_names() -> None:
    kind = kind_of(range(5000))
    assert not kind.names and not kind.words and not kind.classes
