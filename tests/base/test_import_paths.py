"""Modules that have moved, by the names they had."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys

import pytest

import graphc as gc
from graphc.base.import_paths import FORMER
from tests.extras import missing
from tests.together import together


@together("name", FORMER)
def test_a_module_is_the_same_by_either_name(name: str) -> None:
    if FORMER[name].startswith("sklearn") and missing("sklearn"):
        return
    now = importlib.import_module(f"graphc.{FORMER[name]}")
    assert importlib.import_module(f"graphc.{name}") is now
    assert now.__name__ == f"graphc.{FORMER[name]}"
    assert now.__spec__ is not None
    assert now.__spec__.name == now.__name__


def test_a_module_of_a_former_package_is_loaded_once() -> None:
    code = (
        "from graphc.validation.judge import judge\n"
        "from graphc.check.validation import judge as now\n"
        "import graphc.distributed.loopback, graphc.runtime.distributed.loopback as here\n"
        "assert judge is now.judge and graphc.distributed.loopback is here"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_pickle_with_a_former_name_is_read() -> None:
    adam = gc.Adam(lr=0.5, schedule=gc.Cosine(total=9))
    data = pickle.dumps(adam, protocol=0)
    former = data.replace(b"graphc.declare.", b"graphc.")
    assert former != data
    assert pickle.loads(former) == adam


def test_a_name_that_never_was_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("graphc.validation.nothing")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("graphc.nothing")
