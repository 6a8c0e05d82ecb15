"""PyTorch, eager."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from tests.tools.benchmarks.peers.outline import Array
from tests.tools.benchmarks.peers.sides.side import Infer, Side, Step, Unsupported
from tests.tools.benchmarks.peers.workloads import DECAY, EPS, KINDS, MOMENTUM, Workload

Tensor = torch.Tensor


def parameters_of(arrays: list[Array]) -> list[Tensor]:
    """Tensors for the arrays; weights as (out, in), the order that torch's affine map wants, and
    those of convolutions with their channels last, where torch is faster."""
    return [_tensor(array) for array in arrays]


def feed_of(array: Any, dtype: torch.dtype) -> Tensor:
    """A tensor of this dtype for numbers, of its own for labels."""
    tensor = torch.from_numpy(array)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _tensor(array: Array) -> Tensor:
    if array.ndim == 4:
        return torch.from_numpy(array.copy()).contiguous(memory_format=torch.channels_last)
    return torch.from_numpy(array.T.copy() if array.ndim == 2 else array.copy())


class Forward:
    """A maker that computes as it goes.

    Layers that keep running statistics take them, in order, from `statistics`.
    """

    def __init__(
        self,
        feeds: Mapping[str, Any],
        parameters: list[Tensor],
        dropout: bool = False,
        statistics: list[Tensor] | None = None,
    ) -> None:
        self.losses: list[Tensor] = []
        self.result: Any = None
        self._feeds, self._parameters, self._dropout = feeds, iter(parameters), dropout
        self.statistics, self._used = ([] if statistics is None else statistics), 0

    @property
    def loss(self) -> Tensor:
        """The sum of the losses."""
        total = self.losses[0]
        for loss in self.losses[1:]:
            total = total + loss
        return total

    def input(self, name: str, width: int) -> Any:
        return self._feeds.get(name)

    target = input
    labels = input

    def image(self, name: str, shape: tuple[int, int, int]) -> Any:
        return self._feeds[name].contiguous(memory_format=torch.channels_last)

    def conv(
        self, h: Tensor, channels: int, kernel: int, stride: int, pad: int, bias: bool
    ) -> Tensor:
        weight = next(self._parameters)
        return F.conv2d(h, weight, next(self._parameters) if bias else None, stride, pad)

    def depthwise(self, h: Tensor, kernel: int, stride: int) -> Tensor:
        weight = next(self._parameters)
        return F.conv2d(h, weight, None, stride, kernel // 2, groups=len(weight))

    def max_pool(self, h: Tensor, size: int) -> Tensor:
        return F.max_pool2d(h, size)

    def mean_pool(self, h: Tensor) -> Tensor:
        return h.mean((2, 3))

    def flatten(self, h: Tensor) -> Tensor:
        return h.flatten(1)

    def affine(self, h: Tensor, width: int) -> Tensor:
        return F.linear(h, next(self._parameters), next(self._parameters))

    def batchnorm(self, h: Tensor) -> Tensor:
        if self._used == len(self.statistics):
            self.statistics += [torch.zeros(h.shape[1]), torch.ones(h.shape[1])]
        mean, var = self.statistics[self._used : self._used + 2]
        self._used += 2
        gamma, beta = next(self._parameters), next(self._parameters)
        return F.batch_norm(h, mean, var, gamma, beta, True, 1 - DECAY, EPS)

    def relu(self, h: Tensor) -> Tensor:
        return F.relu(h)

    def relu6(self, h: Tensor) -> Tensor:
        return F.relu6(h)

    def dropout(self, h: Tensor, keep: float) -> Tensor:
        return F.dropout(h, 1 - keep) if self._dropout else h

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    def concat(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.cat((a, b), 1)

    def tokens(self, name: str, letters: int, steps: int) -> Any:
        return self._feeds.get(name)

    def embedding(self, ids: Tensor, letters: int, width: int) -> Tensor:
        return F.embedding(ids, next(self._parameters).T)

    def positions(self, h: Tensor, steps: int, width: int) -> Tensor:
        return h + next(self._parameters).T

    def layernorm(self, h: Tensor) -> Tensor:
        return F.layer_norm(h, h.shape[-1:], next(self._parameters), next(self._parameters), EPS)

    def linear(self, h: Tensor, width: int) -> Tensor:
        return F.linear(h, next(self._parameters), next(self._parameters))

    def patches(self, h: Tensor) -> Tensor:
        return h.flatten(2).transpose(1, 2)

    def mean_steps(self, h: Tensor) -> Tensor:
        return h.mean(1)

    def heads(self, q: Tensor, k: Tensor, v: Tensor, count: int, causal: bool) -> Tensor:
        parts = (x.view(*x.shape[:2], count, -1).transpose(1, 2) for x in (q, k, v))
        seen = F.scaled_dot_product_attention(*parts, is_causal=causal)
        return seen.transpose(1, 2).reshape(q.shape)

    def gelu(self, h: Tensor) -> Tensor:
        return F.gelu(h, approximate="tanh")

    def sequence_loss(self, scores: Tensor, labels: Tensor) -> None:
        self.losses.append(F.cross_entropy(scores.flatten(0, 1), labels.flatten()))

    def output(self, h: Tensor) -> None:
        self.result = h

    def softmax_loss(self, scores: Tensor, labels: Tensor | None) -> None:
        if labels is not None:
            self.losses.append(F.cross_entropy(scores, labels))

    def mse_loss(self, guess: Tensor, target: Tensor | None) -> None:
        if target is not None:
            self.losses.append(F.mse_loss(guess, target))


def exported(threads: int, path: Path) -> tuple[Any, Callable[[Tensor], Tensor]]:
    """The module of an exported network, and its input as it wants it: images channels last."""
    torch.set_num_threads(threads)
    module = torch.load(path.with_suffix(".pt"), weights_only=False)
    if not any(isinstance(m, torch.nn.Conv2d) for m in module.modules()):
        return module, lambda x: x
    last = torch.channels_last
    return module.to(memory_format=last), lambda x: x.contiguous(memory_format=last)


class Foreach(Side):
    """torch.optim.SGD with foreach=True."""

    optimizer: Mapping[str, bool] = {"foreach": True}
    kinds = KINDS
    dtype = torch.float32
    """That of weights and activations at inference."""

    def precision(self) -> AbstractContextManager[Any]:
        """What a forward part is run in."""
        return nullcontext()

    def versions(self) -> str:
        return f"torch {torch.__version__}"

    def train(self, workload: Workload, parameters: list[Array], dropout: bool) -> Step:
        torch.set_num_threads(self.threads)
        tensors = [p.requires_grad_() for p in parameters_of(parameters)]
        sgd = torch.optim.SGD(tensors, lr=workload.lr, momentum=MOMENTUM, **self.optimizer)
        statistics: list[Tensor] = []
        wrap, declare = torch.from_numpy, workload.declare

        def step(feeds: Mapping[str, Any]) -> float:
            sgd.zero_grad(set_to_none=True)
            given = {name: wrap(array) for name, array in feeds.items()}
            net = Forward(given, tensors, dropout, statistics)
            with self.precision():
                declare(net)
            loss = net.loss
            loss.backward()
            sgd.step()
            return loss.item()

        return step

    def infer(self, workload: Workload, parameters: list[Array], batch: int) -> Infer:
        torch.set_num_threads(self.threads)
        tensors, dtype = [p.to(self.dtype) for p in parameters_of(parameters)], self.dtype

        def infer(feeds: Mapping[str, Any]) -> Any:
            with torch.inference_mode(), self.precision():
                given = {name: feed_of(array, dtype) for name, array in feeds.items()}
                net = Forward(given, tensors)
                workload.declare(net)
                return net.result.float().numpy()

        return infer

    def load(self, path: Path, batch: int) -> Infer:
        module, like = exported(self.threads, path)
        module.to(self.dtype)

        def infer(feeds: Mapping[str, Any]) -> Any:
            with torch.inference_mode(), self.precision():
                return module(like(feed_of(feeds["x"], self.dtype))).float().numpy()

        return infer


class FusedOptimizer(Foreach):
    """torch.optim.SGD with fused=True."""

    optimizer: Mapping[str, bool] = {"fused": True}


class Autocast(FusedOptimizer):
    """Weights of float32, products in bfloat16."""

    bits = 8

    def precision(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16)


class Medium(FusedOptimizer):
    """All tensors of float32; oneDNN rounds the factors of products."""

    bits = 8

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        torch.set_float32_matmul_precision("medium")


class Cast(FusedOptimizer):
    """Weights and activations of bfloat16."""

    bits = 8
    dtype = torch.bfloat16

    def train(self, workload: Workload, parameters: list[Array], dropout: bool) -> Step:
        raise Unsupported("its optimizer would round the weights")
