"""Models as C files: what they compute, what they need, and what is refused."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.extras import needs
from tests.files.c_model import CModel
from tests.plans import compiled


def digits() -> gc.Net:
    net = gc.Net("digits")
    h = net.input("x", (gc.N, 12))
    y = net.input("y", (gc.N,), dtype="int64")
    h = gc.dropout(gc.relu(gc.batchnorm(gc.affine(h, 10))), keep_prob=0.8)
    scores = net.output("scores", gc.affine(h, 4))
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def executor(backend: str = "numpy") -> gc.Executor:
    optimizer = gc.SGD(lr=0.1, momentum=0.9, weight_decay=0.5)
    plan = compiled(digits, batch=8, optimizer=optimizer, backend=backend)
    return gc.Executor(plan, seed=3)


def rows(n: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(n, 12)).astype(np.float32), "y": rng.integers(0, 4, n)}


def test_training_goes_as_in_the_executor(tmp_path: Path) -> None:
    ex = executor()
    model = CModel(ex, tmp_path, "-O1")
    for step in range(5):
        feeds = rows(8 - step, step)
        assert model.call("train_step", feeds)["loss"] == pytest.approx(ex.step(feeds), rel=1e-5)
    for name, value in ex.state.items():
        np.testing.assert_allclose(model.read(name), value, rtol=2e-4, atol=1e-5)
    x = rows(8, 9)["x"]
    scores = model.call("infer", {"x": x})["scores"]
    np.testing.assert_allclose(scores, ex.forward(x=x)["scores"], rtol=1e-4, atol=1e-5)


def test_a_step_returns_the_sum_of_all_losses(tmp_path: Path) -> None:
    net = gc.Net("two")
    y = gc.affine(net.input("x", (gc.N, 3)), 2)
    net.loss("size", gc.mean(y * y))
    net.loss("sum", gc.sum(y))
    plan = gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1), backend="numpy")
    ex, x = gc.Executor(plan, seed=0), np.ones((4, 3), "float32")
    model = CModel(ex, tmp_path, "-O0")
    assert model.call("train_step", {"x": x})["loss"] == pytest.approx(ex.step(x=x), rel=1e-5)


def test_weights_in_a_file_and_gradients(tmp_path: Path) -> None:
    ex = executor()
    model = CModel(ex, tmp_path, "-O1", weights="file", backward=True)
    found = model.call("backward", rows(5))
    ex.forward(rows(5), train=True)
    for name, gradient in ex.backward().items():
        np.testing.assert_allclose(found[f"d_{name}"], gradient, rtol=1e-4, atol=1e-6)


def test_gradients_of_windows_that_are_not_square(tmp_path: Path) -> None:
    net = gc.Net("windows")
    h = net.input("x", (gc.N, 2, 6, 6)) * net.parameter("w", (2, 6, 6), init=0.5)
    net.loss("loss", gc.mean(gc.max_pool(h, (2, 3)) ** 2) + gc.mean(gc.avg_pool(h, (3, 1)) ** 2))
    ex = gc.Executor(gc.compile(net, batch=3, optimizer=gc.SGD(lr=0.1), backend="numpy"), seed=1)
    x = np.random.default_rng(0).normal(size=(3, 2, 6, 6)).astype(np.float32)
    found = CModel(ex, tmp_path, "-O1", backward=True).call("backward", {"x": x})
    ex.forward(x=x, train=True)
    np.testing.assert_allclose(found["d_w"], ex.backward()["w"], rtol=1e-4, atol=1e-6)


def test_inference_alone_has_no_state(tmp_path: Path) -> None:
    ex = executor()
    ex.step(rows(8))
    model = CModel(ex, tmp_path, "-O1", infer_only=True, batch=3)
    assert (model.interface.state_bytes, model.interface.batch) == (0, 3)
    x = rows(3)["x"]
    scores = model.call("infer", {"x": x})["scores"]
    np.testing.assert_allclose(scores, ex.forward(x=x)["scores"], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_row_has_the_same_bits_by_itself(tmp_path: Path) -> None:
    model = CModel(executor(), tmp_path, "-O1", "-march=native")
    x = rows(8)["x"]
    together = model.call("infer", {"x": x})["scores"]
    alone = [model.call("infer", {"x": row[None]})["scores"] for row in x]
    assert np.concatenate(alone).tobytes() == together.tobytes()


def test_the_header_names_what_a_caller_gives(tmp_path: Path) -> None:
    _, header, _ = gc.export_c(executor(), tmp_path / "digits.c")
    text = header.read_text()
    assert (
        "float digits_train_step(void *state, void *work, ptrdiff_t n, const float *in_x, "
        "const int64_t *in_y, float *out_scores);" in text
    )
    assert "x: x, float32[n, 12]" in text


def test_a_node_that_only_python_computes_is_named(tmp_path: Path) -> None:
    net = gc.Net("order")
    net.output("order", gc.sort(net.input("x", (gc.N, 3)), name="ordered"))
    with pytest.raises(gc.GraphError, match="has no form outside Python") as caught:
        gc.export_c(gc.Executor(gc.compile(net, batch=2)), tmp_path / "order.c")
    assert 'name="ordered"' in str(caught.value)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.slow
def test_a_budget_refuses_with_the_shortfall_or_finds_a_plan(tmp_path: Path) -> None:
    net = gc.Net("deep")
    h = net.input("x", (gc.N, 8))
    for _ in range(8):
        h = gc.tanh(gc.affine(h, 8))
    net.loss("loss", gc.mean(h * h))
    ex = gc.Executor(gc.compile(net, batch=64, optimizer=gc.SGD(lr=0.1)))
    free = CModel(ex, tmp_path, "-O1")
    need = free.interface.nbytes
    fits = CModel(ex, tmp_path, "-O1", budget=need - 1500)
    assert fits.interface.nbytes <= need - 1500
    feeds = {"x": np.linspace(-1, 1, 512, dtype=np.float32).reshape(64, 8)}
    for _ in range(3):
        assert fits.call("train_step", feeds)["loss"] == free.call("train_step", feeds)["loss"]
    with pytest.raises(gc.BudgetError, match="more than the budget of 1,000"):
        gc.export_c(ex, tmp_path / "deep.c", budget=1000)


@pytest.mark.slow
@pytest.mark.needs("native")
def test_a_self_test_finds_a_changed_weight(tmp_path: Path) -> None:
    file, *_ = gc.export_c(executor(), tmp_path / "digits.c", backward=True, self_test=True)
    flags = "-std=c99", "-O1", "-DDIGITS_SELF_TEST", "-o", "test", "digits.c"

    def run() -> tuple[int, list[str]]:
        subprocess.run([needs("cc"), *flags], cwd=tmp_path, check=True)
        done = subprocess.run("./test", cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.splitlines()

    status, lines = run()
    assert (status, {line.rpartition(" ")[2] for line in lines}) == (0, {"right"})
    assert lines[0] == "digits_infer: scores: right"
    assert lines[-1] == "state: right"
    text = file.read_text()
    first = re.search(r"initial_affine_1_weight\[120\] = \{\s+(\S+),", text)
    assert first is not None
    file.write_text(text[: first.start(1)] + "0.125f" + text[first.end(1) :])
    status, lines = run()
    assert (status, lines[0], lines[-1]) == (1, "digits_infer: scores: WRONG", "state: WRONG")


def test_what_is_no_executor_or_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(gc.GraphError, match="export_c takes an executor, not Net"):
        gc.export_c(digits(), tmp_path / "model.c")  # type: ignore[arg-type]
    with pytest.raises(gc.GraphError, match="batch is 0"):
        gc.export_c(executor(), tmp_path / "model.c", batch=0)
    with pytest.raises(gc.GraphError, match="weights"):
        gc.export_c(executor(), tmp_path / "model.c", weights="out")  # type: ignore[arg-type]
    with pytest.raises(gc.GraphError, match="int is not a path"):
        gc.export_c(executor(), 3)  # type: ignore[arg-type]
    with pytest.raises(gc.GraphError, match="beside the file: give it another suffix"):
        gc.export_c(executor(), tmp_path / "model.h")
    net = gc.Net("loss alone")
    net.loss("loss", gc.mean(gc.affine(net.input("x", (gc.N, 3)), 1) ** 2))
    with pytest.raises(gc.GraphError, match="nothing to export: the net has no output but losses"):
        gc.export_c(gc.Executor(gc.compile(net, batch=2)), tmp_path / "model.c")
    assert [*tmp_path.iterdir()] == []


def test_names_of_any_kind_are_names_of_c(tmp_path: Path) -> None:
    net = gc.Net("größe-1")
    x, y = net.input("class", (gc.N, 3)), net.input("ünïcode", (gc.N, 3))
    h = net.output("int", gc.affine(x * y, 2, name="for"))
    for name, value in (("state", h * 2), ("work", h > 0), ("n", h + 1), ("a/b", h), ("a.b", h)):
        net.output(name, value)
    ex = gc.Executor(gc.compile(net, batch=4, optimizer=None, backend="numpy"))
    model = CModel(ex, tmp_path, "-O1")
    feeds = {"class": np.ones((2, 3), np.float32), "ünïcode": np.full((2, 3), 2, np.float32)}
    found = model.call("infer", feeds)
    for name, value in ex.forward(feeds).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6)


def test_nothing_is_declared_that_nothing_uses(tmp_path: Path) -> None:
    net = gc.Net("weights alone")
    p = net.parameter("p", (1,))
    net.loss("size", gc.sum(p * p))
    alone = gc.Executor(gc.compile(net, batch=2, optimizer=gc.SGD(lr=0.1), backend="numpy"))
    assert CModel(alone, tmp_path, "-O1").interface.batch == 2
    wide = gc.Net("one number in each column")
    x = wide.input("x", (gc.N, 3))
    q = gc.broadcast_to(wide.parameter("q", (1,)), (gc.N, 30))
    wide.output("sums", gc.sum(q, axis=1) + gc.sum(x, axis=1))
    ex = gc.Executor(gc.compile(wide, batch=2, backend="numpy"), seed=1)
    feeds = {"x": np.ones((2, 3), np.float32)}
    found = CModel(ex, tmp_path, "-O1").call("infer", feeds)["sums"]
    np.testing.assert_allclose(found, ex.forward(feeds)["sums"], rtol=1e-6)


def test_cpp_can_include_the_header(tmp_path: Path) -> None:
    gc.export_c(executor(), tmp_path / "digits.c", backward=True)
    text = '#include "digits.h"\nint main() { digits_init(nullptr); return DIGITS_BATCH - 8; }\n'
    (tmp_path / "main.cpp").write_text(text)
    flags = "-std=c++11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"
    subprocess.run([needs("c++"), *flags, "main.cpp"], cwd=tmp_path, check=True)


def test_what_is_behind_a_rows_end_is_not_read(tmp_path: Path) -> None:
    net = gc.Net("ends")
    x = net.input("x", (gc.N, 4, 2))
    n = gc.lengths(x)
    net.output("sum", gc.sum(x, 1))
    net.loss("loss", gc.mean((gc.sum(x, 1) - net.parameter("p", (2,), init=1.0)) ** 2))
    net.output("n", n)
    ex = gc.Executor(gc.compile(net, batch=3, optimizer=gc.SGD(lr=0.1), backend="numpy"))
    model = CModel(ex, tmp_path)
    rows = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    ends = np.array([2, 4, 1], np.int32)
    cut = np.array([row[:end].sum(0) for row, end in zip(rows, ends, strict=True)])
    feeds = {"x": rows, "lengths:x": ends}
    np.testing.assert_allclose(model.call("infer", feeds)["sum"], cut, rtol=1e-6)
    loss = model.call("train_step", feeds)["loss"]
    np.testing.assert_allclose(loss, ((cut - 1) ** 2).mean(), rtol=1e-6)
    assert loss == np.float32(ex.step(feeds))
    np.testing.assert_array_equal(model.read("p"), ex.parameters["p"])
