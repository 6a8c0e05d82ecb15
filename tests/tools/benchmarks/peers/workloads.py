"""What is timed: each net is declared once, to a maker that builds it for one side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from tests.tools.benchmarks.peers import gpt

LR = 1e-3
MOMENTUM = 0.9
EPS = 1e-5
DECAY = 0.9
"""How much of its old value a running statistic of batchnorm keeps."""


Kind = Literal["rows", "images", "sequences"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Maker(Protocol):
    """What a net is declared with.  Values are whatever the side makes of them.

    Parameters are taken in the order of the calls: weight and bias of an affine or a convolution,
    gamma and beta of a batchnorm.  The total loss is the sum of the losses; a net has one output.
    """

    def input(self, name: str, width: int) -> Any:
        """A float32 feed, (batch, width)."""

    def image(self, name: str, shape: tuple[int, int, int]) -> Any:
        """A float32 feed, (batch, channels, height, width)."""

    def labels(self, name: str, classes: int) -> Any:
        """An int64 feed, (batch,), that only a loss reads."""

    def target(self, name: str, width: int) -> Any:
        """A float32 feed, (batch, width), that only a loss reads."""

    def affine(self, h: Any, width: int) -> Any:
        """h @ weight + bias."""

    def batchnorm(self, h: Any) -> Any:
        """Normalised by the batch's statistics, scaled and moved; running statistics are kept.

        Of an image these are over rows, height and width.
        """

    def conv(self, h: Any, channels: int, kernel: int, stride: int, pad: int, bias: bool) -> Any:
        """Square kernels over an image with zeros around; weights (out, in, kernel, kernel)."""

    def depthwise(self, h: Any, kernel: int, stride: int) -> Any:
        """A square kernel for each channel, with zeros around; weights (channels, 1, k, k)."""

    def max_pool(self, h: Any, size: int) -> Any:
        """The largest of each square, side by side."""

    def mean_pool(self, h: Any) -> Any:
        """The mean of each channel, (batch, channels)."""

    def flatten(self, h: Any) -> Any:
        """An image as (batch, channels * height * width)."""

    def relu(self, h: Any) -> Any:
        """max(h, 0)."""

    def relu6(self, h: Any) -> Any:
        """min(max(h, 0), 6)."""

    def dropout(self, h: Any, keep: float) -> Any:
        """h / keep where a mask of that probability says so, else 0."""

    def add(self, a: Any, b: Any) -> Any:
        """a + b."""

    def concat(self, a: Any, b: Any) -> Any:
        """The columns of a, then those of b."""

    def output(self, h: Any) -> None:
        """What inference returns."""

    def softmax_loss(self, scores: Any, labels: Any) -> None:
        """Cross-entropy, the mean over rows."""

    def mse_loss(self, guess: Any, target: Any) -> None:
        """Squared error, the mean over all elements."""


@dataclass(frozen=True)
class Chain:
    """Affine layers of these sizes, each but the last followed by relu; a softmax loss."""

    sizes: tuple[int, ...]
    batchnorm: bool = False
    keep: float | None = None

    def __call__(self, m: Maker) -> None:
        """Declare the net."""
        h = m.input("x", self.sizes[0])
        for width in self.sizes[1:-1]:
            h = m.affine(h, width)
            h = m.batchnorm(h) if self.batchnorm else h
            h = m.relu(h)
            h = h if self.keep is None else m.dropout(h, self.keep)
        h = m.affine(h, self.sizes[-1])
        m.output(h)
        m.softmax_loss(h, m.labels("y", self.sizes[-1]))


@dataclass(frozen=True)
class Workload:
    """A net, the rows of a training step, the batches that it is fed in turn, and how it is timed.

    `infer` are the batches at which inference is timed.  Not every side has nets of every kind.
    """

    declare: Callable[[Maker], None]
    batch: int
    pool: int = 32
    lr: float = LR
    infer: tuple[int, ...] = ()
    kind: Kind = "rows"

    @property
    def chain(self) -> Chain | None:
        """The layers, where the net is a mere chain of them."""
        return self.declare if isinstance(self.declare, Chain) else None

    @property
    def keep(self) -> float | None:
        """The probability that dropout keeps an element."""
        return None if self.chain is None else self.chain.keep


@dataclass(frozen=True)
class Exported:
    """A network that others wrote, read from a file: a row of its input, and its batches."""

    shape: tuple[int, ...]
    infer: tuple[int, ...] = (1, 8)


def autoencoder(m: Maker) -> None:
    """Down to 64 and back, compared with its own input."""
    x = h = m.input("x", 784)
    for width in (256, 64, 256):
        h = m.relu(m.affine(h, width))
    h = m.affine(h, 784)
    m.output(h)
    m.mse_loss(h, x)


def residual(m: Maker) -> None:
    """Four residual blocks of 128, the scores from first and last of them side by side."""
    first = h = m.relu(m.affine(m.input("x", 64), 128))
    for _ in range(4):
        h = m.add(h, m.affine(m.relu(m.affine(h, 128)), 128))
    scores = m.affine(m.concat(first, h), 10)
    m.output(scores)
    m.softmax_loss(scores, m.labels("y", 10))


def two_inputs(m: Maker) -> None:
    """A critic: the worth of an action in a state."""
    state = m.relu(m.affine(m.input("state", 17), 64))
    action = m.relu(m.affine(m.input("action", 6), 64))
    h = m.relu(m.affine(m.concat(state, action), 64))
    worth = m.affine(h, 1)
    m.output(worth)
    m.mse_loss(worth, m.target("target", 1))


def two_losses(m: Maker) -> None:
    """One trunk, a class and a number learnt from it."""
    h = m.input("x", 64)
    for _ in range(2):
        h = m.relu(m.affine(h, 128))
    scores = m.affine(h, 10)
    m.output(scores)
    m.softmax_loss(scores, m.labels("y", 10))
    m.mse_loss(m.affine(h, 1), m.target("target", 1))


def lenet(m: Maker) -> None:
    """Two convolutions with pools, then three affine layers (LeCun et al. 1998), with relu."""
    h = m.image("x", (1, 28, 28))
    h = m.max_pool(m.relu(m.conv(h, 6, 5, 1, 2, True)), 2)
    h = m.max_pool(m.relu(m.conv(h, 16, 5, 1, 0, True)), 2)
    h = m.flatten(h)
    for width in (120, 84):
        h = m.relu(m.affine(h, width))
    h = m.affine(h, 10)
    m.output(h)
    m.softmax_loss(h, m.labels("y", 10))


@dataclass(frozen=True)
class ResNet:
    """A residual net for images of 32 x 32 (He et al. 2015, arXiv:1512.03385, section 4.2).

    `blocks` of two convolutions in each of three stages; where a stage begins, a convolution of
    single pixels stands in the shortcut.
    """

    blocks: int
    channels: tuple[int, int, int] = (16, 32, 64)
    side: int = 32

    def __call__(self, m: Maker) -> None:
        """Declare the net."""
        h = m.image("x", (3, self.side, self.side))
        h = m.relu(self._normal(m, h, self.channels[0], 3, 1))
        for stage, channels in enumerate(self.channels):
            for block in range(self.blocks):
                stride = 2 if stage and not block else 1
                short = self._normal(m, h, channels, 1, stride) if stride > 1 else h
                g = m.relu(self._normal(m, h, channels, 3, stride))
                h = m.relu(m.add(self._normal(m, g, channels, 3, 1), short))
        h = m.affine(m.mean_pool(h), 10)
        m.output(h)
        m.softmax_loss(h, m.labels("y", 10))

    def _normal(self, m: Maker, h: Any, channels: int, kernel: int, stride: int) -> Any:
        return m.batchnorm(m.conv(h, channels, kernel, stride, kernel // 2, False))


@dataclass(frozen=True)
class MobileNet:
    """MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381, table 2) for ten classes.

    `stages` are factors of expansion, channels, blocks and strides of the first block.
    """

    side: int = 96
    first: int = 32
    last: int = 1280
    stages: tuple[tuple[int, int, int, int], ...] = (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    )

    def __call__(self, m: Maker) -> None:
        """Declare the net."""
        h = m.image("x", (3, self.side, self.side))
        h = m.relu6(m.batchnorm(m.conv(h, self.first, 3, 2, 1, False)))
        width = self.first
        for factor, channels, blocks, step in self.stages:
            for block in range(blocks):
                stride = 1 if block else step
                g = self._pixelwise(m, h, factor * width, True) if factor > 1 else h
                g = m.relu6(m.batchnorm(m.depthwise(g, 3, stride)))
                g = self._pixelwise(m, g, channels, False)
                h = m.add(h, g) if block else g
                width = channels
        h = m.affine(m.mean_pool(self._pixelwise(m, h, self.last, True)), 10)
        m.output(h)
        m.softmax_loss(h, m.labels("y", 10))

    def _pixelwise(self, m: Maker, h: Any, channels: int, bent: bool) -> Any:
        h = m.batchnorm(m.conv(h, channels, 1, 1, 0, False))
        return m.relu6(h) if bent else h


_MNIST = (784, 512, 256, 10)

MAIN: Mapping[str, Workload] = {
    "tiny": Workload(Chain((64, 64, 64, 10)), 32, pool=64, infer=(1, 32)),
    "mnist": Workload(Chain(_MNIST), 128, infer=(1, 128)),
    "seed": Workload(Chain(_MNIST, batchnorm=True, keep=0.8), 128),
    # Of 410,000 relus a step some lie within float32's rounding of zero and go either way.  At
    # this rate that moves the compared losses by much less than the tolerance.
    "deep": Workload(Chain((128,) * 51 + (10,)), 64, pool=64, lr=1e-5),
    "wide": Workload(Chain((1024, 4096, 4096, 1000)), 256, pool=8, infer=(1, 256)),
}
"""What the project's claims are about."""


