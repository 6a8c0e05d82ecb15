"""The second parser of tables: it agrees with Python's, and says which cell was read wrongly."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import numpy as np

from graphc.check.table import _cells, table_fault
from graphc.runtime.columns import Columns

TEXT = 'size,kind,"a ""b"", c",y\n1.5,red,2,no\n\nNA,blue,"3",yes\n4e2,green,-1,no\n'
COLUMNS = Columns(
    ("size", "kind", 'a "b", c'), "y", ("no", "yes"), ((), ("blue", "red"), ()), gaps=True
)
X = np.array([[1.5, 1, 2], [np.nan, 0, 3], [400, -1, -1]], np.float32)
Y = np.array([0, 1, 0])


def fault(folder: Path, x: object, y: object, fill: float | None = None) -> str:
    path = folder / "table.csv"
    path.write_text(TEXT, encoding="utf-8")
    arrays = [np.asarray(x), np.asarray(y)]
    return table_fault(path, COLUMNS, arrays, separator=",", encoding="utf-8-sig", fill=fill)


def test_random_cells_are_those_of_csv() -> None:
    draw = random.Random(0)
    for _ in range(200):
        rows = [
            ["".join(draw.choices('ab",\n ', k=draw.randrange(5))) for _ in range(3)]
            for _ in range(3)
        ]
        file = io.StringIO(newline="")
        csv.writer(file, lineterminator=draw.choice(["\n", "\r\n"])).writerows(rows)
        wanted = [
            [cell.strip() for cell in row] for row in csv.reader(io.StringIO(file.getvalue()))
        ]
        assert [cells for _, cells in _cells(file.getvalue(), ",")] == wanted


def test_what_was_read_is_compared_cell_by_cell(tmp_path: Path) -> None:
    assert not fault(tmp_path, X, Y)
    assert not fault(tmp_path, np.where(np.isnan(X), 7, X), Y, fill=7.0)
    for row, column, what in ((0, 0, "'size'"), (1, 0, "'size'"), (2, 1, "'kind'"), (1, 2, "c'")):
        wrong = X.copy()
        wrong[row, column] = 9
        found = fault(tmp_path, wrong, Y)
        assert f"line {(2, 4, 5)[row]}" in found and what in found and "9 was read" in found
    assert "column 'y': 1 was read of 'no', it is 0" in fault(tmp_path, X, [1, 1, 0])
    assert "were read" in fault(tmp_path, X[:2], Y[:2])
