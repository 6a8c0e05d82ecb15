"""The bundled digits, the split, and what the loaders say of files they cannot use."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.base.errors import DataError
from graphc.data import load_arrays, load_data, load_digits, load_table, stratified_split
from graphc.data.table import Header


def write(folder: Path, text: str, name: str = "table.csv") -> str:
    """The path of a file with this text."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_digits_are_complete() -> None:
    x, y = load_digits()
    assert (x.shape, x.dtype.name) == ((1797, 64), "float32")
    assert (y.shape, y.dtype.name) == ((1797,), "int64")
    assert (x.min(), x.max()) == (0, 16)
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert y[:10].tolist() == list(range(10))


def test_digits_do_not_change() -> None:
    x, y = load_digits()
    digest = hashlib.sha256(x.astype("u1").tobytes() + y.astype("u1").tobytes()).hexdigest()
    assert digest == "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


def test_digits_by_name_and_fresh_each_time() -> None:
    data = load_data("digits")
    data["x"][:] = -1
    assert load_data("digits")["x"].min() == 0


@given(
    y=st.lists(st.integers(0, 4), max_size=60),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**64 - 1),
)
def test_split_covers_every_row_once_and_every_class(
    y: list[int], fraction: float, seed: int
) -> None:
    labels = np.array(y, np.int64)
    train, test = stratified_split(labels, fraction, seed)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(len(y)))
    for label in set(y):
        total = y.count(label)
        tested = int((labels[test] == label).sum())
        assert (tested == 0) if total == 1 else (1 <= tested <= total - 1)
        assert abs(tested - fraction * total) <= 1


def test_split_is_deterministic_and_seeded() -> None:
    _, y = load_digits()
    first, again, other = (stratified_split(y, 0.25, seed)[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (np.diff(first) > 0).all()


def test_a_class_is_split_whatever_the_other_classes_are() -> None:
    few = np.array([0] * 20 + [1] * 5)
    many = np.array([0] * 20 + [2] * 9)
    tests = [stratified_split(y, 0.5, 3)[1] for y in (few, many)]
    np.testing.assert_array_equal(tests[0][tests[0] < 20], tests[1][tests[1] < 20])


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_split_needs_a_proper_fraction(fraction: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        stratified_split([0, 1], fraction, 0)


def test_split_needs_a_vector() -> None:
    with pytest.raises(ValueError, match="vector"):
        stratified_split(np.zeros((2, 2)), 0.5, 0)


def test_npz_keeps_names_and_types(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.ones((3, 2), np.float32), y=np.arange(3), mask=np.zeros(3, np.bool_))
    data = load_data(str(path))
    assert {name: value.dtype.name for name, value in data.items()} == {
        "x": "float32",
        "y": "int64",
        "mask": "bool",
    }
    np.testing.assert_array_equal(data["y"], [0, 1, 2])


def test_npz_with_objects_is_refused_without_unpickling(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.array([{}, []], object))
    with pytest.raises(DataError, match=r"data\.npz"):
        load_arrays(path)


def test_npz_with_text_or_nothing_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "text.npz", words=np.array(["a", "b"]))
    with pytest.raises(DataError, match=r"'words' in .* holds <U1"):
        load_arrays(tmp_path / "text.npz")
    np.savez(tmp_path / "none.npz")
    with pytest.raises(DataError, match="no arrays"):
        load_arrays(tmp_path / "none.npz")


def test_bare_array_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "bare.npz", "wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(DataError, match="one bare array"):
        load_arrays(tmp_path / "bare.npz")


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x03\x04 and then rubbish"])
def test_rubbish_npz_is_a_data_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read .*bad\.npz") as caught:
        load_arrays(path)
    assert caught.value.hint


@pytest.mark.slow
def test_damaged_npz_never_raises_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "damaged.npz"
    np.savez_compressed(path, x=np.arange(50.0), y=np.arange(50))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(300):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 3):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged[: rng.integers(1, len(whole))] if trial % 3 == 0 else damaged)
        try:
            load_arrays(path)
        except DataError:
            refused += 1
    assert refused > 150


@pytest.mark.parametrize("name", ["gone.npz", "gone.csv"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"cannot read .*{name}: No such file") as caught:
        load_data(str(tmp_path / name))
    assert "hint" in str(caught.value)


@pytest.mark.parametrize("name", ["folder.npz", "folder.csv"])
def test_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="cannot read"):
        load_data(str(tmp_path / name))


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(DataError, match=r"cannot tell .* data\.xlsx") as caught:
        load_data("data.xlsx")
    assert "digits" in caught.value.hint


def test_csv_takes_the_last_column_as_label(tmp_path: Path) -> None:
    data = load_data(write(tmp_path, "a,b,c\n1,2,0\n3.5,-4e1,2\n\n"))
    assert (data["x"].dtype.name, data["y"].dtype.name) == ("float32", "int64")
    np.testing.assert_array_equal(data["x"], [[1, 2], [3.5, -40]])
    np.testing.assert_array_equal(data["y"], [0, 2])


