"""Two recurrent passes over real series, from the package aeon: python series.py JapaneseVowels"""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import graphc as gc

EPOCHS = {"JapaneseVowels": 60, "GunPoint": 200, "ItalyPowerDemand": 60}
"""The data sets, and the epochs that a net trains on each."""
UNITS, BATCH = 64, 16


def load(name: str, part: str) -> tuple[list[np.ndarray], np.ndarray]:
    """The series (t, channels) of a .ts file of aeon, and the names of their classes."""
    package = find_spec("aeon")
    if package is None or package.origin is None:
        raise SystemExit("the series are those of the package aeon: pip install aeon")
    folder = Path(package.origin).parent / "datasets" / "data" / name
    series, classes = [], []
    for line in (folder / f"{name}_{part}.ts").read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#@":
            *channels, label = line.split(":")
            rows = [np.array(channel.split(","), np.float32) for channel in channels]
            series.append(np.stack(rows, axis=1))
            classes.append(label)
    return series, np.array(classes)


def gru(
    x: gc.Value, start: gc.Value, lengths: gc.Value, reverse: bool, name: str
) -> tuple[gc.Value, gc.Value]:
    """A gated recurrent unit (Cho et al. 2014): its states at all steps, and the last one."""

    def step(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        a = gc.affine(x, 3 * UNITS, name="in")
        b = gc.affine(h, 3 * UNITS, init=gc.Orthogonal(), name="recurrent")
        r = gc.sigmoid(a[:, :UNITS] + b[:, :UNITS])
        z = gc.sigmoid(a[:, UNITS : 2 * UNITS] + b[:, UNITS : 2 * UNITS])
        new = gc.tanh(a[:, 2 * UNITS :] + r * b[:, 2 * UNITS :])
        h = (1 - z) * new + z * h
        return h, h

    return gc.scan(step, x, start, lengths=lengths, reverse=reverse, name=name)


def net(steps: int, channels: int, classes: int) -> gc.Net:
    net = gc.Net("series")
    x = net.input("x", (gc.N, steps, channels))
    y = net.input("y", (gc.N,), dtype="int64")
    n = gc.lengths(x)
    zeros = gc.broadcast_to(net.constant(np.zeros(UNITS, np.float32)), (gc.N, UNITS))
    found = [gru(x, zeros, n, back, "back" if back else "forth") for back in (False, True)]
    count = gc.reshape(gc.cast(n, "float32"), (gc.N, 1))
    means = [gc.sum(states, 1) / count for states, _ in found]  # states behind the ends are 0
    h = gc.dropout(gc.concat([*means, *(last for _, last in found)], 1), drop_prob=0.8)
    scores = net.output("scores", gc.affine(h, classes, name="scores"))
    net.output("accuracy", gc.accuracy(scores, y))
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def main(name: str = "JapaneseVowels", epochs: int | None = None, seed: int = 0) -> float:
    epochs = epochs or EPOCHS[name]
    (x, names), (x_test, test_names) = load(name, "TRAIN"), load(name, "TEST")
    classes, y = np.unique(names, return_inverse=True)
    y_test = np.searchsorted(classes, test_names)
    steps = max(map(len, [*x, *x_test]))
    total = epochs * -(-len(x) // BATCH)
    adam = gc.AdamW(lr=5e-3, weight_decay=0.1, schedule=gc.Cosine(total=total, warmup=total // 20))
    plan = gc.compile(net(steps, x[0].shape[1], len(classes)), batch=BATCH, optimizer=adam)
    ex = gc.Executor(plan, seed=seed)
    gc.fit(ex, (x, y), epochs=epochs, seed=seed)
    return ex.evaluate(x_test, y_test)["accuracy"]


if __name__ == "__main__":
    for name in sys.argv[1:] or EPOCHS:
        print(f"{name}: {main(name):.1%} of the test series")
