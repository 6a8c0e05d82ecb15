"""Digits through 8 numbers and back, beside the 8 best numbers of a linear map."""

import numpy as np

import graphc as gc
from graphc.data import load_digits, stratified_split

CODE = 8


def net() -> gc.Net:
    net = gc.Net("autoencoder")
    x = net.input("x", (gc.N, 64))
    h = gc.gelu(gc.affine(x, 128))
    code = gc.affine(gc.gelu(gc.affine(h, 64)), CODE, name="code")
    h = gc.gelu(gc.affine(gc.gelu(gc.affine(code, 64)), 128))
    guess = gc.sigmoid(gc.affine(h, 64), name="guess")
    net.output("code", code)
    net.output("guess", guess)
    net.loss("loss", gc.mse_loss(guess, x))
    return net


def by_principal_components(train: np.ndarray, test: np.ndarray) -> float:
    """The squared error of the best linear map to CODE numbers and back."""
    mean = train.mean(axis=0)
    _, _, directions = np.linalg.svd(train - mean, full_matrices=False)
    kept = directions[:CODE]
    return float((((test - mean) @ kept.T @ kept + mean - test) ** 2).mean())


def main(epochs: int = 200) -> tuple[float, float]:
    x, y = load_digits()
    train, test = (x[part] / 16 for part in stratified_split(y, 0.2, seed=0))
    rate = gc.Cosine(total=23 * epochs)
    plan = gc.compile(net(), batch=64, optimizer=gc.Adam(lr=0.003, schedule=rate))
    ex = gc.Executor(plan, seed=0)
    gc.fit(ex, {"x": train}, epochs=epochs)
    return ex.evaluate({"x": test})["loss"], by_principal_components(train, test)


if __name__ == "__main__":
    print("squared error of a pixel: {:.5f}; of principal components: {:.5f}".format(*main()))
