"""Every kind of data trains as arrays do."""

from __future__ import annotations

import gc as collector
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.runtime.pages import Pages
from graphc.train.source import ReadAhead
from graphc.train.user_data import training_source
from tests.train.nets import BATCH, bits, executor, table


def test_a_mapped_file_trains_as_its_array_does(tmp_path: Path) -> None:
    x, y = table(45)
    for name, array in {"x": x, "y": y}.items():
        np.save(tmp_path / f"{name}.npy", array)
    files = tuple(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy")
    a, b = executor(), executor()
    gc.fit(a, (x, y), validation=(x, y), epochs=3)
    gc.fit(b, files, validation=files, epochs=3)
    assert bits(a) == bits(b)


@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_a_mapped_file_of_another_dtype_is_converted_a_batch_at_a_time(
    tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = table(45)
    x = np.abs(x * 20).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    file = np.load(tmp_path / "x.npy", mmap_mode="r")
    a, b = executor(), executor()
    gc.fit(a, (x, y), epochs=2)
    longest = []
    whole = gc.Executor.rows

    def rows(self, data, *, train):
        found = whole(self, data, train=train)
        longest.extend(array.nbytes for array in found[0].values() if array.strides[0])
        return found

    monkeypatch.setattr(gc.Executor, "rows", rows)
    gc.fit(b, (file, y), epochs=2)
    assert bits(a) == bits(b)
    assert max(longest) <= y.nbytes


def test_mapped_rows_are_read_in_order_and_their_pages_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.arange(40.0).reshape(20, 2)
    np.save(tmp_path / "x.npy", array)
    given_back = []
    monkeypatch.setattr(Pages, "give_back", lambda pages: given_back.append(pages))
    monkeypatch.setattr("graphc.train.source._PIECE", 4)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    ahead = ReadAhead({"x": x, "across": x.T}, {"x": 0, "across": 1})
    rows = np.random.default_rng(0).permutation(20)[:10]
    read: list[int] = []
    take = np.take

    def watched(source, places, axis, *rest):
        if source is x:
            read.extend(places)
        return take(source, places, axis, *rest)

    monkeypatch.setattr(np, "take", watched)
    ahead.read(rows)
    assert read == sorted(rows)
    assert len(given_back) == 3
    buffer, across = np.empty((3, 2)), np.empty((2, 3))
    ahead.take("x", 4, 7, buffer)
    ahead.take("across", 4, 7, across)
    np.testing.assert_array_equal(buffer, array[rows[4:7]])
    np.testing.assert_array_equal(across, array[rows[4:7]].T)


@pytest.mark.parametrize("ahead", [1, 16 * 8 * 3, 10**9])
def test_however_much_is_read_ahead(tmp_path: Path, monkeypatch, ahead: int) -> None:
    monkeypatch.setattr("graphc.train.source._AHEAD", ahead)
    x, y = table(45)
    np.save(tmp_path / "x.npy", x)
    plain = training_source(executor(), (x, y), BATCH, 1)
    source = training_source(executor(), (np.load(tmp_path / "x.npy", mmap_mode="r"), y), BATCH, 1)
    for start in (0, 1, 4):
        for (n, a), (m, b) in zip(plain.batches(2, start), source.batches(2, start), strict=True):
            assert n == m
            np.testing.assert_array_equal(a["x"], b["x"])
            np.testing.assert_array_equal(a["y"], b["y"])


def part_files(folder: Path, sizes: tuple[int, ...] = (17, 5, 23)) -> tuple[np.ndarray, np.ndarray]:
    x, y = table(sum(sizes))
    start = 0
    for number, size in enumerate(sizes):
        rows = slice(start, start + size)
        np.savez(folder / f"part-{number}.npz", x=x[rows], y=y[rows])
        start += size
    return x, y


def test_part_files_in_order_train_as_one_array(tmp_path: Path) -> None:
    arrays = part_files(tmp_path)
    a, b = executor(), executor()
    gc.fit(a, arrays, validation=arrays, epochs=2, shuffle=False)
    history = gc.fit(b, tmp_path, validation=str(tmp_path), epochs=2, shuffle=False)
    assert bits(a) == bits(b)
    assert history.val_loss[-1] == pytest.approx(b.evaluate(*arrays)["loss"])


def test_shuffled_part_files_give_each_row_once_in_full_batches(tmp_path: Path) -> None:
    x, _ = part_files(tmp_path)
    source = training_source(executor(), tmp_path, BATCH, 0)
    epochs = []
    for epoch in (1, 2):
        batches = list(source.batches(epoch))
        assert [n for n, _ in batches] == [8, 8, 8, 8, 8, 5]
        epochs.append(np.concatenate([feeds["x"] for _, feeds in batches]))
        np.testing.assert_array_equal(np.sort(epochs[-1], 0), np.sort(x, 0))
        for start in range(1, 6):
            again = list(source.batches(epoch, start))
            for (_, late), (_, early) in zip(again, batches[start:], strict=True):
                np.testing.assert_array_equal(late["x"], early["x"])
        place = source.row(epoch, 3, 2)
        assert place is not None
        list(source.batches(epoch))
        np.testing.assert_array_equal(x[place], epochs[-1][3 * BATCH + 2])
    assert not np.array_equal(*epochs)


def test_one_part_file_at_a_time_is_in_memory(tmp_path: Path) -> None:
    for number in range(8):
        rows = np.zeros((20_000, 4), np.float32)
        np.savez(tmp_path / f"{number}.npz", x=rows, y=np.zeros(20_000, np.int64))
    source = training_source(executor(batch=512), tmp_path, 512, 0)
    collector.collect()
    tracemalloc.start()
    assert sum(n for n, _ in source.batches(1)) == 160_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 20_000 * 24  # all of them would be 8 * 20,000 * 24 bytes


@pytest.mark.slow
def test_part_files_are_evaluated_one_at_a_time(tmp_path: Path) -> None:
    x, y = part_files(tmp_path)
    ex = executor()
    gc.fit(ex, (x, y))
    found = ex.evaluate(tmp_path)
    assert found == pytest.approx(ex.evaluate(x, y), rel=1e-6)
    assert ex.evaluate(str(tmp_path)) == found
    with pytest.raises(gc.FeedError, match="which is not a folder of part files"):
        ex.evaluate(tmp_path / "nowhere")
    (tmp_path / "many").mkdir()
    for number in range(8):
        np.savez(
            tmp_path / "many" / f"{number}.npz",
            x=np.zeros((20_000, 4), np.float32),
            y=np.zeros(20_000, np.int64),
        )
    collector.collect()
    tracemalloc.start()
    ex.evaluate(tmp_path / "many")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 20_000 * 24


def test_part_files_without_labels_are_refused(tmp_path: Path) -> None:
    x, _ = table(20)
    np.savez(tmp_path / "a.npz", x=x)
    with pytest.raises(gc.FeedError, match="what was fed determines no loss"):
        executor().evaluate(tmp_path)


def test_a_function_of_the_epoch(tmp_path: Path) -> None:
    x, y = table(45)
    order = [np.random.default_rng(epoch).permutation(45) for epoch in range(4)]

    def batches(epoch: int):
        for start in range(0, 45, BATCH):
            rows = order[epoch][start : start + BATCH]
            yield {"y": y[rows], "x": x[rows]}

    a, b = executor(), executor()
    history = gc.fit(a, batches, validation=lambda epoch: [(x[:8], y[:8])], epochs=3)
    assert history.val_loss[-1] == a.evaluate(x[:8], y[:8])["loss"]
    losses = []
    for epoch in (1, 2, 3):
        total = 0.0
        for feeds in batches(epoch):
            total += len(feeds["y"]) * b.step(feeds)
        losses.append(total / 45)
    assert bits(a) == bits(b)
    assert history.loss == losses


def test_a_generator_trains_one_epoch() -> None:
    x, y = table(40)
    a, b = executor(), executor()
    gc.fit(a, ((x[i : i + 8], y[i : i + 8]) for i in range(0, 40, 8)))
    gc.fit(b, (x, y), shuffle=False)
    assert bits(a) == bits(b)


def test_a_last_partial_batch_compiles_nothing() -> None:
    ex = executor(backend="native")
    gc.fit(ex, table(40))
    made = len(ex._binder._runners)
    gc.fit(ex, table(45))
    assert len(ex._binder._runners) == made


X, Y = table(20)


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (((X, Y) for _ in range(1)), {"epochs": 2}, "a generator is used up after one epoch"),
        (lambda epoch: [(X, Y)], {}, "a batch of 20 rows was yielded, the plan takes up to 8"),
        (lambda epoch: [], {}, "the data of epoch 1 are empty"),
        (lambda epoch: None, {}, "gave NoneType, not batches"),
        (lambda epoch: [(X[:8], Y[:8])], {"batch": 4}, "the data come in batches already"),
        (lambda epoch: [X[:8]], {}, "input 'y' is missing"),
        ("nowhere", {}, "data is 'nowhere', which is not a folder of part files"),
        ((X, Y), {"validation": iter([])}, "validation: a generator is used up"),
        ((X, Y), {"validation": lambda epoch: [X[:8]]}, "validation: input 'y' is missing"),
    ],
)
def test_mistakes(data, options, words) -> None:
    with pytest.raises(gc.GraphError) as caught:
        gc.fit(executor(), data, **options)
    assert words in str(caught.value)
    assert "test_sources.py" in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": X}, "part-1.npz: input 'y' is missing"),
        ({"x": X[:, :3], "y": Y}, "part-1.npz: input 'x' takes (N, 4)"),
        ({"x": X, "y": Y[:5]}, "part-1.npz: 'x' has 20 rows, 'y' has 5"),
        ({"x": X.astype(str), "y": Y}, "part-1.npz: input 'x' takes float32"),
        ({"x": X, "y": Y, "z": Y}, "part-1.npz: there is no input 'z'"),
        (None, "cannot read part-1.npz: File is not a zip file"),
    ],
)
def test_part_files_that_do_not_fit(tmp_path: Path, arrays, words: str) -> None:
    np.savez(tmp_path / "part-0.npz", x=X, y=Y)
    if arrays is None:
        (tmp_path / "part-1.npz").write_bytes(b"something else")
    else:
        np.savez(tmp_path / "part-1.npz", **arrays)
    ex = executor()
    with pytest.raises(gc.GraphError) as caught:
        gc.fit(ex, tmp_path)
    assert words in str(caught.value)
    assert "test_sources.py" in str(caught.value)
    assert int(ex.state["updates"]) == 0


