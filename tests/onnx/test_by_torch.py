"""What PyTorch exported is read, trained on as PyTorch trains it, and exported again.

`by_torch/make.py` says what the files are and what PyTorch 2.13 made of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.ir.op import Array
from graphc.onnx import load, to_proto
from tests.onnx.compare import agree, comes_back
from tests.onnx.runtimes import by_both

FOLDER = Path(__file__).with_name("by_torch")
NAMES = sorted(path.stem for path in FOLDER.glob("*.onnx"))
QUICK = ("encoder_before", "images_now", "lstm_optimized", "upwards_before")
OTHERS_TRAINED = tuple(f"{name}_optimized" for name in ("causal", "encoder", "images", "upwards"))
"""Models in which PyTorch fused layers, or made initializers of numbers that are not trained."""


def data(name: str) -> dict[str, Array]:
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def with_a_loss(name: str, y: Array) -> gc.Net:
    net = load(FOLDER / f"{name}.onnx")
    out = net["out"]
    if y.ndim == 1:
        net.loss("loss", gc.softmax_loss(out, net.input("y", (gc.N,), dtype="int64")))
    else:
        net.loss("loss", gc.mse_loss(out, net.input("y", (gc.N, *y.shape[1:]))))
    return net


def check(name: str, backend: str, folder: Path) -> None:
    torch = data(name)
    feeds = {"x": torch["x"], "y": torch["y"]}
    net = with_a_loss(name, torch["y"])
    plan = gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.05), backend=backend)
    ex = gc.Executor(plan, seed=0)
    np.testing.assert_allclose(ex.forward(feeds)["out"], torch["forward"], rtol=1e-4, atol=1e-5)
    losses = [ex.step(feeds) for _ in torch["losses"]]
    assert losses[-1] < losses[0]
    if name not in OTHERS_TRAINED:
        np.testing.assert_allclose(losses, torch["losses"], rtol=1e-4, atol=1e-5)
        # Running variances: PyTorch's are those of a sample, ours those of the batch.
        close = 2e-3 if name.startswith("images") else 1e-4
        np.testing.assert_allclose(ex.forward(feeds)["out"], torch["after"], rtol=close, atol=close)
    wanted = ex.forward(feeds)
    for who, found in by_both(to_proto(ex), feeds):
        agree(found, wanted, who)
    for train in (False, True):
        comes_back(ex, folder / "model.onnx", feeds, train)


def test_these_are_all() -> None:
    assert len(NAMES) == 21
    assert set(QUICK) | set(OTHERS_TRAINED) < set(NAMES)


@pytest.mark.one_in(6)
@pytest.mark.parametrize("name", QUICK)
def test_some_train_on_as_in_pytorch(name: str, tmp_path: Path) -> None:
    check(name, "numpy", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_all_train_on_as_in_pytorch(name: str, tmp_path: Path) -> None:
    check(name, "numpy", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("_now")])
def test_native_code_trains_on_as_in_pytorch(name: str, tmp_path: Path) -> None:
    check(name, "native", tmp_path)


@pytest.mark.parametrize("name", ["causal", "upwards"])
def test_a_network_of_bfloat16_gives_what_it_gives_in_pytorch(name: str) -> None:
    torch = data(f"bfloat16/{name}")
    net = load(FOLDER / "bfloat16" / f"{name}.onnx")
    out = gc.Executor(gc.compile(net, batch=4, backend="numpy")).forward(x=torch["x"])["out"]
    far, gap = (np.abs(x - torch["forward"]) for x in (torch["single"], out))
    assert gap.mean() < far.mean() / 5
    assert (gap == 0).mean() > 0.6
    assert gap.max() <= 2.0**-7 * np.abs(out).max()  # where a sum in another order is rounded
