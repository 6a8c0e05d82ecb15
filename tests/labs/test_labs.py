"""Each lab accepts right answers, and rejects wrong ones with their cause."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.extras import needs
from tests.labs.harness import LABS, Lab

NAMES = tuple(sorted(path.stem for path in LABS.glob("*.md")))
FIELDS = {"grade", "grade_id", "locked", "schema_version", "solution", "task"}


def answers(name: str) -> Any:
    return importlib.import_module(f"tests.labs.{name}")


def right() -> Iterator[Any]:
    for name in NAMES:
        for title, answer in answers(name).RIGHT.items():
            yield pytest.param(name, answer, id=f"{name}: {title}")


def wrong() -> Iterator[Any]:
    for name in NAMES:
        for title, (answer, cause) in answers(name).WRONG.items():
            yield pytest.param(name, answer, cause, id=f"{name}: {title}")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, and packages for pictures that open no window."""
    needs("IPython")
    needs("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)


def test_there_are_enough_answers() -> None:
    assert len(NAMES) == 6
    assert sum(len(answers(name).RIGHT) for name in NAMES) >= 20
    assert all(len(answers(name).WRONG) >= 10 for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_cells_have_the_fields_of_nbgrader(name: str) -> None:
    cells = [cell for cell in Lab(name).cells if "nbgrader" in cell.metadata]
    ids = [cell.id for cell in cells]
    assert len(set(ids)) == len(ids)
    (solution,) = (cell for cell in cells if cell.has("solution"))
    assert "# YOUR CODE" in solution.source
    assert not solution.has("locked")
    assert sum(cell.has("grade") for cell in cells) >= 3
    for cell in cells:
        (entry,) = re.findall(r"^nbgrader: \{(.*)\}$", cell.metadata, re.M)
        fields = {part.split(":")[0] for part in entry.split(", ")}
        assert fields == FIELDS | ({"points"} if cell.has("grade") else set())
        assert "schema_version: 3" in entry
        if cell.has("grade"):
            assert cell.has("locked")
            assert "tags: [raises-exception]" in cell.metadata
            assert int(re.search(r"points: (\d+)", entry)[1]) > 0  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_starting_point_has_no_points(name: str, desk: None) -> None:
    graded = Lab(name).grade()
    assert set(graded.errors) == set(Lab(name).graded)
    assert all(type(error).__name__ == "Wrong" for error in graded.errors.values())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "answer"), list(right()))
def test_a_right_answer_is_accepted(name: str, answer: str, desk: None) -> None:
    graded = Lab(name).grade(answer)
    assert set(graded.errors) == set(Lab(name).graded)
    assert not graded.text, graded.text


@pytest.mark.slow
@pytest.mark.parametrize(("name", "answer", "cause"), list(wrong()))
def test_a_wrong_answer_is_rejected_with_its_cause(
    name: str, answer: str, cause: str, desk: None
) -> None:
    errors = [error for error in Lab(name).grade(answer).errors.values() if error is not None]
    assert errors
    assert all(type(error).__name__ == "Wrong" for error in errors)
    assert cause in "\n".join(map(str, errors))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_went_wrong_is_drawn(name: str, desk: None) -> None:
    needs("renderer")
    drawn = [Lab(name).grade(answer).shown for answer, _ in answers(name).WRONG.values()]
    assert sum(map(bool, drawn)) > len(drawn) / 2


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_jupyter_runs_a_lab_with_a_right_answer(name: str, desk: None) -> None:
    needs("ipykernel")
    jupytext = needs("jupytext")
    client = needs("nbclient").NotebookClient
    notebook = jupytext.read(LABS / f"{name}.md")
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            cell.source = next(iter(answers(name).RIGHT.values()))
    client(notebook, timeout=600, kernel_name="python3").execute()
    graded = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade")]
    assert len(graded) == len(list(Lab(name).graded))
    for cell in graded:
        assert not [out for out in cell.outputs if out.output_type == "error"], cell.outputs
