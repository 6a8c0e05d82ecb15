"""Handwritten digits: batchnorm and dropout, trained, drawn and saved."""

import sys
from pathlib import Path

import graphc as gc
from graphc.data import load_digits, stratified_split


def net() -> gc.Net:
    net = gc.Net("digits")
    x = net.input("x", (gc.N, 64))
    y = net.input("y", (gc.N,), dtype="int64")
    h = x
    for width in (100, 50):
        h = gc.affine(h, width)
        h = gc.batchnorm(h)
        h = gc.relu(h)
        h = gc.dropout(h, keep_prob=0.8)
    scores = gc.affine(h, 10, name="scores")
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def main(folder: str = ".", epochs: int = 20) -> float:
    x, y = load_digits()
    train, test = stratified_split(y, 0.2, seed=0)
    plan = gc.compile(net(), batch=128, optimizer=gc.SGD(lr=0.1, momentum=0.9))
    plan.render(Path(folder) / "digits.svg")
    ex = gc.Executor(plan, seed=0)
    gc.fit(ex, (x[train] / 16, y[train]), epochs=epochs)
    gc.save(Path(folder) / "digits.gc", ex)
    return float((ex.predict(x[test] / 16).argmax(axis=1) == y[test]).mean())


if __name__ == "__main__":
    print(f"test accuracy {main(*sys.argv[1:2]):.3f}")
