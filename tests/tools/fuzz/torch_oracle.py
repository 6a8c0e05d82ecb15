"""Forward, gradients and updates of a case by PyTorch in float64."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from math import cos, pi, sqrt
from typing import Any

import numpy as np
import torch

from graphc.declare.optim import (
    SGD,
    Adadelta,
    Adagrad,
    Adamax,
    AdamW,
    Group,
    Lion,
    NAdam,
    Optimizer,
    RMSprop,
)
from graphc.declare.optim.adam import TwoMoments
from graphc.declare.optim.optimizer import Schedule
from graphc.declare.schedules import Cosine, Step, WarmUp
from graphc.ir.graph import Node
from graphc.ir.op import Array
from graphc.ops.norm import BatchNorm
from graphc.ops.source import Input, Parameter, State
from tests.tools.fuzz.bound import Meant
from tests.tools.fuzz.torch_ops import Tensor, computed

INFERENCE = ("infer", "unlabelled", "frozen", "evaluate")
SLACK = 4.0
"""Torch rounds otherwise: so many times our bound."""


def wrong_by_torch(meant: Meant) -> str | None:
    """The first result that torch contradicts.

    None where it agrees, or where an operand stands on a kink, whose slope torch may choose
    otherwise.
    """
    if meant.on_kink():
        return None
    for number in range(len(meant.meaning.case.events)):
        for what, found in _Event(meant, number).results().items():
            exact = meant.exact.results[number].get(what)
            if exact is None:
                continue
            limit = SLACK * meant.bound(number, what) if exact.dtype.kind == "f" else 0
            size = 64 * np.finfo(np.float64).eps * (1 + np.abs(exact).max(initial=0))
            error = np.abs(found - exact) if exact.dtype.kind == "f" else found != exact
            if not (error <= limit + size).all():
                worst = float(np.max(error))
                return f"event {number}, {what}: PyTorch's is another, by {worst:.3g}"
    return None


class _Event:
    """One event, run by torch from the state that it began with."""

    def __init__(self, meant: Meant, number: int) -> None:
        case = meant.meaning.case
        self.declared = meant.meaning.declared
        self.optimizer = case.optimizer
        self.kind, self.n = case.events[number].kind, case.events[number].n
        self.feeds, self.before = case.feeds(number), meant.exact.before[number]
        self.wanted = meant.exact.results[number]
        self.train = self.kind not in INFERENCE
        self.values: dict[str, Tensor] = {}
        for node in self.declared:
            self.values[node.name] = self._value(node)

    def _value(self, node: Node) -> Tensor:
        op = node.op.at(self.n)
        if isinstance(op, Input):
            return _tensor(self.feeds[node.name], True)
        if isinstance(op, (Parameter, State)):
            return _tensor(self.before[node.name], isinstance(op, Parameter))
        return computed(node, [self.values[name] for name in node.inputs], self.n, self.train)

    def results(self) -> dict[str, Array]:
        values = self.values
        found = {f"output {k}": _array(values[v]) for k, v in self.declared.outputs.items()}
        if not self.train:
            return found
        found.update({f"state {k}": _array(v) for k, v in self._running().items()})
        if self.kind == "cotangents" or not self.declared.losses:
            return found
        gradients = self._gradients()
        found.update({f"gradient {name}": _array(g) for name, g in gradients.items()})
        if self.optimizer is not None and self.kind in ("step", "update"):
            found.update({f"state {k}": a for k, a in self._updated(gradients).items()})
        return found

    def _running(self) -> dict[str, Tensor]:
        found = {}
        for node in self.declared:
            if isinstance(node.op, BatchNorm) and not node.op.frozen:
                x = self.values[node.inputs[0]]
                axes = [axis for axis in range(x.ndim) if axis != 1]
                batch = x.mean(axes), x.var(axes, correction=0)
                for name, fresh in zip(node.inputs[3:], batch, strict=True):
                    old = self.values[name]
                    found[name] = torch.lerp(fresh, old, node.op.running_decay)
        return found

    def _gradients(self) -> dict[str, Tensor]:
        """Of parameters and inputs, where torch has one too."""
        losses = [self.values[self.declared.outputs[name]] for name in self.declared.losses]
        total = sum(losses[1:], losses[0])
        sources = [n.name for n in self.declared if isinstance(n.op, (Parameter, Input))]
        named = [name for name in sources if self.values[name].requires_grad]
        if not total.requires_grad:
            return {}
        tensors = [self.values[name] for name in named]
        found = torch.autograd.grad(total, tensors, allow_unused=True)
        return {name: g for name, g in zip(named, found, strict=True) if g is not None}

    def _updated(self, gradients: Mapping[str, Tensor]) -> dict[str, Array]:
        assert self.optimizer is not None
        trained = {
            node.name: gradients[node.name]
            for node in self.declared
            if isinstance(node.op, Parameter)
            and node.name in gradients
            and f"state {node.name}" in self.wanted
            and self._is_trained(node.name)
        }
        if self.optimizer.accumulate > 1 or not trained:
            return {}
        return update(self.optimizer, trained, self.before)

    def _is_trained(self, name: str) -> bool:
        return not np.array_equal(self.wanted[f"state {name}"], self.before[name])


def update(
    optimizer: Optimizer, gradients: Mapping[str, Tensor], before: Mapping[str, Array]
) -> dict[str, Array]:
    """Parameters and slots after one update by torch's own optimizer."""
    updates = int(before["updates"])
    if optimizer.clip_value is not None:
        most = optimizer.clip_value
        gradients = {name: g.clamp(-most, most) for name, g in gradients.items()}
    scale = 1.0
    if optimizer.clip_norm is not None:
        norm = sqrt(sum(float((g * g).sum()) for g in gradients.values()))
        scale = min(1.0, float(before["hyper.clip_norm"]) / norm) if norm else 1.0
    groups, parameters = [], {}
    for name, gradient in gradients.items():
        parameters[name] = p = _tensor(before[name], False).clone().requires_grad_()
        p.grad = gradient * scale
        rate = _rate(optimizer, name, before) * factor(optimizer.schedule, updates)
        decay = _decay(optimizer, name, p.ndim)
        groups.append({"params": [p], "lr": rate, "weight_decay": decay})
    made, slots = _made(optimizer, groups)
    for name, p in parameters.items():
        state = {
            theirs: _tensor(before[f"{name}.{ours}"], False).clone()
            for theirs, ours in slots.items()
        }
        product = [before[key] for key in before if key.startswith("momenta.")]
        if product:
            state["mu_product"] = _tensor(product[0], False).clone()
        made.state[p] = {**state, "step": torch.tensor(float(updates))}
    made.step()
    found = {name: _array(p) for name, p in parameters.items()}
    for name, p in parameters.items():
        found.update({f"{name}.{ours}": _array(made.state[p][t]) for t, ours in slots.items()})
        if optimizer.ema is not None:
            old = _tensor(before[f"{name}.ema"], False)
            first = not before["ema_updates"]
            found[f"{name}.ema"] = _array(p if first else torch.lerp(p, old, optimizer.ema))
    return found


