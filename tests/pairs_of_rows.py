"""Losses that compare the rows of a batch with each other, as nets, in NumPy and in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import graphc as gc

Array = NDArray[np.float64]
Arrays = dict[str, Array]
WIDTH = 4
"""The features of an embedding."""
BANDWIDTHS = (0.1, 0.5)


@dataclass(frozen=True)
class Loss:
    """A loss three times: as a net, by NumPy and by PyTorch, from feeds and parameters."""

    net: Callable[[], gc.Net]
    by_numpy: Callable[[Mapping[str, Any], Arrays], float]
    by_torch: Callable[[Any, Mapping[str, Any], Mapping[str, Any]], Any]


def feeds(rows: int, seed: int = 0) -> dict[str, Any]:
    """Arrays for all inputs; there are three kinds of rows."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(rows, 7)), rng.normal(size=(rows, WIDTH))
    return {"a": a, "b": b, "kind": rng.integers(0, 3, rows)}


def of(net: gc.Net, rows: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays that a net reads."""
    return {node.name: rows[node.name] for node in net.graph() if node.op.is_input}


def embedded(net: gc.Net) -> gc.Value:
    return gc.affine(net.input("a", (gc.N, 7)), WIDTH, name="e", init=gc.Normal(0.3))


# ------------------------------------------------------------------ CLIP


def clip() -> gc.Net:
    """Radford et al. 2021 (arXiv:2103.00020), figure 3: both directions, a learnt temperature."""
    net = gc.Net("clip", dtype="float64")
    image, text = embedded(net), net.input("b", (gc.N, WIDTH))
    image = image / gc.l2_norm(image, 1, keepdims=True)
    text = text / gc.l2_norm(text, 1, keepdims=True)
    scores = gc.matmul(image, gc.transpose(text)) * gc.exp(net.parameter("t", (), init=0.7))
    own = gc.diagonal(scores)
    net.output("scores", scores)
    net.output("image", image)
    net.loss("of_images", gc.mean(gc.logsumexp(scores, 1) - own) * 0.5)
    net.loss("of_texts", gc.mean(gc.logsumexp(scores, 0) - own) * 0.5)
    return net


def clip_scores(rows: Mapping[str, Any], p: Arrays) -> Array:
    image = rows["a"] @ p["e.weight"] + p["e.bias"]
    image = image / np.sqrt((image**2).sum(1, keepdims=True))
    text = rows["b"] / np.sqrt((rows["b"] ** 2).sum(1, keepdims=True))
    return np.asarray(image @ text.T * np.exp(p["t"]))


def clip_by_numpy(rows: Mapping[str, Any], p: Arrays) -> float:
    scores = clip_scores(rows, p)
    sums = sum(np.log(np.exp(scores).sum(axis)) for axis in (0, 1))
    return float((sums / 2 - np.diag(scores)).mean())


def clip_by_torch(torch: Any, rows: Mapping[str, Any], p: Mapping[str, Any]) -> Any:
    f = torch.nn.functional
    image = f.normalize(rows["a"] @ p["e.weight"] + p["e.bias"], dim=1)
    scores = image @ f.normalize(rows["b"], dim=1).T * p["t"].exp()
    own = torch.arange(len(scores))
    return (f.cross_entropy(scores, own) + f.cross_entropy(scores.T, own)) / 2


# ------------------------------------------------------------------ MMD


def mmd() -> gc.Net:
    """The squared maximum mean discrepancy of two samples: Gretton et al. 2012 (JMLR 13)."""
    net = gc.Net("mmd", dtype="float64")
    x, y = embedded(net), net.input("b", (gc.N, WIDTH))

    def kernel(u: gc.Value, v: gc.Value) -> gc.Value:
        norms = gc.sum(u * u, 1, keepdims=True) + gc.reshape(gc.sum(v * v, 1), (1, gc.N))
        distance = norms - 2.0 * gc.matmul(u, gc.transpose(v))
        return gc.exp(-BANDWIDTHS[0] * distance) + gc.exp(-BANDWIDTHS[1] * distance)

    net.loss("mmd", gc.mean(kernel(x, x)) + gc.mean(kernel(y, y)) - 2.0 * gc.mean(kernel(x, y)))
    return net


def mmd_by_broadcasting() -> gc.Net:
    """The same, by differences of shape (N, N, WIDTH)."""
    net = gc.Net("mmd", dtype="float64")
    x, y = embedded(net), net.input("b", (gc.N, WIDTH))

    def kernel(u: gc.Value, v: gc.Value) -> gc.Value:
        apart = gc.unsqueeze(u, 1) - gc.unsqueeze(v, 0)
        distance = gc.sum(apart * apart, -1)
        return gc.exp(-BANDWIDTHS[0] * distance) + gc.exp(-BANDWIDTHS[1] * distance)

    net.loss("mmd", gc.mean(kernel(x, x)) + gc.mean(kernel(y, y)) - 2.0 * gc.mean(kernel(x, y)))
    return net


def mmd_by_numpy(rows: Mapping[str, Any], p: Arrays) -> float:
    x, y = rows["a"] @ p["e.weight"] + p["e.bias"], rows["b"]

    def kernel(u: Array, v: Array) -> float:
        distance = ((u[:, None] - v[None]) ** 2).sum(-1)
        return float(sum(np.exp(-width * distance).mean() for width in BANDWIDTHS))

    return kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)


def mmd_by_torch(torch: Any, rows: Mapping[str, Any], p: Mapping[str, Any]) -> Any:
    x, y = rows["a"] @ p["e.weight"] + p["e.bias"], rows["b"]

    def kernel(u: Any, v: Any) -> Any:
        distance = ((u[:, None] - v[None]) ** 2).sum(-1)
        return sum(torch.exp(-width * distance).mean() for width in BANDWIDTHS)

    return kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)


# ------------------------------------------------------------------ triplets

MARGIN = 0.3


def triplets() -> gc.Net:
    """The batch-hard triplet loss: Hermans et al. 2017 (arXiv:1703.07737), equation 5."""
    net = gc.Net("triplets", dtype="float64")
    x, kind = embedded(net), net.input("kind", (gc.N,), dtype="int64")
    norms = gc.sum(x * x, 1, keepdims=True)
    squared = norms + gc.reshape(norms, (1, gc.N)) - 2.0 * gc.matmul(x, gc.transpose(x))
    same = gc.equal(gc.reshape(kind, (gc.N, 1)), gc.reshape(kind, (1, gc.N)))
    own = gc.eye_like(squared)
    distance = gc.sqrt(gc.where(own, 1.0, squared))
    far = gc.max(gc.where(gc.logical_and(same, gc.logical_not(own)), distance, 0.0), 1)
    near = gc.min(gc.where(same, 1e3, distance), 1)
    net.loss("triplets", gc.mean(gc.relu(far - near + MARGIN)))
    return net


def triplets_by_numpy(rows: Mapping[str, Any], p: Arrays) -> float:
    x, kind = rows["a"] @ p["e.weight"] + p["e.bias"], rows["kind"]
    total = 0.0
    for i in range(len(x)):
        distance = np.sqrt(((x - x[i]) ** 2).sum(1))
        others = [j for j in range(len(x)) if j != i]
        far = max((distance[j] for j in others if kind[j] == kind[i]), default=0.0)
        near = min((distance[j] for j in others if kind[j] != kind[i]), default=1e3)
        total += max(0.0, far - near + MARGIN)
    return float(total / len(x))


def triplets_by_torch(torch: Any, rows: Mapping[str, Any], p: Mapping[str, Any]) -> Any:
    x, kind = rows["a"] @ p["e.weight"] + p["e.bias"], rows["kind"]
    own = torch.eye(len(x), dtype=torch.bool)
    squared = ((x[:, None] - x[None]) ** 2).sum(-1)
    distance = torch.where(own, 1.0, squared).sqrt()
    same = kind[:, None] == kind[None]
    far = torch.where(same & ~own, distance, 0.0).amax(1)
    near = torch.where(same, 1e3, distance).amin(1)
    return torch.relu(far - near + MARGIN).mean()


LOSSES = {
    "clip": Loss(clip, clip_by_numpy, clip_by_torch),
    "mmd": Loss(mmd, mmd_by_numpy, mmd_by_torch),
    "mmd by broadcasting": Loss(mmd_by_broadcasting, mmd_by_numpy, mmd_by_torch),
    "triplets": Loss(triplets, triplets_by_numpy, triplets_by_torch),
}


def slopes(loss: Loss, rows: Mapping[str, Any], p: Arrays, step: float = 1e-5) -> Arrays:
    """Central differences of the loss in NumPy by each parameter."""
    found = {name: np.zeros_like(value) for name, value in p.items()}
    for name, value in p.items():
        for at in np.ndindex(value.shape):
            ends = []
            for sign in (1, -1):
                moved = {k: np.array(v) for k, v in p.items()}
                moved[name][at] += sign * step
                ends.append(loss.by_numpy(rows, moved))
            found[name][at] = (ends[0] - ends[1]) / (2 * step)
    return found


def torch_slopes(
    torch: Any, loss: Loss, rows: Mapping[str, Any], p: Arrays
) -> tuple[float, Arrays]:
    """The value and the gradients by PyTorch in float64."""
    given = {name: torch.from_numpy(np.array(array)) for name, array in rows.items()}
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in p.items()}
    value = loss.by_torch(torch, given, leaves)
    value.backward()
    return float(value), {name: leaf.grad.numpy() for name, leaf in leaves.items()}
