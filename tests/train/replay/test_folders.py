"""Folders that hold no whole run, and mistakes: clear errors of graphc's own."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.train.record import recorder
from graphc.train.record.folder import RunFolder
from tests.train.nets import classes, executor, table

X, Y = table(45)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    slower = [lambda epoch: epoch.ex.hyper.__setitem__("lr", 0.02 / epoch.number)]
    gc.fit(executor(), (X, Y), epochs=2, record=folder, callbacks=slower)
    return folder


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def refused(run: Path, words: str, step: int = 9, **options: Any) -> None:
    with pytest.raises(gc.GraphError) as caught:
        gc.replay(run, step=step, **options)
    assert words in str(caught.value)


def test_no_run(tmp_path: Path) -> None:
    refused(tmp_path / "nix", "holds no recorded run: run.json: No such file")
    refused(tmp_path, "holds no recorded run")
    (tmp_path / "run.json").mkdir()
    refused(tmp_path, "holds no recorded run")


@pytest.mark.parametrize(
    ("name", "words"),
    [("run.json", "no recorded run"), ("journal", "cannot read"), ("data.gc", "hold its data")],
)
def test_a_file_is_missing(copied: Path, name: str, words: str) -> None:
    (copied / name).unlink()
    refused(copied, words)


@pytest.mark.needs("POSIX")
@pytest.mark.parametrize("name", ["run.json", "journal"])
def test_a_pipe_is_not_waited_for(copied: Path, name: str) -> None:
    (copied / name).unlink()
    os.mkfifo(copied / name)
    refused(copied, "it is not a regular file")


def test_all_states_are_missing(copied: Path) -> None:
    for path in copied.glob("state-*.gc"):
        path.unlink()
    refused(copied, "has no state from before step 1")


@pytest.mark.parametrize("step", [0, -1, 1.5, True, "3"])
def test_steps_that_cannot_be(whole: Path, step: Any) -> None:
    refused(whole, "not a whole number from 1 up", step=step)


def test_a_step_that_is_not_there(whole: Path) -> None:
    refused(whole, "has no step 13: it has 1 to 12", step=13)


@pytest.mark.parametrize("cut", [1, 15, 16, 17])
def test_a_journal_whose_end_is_missing(copied: Path, cut: int) -> None:
    """A run that was killed: the steps that are whole can be replayed."""
    path = copied / "journal"
    path.write_bytes(path.read_bytes()[:-cut])
    last = 12 - -(-cut // 16)
    assert gc.replay(copied, step=last).unlike is None
    refused(copied, f"has no step {last + 1}", step=last + 1)


def test_a_journal_that_is_none(copied: Path) -> None:
    for data in (b"", b"graphcJ1", b"x" * 400, b"graphcJ1" + b"\xff" * 8):
        (copied / "journal").write_bytes(data)
        refused(copied, "journal")


def test_a_bit_of_the_journal(copied: Path) -> None:
    path = copied / "journal"
    data = bytearray(path.read_bytes())
    data[16 + 4 * 16 + 3] ^= 1
    path.write_bytes(data)
    assert gc.replay(copied, step=9).unlike == 5


@pytest.mark.parametrize("name", ["state-000000000.gc", "changed-000002.gc", "data.gc"])
def test_a_bit_of_another_file(copied: Path, name: str) -> None:
    path = copied / name
    if name.startswith("changed"):
        path = sorted(copied.glob("changed-*.gc"))[0]
    for at in (3, 40, -1):
        data = bytearray(path.read_bytes())
        data[at] ^= 4
        path.write_bytes(data)
        refused(copied, path.name, step=12)
        data[at] ^= 4
        path.write_bytes(data)


HOSTILE: dict[str, Any] = {
    "no table": [],
    "another format": {"format": "graphc run 2"},
    "choices": {"choices": []},
    "a batch below one": {"choices": {"seed": 0, "shuffle": True, "batch": 0, "rows": 45}},
    "a batch beyond the plan": {"choices": {"seed": 0, "shuffle": True, "batch": 99, "rows": 45}},
    "a seed that is not a number": {"choices": {"seed": "0", "shuffle": True, "batch": 8}},
    "a boolean for a number": {"choices": {"seed": True, "shuffle": True, "batch": 8}},
    "weights that are none": {"class_weight": [[1]]},
    "weights of no class": {"class_weight": [["a", 1.0]]},
    "data of no kind": {"data": {"kind": "pickle", "digest": "", "described": ""}},
    "data with more": {"data": {"kind": "arrays", "digest": "", "described": "", "path": "/"}},
    "other variables": {"made_with": {"variables": {"LD_PRELOAD": "x.so"}}},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_descriptions_that_cannot_be(copied: Path, kind: str) -> None:
    path = copied / "run.json"
    said = json.loads(path.read_text())
    change = HOSTILE[kind]
    if isinstance(change, dict):
        more = change.get("made_with")
        change = {**change, **({"made_with": {**said["made_with"], **more}} if more else {})}
    path.write_text(json.dumps({**said, **change} if isinstance(change, dict) else change))
    refused(copied, "recorded run")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a": 1, "a": 2}', "\udcff", "9" * 5000])
def test_descriptions_that_are_no_json(copied: Path, text: str) -> None:
    (copied / "run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(copied, "run.json is not part of a recorded run")


def test_a_description_of_two_megabytes_is_not_read(copied: Path) -> None:
    (copied / "run.json").write_bytes(b" " * 2**21)
    refused(copied, "do not describe a run")


def test_a_state_under_the_name_of_another(copied: Path) -> None:
    shutil.copy(copied / "state-000000000.gc", copied / "state-000000005.gc")
    refused(copied, "its position is not the one in its name")


@pytest.mark.slow
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_bytes_changed_anywhere(copied: Path, data: st.DataObject) -> None:
    """Nothing but a replay or an error of graphc's own."""
    path = data.draw(st.sampled_from(sorted(copied.iterdir())))
    before = path.read_bytes()
    content = bytearray(before)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        gc.replay(copied, step=12)
    except gc.GraphError:
        pass
    finally:
        path.write_bytes(before)


