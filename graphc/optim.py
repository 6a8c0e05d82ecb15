"""Optimizers: frozen descriptions of how a parameter follows its gradient.

An optimizer holds no numbers.  It adds update nodes to a graph (see passes/update.py); its slots
and the learning rate are states of the graph, named after the parameter and `hyper.`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from numbers import Integral, Real

from graphc.build import Value
from graphc.errors import GraphError
from graphc.graph import Node
from graphc.loc import caller_loc
from graphc.op import Op, shared
from graphc.ops.optim import AdamMean, AdamSquare, AdamStep, Momentum, NesterovStep, SgdStep
from graphc.ops.source import State, state
from graphc.schedules import Schedule


@dataclass(frozen=True)
class Optimizer:
    """What all optimizers have.

    `decay` names by patterns the parameters that `weight_decay` holds for; None means those of
    rank 2 and more.  `clip_norm` limits the norm over all gradients; `schedule` gives a factor
    on `lr` by the number of updates; `accumulate` is how many steps one update averages.

    Raises GraphError, at the user's line, for a number that makes no sense.
    """

    lr: float
    weight_decay: float = field(default=0.0, kw_only=True)
    decay: tuple[str, ...] | None = field(default=None, kw_only=True)
    schedule: Schedule | None = field(default=None, kw_only=True)
    clip_norm: float | None = field(default=None, kw_only=True)
    accumulate: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        self._number("lr", "it must be 0 or more", hint="updates go against the gradient already")
        self._number("weight_decay", "it must be 0 or more", hint="0 is no decay")
        if self.clip_norm is not None:
            self._number("clip_norm", "it must be above 0", above=True, hint="None is no clipping")
        if not _whole(self.accumulate) or self.accumulate < 1:
            hint = "1 is an update in each step"
            raise self._error("accumulate", "it must be a whole number from 1 up", hint)
        self._set("accumulate", int(self.accumulate))
        self._check_decay()
        if self.schedule is not None and not isinstance(self.schedule, Schedule):
            hint = "gc.Cosine(total=10_000), gc.Step(1000, 0.5) or gc.WarmUp(500)"
            raise self._error("schedule", "it must be a schedule", hint)

    def _check_decay(self) -> None:
        patterns = (self.decay,) if isinstance(self.decay, str) else self.decay
        if patterns is None:
            return
        listed = isinstance(patterns, Sequence)
        if not listed or not all(isinstance(pattern, str) for pattern in patterns):
            raise self._error("decay", "it must be name patterns", 'decay=("*.weight",)')
        self._set("decay", tuple(patterns))

    def _number(
        self, name: str, wanted: str, *, above: bool = False, below: float = math.inf, hint: str
    ) -> None:
        """Check a number and keep it as a Python float."""
        value = getattr(self, name)
        real = isinstance(value, Real) and not isinstance(value, bool)
        if not real or not 0 <= value < below or (above and value == 0):
            raise self._error(name, wanted, hint)
        self._set(name, float(value))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _error(self, name: str, wanted: str, hint: str) -> GraphError:
        sentence = f"{type(self).__name__}: {name} is {getattr(self, name)!r}, {wanted}"
        return GraphError(sentence, loc=caller_loc(), hint=hint)

    def decay_of(self, parameter: Node) -> float:
        """The weight decay of a parameter: by pattern, or by rank."""
        if self.decay is None:
            decays = parameter.type.rank >= 2
        else:
            decays = any(fnmatchcase(parameter.name, pattern) for pattern in self.decay)
        return self.weight_decay if decays else 0.0

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Add the nodes that give a parameter and its slots their next values."""
        raise NotImplementedError(f"{type(self).__name__} has no update rule")


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent: v = momentum*v + g, p = p - lr*v.

    Conventions are those of torch.optim.SGD: the rate multiplies the velocity when it is used,
    there is no dampening, weight decay is added to the gradient.
    """

    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("momentum", "it must be from 0 to below 1", below=1.0, hint="0.9 is usual")
        if self.nesterov and not self.momentum:
            raise GraphError(
                "SGD: nesterov without momentum",
                loc=caller_loc(),
                hint="SGD(lr=0.1, momentum=0.9, nesterov=True)",
            )

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """One or two nodes, and the slot `<parameter>.velocity` with momentum."""
        decay = self.decay_of(p.node)
        if not self.momentum:
            next_value(p, SgdStep(decay), p, g, rate)
            return
        velocity = slot(p, "velocity")
        momentum = shared(Momentum, self.momentum, decay)
        new = next_value(velocity, momentum, velocity, g, *operands_with_decay(decay, p))
        if self.nesterov:
            next_value(p, NesterovStep(self.momentum, decay), p, new, g, rate)
        else:
            next_value(p, shared(SgdStep), p, new, rate)


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam with bias correction; weight decay is added to the gradient, as in torch.optim.Adam.

    D. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.
    """

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("beta1", "it must be from 0 to below 1", below=1.0, hint="0.9 is usual")
        self._number("beta2", "it must be from 0 to below 1", below=1.0, hint="0.999 is usual")
        self._number("eps", "it must be above 0", above=True, hint="1e-8 is usual")

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Three nodes, and the slots `<parameter>.mean` and `.square`."""
        self._moments(p, g, rate, updates, self.decay_of(p.node), 0.0)

    def _moments(
        self, p: Value, g: Value, rate: Value, updates: Value, l2: float, decoupled: float
    ) -> None:
        mean, square = slot(p, "mean"), slot(p, "square")
        m = next_value(mean, AdamMean(self.beta1, l2), mean, g, *operands_with_decay(l2, p))
        s = next_value(square, AdamSquare(self.beta2, l2), square, g, *operands_with_decay(l2, p))
        step = AdamStep(self.beta1, self.beta2, self.eps, decoupled)
        next_value(p, step, p, m, s, rate, updates)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: p shrinks by lr*weight_decay*p beside Adam's step.

    I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019, as in
    torch.optim.AdamW.
    """

    weight_decay: float = field(default=0.01, kw_only=True)

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Three nodes, and the slots `<parameter>.mean` and `.square`."""
        self._moments(p, g, rate, updates, 0.0, self.decay_of(p.node))


def slot(p: Value, kind: str) -> Value:
    """The state `<parameter>.<kind>`, zeros of the parameter's type, made when it is not there.

    GraphError where another node has that name.
    """
    name = f"{p.name}.{kind}"
    node = p.builder.nodes.get(name)
    if node is not None and (not isinstance(node.op, State) or node.type != p.type):
        raise GraphError(
            f"the name {name!r} is taken already, by {node.op.name}",
            loc=node.locs[0] if node.locs else None,
            hint=f"the optimizer keeps the {kind} of parameter {p.name!r} under it",
        )
    return state(p.builder, name, p.type)


def next_value(target: Value, op: Op, *operands: Value) -> Value:
    """Apply an op whose result is the next value of a parameter or slot."""
    b = target.builder
    new = b.apply(op, *operands, name=b.unique(f"{target.name}.next"))
    b.update(target, new)
    return new


def operands_with_decay(decay: float, p: Value) -> Sequence[Value]:
    """The parameter as an operand of the ops that read it only with decay."""
    return (p,) if decay else ()


def _whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
