"""Ranks as processes of MPI: the documented line, failures, restarts.  Run with -m slow."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.extras import lacks, needs
from tests.runtime.distributed.launched import (
    MPIEXEC,
    ROOT,
    bits,
    environment,
    graphc,
    prepare,
    running,
    state,
    train_words,
)

pytestmark = [pytest.mark.slow, pytest.mark.needs("MPI")]
DIGITS = (str(ROOT / "docs/examples/digits.py:net"), "--data", "digits", "--epochs", "2")
LIMIT = "15"
"""Seconds until a rank that hangs is given up: more than one starts after another under load."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prepare(tmp_path)
    return tmp_path


def test_digits_have_the_same_bytes_on_any_number_of_ranks(folder: Path) -> None:
    for n in (1, 2, 4):
        words = ("train", *DIGITS, "--deterministic", "--out", f"on-{n}")
        ended = graphc(folder, "launch", "-n", str(n), *words)
        assert ended.status == 0, ended
        assert ended.out.count("wrote") == 1
    assert graphc(folder, "train", *DIGITS, "--deterministic", "--out", "alone").status == 0
    files = {(folder / out / "digits.gc").read_bytes() for out in ("alone", "on-1", "on-2", "on-4")}
    assert len(files) == 1


def test_two_ranks_are_one_process_within_rounding(folder: Path) -> None:
    """Digits, by statistics of the whole batch; but for biases that batchnorm takes away."""
    options = ("--optimizer", "momentum", "--batch", "64", "--sync-batchnorm")
    assert graphc(folder, "train", *DIGITS, *options, "--out", "alone").status == 0
    assert (
        graphc(folder, "launch", "-n", "2", "train", *DIGITS, *options, "--out", "two").status == 0
    )
    alone, two = state(folder / "alone/digits.gc"), state(folder / "two/digits.gc")
    assert alone.keys() == two.keys()
    for name, array in alone.items():
        if not name.startswith(("affine_1.bias", "affine_2.bias")):
            np.testing.assert_allclose(two[name], array, rtol=1e-3, atol=1e-4, err_msg=name)


def test_mpiexec_starts_ranks_as_batch_systems_do(folder: Path) -> None:
    assert graphc(folder, *train_words("alone", "--deterministic")).status == 0
    words = ("-m", "mpi4py", "-m", "graphc", *train_words("two", "--deterministic"))
    assert MPIEXEC is not None
    command = [MPIEXEC, "-n", "2", sys.executable, *words]
    subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True)
    assert bits(folder / "two/net.gc") == bits(folder / "alone/net.gc")


