"""PyTorch with torch.compile: the whole step, update included, is one graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from tests.tools.benchmarks.peers.outline import Array, Outline
from tests.tools.benchmarks.peers.sides.side import Infer, Side, Step, Unsupported
from tests.tools.benchmarks.peers.sides.torch_side import (
    Forward,
    Tensor,
    exported,
    feed_of,
    parameters_of,
)
from tests.tools.benchmarks.peers.workloads import DECAY, EPS, KINDS, MOMENTUM, Workload


class Pure(Forward):
    """As `Forward`, but batchnorm notes the batch's statistics and changes nothing."""

    def batchnorm(self, h: Tensor) -> Tensor:
        axes, shape = ([0], [-1]) if h.ndim == 2 else ([0, 2, 3], [-1, 1, 1])
        var, mean = torch.var_mean(h, axes, correction=0)
        self.statistics += [mean, var]
        gamma, beta = next(self._parameters), next(self._parameters)
        mean, scale = mean.view(shape), torch.rsqrt(var + EPS).view(shape)
        return (h - mean) * scale * gamma.view(shape) + beta.view(shape)


class Compiled(Side):
    """The default mode."""

    mode: str | None = None
    kinds = KINDS
    config: Mapping[str, Any] = {}
    dtype = torch.float32
    """That of weights and activations at inference."""

    def precision(self) -> AbstractContextManager[Any]:
        """What a forward part is run in."""
        return nullcontext()

    def versions(self) -> str:
        return f"torch {torch.__version__}"

    def _set_up(self, **more: Any) -> None:
        import torch._inductor.config as inductor

        torch.compiler.reset()  # a process may compile only so many nets from one function
        torch.set_num_threads(self.threads)
        for name, value in {**self.config, **more}.items():
            setattr(inductor, name, value)

    def train(self, workload: Workload, parameters: list[Array], dropout: bool) -> Step:
        self._set_up()
        tensors = parameters_of(parameters)
        speeds = [torch.zeros_like(p) for p in tensors]
        running: list[Tensor] = []
        step = torch.compile(
            _whole_step(workload, dropout, self.precision),
            fullgraph=True,
            dynamic=False,
            mode=self.mode,
        )
        for width in _normalised(workload):
            running += [torch.zeros(width), torch.ones(width)]
        wrap = torch.from_numpy

        def run(feeds: Mapping[str, Any]) -> float:
            with torch.no_grad():
                given = {name: wrap(array) for name, array in feeds.items()}
                return step(tensors, speeds, running, given).item()

        return run

    def infer(self, workload: Workload, parameters: list[Array], batch: int) -> Infer:
        self._set_up(freezing=True)
        dtype = self.dtype

        class Module(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                tensors = parameters_of(parameters)
                self.tensors = torch.nn.ParameterList(p.to(dtype) for p in tensors)

            def forward(self, feeds: Mapping[str, Tensor]) -> Tensor:
                net = Forward(feeds, list(self.tensors))
                workload.declare(net)
                return net.result

        compiled = torch.compile(Module().eval(), dynamic=False, mode=self.mode)

        def infer(feeds: Mapping[str, Any]) -> Any:
            with torch.no_grad(), self.precision():
                given = {name: feed_of(array, dtype) for name, array in feeds.items()}
                return compiled(given).float().numpy()

        return infer

    def load(self, path: Path, batch: int) -> Infer:
        self._set_up(freezing=True)
        module, like = exported(self.threads, path)
        compiled = torch.compile(module.to(self.dtype), dynamic=False, mode=self.mode)

        def infer(feeds: Mapping[str, Any]) -> Any:
            with torch.no_grad(), self.precision():
                return compiled(like(feed_of(feeds["x"], self.dtype))).float().numpy()

        return infer


class CppWrapper(Compiled):
    """The calls of kernels are compiled, too."""

    config: Mapping[str, Any] = {"cpp_wrapper": True}


class Autotuned(Compiled):
    """Products are chosen by timing."""

    mode = "max-autotune"


class Autocast(Compiled):
    """Weights of float32, products in bfloat16."""

    bits = 8

    def precision(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16)


class Cast(Compiled):
    """Weights and activations of bfloat16."""

    bits = 8
    dtype = torch.bfloat16

    def train(self, workload: Workload, parameters: list[Array], dropout: bool) -> Step:
        raise Unsupported("its optimizer would round the weights")


class AutotunedAutocast(Autocast):
    """The same, and products are chosen by timing."""

    mode = "max-autotune"


def _whole_step(
    workload: Workload, dropout: bool, precision: Callable[[], AbstractContextManager[Any]]
) -> Any:
    """Loss, gradients and update as one function of tensors that it changes in place."""

    def loss_of(tensors: list[Tensor], feeds: Mapping[str, Tensor]) -> Any:
        net = Pure(feeds, tensors, dropout)
        with precision():
            workload.declare(net)
        return net.loss, net.statistics

    def step(
        tensors: list[Tensor],
        speeds: list[Tensor],
        running: list[Tensor],
        feeds: Mapping[str, Tensor],
    ) -> Tensor:
        run = torch.func.grad_and_value(loss_of, has_aux=True)
        gradients, (loss, statistics) = run(tensors, feeds)
        for tensor, speed, gradient in zip(tensors, speeds, gradients, strict=True):
            speed.mul_(MOMENTUM).add_(gradient)
            tensor.sub_(speed, alpha=workload.lr)
        for kept, new in zip(running, statistics, strict=True):
            kept.mul_(DECAY).add_(new, alpha=1 - DECAY)
        return loss

    return step


def _normalised(workload: Workload) -> list[int]:
    """The widths of the batchnorms."""
    return Outline(workload).normalised
