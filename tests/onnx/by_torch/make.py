"""PyTorch's networks as ONNX files, and what training makes of them there.

Run as `python -m tests.onnx.by_torch.make` where PyTorch, onnx and onnxscript are.  Of each network
and kind it writes an .onnx file; the kinds are

    before      by the exporter before dynamo, in training mode
    now         by the exporter that PyTorch has now, nodes as they are
    optimized   by that one as it is called by default: norms are parts of other layers there,
                and the numbers of formulas are initializers

and an .npz with

    x, y        a batch and its labels, for the cross entropy or the squared error
    forward     what the network gives for x before, in inference
    losses      the losses of STEPS steps of SGD on that batch, each before its update
    after       what it gives for x after them, in inference

In the folder `bfloat16` are networks after `.bfloat16()`, with x and forward, and as `single` what
the network gave before.

No network drops anything while it is trained, since PyTorch's random numbers are its own.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parent
STEPS, LR, ROWS = 5, 0.05, 4


class Perceptron(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 3))


class Images(nn.Module):
    """Convolutions with batchnorms, a block with a residual, a head behind a view."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.wide = nn.Conv2d(8, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 4 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.relu(self.stem(x))
        h = h + nn.functional.silu(self.norm(self.wide(self.deep(h))))
        h = nn.functional.max_pool2d(h, 2)
        return self.head(h.view(h.size(0), -1))


class Upwards(nn.Module):
    """Down by a stride and up again, once by a convolution and once by interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, 6)
        self.lower = nn.Conv2d(6, 6, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(6, 6, 2, stride=2)
        self.out = nn.Conv2d(12, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.leaky_relu(self.norm(self.down(x)))
        g = self.up(nn.functional.relu(self.lower(h)))
        both = torch.cat([h, g], dim=1)
        large = nn.functional.interpolate(both, scale_factor=2.0, mode="bilinear")
        return self.out(large)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.layer = kind(5, 7, batch_first=True)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.layer(x)
        return self.head(states[:, -1])


class Encoder(nn.Module):
    """Of PyTorch's own transformer layers, over the mean of its places."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layers(self.letters(ids)).mean(dim=1))


class Causal(nn.Module):
    """A block in the way of a GPT: heads by reshapes, a causal product, two residuals."""

    def __init__(self) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(11, 8), nn.Embedding(6, 8)
        self.first, self.second = nn.LayerNorm(8), nn.LayerNorm(8)
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(approximate="tanh"), nn.Linear(16, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        rows, length = ids.shape
        h = self.letters(ids) + self.places(torch.arange(length))
        parts = self.qkv(self.first(h)).chunk(3, dim=-1)
        q, k, v = (p.view(rows, length, 2, 4).transpose(1, 2) for p in parts)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.out(mixed.transpose(1, 2).reshape(rows, length, 8))
        return self.head((h + self.mlp(self.second(h)))[:, -1])


@dataclass(frozen=True)
class Made:
    """How a network is made, the shape of a sample, and how many letters there are, if it reads."""

    network: Callable[[], nn.Module]
    sample: tuple[int, ...]
    letters: int = 0


NETWORKS = {
    "perceptron": Made(Perceptron, (6,)),
    "images": Made(Images, (1, 8, 8)),
    "upwards": Made(Upwards, (1, 8, 8)),
    "lstm": Made(lambda: Recurrent(nn.LSTM), (4, 5)),
    "gru": Made(lambda: Recurrent(nn.GRU), (4, 5)),
    "encoder": Made(Encoder, (6,), letters=11),
    "causal": Made(Causal, (6,), letters=11),
}
KINDS = ("before", "now", "optimized")


def exported(network: nn.Module, x: Tensor, kind: str) -> bytes:
    """The file; of the older exporter as it is in training."""
    file = io.BytesIO()
    names = {"input_names": ["x"], "output_names": ["out"], "opset_version": 18}
    if kind == "before":
        torch.onnx.export(
            *(network, (x,), file),
            **names,
            dynamo=False,
            dynamic_axes={"x": {0: "batch"}, "out": {0: "batch"}},
            training=torch.onnx.TrainingMode.TRAINING,
            do_constant_folding=False,
        )
    else:
        rows = {0: torch.export.Dim("batch")}
        how = {"dynamic_shapes": (rows,), "optimize": kind == "optimized", "verbose": False}
        torch.onnx.export(network, (x,), dynamo=True, **names, **how).save(file)
    return without_remarks(file.getvalue())


def without_remarks(data: bytes) -> bytes:
    """The file without what tells of the source code that it was made of."""
    model = onnx.load_from_string(data)
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")
    written: bytes = model.SerializeToString(deterministic=True)
    return written


def write(name: str, made: Made, kind: str) -> None:
    """Export the network, train it, and write what came of both."""
    torch.manual_seed(0)
    network = made.network().eval()
    shape = (ROWS, *made.sample)
    x = torch.randint(made.letters, shape) if made.letters else torch.randn(shape)
    data = exported(network, x, kind)
    forward = network(x).detach()
    criterion: nn.Module = nn.CrossEntropyLoss() if forward.ndim == 2 else nn.MSELoss()
    labels = forward.ndim == 2
    y = torch.randint(forward.shape[1], (ROWS,)) if labels else torch.randn(forward.shape)
    sgd = torch.optim.SGD(network.train().parameters(), lr=LR)
    losses = []
    for _ in range(STEPS):
        sgd.zero_grad()
        loss = criterion(network(x), y)
        loss.backward()
        sgd.step()
        losses.append(loss.item())
    after = network.eval()(x).detach()
    numbers = {"x": x, "y": y, "forward": forward, "after": after, "losses": torch.tensor(losses)}
    path = FOLDER / f"{name}_{kind}"
    path.with_suffix(".onnx").write_bytes(data)
    np.savez_compressed(path.with_suffix(".npz"), **{k: v.numpy() for k, v in numbers.items()})


def write_narrow(name: str) -> None:
    """Export a network of bfloat16, and write what it gives."""
    torch.manual_seed(0)
    made = NETWORKS[name]
    network = made.network().eval()
    shape = (ROWS, *made.sample)
    x = torch.randint(made.letters, shape) if made.letters else torch.randn(shape)
    single = network(x).detach()
    given = x if made.letters else x.bfloat16()
    forward = network.bfloat16()(given).detach().float()
    path = FOLDER / "bfloat16" / name
    path.with_suffix(".onnx").write_bytes(exported(network, given, "now"))
    numbers = {"x": x, "forward": forward, "single": single}
    np.savez_compressed(path.with_suffix(".npz"), **{k: v.numpy() for k, v in numbers.items()})


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, made in NETWORKS.items():
            for kind in KINDS:
                write(name, made, kind)
        for name in ("causal", "upwards"):
            write_narrow(name)