# ---------------------------------------------------------------------- data


def test_other_data(whole: Path) -> None:
    x = X.copy()
    x[0, 0] += 1
    refused(whole, "the data are not the data of the run", data=(x, Y))
    assert gc.replay(whole, step=3, data=(X, Y)).unlike is None


def test_data_that_were_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "LARGEST_DATA", 100)
    gc.fit(executor(), (X, Y), record=tmp_path)
    assert not RunFolder(tmp_path).data_path.exists()
    refused(tmp_path, "does not hold its data: x float32[45, 4], y int64[45]", step=3)
    assert gc.replay(tmp_path, step=3, data=(X, Y)).unlike is None


# ---------------------------------------------------------------------- recording


def test_a_folder_with_another_run(whole: Path, tmp_path: Path) -> None:
    ex = executor()
    before = ex.parameters.flat()
    with pytest.raises(gc.GraphError, match="holds a recorded run"):
        gc.fit(ex, (X, Y), record=whole)
    gc.fit(ex, (X, Y), checkpoint=tmp_path)
    with pytest.raises(gc.GraphError, match="holds the record of another run"):
        gc.fit(ex, (X[:40], Y[:40]), resume=True, record=whole, checkpoint=tmp_path / "new")
    assert not np.array_equal(before, ex.parameters.flat())


def test_a_record_that_does_not_reach_the_checkpoint(tmp_path: Path) -> None:
    options = {"checkpoint": tmp_path / "c", "record": tmp_path / "r"}
    gc.fit(executor(), (X, Y), epochs=2, **options)
    path = tmp_path / "r" / "journal"
    path.write_bytes(path.read_bytes()[:-32])
    with pytest.raises(
        gc.ModelFileError, match="has steps 1 to 10, the run continues after step 12"
    ):
        gc.fit(executor(), (X, Y), epochs=3, resume=True, **options)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_record_of_another_net_or_other_weights_stays(copied: Path, tmp_path: Path) -> None:
    before = content(copied)
    others = {
        "layer dropout 'drop' is gone": executor(classes(dropout=False)),
        "which began with another 'hidden.weight'": executor(),
    }
    others["which began with another 'hidden.weight'"].parameters["hidden.weight"] = np.ones((4, 8))
    for number, (words, ex) in enumerate(others.items()):
        options = {"checkpoint": tmp_path / str(number), "record": copied, "resume": True}
        with pytest.raises(gc.GraphError, match="holds the record of another run, ") as caught:
            gc.fit(ex, (X, Y), epochs=2, **options)
        assert words in str(caught.value)
        assert content(copied) == before


def test_a_record_that_another_run_writes(tmp_path: Path) -> None:
    def meanwhile(epoch: gc.Epoch) -> None:
        options = {"checkpoint": tmp_path / "c", "record": tmp_path / "r", "resume": True}
        with pytest.raises(gc.GraphError, match="is in use by process"):
            gc.fit(executor(), (X, Y), epochs=2, **options)

    gc.fit(executor(), (X, Y), epochs=2, record=tmp_path / "r", callbacks=[meanwhile])
    assert not list((tmp_path / "r").glob(".*"))
    assert gc.replay(tmp_path / "r", step=9).unlike is None


def test_a_run_that_was_killed_before_its_first_state(copied: Path, tmp_path: Path) -> None:
    for path in [*copied.glob("state-*.gc"), copied / "journal"]:
        path.unlink()
    gc.fit(executor(), (X, Y), epochs=1, record=copied, checkpoint=tmp_path / "c", resume=True)
    assert gc.replay(copied, step=3).unlike is None


@pytest.mark.needs("POSIX")
def test_a_journal_is_no_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "journal")
    with pytest.raises(gc.ModelFileError, match="journal: it is not a regular file"):
        gc.fit(executor(), (X, Y), record=tmp_path)
    assert (tmp_path / "journal").is_fifo()


@pytest.mark.parametrize("record", [3, True, ["run"]])
def test_record_is_a_folder(record: Any) -> None:
    with pytest.raises(gc.GraphError, match=r"fit: record is .*, not a folder"):
        gc.fit(executor(), (X, Y), record=record)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(gc.ModelFileError, match="cannot make the folder"):
        gc.fit(executor(), (X, Y), record=tmp_path / "file" / "run")
