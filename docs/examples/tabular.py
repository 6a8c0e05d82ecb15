"""A table with numbers and a category; a loss of one's own; evaluation by name."""

import numpy as np

import graphc as gc

TYPES = 5


def net() -> gc.Net:
    net = gc.Net("tabular")
    size = net.input("size", (gc.N, 3))
    kind = net.input("kind", (gc.N,), dtype="int64")
    price = net.input("price", (gc.N,))
    features = gc.concat([gc.one_hot(kind, TYPES), size], axis=1)
    h = gc.relu(gc.affine(features, 32))
    guess = gc.reshape(gc.affine(h, 1), (gc.N,))
    gap = gc.abs(guess - price)
    huber = gc.where(gap < 1.0, 0.5 * gap**2, gap - 0.5)  # outliers pull no harder than others
    net.output("guess", guess)
    net.output("mean_gap", gc.mean(gap))
    net.loss("huber", gc.mean(huber))
    return net


def table(rows: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    size, kind = rng.uniform(0, 1, (rows, 3)), rng.integers(0, TYPES, rows)
    price = size @ [1.0, 2.0, -1.0] * (1 + kind) + rng.normal(0, 0.05, rows)
    return {"size": size, "kind": kind, "price": price}


def main(epochs: int = 60) -> dict[str, float]:
    ex = gc.Executor(gc.compile(net(), batch=64, optimizer=gc.AdamW(lr=0.01)))
    gc.fit(ex, table(2000, seed=0), validation=table(200, seed=1), epochs=epochs)
    return ex.evaluate(table(500, seed=2))


if __name__ == "__main__":
    print(main())
