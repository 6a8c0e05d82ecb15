"""LeNet on 5,000 digits of MNIST: convolution, max-pool, and the layers behind them."""

import sys

import graphc as gc
from graphc.data import load_mnist_5k, stratified_split


def net() -> gc.Net:
    net = gc.Net("lenet")
    x = net.input("x", (gc.N, 1, 28, 28))
    y = net.input("y", (gc.N,), dtype="int64")
    h = gc.relu(gc.conv2d(x, 6, 5, padding=2))
    h = gc.max_pool(h, 2)
    h = gc.relu(gc.conv2d(h, 16, 5))
    h = gc.max_pool(h, 2)
    for width in (120, 84):
        h = gc.relu(gc.affine(h, width))  # the first flattens its images
    scores = gc.affine(h, 10, name="scores")
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def main(epochs: int = 10) -> float:
    """Train on 4,000 digits, 400 a class; the accuracy of the other 1,000."""
    x, y = load_mnist_5k()
    x = x.reshape(-1, 1, 28, 28) / 255
    train, test = stratified_split(y, 0.2, seed=0)
    adam = gc.Adam(lr=0.002, schedule=gc.Cosine(total=epochs * 63))
    ex = gc.Executor(gc.compile(net(), batch=64, optimizer=adam), seed=0)
    gc.fit(ex, (x[train], y[train]), epochs=epochs)
    return float((ex.predict(x[test]).argmax(axis=1) == y[test]).mean())


if __name__ == "__main__":
    print(f"test accuracy {main(*map(int, sys.argv[1:2])):.3f}")