def _made(
    optimizer: Optimizer, groups: list[dict[str, Any]]
) -> tuple[torch.optim.Optimizer, dict[str, str]]:
    """Torch's optimizer, and by its names of slots ours."""
    if isinstance(optimizer, SGD):
        slots = {"momentum_buffer": "velocity"} if optimizer.momentum else {}
        nesterov, momentum = optimizer.nesterov, optimizer.momentum
        return torch.optim.SGD(groups, momentum=momentum, nesterov=nesterov), slots
    if isinstance(optimizer, RMSprop):
        slots = {"square_avg": "square"}
        slots |= {"momentum_buffer": "velocity"} if optimizer.momentum else {}
        options = {"alpha": optimizer.alpha, "eps": optimizer.eps, "momentum": optimizer.momentum}
        return torch.optim.RMSprop(groups, **options), slots
    if isinstance(optimizer, Adagrad):
        return torch.optim.Adagrad(groups, eps=optimizer.eps), {"sum": "sum"}
    if isinstance(optimizer, Adadelta):
        slots = {"square_avg": "square", "acc_delta": "delta"}
        return torch.optim.Adadelta(groups, rho=optimizer.rho, eps=optimizer.eps), slots
    assert isinstance(optimizer, (Lion, TwoMoments))
    betas = optimizer.beta1, optimizer.beta2
    if isinstance(optimizer, Lion):
        return _Lion(groups, {"betas": betas}), {"mean": "mean"}
    assert isinstance(optimizer, TwoMoments)
    options = {"betas": betas, "eps": optimizer.eps}
    if isinstance(optimizer, Adamax):
        return torch.optim.Adamax(groups, **options), {"exp_avg": "mean", "exp_inf": "largest"}
    slots = {"exp_avg": "mean", "exp_avg_sq": "square"}
    if isinstance(optimizer, NAdam):
        options["momentum_decay"] = optimizer.momentum_decay
        return torch.optim.NAdam(groups, **options), slots
    kind = torch.optim.AdamW if isinstance(optimizer, AdamW) else torch.optim.Adam
    return kind(groups, **options), slots


