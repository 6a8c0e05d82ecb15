"""The nets of docs/examples trained in float32 and in bfloat16: what they lose.

  python -m tests.tools.benchmarks.precision FOLDER [--seeds 5] [--nets lenet,gpt] [--draw FILE.png]

Each net trains with the seeds 0, 1, ... for its initial weights, dropout and order of rows, once
in float32 and once with every product in bfloat16 in each order of terms.  Some train on less data
or for fewer epochs than their scripts: see TASKS.  Each run leaves a file in the folder, and a run
that has one is not made again.  Nets whose data are those of a package that is missing are left
out.

A table has the mean and the standard deviation over the seeds of each net's score on held-out
rows, and the mean difference to float32 of the runs of one seed with its standard error; another
one the training loss of the last epoch.  Losses agree if their means differ from that of float32 by
less than its deviation among seeds.
"""

from __future__ import annotations

import argparse
import json
import runpy
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import graphc as gc
from graphc.base.errors import DataError
from graphc.data import load_digits, load_mnist_5k, load_wine, stratified_split

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
PRECISIONS = {"float32": None, "pairs": {"*": "bf16"}, "blocks": {"*": "bf16_blocks"}}
DRAWN = "lenet", "series", "gpt"


class Task(NamedTuple):
    """A net and how it is trained; its score is its output of that name in percent, or its loss."""

    net: gc.Net
    batch: int
    optimizer: gc.Optimizer
    epochs: int
    train: Any
    test: Any
    by_length: bool = False


def script(name: str) -> dict[str, Any]:
    """What the example of this name defines."""
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def classes(net: gc.Net) -> gc.Net:
    """Return the net with its accuracy as its score."""
    net.output("score", gc.accuracy(net["scores"], net["y"]))
    return net


