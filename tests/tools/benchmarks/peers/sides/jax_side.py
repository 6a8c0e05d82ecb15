"""JAX: a jitted step whose parameters and speeds are donated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.tools.benchmarks.peers.outline import Array, Outline
from tests.tools.benchmarks.peers.sides.side import Infer, Side, Step, Unsupported
from tests.tools.benchmarks.peers.workloads import DECAY, EPS, KINDS, MOMENTUM, Workload


class Traced:
    """A maker that JAX traces."""

    def __init__(self, feeds: Mapping[str, Any], parameters: Any, key: Any = None) -> None:
        self.loss: Any = 0.0
        self.result: Any = None
        self.statistics: list[Any] = []
        self._feeds, self._parameters, self._key = feeds, iter(parameters), key

    def input(self, name: str, width: int) -> Any:
        return self._feeds.get(name)

    target = input
    labels = input

    def image(self, name: str, shape: tuple[int, int, int]) -> Any:
        """Channels last, as XLA likes them on a CPU."""
        return self._feeds[name].transpose(0, 2, 3, 1)

    def conv(self, h: Any, channels: int, kernel: int, stride: int, pad: int, bias: bool) -> Any:
        weight = next(self._parameters).transpose(2, 3, 1, 0)
        y = jax.lax.conv_general_dilated(
            h,
            weight,
            (stride, stride),
            [(pad, pad)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + next(self._parameters) if bias else y

    def depthwise(self, h: Any, kernel: int, stride: int) -> Any:
        return jax.lax.conv_general_dilated(
            h,
            next(self._parameters).transpose(2, 3, 1, 0),
            (stride, stride),
            [(kernel // 2, kernel // 2)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=h.shape[-1],
        )

    def max_pool(self, h: Any, size: int) -> Any:
        window = (1, size, size, 1)
        return jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, window, window, "VALID")

    def mean_pool(self, h: Any) -> Any:
        return h.mean((1, 2))

    def flatten(self, h: Any) -> Any:
        return h.transpose(0, 3, 1, 2).reshape(len(h), -1)

    def affine(self, h: Any, width: int) -> Any:
        return h @ next(self._parameters) + next(self._parameters)

    def batchnorm(self, h: Any) -> Any:
        axes = tuple(range(h.ndim - 1))
        mean, var = h.mean(axes), h.var(axes)
        self.statistics += [mean, var]
        scaled = (h - mean) * jax.lax.rsqrt(var + EPS) * next(self._parameters)
        return scaled + next(self._parameters)

    def relu(self, h: Any) -> Any:
        return jax.nn.relu(h)

    def relu6(self, h: Any) -> Any:
        return jax.nn.relu6(h)

    def dropout(self, h: Any, keep: float) -> Any:
        if self._key is None:
            return h
        self._key, key = jax.random.split(self._key)
        return jnp.where(jax.random.bernoulli(key, keep, h.shape), h * (1 / keep), 0)

    def add(self, a: Any, b: Any) -> Any:
        return a + b

    def concat(self, a: Any, b: Any) -> Any:
        return jnp.concatenate((a, b), axis=1)

    def tokens(self, name: str, letters: int, steps: int) -> Any:
        return self._feeds.get(name)

    def embedding(self, ids: Any, letters: int, width: int) -> Any:
        return next(self._parameters)[ids]

    def positions(self, h: Any, steps: int, width: int) -> Any:
        return h + next(self._parameters)

    def layernorm(self, h: Any) -> Any:
        mean, var = h.mean(-1, keepdims=True), h.var(-1, keepdims=True)
        scaled = (h - mean) * jax.lax.rsqrt(var + EPS) * next(self._parameters)
        return scaled + next(self._parameters)

    def linear(self, h: Any, width: int) -> Any:
        return h @ next(self._parameters) + next(self._parameters)

    def patches(self, h: Any) -> Any:
        return h.reshape(len(h), -1, h.shape[-1])

    def mean_steps(self, h: Any) -> Any:
        return h.mean(1)

    def heads(self, q: Any, k: Any, v: Any, count: int, causal: bool) -> Any:
        parts = (x.reshape(*x.shape[:2], count, -1) for x in (q, k, v))
        return jax.nn.dot_product_attention(*parts, is_causal=causal).reshape(q.shape)

    def gelu(self, h: Any) -> Any:
        return jax.nn.gelu(h, approximate=True)

    def sequence_loss(self, scores: Any, labels: Any) -> None:
        logs = jax.nn.log_softmax(scores)
        self.loss -= jnp.take_along_axis(logs, labels[..., None], axis=-1).mean()

    def output(self, h: Any) -> None:
        self.result = h

    def softmax_loss(self, scores: Any, labels: Any) -> None:
        if labels is not None:
            logs = jax.nn.log_softmax(scores)
            self.loss -= jnp.take_along_axis(logs, labels[:, None], axis=1).mean()

    def mse_loss(self, guess: Any, target: Any) -> None:
        if target is not None:
            self.loss += jnp.square(guess - target).mean()


class Jax(Side):
    """The default generator of random numbers."""

    generator: str | None = None
    kinds = KINDS

    def versions(self) -> str:
        return f"jax {jax.__version__}"

    def train(self, workload: Workload, parameters: list[Array], dropout: bool) -> Step:
        if self.generator is not None:
            jax.config.update("jax_default_prng_impl", self.generator)

        def loss_of(tensors: Any, feeds: Any, key: Any) -> Any:
            net = Traced(feeds, tensors, key)
            workload.declare(net)
            return net.loss, net.statistics

        def step(tensors: Any, speeds: Any, running: Any, key: Any, feeds: Any) -> Any:
            key, drawn = (None, None) if key is None else jax.random.split(key)
            run = jax.value_and_grad(loss_of, has_aux=True)
            (loss, new), gradients = run(tensors, feeds, drawn)
            speeds = [MOMENTUM * v + g for v, g in zip(speeds, gradients, strict=True)]
            tensors = [p - workload.lr * v for p, v in zip(tensors, speeds, strict=True)]
            running = [DECAY * r + (1 - DECAY) * s for r, s in zip(running, new, strict=True)]
            return tensors, speeds, running, key, loss

        jitted = jax.jit(step, donate_argnums=(0, 1, 2, 3))
        tensors = [jnp.array(p) for p in parameters]
        state: list[Any] = [tensors, [jnp.zeros_like(p) for p in tensors]]
        state += [_running(workload), jax.random.key(0) if dropout else None]

        def run(feeds: Mapping[str, Any]) -> float:
            *state[:], loss = jitted(*state, feeds)
            return float(loss)

        return run

    def infer(self, workload: Workload, parameters: list[Array], batch: int) -> Infer:
        def scores(tensors: Any, feeds: Any) -> Any:
            net = Traced(feeds, tensors)
            workload.declare(net)
            return net.result

        jitted = jax.jit(scores)
        tensors = [jnp.array(p) for p in parameters]
        return lambda feeds: np.asarray(jitted(tensors, feeds))


class FastRandom(Jax):
    """A cheaper generator, which matters for dropout alone."""

    generator = "unsafe_rbg"

    def train(self, workload: Workload, parameters: list[Array], dropout: bool) -> Step:
        if workload.keep is None:
            raise Unsupported("without dropout it is the same as jax")
        return super().train(workload, parameters, dropout)

    def infer(self, workload: Workload, parameters: list[Array], batch: int) -> Infer:
        raise Unsupported("without dropout it is the same as jax")


def _running(workload: Workload) -> list[Any]:
    widths = Outline(workload).normalised
    return [fill(width) for width in widths for fill in (jnp.zeros, jnp.ones)]
