"""Networks of torchvision and torch.nn, at torch's initial weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models


class UNet(nn.Module):
    """A U-Net of these widths (Ronneberger et al. 2015, arXiv:1505.04597), with batch norms."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 256)) -> None:
        super().__init__()
        steps = list(pairwise(widths))
        self.down = nn.ModuleList(_pair(a, b) for a, b in ((3, widths[0]), *steps))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in steps)
        self.merge = nn.ModuleList(_pair(2 * a, a) for a, _ in steps)
        self.head = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of two classes for each pixel."""
        beside: list[Tensor] = []
        for down in self.down:
            x = down(F.max_pool2d(beside[-1], 2) if beside else x)
            beside.append(x)
        ways = list(zip(self.up, self.merge, beside, strict=False))
        for up, merge, skip in reversed(ways):
            x = merge(torch.cat([skip, up(x)], 1))
        return self.head(x)


def _pair(a: int, b: int) -> nn.Module:
    convs = (nn.Conv2d(c, b, 3, padding=1, bias=False) for c in (a, b))
    return nn.Sequential(*(m for conv in convs for m in (conv, nn.BatchNorm2d(b), nn.ReLU())))


class Causal(nn.Module):
    """A residual block of two causal convolutions (Bai et al. 2018, arXiv:1803.01271)."""

    def __init__(self, channels: int, width: int, dilation: int) -> None:
        super().__init__()
        self.before = 2 * dilation
        self.one = nn.Conv1d(channels, width, 3, dilation=dilation)
        self.two = nn.Conv1d(width, width, 3, dilation=dilation)
        self.skip = nn.Identity() if channels == width else nn.Conv1d(channels, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """As many steps as x has."""
        h = torch.relu(self.one(F.pad(x, (self.before, 0))))
        h = torch.relu(self.two(F.pad(h, (self.before, 0))))
        return torch.relu(h + self.skip(x))


class LastStep(nn.Module):
    """Ten scores of the last step of a sequence."""

    def __init__(self, body: nn.Module, width: int, channels_first: bool) -> None:
        super().__init__()
        self.body, self.head, self.channels_first = body, nn.Linear(width, 10), channels_first

    def forward(self, x: Tensor) -> Tensor:
        """Scores, (batch, 10)."""
        h = self.body(x)
        h = h[0] if isinstance(h, tuple) else h
        return self.head(h[:, :, -1] if self.channels_first else h[:, -1])


def _tcn() -> nn.Module:
    blocks = (Causal(64 if i else 16, 64, 2**i) for i in range(6))
    return LastStep(nn.Sequential(*blocks), 64, channels_first=True)


def _vit(width: int, heads: int) -> nn.Module:
    net = models.VisionTransformer(224, 16, 12, heads, width, 4 * width)
    nn.init.normal_(net.heads.head.weight, std=0.05)  # zeros would hide all that comes before
    return net


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "resnet18": models.resnet18,
    "resnet50": models.resnet50,
    "mobilenet-v2": models.mobilenet_v2,
    "mobilenet-v3": models.mobilenet_v3_large,
    "efficientnet-b0": models.efficientnet_b0,
    "squeezenet": models.squeezenet1_1,
    "shufflenet": models.shufflenet_v2_x1_0,
    "densenet": models.densenet121,
    "googlenet": lambda: models.googlenet(aux_logits=False, init_weights=False),
    "regnet": models.regnet_y_400mf,
    "convnext": models.convnext_tiny,
    "vit-s": lambda: _vit(384, 6),
    "vit-b": lambda: _vit(768, 12),
    "unet": UNet,
    "tcn": _tcn,
    "lstm": lambda: LastStep(nn.LSTM(64, 128, batch_first=True), 128, channels_first=False),
}