def halves(x: Any, y: Any, held: float = 0.2) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Rows to train on, and those that are held out."""
    train, test = stratified_split(y, held, seed=0)
    return (x[train], y[train]), (x[test], y[test])


def digits() -> Task:
    x, y = load_digits()
    net = classes(script("digits")["net"]())
    return Task(net, 128, gc.SGD(lr=0.1, momentum=0.9), 20, *halves(x / 16, y))


def wine() -> Task:
    x, y = load_wine()
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    net = gc.Net("wine")
    given, label = net.input("x", (gc.N, 13)), net.input("y", (gc.N,), dtype="int64")
    scores = net.output("scores", gc.mlp(given, (32, 32), 3, name="scores"))
    net.loss("loss", gc.softmax_loss(scores, label))
    return Task(classes(net), 16, gc.Adam(lr=0.003), 40, *halves(x, y, held=0.5))


def lenet(epochs: int = 10) -> Task:
    x, y = load_mnist_5k()
    adam = gc.Adam(lr=0.002, schedule=gc.Cosine(total=63 * epochs))
    net = classes(script("lenet")["net"]())
    return Task(net, 64, adam, epochs, *halves(x.reshape(-1, 1, 28, 28) / 255, y))


def resnet() -> Task:
    """ResNet-8."""
    x, y = load_mnist_5k()
    sgd = gc.SGD(lr=0.1, momentum=0.9, weight_decay=1e-4, schedule=gc.Cosine(63 * 3))
    net = classes(script("resnet")["net"](blocks=1))
    return Task(net, 64, sgd, 3, *halves(x.reshape(-1, 1, 28, 28) / 255, y))


def mixer(epochs: int = 60) -> Task:
    (x, y), defined = load_digits(), script("mixer")
    adam = gc.AdamW(lr=0.003, schedule=gc.Cosine(total=23 * epochs))
    return Task(classes(defined["net"]()), 64, adam, epochs, *halves(defined["patches"](x), y))


def autoencoder(epochs: int = 200) -> Task:
    (x, _), (test, _) = halves(*load_digits())
    adam = gc.Adam(lr=0.003, schedule=gc.Cosine(total=23 * epochs))
    parts = {"x": x / 16}, {"x": test / 16}
    return Task(script("autoencoder")["net"](), 64, adam, epochs, *parts)


def two_towers() -> Task:
    defined, (train, test) = script("two_towers"), halves(*load_digits())
    net, pairs = defined["net"](), defined["pairs"]
    same = gc.cast(net[net.graph().outputs["gap"]] < defined["MARGIN"] / 2, "float32") - net["same"]
    net.output("score", 1 - gc.mean(gc.abs(same)))
    parts = pairs(*train, 20_000, seed=0), pairs(*test, 2_000, seed=1)
    return Task(net, 128, gc.Adam(lr=0.001), 15, *parts)


def series(name: str = "ItalyPowerDemand") -> Task:
    defined = script("series")
    try:
        (x, names), (x_test, test_names) = (defined["load"](name, p) for p in ("TRAIN", "TEST"))
    except SystemExit as missing:
        raise DataError(str(missing)) from None
    found, y = np.unique(names, return_inverse=True)
    steps, batch, epochs = max(map(len, [*x, *x_test])), defined["BATCH"], defined["EPOCHS"][name]
    total = epochs * -(-len(x) // batch)
    cosine = gc.Cosine(total=total, warmup=total // 20)
    adam = gc.AdamW(lr=5e-3, weight_decay=0.1, schedule=cosine)
    net = defined["net"](steps, x[0].shape[1], len(found))
    net.output("score", gc.accuracy(net["scores"], net["y"]))
    return Task(net, batch, adam, epochs, (x, y), (x_test, np.searchsorted(found, test_names)))


def letters(epochs: int = 8, share: float = 0.4) -> Task:
    defined = script("letters")
    text = defined["lines"]()
    codes = {letter: i for i, letter in enumerate(sorted(set("".join(text))))}
    rows = [np.array([codes[letter] for letter in line]) for line in text]
    order = np.random.default_rng(0).permutation(len(rows))[: int(share * len(rows))]
    train, test = (
        ([rows[i][:-1] for i in part], [rows[i][1:] for i in part])
        for part in np.split(order, [len(order) * 9 // 10])
    )
    total = epochs * -(-len(train[0]) // defined["BATCH"])
    adam = gc.AdamW(lr=4e-3, schedule=gc.Cosine(total=total, warmup=total // 20))
    net = defined["net"](len(codes))
    return Task(net, defined["BATCH"], adam, epochs, train, test, by_length=True)


def gpt(epochs: int = 30, layers: int = 2) -> Task:
    """Two layers; an epoch is 20 steps, on the same batches for each seed."""
    defined = script("gpt")
    found, data = np.unique(list(defined["text"]()), return_inverse=True)
    train, test = np.split(data.astype(np.int64), [len(data) * 9 // 10])
    rows, context = defined["BATCH"], defined["CONTEXT"]

    def batches(epoch: int) -> Iterator[dict[str, Any]]:
        rng = np.random.default_rng(epoch)
        for _ in range(20):
            yield defined["windows"](train, rng.integers(len(train) - context, size=rows))

    total = 20 * epochs
    adam = gc.AdamW(lr=2e-3, schedule=gc.Cosine(total=total, warmup=total // 20))
    held = defined["windows"](test, np.arange(0, len(test) - context - 1, 4 * context))
    return Task(defined["net"](len(found), layers), rows, adam, epochs, batches, held)


TASKS: dict[str, Callable[[], Task]] = {
    make.__name__: make
    for make in (digits, wine, lenet, resnet, mixer, autoencoder, two_towers, series, letters, gpt)
}


def kept(folder: Path, name: str, precision: str, seed: int) -> Path:
    """The file of a run."""
    return folder / f"{name} {precision} {seed}.json"


def run(name: str, precision: str, seed: int, file: Path) -> None:
    """Train a net once and keep its score, its losses and the seconds of CPU time."""
    task, begin = TASKS[name](), time.process_time()
    chosen: Any = {"optimizer": task.optimizer, "precision": PRECISIONS[precision], "threads": 1}
    ex = gc.Executor(gc.compile(task.net, batch=task.batch, backend="native", **chosen), seed=seed)
    options: Any = {"by_length": True} if task.by_length else {}
    loss = gc.fit(ex, task.train, epochs=task.epochs, seed=seed, **options).loss
    test = task.test
    found = ex.evaluate(**test) if isinstance(test, dict) else ex.evaluate(*test)
    seconds = time.process_time() - begin
    score = 100 * found["score"] if "score" in found else found["loss"]
    file.write_text(json.dumps({"score": score, "loss": loss, "seconds": seconds}))
    print(f"{file.stem}: {seconds:.1f} s", flush=True)


class Runs(NamedTuple):
    """The runs of a net in one precision: scores (seeds,) and losses (seeds, epochs)."""

    score: np.ndarray
    loss: np.ndarray

    @classmethod
    def of(cls, name: str, precision: str, folder: Path, seeds: int) -> Runs:
        files = (kept(folder, name, precision, seed) for seed in range(seeds))
        found = [json.loads(file.read_text()) for file in files]
        return cls(*(np.array([one[key] for one in found]) for key in cls._fields))


def spread(values: np.ndarray) -> float:
    """The standard deviation of what the seeds drew."""
    return float(values.std(ddof=1))


def agree(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether the means differ by less than the deviation of the first."""
    return bool(abs(one.mean() - other.mean()) < spread(one))