class _Lion(torch.optim.Optimizer):
    """Algorithm 2 of arXiv:2302.06675, which torch does not have."""

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One update."""
        for group in self.param_groups:
            first, second = group["betas"]
            for p in group["params"]:
                mean = self.state[p]["mean"]
                direction = torch.sign(first * mean + (1 - first) * p.grad)
                p -= group["lr"] * (direction + group["weight_decay"] * p)
                self.state[p]["mean"] = second * mean + (1 - second) * p.grad


def _group(optimizer: Optimizer, name: str) -> Group | None:
    for group in optimizer.groups:
        if any(fnmatchcase(name, pattern) for pattern in group.names):
            return group
    return None


def _rate(optimizer: Optimizer, name: str, before: Mapping[str, Array]) -> float:
    group = _group(optimizer, name)
    if group is None or group.lr is None:
        return float(before["hyper.lr"])
    return float(before[f"hyper.lr.{','.join(group.names)}"])


def _decay(optimizer: Optimizer, name: str, rank: int) -> float:
    group = _group(optimizer, name)
    if group is not None and group.weight_decay is not None:
        return group.weight_decay
    if optimizer.decay is None:
        return optimizer.weight_decay if rank >= 2 else 0.0
    hit = any(fnmatchcase(name, pattern) for pattern in optimizer.decay)
    return optimizer.weight_decay if hit else 0.0


def factor(schedule: Schedule | None, u: int) -> float:
    """What a schedule multiplies the rate by, as its documentation says."""
    if schedule is None:
        return 1.0
    if isinstance(schedule, Step):
        return float(schedule.factor ** (u // schedule.every))
    if isinstance(schedule, WarmUp):
        rest = factor(schedule.then, max(u - schedule.steps, 0))
        return float(min((u + 1) / schedule.steps, 1) * rest)
    assert isinstance(schedule, Cosine)
    warm = min((u + 1) / schedule.warmup, 1) if schedule.warmup else 1
    done = min(max(u - schedule.warmup, 0) / (schedule.total - schedule.warmup), 1)
    return float(warm * (schedule.floor + (1 - schedule.floor) * (1 + cos(pi * done)) / 2))


def _tensor(array: Array, trained: bool) -> Tensor:
    floats = array.dtype.kind == "f"
    plain = np.array(array, np.float64 if floats else None)
    return torch.as_tensor(plain).requires_grad_(floats and trained)


def _array(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().numpy())