@pytest.mark.parametrize("name", ["y", "label", "Target"])
def test_csv_finds_the_label_by_name(tmp_path: Path, name: str) -> None:
    data = load_table(write(tmp_path, f"a, {name} ,b\r\n1,5,2\r\n3,6,4\r\n"))
    np.testing.assert_array_equal(data["y"], [5, 6])
    np.testing.assert_array_equal(data["x"], [[1, 2], [3, 4]])
    assert data["x"].flags.c_contiguous


def test_csv_label_can_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path, "a,y\n1,5\n")
    np.testing.assert_array_equal(load_table(path, label="a")["y"], [1])
    with pytest.raises(DataError, match="no column 'z'"):
        load_table(path, label="z")


@pytest.mark.parametrize("value", ["0.5", "1e30"])
def test_csv_label_that_is_not_a_class_stays_float(tmp_path: Path, value: str) -> None:
    assert load_table(write(tmp_path, f"a,y\n1,{value}\n2,3\n"))["y"].dtype == np.float32


def test_whole_labels_are_read_to_the_last_digit(tmp_path: Path) -> None:
    labels = [2**53 + 1, -(2**63), 2**63 - 1]
    text = "a,y\n" + "".join(f"1,{label}\n" for label in labels)
    assert load_table(write(tmp_path, text))["y"].tolist() == labels


@pytest.mark.parametrize("header", ["0,1,y", "1,2,y", "7,a,y", "a,b;c,y"])
def test_columns_may_be_called_by_their_numbers(tmp_path: Path, header: str) -> None:
    assert len(load_table(write(tmp_path, f"{header}\n5,6,7\n"))["y"]) == 1


def test_csv_with_byte_order_mark_and_quotes(tmp_path: Path) -> None:
    data = load_table(write(tmp_path, '\ufeff"y","a"\n"1","2"\n'))
    np.testing.assert_array_equal(data["y"], [1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,b\n", "no rows"),
        ("1,2\n3,4\n", "no header"),
        ("a\n1\n", "single column, 'a'"),
        ("a,b\n1,2\n1,2,3\n", "line 3: 3 values, but the header names 2 columns"),
        ("a,b\n1,2\n1\n", "line 3: 1 value,"),
        ("a,b\n1,2\n\nx7,4\n", r"line 4, column 1 \('a'\): 'x7' is not a finite"),
        ("a,b\n1,\n", r"line 2, column 2 \('b'\): the value is missing"),
        ("a,b\n1,nan\n", "'nan' is not a finite"),
        ("a,b\n-inf,1\n", "'-inf' is not a finite"),
        ("a,b\n1e39,1\n", "'1e39' is not a finite"),
        ("a,b\n1_0,1\n", "'1_0' is not a finite"),
        ('a,b\n1,"2\n', r"line \d: unexpected end"),
        ("y,y\n1,2\n", "2 columns called 'y'"),
        ("a,a,y\n1,2,3\n", "2 columns called 'a'"),
        ("5.1,3.5,1.4,0.2,setosa\n4.9,3,1.4,0.2,setosa\n", "no header.*: 5.1,3.5,1.4,0.2,setosa"),
        ("a,b;c;y\n1;2;3\n", "2 columns, 'a', 'b;c;y'"),
        ("a,y\n1,2\n1,9223372036854775808\n", r"line 3, column 2 \('y'\).* does not fit int64"),
    ],
)
def test_csv_mistakes_are_located(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"(?s)table\.csv.*{message}") as caught:
        load_table(write(tmp_path, text))
    assert caught.value.hint
    assert len(str(caught.value).splitlines()) == 3


def test_csv_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("größe,y\n1,2\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8 text"):
        load_table(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [("0,1", "'a' is not a"), ("1,2", "'a' is not a"), ("2,3", "no header"), ("1,3", "no header")],
)
def test_numbers_from_0_or_1_on_are_names_of_columns(
    header: str, message: str, tmp_path: Path
) -> None:
    """Other numbers above numbers, beside a word above words, are a row of data."""
    with pytest.raises(DataError, match=message):
        load_table(write(tmp_path, f"{header},kind\n5,6,a\n8,9,b\n"))


class Compared(str):
    """A text that counts how often it is compared."""

    count = 0
    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Compared.count += 1
        return str.__eq__(self, other)


def test_each_column_is_compared_with_few_others() -> None:
    """Files may have 100,000 columns: no work for each pair of them."""
    names = [f"c{i}" for i in range(3000)]
    header = Header("wide.csv", tuple(map(Compared, names)))
    Compared.count = 0
    header.check_distinct(range(len(names)))
    assert [header.column(name) for name in names] == [*range(len(names))]
    assert Compared.count < 10 * len(names)
    twice = Header("wide.csv", ("a", "b", "a"))
    with pytest.raises(DataError, match="has 2 columns called 'a'"):
        twice.check_distinct(range(3))
