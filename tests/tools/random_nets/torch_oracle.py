"""A case run by PyTorch in float64, exactly or with noise of the size of rounding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import torch_elements, torch_layers
from .calls import Call, Ref, Rows, change, flat, words
from .case import Case
from .compare import NOISE, NORMAL
from .draw_elements import OPERATORS
from .torch_elements import tensor
from .torch_optimizers import Optimizer

Result = dict[str, Any]

# Calls whose results are entries of their operands: nothing is rounded.
EXACT = frozenset(
    f"gc.{name}"
    for name in words(
        "reshape flatten transpose concat split stack squeeze unsqueeze flip roll tril "
        "triu pick where stop_gradient one_hot floor ceil round sign relu abs neg max min "
        "maximum minimum clip sort topk max_pool global_max_pool dropout"
    )
) | {"operator.getitem", "net.constant"}
# Functions whose derivatives are differences of numbers near 1, as far as they are off by rounding.
SATURATED = frozenset(
    f"gc.{name}"
    for name in words(
        "tanh sigmoid softmax log_softmax elu celu selu silu mish gelu softmax_loss sigmoid_loss"
    )
)
SPELLED = {operator: function for function, operator in OPERATORS.items()}


class Run:
    """One run of a case; each number is moved as if it were rounded to a dtype, if one is given."""

    def __init__(
        self,
        case: Case,
        start: Mapping[str, Any],
        trained: tuple[str, ...],
        masks: Any,
        dtype: str | None,
        seed: int,
    ) -> None:
        self.case, self.dtype, self.masks = case, dtype, masks
        self.noise = 0.0 if dtype is None else NOISE[dtype]
        self.random = torch.Generator().manual_seed(seed)
        self.trained = trained
        states = [
            n for n in start if n.endswith((".running_mean", ".running_var")) or n in case.fitted
        ]
        self.parameters = {n: self.moved(tensor(a)) for n, a in start.items() if n not in states}
        self.states = {n: tensor(start[n]) for n in states}
        self.next: dict[str, Tensor] = {}
        self.optimizer = Optimizer(case.optimizer) if case.optimizer is not None else None
        self.train, self.forwards = False, 0

    # Noise.

    def moved(self, x: Tensor, dtype: str | None = None) -> Tensor:
        """Return x with noise: a part of each number, and a small one of their mean size.

        Numbers near the least normal one may get another sign; what is 0 does not underflow.
        """
        if self.dtype is None or not x.numel():
            return x
        size = x.detach().abs()
        size = torch.where(size.isfinite(), size, 0)
        dtype = self.dtype if dtype is None else dtype
        rounding = NOISE[dtype] * (size + 0.01 * size.mean())
        return x + self.drawn(x) * (rounding + NORMAL[dtype] * (size > 0))

    def drawn(self, x: Tensor) -> Tensor:
        """Return numbers from -1 to 1."""
        return torch.rand(x.shape, generator=self.random, dtype=torch.float64) * 2 - 1

    def watched(self, x: Tensor, dtype: str | None = None) -> Tensor:
        """Return x with noise in it and, on the way back, in its gradient."""
        x = self.moved(x, dtype)
        if self.noise and x.requires_grad:
            x.register_hook(self.moved)
        return x

    def bent(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Return function(x) with noise in it and in its derivative, which cancels far out."""
        y = function(x)
        return self.watched(y + self.noise * self.drawn(x) * (x - x.detach())) if self.noise else y

    # The net.

    def parameter(self, name: str) -> Tensor:
        """Return a parameter by name."""
        return self.leaves[name]

    def mask(self, name: str) -> Tensor:
        """Return which numbers a dropout keeps this time."""
        return tensor(self.masks[self.forwards][name]).double()

    def forward(self, feeds: Mapping[str, Any], rows: int, train: bool) -> Result:
        """Return every output and loss by name."""
        self.train, self.rows, self.next = train, rows, {}
        self.feeds = feeds
        self.leaves = {n: p.detach().requires_grad_() for n, p in self.parameters.items()}
        self.values: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        self.losses: dict[str, Tensor] = {}
        for call in self.case.calls:
            self.made(call)
        if train:
            self.states |= self.next
            self.forwards += 1
        return {
            name: value.detach().numpy() for name, value in (self.outputs | self.losses).items()
        }

    def made(self, call: Call) -> None:
        """Compute the results of one call."""
        value = partial(self.value, narrow=self.narrow(call))
        args, kwargs = change((call.args, dict(call.kwargs)), value)
        function = SPELLED.get(call.function, call.function)
        if function in ("net.output", "net.loss"):
            (self.outputs if function == "net.output" else self.losses)[args[0]] = args[1]
            return
        found = flat([self.result(function, args, kwargs)])
        # What equals its operand is a value of its own to derivatives.
        found = [f.view_as(f) if any(f is v for v in self.values.values()) else f for f in found]
        if self.noise and function in SATURATED:
            x = args[0]
            bent = (
                self.noise * self.drawn(x) * (x - x.detach())
            )  # 0, with a derivative that is not.
            found[0] = found[0] + (bent if bent.shape == found[0].shape else bent.sum() / len(x))
        if function not in EXACT and not function.startswith("net."):
            dtype = "float32" if function == "gc.cast" and args[1] == "float32" else None
            found = [self.watched(f, dtype) if f.is_floating_point() else f for f in found]
        found = [f.requires_grad_() if f.is_floating_point() and f.is_leaf else f for f in found]
        self.values.update(zip(call.results, found, strict=True))

    def narrow(self, call: Call) -> bool:
        """Return whether the floats that a call reads are float32, and so its numbers, too."""
        dtypes = {self.case.dtypes.get(name, self.case.dtype) for name in call.reads}
        return "float32" in dtypes and "float64" not in dtypes

    def value(self, leaf: Any, narrow: bool) -> Any:
        """Return the number or tensor that an argument stands for."""
        if isinstance(leaf, Ref):
            return self.values[leaf.name]
        if isinstance(leaf, float) and narrow:
            return float(np.float32(leaf))
        return leaf.times * self.rows if isinstance(leaf, Rows) else leaf

    def result(self, function: str, args: Any, kwargs: Any) -> Any:
        """Return what a call gives."""
        if function == "net.input":
            x = tensor(self.feeds[args[0]])
            return self.watched(x.clone().requires_grad_()) if x.is_floating_point() else x
        if function == "net.parameter":
            return self.leaves[args[0]]
        if function == "net.constant":
            return tensor(args[0]).requires_grad_()
        if function == "gc.grad":
            return self.derived(*args)
        if function in torch_elements.MEANINGS:
            return torch_elements.MEANINGS[function](*args, **kwargs)
        return torch_layers.MEANINGS[function](self, *args, **kwargs)

    def derived(self, value: Tensor, wrt: Any) -> Any:
        """Return derivatives as values that can be derived again."""
        several = wrt if isinstance(wrt, list) else [wrt]
        if not value.requires_grad:
            return [torch.zeros_like(v) for v in several]
        found = torch.autograd.grad(value, several, create_graph=True, allow_unused=True)
        return [
            torch.zeros_like(v) if g is None else g for g, v in zip(found, several, strict=True)
        ]

    # Training.

    def gradients(self, names: Any = None) -> Result:
        """Return the gradients of the sum of the losses, or of one, by parameter."""
        total = sum(v for n, v in self.losses.items() if names is None or n in names)
        assert isinstance(total, Tensor)
        wrt = [self.leaves[n] for n in self.trained]
        found = torch.autograd.grad(total, wrt, allow_unused=True)
        zeros = (
            torch.zeros_like(p) if g is None else self.moved(g)
            for g, p in zip(found, wrt, strict=True)
        )
        return dict(zip(self.trained, zeros, strict=True))

    def act(self, action: str, feeds: Mapping[str, Any], rows: int) -> Result:
        """Return all that an action gives: outputs, gradients, states after it."""
        found = {f"output {n}": v for n, v in self.forward(feeds, rows, action != "infer").items()}
        if action == "infer":
            return found
        gradients = self.gradients()
        total = sum(v.detach() for v in self.losses.values())
        found = {"loss": np.asarray(total)} if action == "step" else found
        if action != "step":
            found |= {f"gradient {n}": g.numpy() for n, g in gradients.items()}
        if action in ("step", "parts") and self.optimizer is not None:
            moved = self.optimizer.accumulated if action == "step" else self.optimizer.update
            self.parameters = {
                n: self.moved(p) for n, p in moved(self.parameters, gradients).items()
            }
        return found | self.lasting()

    def lasting(self) -> Result:
        """Return parameters and states."""
        return {
            f"state {n}": v.detach().numpy() for n, v in (self.parameters | self.states).items()
        }


def runs(
    case: Case,
    start: Mapping[str, Any],
    trained: tuple[str, ...],
    masks: Any,
    dtype: str | None,
    seed: int,
) -> list[Result]:
    """Return what each action of a case gives: exactly, or with the rounding of a dtype."""
    run = Run(case, start, trained, masks, dtype, seed)
    return [
        run.act(action, case.feeds(rows, turn), rows)
        for turn, (action, rows) in enumerate(case.actions)
    ]