OTHERS: Mapping[str, Workload] = {
    **{f"width{w}": Workload(Chain((w, w, w, 10)), 32, infer=(1, 32)) for w in (17, 37, 100)},
    "width1000": Workload(Chain((1000, 1000, 1000, 10)), 32, infer=(1, 32)),
    **{f"batch{n}": Workload(Chain(_MNIST), n, infer=(n,)) for n in (1, 7, 33, 97, 512)},
    "autoencoder": Workload(autoencoder, 128, infer=(128,)),
    "residual": Workload(residual, 64, infer=(1, 64)),
    "two_inputs": Workload(two_inputs, 256, infer=(1, 256)),
    "two_losses": Workload(two_losses, 64, infer=(64,)),
    # Many kernels that are hardly worth sharing; their relus flip as those of "deep" do.
    "30 of 96": Workload(Chain((96,) * 31 + (10,)), 32, pool=64, lr=1e-5),
    "400 of 16": Workload(Chain((16,) * 401 + (10,)), 16, pool=64, lr=1e-5),
}
"""Shapes that nothing was tuned for."""

NETWORKS: Mapping[str, Workload] = {
    "lenet": Workload(lenet, 64, infer=(1, 64), kind="images"),
    "resnet20": Workload(ResNet(3), 32, pool=8, kind="images"),
    # Its relus flip as those of "deep" do.
    "mobilenet": Workload(MobileNet(), 16, pool=8, lr=1e-6, kind="images"),
    "gpt": Workload(gpt.Gpt(), gpt.BATCH, pool=8, kind="sequences"),
    "vit": Workload(gpt.ViT(), 8, pool=8, kind="sequences"),
}
"""Convolutions, and attention."""

_IMAGE = (3, 224, 224)
_OF_IMAGES = (
    *("resnet18", "resnet50", "mobilenet-v2", "mobilenet-v3", "efficientnet-b0", "squeezenet"),
    *("shufflenet", "densenet", "googlenet", "regnet", "convnext", "vit-s", "vit-b"),
)
EXPORTED: Mapping[str, Exported] = {
    **{name: Exported(_IMAGE) for name in _OF_IMAGES},
    "unet": Exported((3, 128, 128)),
    "tcn": Exported((16, 256)),
    "lstm": Exported((32, 64)),
}
"""Networks of torchvision and torch.nn; `exported` makes their files."""

GROUPS: Mapping[str, Mapping[str, Workload | Exported]] = {
    "what the claims are about": MAIN,
    "other shapes": OTHERS,
    "networks": NETWORKS,
    "networks that others wrote": EXPORTED,
}
WORKLOADS: Mapping[str, Workload] = {**MAIN, **OTHERS, **NETWORKS}
NAMES = (*WORKLOADS, *EXPORTED)
