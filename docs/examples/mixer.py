"""An MLP-Mixer (Tolstikhin et al. 2021, arXiv:2105.01601) on digits, 2 x 2 pixels a patch."""

import numpy as np

import graphc as gc
from graphc.data import load_digits, stratified_split

PATCHES, WIDTH = 16, 32


def mixed(h: gc.Value, width: int) -> gc.Value:
    """Two layers along the last axis."""
    inner = gc.dropout(gc.gelu(gc.affine(h, width, axis=-1)), keep_prob=0.9)
    return gc.affine(inner, h.shape[-1], axis=-1)


def net(blocks: int = 3) -> gc.Net:
    net = gc.Net("mixer")
    x, y = net.input("x", (gc.N, PATCHES, 4)), net.input("y", (gc.N,), dtype="int64")
    h = gc.affine(x, WIDTH, axis=-1, name="patches")
    for i in range(blocks):
        with net.block(f"block{i}"):
            turned = gc.transpose(gc.layernorm(h), (0, 2, 1))  # patches last: they are mixed
            h = h + gc.transpose(mixed(turned, 32), (0, 2, 1))
            h = h + mixed(gc.layernorm(h), 64)  # then the features of each
    scores = gc.affine(gc.mean(gc.layernorm(h), axis=1), 10, name="scores")
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def patches(x: np.ndarray) -> np.ndarray:
    """(N, 64) pixels to (N, 16, 4): rows of patches, each 2 x 2."""
    return x.reshape(-1, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(-1, PATCHES, 4) / 16


def main(epochs: int = 60) -> float:
    x, y = load_digits()
    train, test = stratified_split(y, 0.2, seed=0)
    adam = gc.AdamW(lr=0.003, schedule=gc.Cosine(total=23 * epochs))
    ex = gc.Executor(gc.compile(net(), batch=64, optimizer=adam), seed=0)
    gc.fit(ex, (patches(x[train]), y[train]), epochs=epochs)
    return float((ex.predict(patches(x[test])).argmax(axis=1) == y[test]).mean())


if __name__ == "__main__":
    print(f"test accuracy {main():.3f}")
