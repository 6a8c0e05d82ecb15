"""Two images through one tower, its weights shared: do they show the same digit?"""

import numpy as np

import graphc as gc
from graphc.data import load_digits, stratified_split

MARGIN = 1.0


def net() -> gc.Net:
    net = gc.Net("two_towers")
    left, right = net.input("left", (gc.N, 64)), net.input("right", (gc.N, 64))
    same = net.input("same", (gc.N,))

    def tower(x: gc.Value) -> gc.Value:
        """The first call declares the weights, the second one shares them."""
        for i, width in enumerate((128, 64, 16)):
            weight, bias = weights[i] if i < len(weights) else (None, True)
            layer = gc.affine(x, width if weight is None else None, weight=weight, bias=bias)
            if weight is None:
                weights.append((net[f"{layer.name}.weight"], net[f"{layer.name}.bias"]))
            x = layer if i == 2 else gc.relu(layer)
        return x

    weights: list[tuple[gc.Value, gc.Value]] = []
    square = gc.sum((tower(left) - tower(right)) ** 2, axis=1)
    gap = gc.sqrt(square + 1e-6)
    net.output("gap", gap)
    far = gc.relu(MARGIN - gap) ** 2  # Hadsell, Chopra, LeCun 2006, equation 4
    net.loss("loss", gc.mean(same * square + (1 - same) * far))
    return net


def pairs(x: np.ndarray, y: np.ndarray, count: int, seed: int) -> dict[str, np.ndarray]:
    """Pairs of which half show the same digit."""
    rng = np.random.default_rng(seed)
    one, same = rng.integers(len(y), size=count), rng.random(count) < 0.5
    groups = [np.flatnonzero(y == digit) for digit in range(10)]
    digit = (y[one] + np.where(same, 0, rng.integers(1, 10, size=count))) % 10
    other = np.array([rng.choice(groups[d]) for d in digit])
    return {"left": x[one] / 16, "right": x[other] / 16, "same": same.astype(np.float32)}


def main(epochs: int = 30) -> float:
    x, y = load_digits()
    train, test = stratified_split(y, 0.2, seed=0)
    ex = gc.Executor(gc.compile(net(), batch=128, optimizer=gc.Adam(lr=0.001)), seed=0)
    gc.fit(ex, pairs(x[train], y[train], 20_000, seed=0), epochs=epochs)
    asked = pairs(x[test], y[test], 2_000, seed=1)
    same = asked.pop("same") == 1
    gap = np.concatenate(
        [
            ex.forward({k: v[i : i + 128] for k, v in asked.items()})["gap"]
            for i in range(0, 2_000, 128)
        ]
    )
    return float(((gap < MARGIN / 2) == same).mean())


if __name__ == "__main__":
    print(f"accuracy on pairs of digits that were not trained on: {main():.3f}")
