"""Nets with loops as C files and objects: they train and infer with the bits of native code."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

import graphc as gc
from tests.backends.c.trained import TARGETS, Trained, trained, unlike
from tests.backends.loop_nets import LOOPS, loop_feeds
from tests.extras import needs
from tests.files.c_model import STRICT

BATCH, ROWS = 6, 5
NAMED = pytest.mark.parametrize("name", LOOPS)


def executor(name: str) -> gc.Executor:
    plan = gc.compile(LOOPS[name]("float32"), batch=BATCH, optimizer=gc.SGD(lr=0.1))
    return gc.Executor(plan, seed=0)


@pytest.mark.slow
@NAMED
def test_the_file_tests_itself(name: str, tmp_path: Path) -> None:
    gc.export_c(executor(name), tmp_path / "model.c", name="model", self_test=True, backward=True)
    flags = [*STRICT, "-O1", "-DMODEL_SELF_TEST", "-fsanitize=address,undefined"]
    command = [needs("cc"), *flags, "-fno-sanitize-recover=all", "model.c", "-o", "model"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert not done.returncode, done.stderr[:3000]
    run = subprocess.run([str(tmp_path / "model")], check=False, capture_output=True, text=True)
    assert "right" in run.stdout and "WRONG" not in run.stdout and not run.returncode, run.stderr


@pytest.mark.one_in(24)
@pytest.mark.parametrize("target", ["object", "WebAssembly"])
@NAMED
def test_objects_have_the_bits_of_native_code(name: str, target: str, tmp_path: Path) -> None:
    needs(*TARGETS[target].programs)
    ex = executor(name)
    batches: list[Any] = [loop_feeds(ex.plan.declared, ROWS, seed) for seed in range(3)]
    found = Trained(ex, tmp_path, batches, ROWS).state(TARGETS[target])
    assert not unlike(trained(ex, batches), found)


def test_a_rule_of_python_in_a_loop_is_refused_by_the_node_in_it(tmp_path: Path) -> None:
    net = gc.Net("sorted")
    x = net.input("x", (gc.N, 3, 4))

    def step(x: gc.Value) -> tuple[Any, Any]:
        return gc.sort(x, name="sorted"), ()

    net.output("ys", gc.scan(step, x)[0])
    ex = gc.Executor(gc.compile(net, batch=2))
    with pytest.raises(gc.GraphError, match="topk has no form outside Python yet") as raised:
        gc.export_c(ex, tmp_path / "model.c")
    assert "sorted" in str(raised.value)
