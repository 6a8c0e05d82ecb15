"""A layer of the course for `check_layer`: its functions, its inputs, and the usual mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np

from graphc import layers
from graphc.check.course.compare import Candidate
from graphc.ir.op import Array

Rng = np.random.Generator
Results = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """One input of a layer: arrays by argument name, a cotangent, and the parameter dictionary."""

    arrays: Mapping[str, Array]
    dout: Array
    param: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    douts: tuple[Array, ...] = ()
    """The cotangents of further outputs."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Arguments between the arrays and the parameter dictionary."""
    has_gradients: bool = True
    """If False, the course defines no gradients there, as of batchnorm in test mode."""

    @property
    def x(self) -> Array:
        """The layer's input."""
        return self.arrays["x"]

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in self.arrays.items())
        given = {**self.more, **self.param}
        plain = [f", {k} {v!r}" for k, v in given.items() if isinstance(v, (int, str))]
        return f"{shapes}{''.join(plain)}{', ' if self.note else ''}{self.note}"


Cases = Callable[[Rng], Iterator[Case]]
"""The inputs of a layer, drawn from a generator."""
Mistake = tuple[str, Results]
"""A mistake, and the results that it changes."""
Mistakes = Callable[[Case, Results], Iterator[Mistake]]
"""The usual mistakes in a layer, given the case and the right results."""
Nearest = Callable[[Array, "Case", Array], Array]
"""From a student's gradient, the case and graphc's gradient to the right one nearest to theirs."""


@dataclass(frozen=True)
class Spec:
    """A layer of the course: its functions, the names of its results, inputs and usual mistakes."""

    forward: Callable[..., Any]
    backward: Callable[..., Any] | None
    gradients: tuple[str, ...]
    cases: Cases
    mistakes: Mistakes
    outputs: tuple[str, ...] = ("out",)
    nearest: Nearest | None = None
    """For dx at a kink, where any subgradient is right."""
    flattens: bool = False
    """If True, samples may have more than one dimension."""

    @property
    def is_loss(self) -> bool:
        """Return whether it is one function that returns (loss, dx)."""
        return self.backward is None

    @property
    def takes_param(self) -> bool:
        """Return whether the forward function takes a parameter dictionary."""
        return [*signature(self.forward).parameters][-1].endswith("_param")

    def results(self, outputs: tuple[Any, ...], param: Mapping[str, Any]) -> dict[str, Any]:
        """Return the outputs and the running statistics by name."""
        names = [name for name in ("running_mean", "running_var") if name in param]
        return dict(zip(self.outputs, outputs, strict=True)) | {n: param[n] for n in names}


def results_of(spec: Spec, case: Case) -> dict[str, Any]:
    """Return all results of graphc's layer by name."""
    param = deepcopy(dict(case.param))
    *outputs, cache = spec.forward(
        *case.arrays.values(), *case.more.values(), *([param] if spec.takes_param else [])
    )
    if spec.backward is None:
        return {spec.outputs[0]: outputs[0], "dx": cache}
    found = spec.backward(case.dout, *case.douts, cache)
    gradients = found if isinstance(found, tuple) else (found,)
    named = dict(zip(spec.gradients, gradients, strict=True))
    return spec.results(tuple(outputs), param) | named


OfResult = Callable[[str, Case, Results], Iterator[Candidate]]
"""The usual mistakes in a result of a layer, given its name, the case and the right results."""


def by_result(rule: OfResult) -> Mistakes:
    """Return the mistakes in all results of a layer, by a rule for each."""

    def mistakes(case: Case, ours: Results) -> Iterator[Mistake]:
        for what in ours:
            for text, result in rule(what, case, ours):
                yield text, {what: result}

    return mistakes


def apart(mistakes: Mistakes) -> Mistakes:
    """Return mistakes that may be made in each result by itself."""

    def one_by_one(case: Case, ours: Results) -> Iterator[Mistake]:
        for text, results in mistakes(case, ours):
            yield from ((text, {what: result}) for what, result in results.items())

    return one_by_one


AFFINE = ("dx", "dw", "db")
NORM = ("dx", "dgamma", "dbeta")


def pair(name: str, suffix: str = "") -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the functions of a layer in `graphc.layers`."""
    return getattr(layers, f"{name}_forward{suffix}"), getattr(layers, f"{name}_backward{suffix}")
