"""The nets of docs/zoo.md as their scripts declare them, and batches of their data."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gc
from graphc.data import load_digits
from graphc.ir.op import Array

DOCS = Path(__file__).resolve().parents[2] / "docs"
TABLE = re.findall(r"\(examples/(\w+)\.py\) \|", (DOCS / "zoo.md").read_text())
NAMES = sorted(set(TABLE) - {"letters", "sac"})
"""Those in the first column of the page's table; a constant of letters comes back where it is read,
not where it was declared, and ONNX has no random numbers that a counter keys, as sac draws."""
LETTERS = 80
SIZES = {"gpt": {"letters": LETTERS}, "series": {"steps": 12, "channels": 3, "classes": 4}}
"""The sizes that the scripts read off their data."""
Feeds = dict[str, Array]


@cache
def script(name: str) -> dict[str, Any]:
    """What the script of a net defines."""
    return runpy.run_path(str(DOCS / "examples" / f"{name}.py"))


def declared_net(name: str, **sizes: int) -> gc.Net:
    """The net of that script."""
    net: gc.Net = script(name)["net"](**SIZES.get(name, {}), **sizes)
    return net


def batch(name: str, rows: int, seed: int = 0) -> Feeds:
    """Feeds for it: of the script's own data, or like those."""
    return BATCHES[name](rows, np.random.default_rng(seed))


def _digits(rows: int, rng: np.random.Generator) -> tuple[Array, Array]:
    x, y = load_digits()
    chosen = rng.permutation(len(y))[:rows]
    return x[chosen].astype(np.float32) / 16, y[chosen]


def _large(rows: int, rng: np.random.Generator) -> Feeds:
    """Digits of 8 x 8 pixels as images of MNIST's 28 x 28."""
    x, y = _digits(rows, rng)
    drawn = np.kron(x.reshape(-1, 8, 8), np.ones((1, 3, 3), np.float32))
    return {"x": np.pad(drawn, ((0, 0), (2, 2), (2, 2)))[:, None], "y": y}


def _patches(rows: int, rng: np.random.Generator) -> Feeds:
    x, y = _digits(rows, rng)
    return {"x": script("mixer")["patches"](x * 16).astype(np.float32), "y": y}


def _pixels(rows: int, rng: np.random.Generator) -> Feeds:
    return {"x": _digits(rows, rng)[0]}


def _pairs(rows: int, rng: np.random.Generator) -> Feeds:
    x, y = load_digits()
    made = script("two_towers")["pairs"](x, y, rows, seed=int(rng.integers(99)))
    return {name: array.astype(np.float32) for name, array in made.items()}


def _text(rows: int, rng: np.random.Generator) -> Feeds:
    """Letters of which each is the one before and 3, or any."""
    length = script("gpt")["CONTEXT"] + 1
    first, steps = rng.integers(LETTERS, size=(rows, 1)), 3 * np.arange(length)
    made = (first + steps) % LETTERS
    noise = rng.random(made.shape) < 0.1
    made[noise] = rng.integers(LETTERS, size=noise.sum())
    return {"ids": made[:, :-1], "y": made[:, 1:]}


def _carts(rows: int, rng: np.random.Generator) -> Feeds:
    old, gain, goal = rng.uniform(-1, 1, (3, rows)).astype(np.float32)
    state = rng.uniform(-0.05, 0.05, (rows, 4)).astype(np.float32)
    action = rng.integers(2, size=rows)
    return {"state": state, "action": action, "old": old - 1, "gain": gain, "goal": goal}


def _series(rows: int, rng: np.random.Generator) -> Feeds:
    """Normal numbers, behind the end of each row, too."""
    x = rng.normal(size=(rows, SIZES["series"]["steps"], SIZES["series"]["channels"]))
    lengths = rng.integers(1, x.shape[1] + 1, rows, dtype=np.int32)
    y = rng.integers(SIZES["series"]["classes"], size=rows)
    return {"x": x.astype(np.float32), "lengths:x": lengths, "y": y}


BATCHES: dict[str, Callable[[int, np.random.Generator], Feeds]] = {
    "autoencoder": _pixels,
    "gpt": _text,
    "lenet": _large,
    "mixer": _patches,
    "ppo": _carts,
    "resnet": _large,
    "series": _series,
    "two_towers": _pairs,
}