@pytest.mark.parametrize("fault", ["kill", "raise", "stop", "sleep"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_fails_ends_all_of_them_soon(fault: str, rank: int, folder: Path) -> None:
    limit = ("--timeout", LIMIT) if fault == "sleep" else ()
    words = train_words("out", *limit, "--checkpoint", "10")
    planted = f"{fault} {rank} 25 {folder / 'marker'}"
    ended = graphc(folder, "launch", "-n", "2", *words, PLANTED=planted)
    assert ended.status == 1
    told = {
        "kill": "the ranks ended with status 9",
        "raise": "ZeroDivisionError: planted",
        "stop": rf"rank {rank} \(process \d+ on .*\) is stopped",
        "sleep": f"rank {rank} has not answered for {LIMIT} s",
    }[fault]
    assert re.search(told, ended.err + ended.out)
    left = sorted(path.name for path in (folder / "out/checkpoints").glob("step-*"))
    assert left == ["step-000000010.gc", "step-000000020.gc"]
    assert not running(folder)


def test_a_rank_that_hangs_before_the_first_step_is_given_up(folder: Path) -> None:
    planted = f"sleep 1 0 {folder / 'marker'}"
    words = ("launch", "-n", "2", *train_words("out", "--timeout", LIMIT))
    ended = graphc(folder, *words, PLANTED=planted)
    assert ended.status == 1
    assert "rank 0 (process " in ended.err
    assert f"has waited for the other ranks for {LIMIT} s" in ended.err


def test_ranks_with_other_seeds_are_refused(folder: Path) -> None:
    assert MPIEXEC is not None
    command = [MPIEXEC]
    for seed in ("0", "3"):
        words = train_words("out", "--seed", seed)
        command += ["-n", "1", sys.executable, "-m", "mpi4py", "-m", "graphc", *words, ":"]
    ended = subprocess.run(
        command[:-1], cwd=folder, env=environment(), capture_output=True, text=True, timeout=100
    )
    assert ended.returncode
    assert "rank 1 differs from rank 0 in seed of the executor (3, not 0), seed (3, not 0)" in (
        ended.stderr
    )
    assert not (folder / "out/net.gc").exists()


def test_a_rank_that_never_comes_is_given_up(folder: Path) -> None:
    """The second rank is a program that does not join MPI, so that the first waits inside it."""
    words = ("-m", "mpi4py", "-m", "graphc", *train_words("out", "--timeout", "2"))
    assert MPIEXEC is not None
    command = [MPIEXEC, "-n", "1", sys.executable, *words, ":", "-n", "1", "sleep", "1000"]
    ended = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=100
    )
    assert ended.returncode
    assert re.search(
        r"rank 0 \(process \d+ on .*\) has waited for the other ranks for 2 s", ended.stderr
    )


@pytest.mark.parametrize("fault", ["kill", "raise", "stop"])
def test_ranks_go_on_from_the_last_checkpoint(fault: str, folder: Path) -> None:
    options = ("--checkpoint", "10", "--deterministic")
    assert graphc(folder, *train_words("alone", "--deterministic")).status == 0
    planted = f"{fault} 1 37 {folder / 'marker'}"
    words = ("-n", "2", "--max-restarts", "1", *train_words("two", *options))
    ended = graphc(folder, "launch", *words, PLANTED=planted)
    assert ended.status == 0, ended
    assert "restart 1 of 1" in ended.out
    assert bits(folder / "two/net.gc") == bits(folder / "alone/net.gc")


def test_a_run_goes_on_with_more_ranks(folder: Path) -> None:
    options = ("--checkpoint", "10", "--deterministic")
    assert graphc(folder, *train_words("alone", "--deterministic")).status == 0
    planted = f"kill 1 37 {folder / 'marker'}"
    assert graphc(
        folder, "launch", "-n", "2", *train_words("out", *options), PLANTED=planted
    ).status
    words = train_words("out", *options, "--resume")
    assert graphc(folder, "launch", "-n", "4", *words).status == 0
    assert bits(folder / "out/net.gc") == bits(folder / "alone/net.gc")


def test_wrong_usage_is_told_once_and_not_tried_again(folder: Path) -> None:
    words = train_words("out", "--shards", "3")
    ended = graphc(folder, "launch", "-n", "2", "--max-restarts", "3", *words)
    assert ended.status == 2
    assert ended.err.count("3 shards on 2 ranks: both must be powers of two") == 1
    assert "restart" not in ended.out


def test_a_full_disk_ends_the_job_with_its_cause(folder: Path) -> None:
    """A file system of 36 kB in a mount namespace of its own."""
    inside = f"mkdir -p {folder}/small && mount -t tmpfs -o size=36k tmpfs {folder}/small"
    if subprocess.run([needs("unshare"), "-m", "sh", "-c", inside], capture_output=True).returncode:
        lacks("no mounts may be made here")
    before = ("unshare", "-m", "sh", "-c", f'{inside} && exec "$@"', "-")
    words = train_words("small/out", "--checkpoint", "10")
    ended = graphc(folder, "launch", "-n", "2", *words, before=before)
    assert ended.status == 1
    assert "No space left on device" in ended.err
    assert not running(folder)


@pytest.mark.parametrize("netem", [True, False])
def test_ranks_of_two_hosts_over_a_slow_network(netem: bool, folder: Path) -> None:
    """In a network namespace, without shared memory: delay and loss, or else a low rate."""
    limit = "netem delay 1ms loss 1%" if netem else "tbf rate 50mbit burst 32kbit latency 400ms"
    inside = f"ip link set lo up && tc qdisc add dev lo root {limit}"
    needs("tc", "unshare")
    if subprocess.run(["unshare", "-n", "sh", "-c", inside], capture_output=True).returncode:
        lacks("no such network can be made here")
    assert graphc(folder, *train_words("alone", "--deterministic")).status == 0
    count = "cat /sys/class/net/lo/statistics/tx_bytes > bytes"
    before = ("unshare", "-n", "sh", "-c", f'{inside} && "$@"; s=$?; {count}; exit $s', "-")
    words = ("launch", "-n", "2", *train_words("two", "--deterministic"))
    ended = graphc(folder, *words, before=before, MPIR_CVAR_NOLOCAL="1")
    assert ended.status == 0, ended
    assert bits(folder / "two/net.gc") == bits(folder / "alone/net.gc")
    sent = 50 * 4 * (20 * 30 + 30 + 30 * 5 + 5)
    assert int((folder / "bytes").read_text()) > sent