def about(values: np.ndarray, error: float, digits: int, sign: str = "") -> str:
    """Return the mean of numbers, and their spread or error."""
    return f"{values.mean():{sign}.{digits}f} ± {error:.{digits}f}"


def scores(float32: Runs, *others: Runs) -> str:
    """Return the scores of a net and their differences to float32, as the cells of a row."""
    digits = 2 if float32.score.mean() > 10 else 4
    cells = [about(float32.score, spread(float32.score), digits)]
    for other in others:
        gap = other.score - float32.score
        error = spread(gap) / np.sqrt(len(gap))
        cells.append(about(other.score, spread(other.score), digits))
        cells.append(about(gap, error, digits, "+"))
    return " | ".join(cells)


def losses(float32: Runs, *others: Runs) -> str:
    """Return the losses of the last epoch, and whether they agree, as the cells of a row."""
    first, *rest = last = [runs.loss[:, -1] for runs in (float32, *others)]
    agreed = "yes" if all(agree(first, other) for other in rest) else "no"
    return " | ".join([*(about(x, spread(x), 4) for x in last), agreed])


def draw(found: dict[str, list[Runs]], path: str) -> None:
    """Draw the mean losses of each precision, with the range over the seeds."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(9, 3), layout="constrained", squeeze=False)
    for axis, (name, sides) in zip(axes[0], found.items(), strict=True):
        for label, side, style in zip(PRECISIONS, sides, ("-", "--", ":"), strict=True):
            epochs = np.arange(1, side.loss.shape[1] + 1)
            axis.plot(epochs, side.loss.mean(axis=0), style, label=label)
            axis.fill_between(epochs, side.loss.min(axis=0), side.loss.max(axis=0), alpha=0.2)
        axis.set(title=name, xlabel="epoch", ylabel="training loss", yscale="log")
        axis.grid(alpha=0.3, which="both")
        axis.legend()
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="keeps a file of each run")
    parser.add_argument("--seeds", type=int, default=5, help="2 or more")
    parser.add_argument("--nets", default=",".join(TASKS))
    parser.add_argument("--draw")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Runs]] = {}
    for name in asked.nets.split(","):
        try:
            for seed in range(asked.seeds):
                for precision in PRECISIONS:
                    file = kept(asked.folder, name, precision, seed)
                    if not file.exists():
                        run(name, precision, seed, file)
        except DataError as missing:
            print(f"{name} is left out: {missing}")
            continue
        found[name] = [Runs.of(name, side, asked.folder, asked.seeds) for side in PRECISIONS]
    print("score | float32 | pairs | difference | blocks | difference")
    for name, sides in found.items():
        print(f"{name} | {scores(*sides)}")
    print("loss | float32 | pairs | blocks | agree")
    for name, sides in found.items():
        print(f"{name} | {losses(*sides)}")
    if asked.draw:
        draw({name: found[name] for name in DRAWN if name in found}, asked.draw)


if __name__ == "__main__":
    main()
