"""ResNet-20 (He et al. 2016, arXiv:1512.03385, section 4.2) on 5,000 digits of MNIST."""

import graphc as gc
from graphc.data import load_mnist_5k, stratified_split


def conv(x: gc.Value, channels: int, kernel: int = 3, stride: int = 1) -> gc.Value:
    return gc.batchnorm(gc.conv2d(x, channels, kernel, stride, padding=kernel // 2, bias=False))


def block(x: gc.Value, channels: int, stride: int) -> gc.Value:
    h = conv(gc.relu(conv(x, channels, stride=stride)), channels)
    return gc.relu(h + (x if h.shape == x.shape else conv(x, channels, 1, stride)))


def net(blocks: int = 3, size: int = 28) -> gc.Net:
    net = gc.Net("resnet")
    x, y = net.input("x", (gc.N, 1, size, size)), net.input("y", (gc.N,), dtype="int64")
    h = gc.relu(conv(x, 16))
    for channels in (16, 32, 64):
        for i in range(blocks):
            h = block(h, channels, 2 if channels > 16 and i == 0 else 1)
    scores = net.output("scores", gc.affine(gc.global_avg_pool(h), 10, name="scores"))
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def main(epochs: int = 3, blocks: int = 3) -> float:
    """Train on 4,000 digits, 400 a class; the accuracy of the other 1,000."""
    x, y = load_mnist_5k()
    x, (train, test) = x.reshape(-1, 1, 28, 28) / 255, stratified_split(y, 0.2, seed=0)
    sgd = gc.SGD(lr=0.1, momentum=0.9, weight_decay=1e-4, schedule=gc.Cosine(63 * epochs))
    ex = gc.Executor(gc.compile(net(blocks), batch=64, optimizer=sgd), seed=0)
    gc.fit(ex, (x[train], y[train]), epochs=epochs)
    return float((ex.predict(x[test]).argmax(axis=1) == y[test]).mean())


if __name__ == "__main__":
    print(f"test accuracy {main():.3f}")
