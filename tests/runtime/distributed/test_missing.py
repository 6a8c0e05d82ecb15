"""Without mpi4py, or without an MPI library, the error says what to install."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

import graphc as gc
from graphc.cli import main
from graphc.runtime.distributed import mpi
from graphc.runtime.distributed.communicator import Solo
from tests.runtime.distributed.test_watcher import Nobody


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'mpi4py'"),
        ImportError("libmpi.so.12: cannot open shared object file: No such file or directory"),
        RuntimeError("cannot load MPI library\nlibmpi.so: cannot open shared object file"),
    ],
)
def test_the_extra_and_both_packages_are_named(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("mpi4py"):
            raise error
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(gc.RankError) as caught:
        mpi.require()
    assert str(error).splitlines()[0] in caught.value.sentence
    assert "pip install 'graphc-nn[mpi]', which is mpi4py and mpich" in caught.value.hint
    assert main(["launch", "-n", "2", "train", "net.py:net", "--data", "digits"]) == 1
    assert "pip install 'graphc-nn[mpi]'" in capsys.readouterr().err
    monkeypatch.setenv("PMI_SIZE", "2")  # as mpiexec does
    monkeypatch.setattr(mpi, "Watcher", Nobody)
    with pytest.raises(gc.RankError):
        mpi.joined()


def test_a_process_alone_needs_no_mpi(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*mpi._LAUNCHED, *mpi._SIZES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(mpi, "require", lambda: pytest.fail("nobody needs it"))
    assert isinstance(mpi.joined(), Solo)
    assert mpi.threads_of_rank(Solo()) is None
