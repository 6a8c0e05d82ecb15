"""The files of networks as torch exports them, for the sides that read files.

    python -m tests.tools.benchmarks.peers.exported NAME FOLDER

writes NAME.onnx, NAME.pt (the module), and NAME.npz: ROWS inputs, their outputs in float64, and the
operations that a row's products take.  It runs where torch, torchvision and onnxscript are.
"""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck

import graphc as gc
from graphc.compiler.cost import program_cost
from tests.tools.benchmarks.peers.networks import NETWORKS
from tests.tools.benchmarks.peers.workloads import EXPORTED, Exported

ROWS, CALIBRATION = 8, 16
"""The rows of the .npz; those whose statistics batch norms keep."""


def network(name: str, shape: tuple[int, ...]) -> nn.Module:
    """A network at random weights; its batch norms have scales, and the statistics of inputs."""
    torch.manual_seed(0)
    net = NETWORKS[name]().eval()
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.7, 1.3)
            norm.bias.uniform_(-0.2, 0.2)
            norm.momentum = None  # the mean of all batches: of one
            norm.train()
        for block in net.modules():  # without it 16 blocks in a row enlarge each rounding error
            if isinstance(block, Bottleneck):
                block.bn3.weight.mul_(0.3)
        if norms:
            net(inputs(CALIBRATION, shape))
    return net.eval()


def inputs(rows: int, shape: tuple[int, ...]) -> Tensor:
    """Random sequences, or images that differ at every scale, as photographs do."""
    if len(shape) < 3:
        return torch.randn(rows, *shape)
    channels, *size = shape
    sides = (size[0] // s for s in (1, 4, 16, size[0] // 4, size[0]))
    parts = [torch.randn(rows, channels, side, side) for side in sides]
    return sum(F.interpolate(part, size, mode="bilinear") for part in parts) / len(parts) ** 0.5


def write(name: str, made: Exported, folder: Path) -> None:
    """Write the network in the three forms that the sides read."""
    net, path = network(name, made.shape), str(folder / name)
    x = inputs(ROWS, made.shape)
    with torch.inference_mode():
        y = deepcopy(net).double()(x.double())
    rows = ({0: torch.export.Dim("batch")},)
    names = {"input_names": ["x"], "output_names": ["y"]}
    torch.onnx.export(
        net, (x[:2],), f"{path}.onnx", dynamic_shapes=rows, external_data=False, **names
    )
    torch.save(net, f"{path}.pt")
    np.savez(f"{path}.npz", x=x.numpy(), y=y.numpy(), flops=products(f"{path}.onnx"))


def products(path: str) -> int:
    """The multiplications and additions of a row's matrix products and convolutions."""
    plan = gc.compile(gc.onnx.load(path), batch=1)
    return program_cost(plan.programs["infer"], 1).products


if __name__ == "__main__":
    write(sys.argv[1], EXPORTED[sys.argv[1]], Path(sys.argv[2]))
