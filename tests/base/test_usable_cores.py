"""How many threads: what was asked for, and what the system allows."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from graphc.base import usable_cores
from graphc.base.errors import GraphError
from graphc.base.usable_cores import cores, groups, smallest, thread_count

NONE = sys.maxsize


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of eight cores without quota, and nothing in the environment."""
    for name in usable_cores.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(usable_cores, "_quota", lambda second: NONE)


@pytest.mark.parametrize(("asked", "found"), [(None, 8), (1, 1), (3, 3), (8, 8), (100, 8)])
def test_never_more_than_usable(asked: int | None, found: int) -> None:
    assert thread_count(asked) == found


@pytest.mark.parametrize("asked", [0, -1])
def test_at_least_one(asked: int) -> None:
    with pytest.raises(GraphError, match=f"threads is {asked}"):
        thread_count(asked)


def test_the_environment_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5,2")
    assert thread_count() == 5
    monkeypatch.setenv("GRAPHC_THREADS", " 2 ")
    assert thread_count() == 2
    assert thread_count(4) == 4
    monkeypatch.setenv("GRAPHC_THREADS", "")
    assert thread_count() == 5
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert thread_count() == 8


@pytest.mark.parametrize("name", usable_cores.VARIABLES)
@pytest.mark.parametrize("value", ["0", "-2", "two", "1.5", "²", "0x2", "1_0"])
def test_an_invalid_number_of_threads_is_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(
        GraphError, match=f"{name} is '{value}', which is not a valid number of threads"
    ):
        thread_count()


def test_a_list_is_for_openmp_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_THREADS", "4,2")
    with pytest.raises(GraphError, match="GRAPHC_THREADS"):
        thread_count()


def test_affinity_and_quota_both_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usable_cores, "_quota", lambda second: 3)
    assert cores() == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5})
    assert cores() == 2


def test_a_system_without_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


def test_children_of_multiprocessing_take_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing.process

    monkeypatch.setattr(multiprocessing.process, "parent_process", lambda: object())
    assert thread_count() == 1
    assert thread_count(4) == 4
    monkeypatch.setenv("GRAPHC_THREADS", "3")
    assert thread_count() == 3


def quota(membership: str, root: Path) -> int:
    return smallest(groups(membership, root))


def group(root: Path, path: str, **files: str) -> None:
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("max 100000\n", NONE),
        ("100000 100000\n", 1),
        ("150000 100000\n", 1),
        ("400000 100000\n", 4),
        ("1000 100000\n", 1),
        ("0 100000\n", NONE),
        ("", NONE),
        ("nonsense", NONE),
        ("100000 0", NONE),
    ],
)
def test_a_quota_of_version_two(text: str, allowed: int, tmp_path: Path) -> None:
    group(tmp_path, "user.slice/job", cpu__max=text)
    assert quota("0::/user.slice/job\n", tmp_path) == allowed


def test_a_quota_that_changes(tmp_path: Path) -> None:
    group(tmp_path, "job", cpu__max="400000 100000\n")
    found = groups("0::/job\n", tmp_path)
    assert smallest(found) == 4
    group(tmp_path, "job", cpu__max="200000 100000\n")
    assert smallest(found) == 2


def test_the_groups_above_count_too(tmp_path: Path) -> None:
    group(tmp_path, "a", cpu__max="200000 100000")
    group(tmp_path, "a/b", cpu__max="max 100000")
    group(tmp_path, "a/b/c", cpu__max="700000 100000")
    assert quota("0::/a/b/c\n", tmp_path) == 2


def test_inside_a_container_only_the_root_shows(tmp_path: Path) -> None:
    group(tmp_path, "", cpu__max="300000 100000")
    assert quota("0::/../../docker/0123\n", tmp_path) == 3


@pytest.mark.parametrize(
    ("time", "allowed"), [("-1\n", NONE), ("250000\n", 2), ("50000\n", 1), ("x", NONE)]
)
def test_a_quota_of_version_one(time: str, allowed: int, tmp_path: Path) -> None:
    files = {"cpu__cfs_quota_us": time, "cpu__cfs_period_us": "100000\n"}
    group(tmp_path, "cpu,cpuacct/job", **files)
    membership = "12:memory:/job\n5:cpu,cpuacct:/job\n1:name=systemd:/job\n0::/\n"
    assert quota(membership, tmp_path) == allowed


def test_no_groups(tmp_path: Path) -> None:
    assert quota("", tmp_path) == NONE
    assert quota("0::/nowhere\n", tmp_path / "nothing") == NONE