def test_a_folder_without_part_files(tmp_path: Path) -> None:
    with pytest.raises(gc.DataError, match="holds no part files"):
        gc.fit(executor(), tmp_path)


def test_a_mapped_file_whose_rows_are_apart(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.asfortranarray(X))
    file = np.load(tmp_path / "x.npy", mmap_mode="r")
    with pytest.raises(gc.FeedError, match="does not have its rows one after the other"):
        gc.fit(executor(), (file, Y))


@pytest.mark.parametrize("wrong", [X[:, :3], X[:5], X.astype("complex64")])
def test_mapped_files_that_do_not_fit(tmp_path: Path, wrong: np.ndarray) -> None:
    np.save(tmp_path / "x.npy", wrong)
    ex = executor()
    with pytest.raises(gc.FeedError) as of_file:
        gc.fit(ex, (np.load(tmp_path / "x.npy", mmap_mode="r"), Y))
    with pytest.raises(gc.FeedError) as plain:
        gc.fit(ex, (wrong, Y))
    if wrong.dtype == X.dtype:
        assert of_file.value.sentence == plain.value.sentence
    assert of_file.value.sentence.startswith(("input 'x' takes", "'x' has"))


BOUNDED = """
import resource, sys
import numpy as np
import graphc as gc

path, gigabytes = sys.argv[1], float(sys.argv[2])
rows = int(gigabytes * 2**30) // (64 * 4)
made = np.lib.format.open_memmap(path, "w+", "float32", (rows, 64))
del made  # a file with holes reads as zeros
net = gc.Net("wide")
x = net.input("x", (gc.N, 64))
net.loss("loss", gc.mean((gc.affine(x, 4) - 1.0) ** 2))
ex = gc.Executor(gc.compile(net, batch=4096, optimizer=gc.SGD(0.01)))
x = np.load(path, mmap_mode="r")
gc.fit(ex, x[:8192])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
gc.fit(ex, x)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(rows, int(ex.state["updates"]), before // 1024, after // 1024)
"""


@pytest.mark.campaign
@pytest.mark.needs("Linux")
def test_a_file_of_four_gigabytes_trains_in_bounded_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BOUNDED, str(tmp_path / "x.npy"), "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows, updates, before, after = map(int, done.stdout.split())
    assert updates == 2 + -(-rows // 4096)
    order = rows * 8 // 2**20
    assert after < before + order + 400, f"{before} MB before, {after} MB after, order {order} MB"


def test_the_bar_of_a_resumed_run_and_of_rows_that_are_not_known(tmp_path: Path, capsys) -> None:
    gc.fit(executor(), (X, Y), epochs=1, checkpoint=tmp_path)
    options = {"checkpoint": tmp_path, "resume": True, "progress": True}
    gc.fit(executor(), (X, Y), epochs=3, **options)
    shown = capsys.readouterr().err
    assert "epoch 3/3: 100%" in shown
    assert "60.0/60.0" in shown
    gc.fit(executor(), lambda epoch: [(X[:8], Y[:8])], epochs=2, progress=True)
    assert "epoch 2/2: : 16.0row" in capsys.readouterr().err
