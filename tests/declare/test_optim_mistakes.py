"""What optimizers and schedules refuse, and what they take for the same."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc
from graphc.ir.tensor_type import TensorType
from graphc.ops import moments
from graphc.ops import optim as ops
from tests.together import together

MISTAKES: list[tuple[Callable[[], object], str, str]] = [
    (
        lambda: gc.SGD(lr=-0.1),
        "SGD: lr is -0.1, it must be 0 or more",
        "updates go against the gradient already",
    ),
    (
        lambda: gc.Adam(lr=float("nan")),
        "Adam: lr is nan, it must be 0 or more",
        "give a finite number, such as lr=0.1",
    ),
    (
        lambda: gc.SGD("fast"),  # type: ignore[arg-type]
        "SGD: lr is 'fast', it must be 0 or more",
        "give a finite number, such as lr=0.1",
    ),
    (
        lambda: gc.SGD(lr=float("inf")),
        "SGD: lr is inf, it must be 0 or more",
        "give a finite number, such as lr=0.1",
    ),
    (
        lambda: gc.SGD(0.1, clip_value=-1.0),
        "SGD: clip_value is -1.0, it must be above 0",
        "None means no clipping",
    ),
    (
        lambda: gc.SGD(0.1, ema=1.0),
        "SGD: ema is 1.0, it must be above 0 and below 1",
        "0.999 is usual",
    ),
    (
        lambda: gc.SGD(0.1, groups=["head.*"]),  # type: ignore[arg-type]
        "SGD: groups is ['head.*'], it must be groups",
        'groups=[gc.Group("head.*", lr=1.0)]',
    ),
    (
        lambda: gc.Group("head.*"),
        "Group: 'head.*' changes nothing",
        'gc.Group("head.*", lr=1.0) or gc.Group("body.*", frozen=True)',
    ),
    (
        lambda: gc.Group("head.*", lr=0.1, frozen=True),
        "Group: 'head.*' is frozen, but has numbers to train by",
        'gc.Group("head.*", lr=1.0) or gc.Group("body.*", frozen=True)',
    ),
    (
        lambda: gc.Group((), lr=0.1),
        "Group: names is (), there must be at least one",
        'gc.Group("head.*", lr=1.0)',
    ),
    (
        lambda: gc.Group("head.*", lr=-1),
        "Group: lr is -1, it must be 0 or more",
        "frozen=True is for what is not to be trained",
    ),
    (
        lambda: gc.SGD(0.1, momentum=1.0),
        "SGD: momentum is 1.0, it must be from 0 to below 1",
        "0.9 is usual",
    ),
    (
        lambda: gc.SGD(0.1, nesterov=True),
        "SGD: nesterov without momentum",
        "SGD(lr=0.1, momentum=0.9, nesterov=True)",
    ),
    (
        lambda: gc.Adam(beta2=1.5),
        "Adam: beta2 is 1.5, it must be from 0 to below 1",
        "0.999 is usual",
    ),
    (lambda: gc.AdamW(eps=0), "AdamW: eps is 0, it must be above 0", "1e-8 is usual"),
    (
        lambda: gc.SGD(0.1, weight_decay=-1),
        "SGD: weight_decay is -1, it must be 0 or more",
        "0 means no decay",
    ),
    (
        lambda: gc.SGD(0.1, clip_norm=0),
        "SGD: clip_norm is 0, it must be above 0",
        "None means no clipping",
    ),
    (
        lambda: gc.SGD(0.1, accumulate=0),
        "SGD: accumulate is 0, it must be a whole number from 1 up",
        "1 means an update in each step",
    ),
    (
        lambda: gc.SGD(0.1, accumulate=1.5),  # type: ignore[arg-type]
        "SGD: accumulate is 1.5, it must be a whole number from 1 up",
        "1 means an update in each step",
    ),
    (
        lambda: gc.SGD(0.1, decay=3),  # type: ignore[arg-type]
        "SGD: decay is 3, it must be name patterns",
        'decay=("*.weight",)',
    ),
    (
        lambda: gc.SGD(0.1, schedule=0.5),  # type: ignore[arg-type]
        "SGD: schedule is 0.5, it must be a schedule",
        "gc.Cosine(total=10_000), gc.Step(1000, 0.5) or gc.WarmUp(500)",
    ),
    (
        lambda: gc.Cosine(0),
        "Cosine: total is 0, it must be a whole number from 1 up",
        "schedules count updates: with n batches an epoch, 10 epochs are 10*n updates",
    ),
    (
        lambda: gc.Cosine(10, warmup=10),
        "Cosine: warmup is 10, total is 10",
        "total counts the updates of the warm-up too, so it is the larger one",
    ),
    (
        lambda: gc.Cosine(10, floor=2.0),
        "Cosine: floor is 2.0, it must be from 0 to 1",
        "it is a factor on the learning rate, not a learning rate",
    ),
    (
        lambda: gc.Step(5, 0.0),
        "Step: factor is 0.0, it must be above 0",
        "Step(every=1000, factor=0.5) halves the rate each 1000 updates",
    ),
    (
        lambda: gc.WarmUp(5, then=0.1),  # type: ignore[arg-type]
        "WarmUp: then is 0.1, not a schedule",
        "WarmUp(500, then=Cosine(total=10_000))",
    ),
]


@together("make, sentence, hint", MISTAKES)
def test_mistakes(make: Callable[[], object], sentence: str, hint: str) -> None:
    with pytest.raises(gc.GraphError) as caught:
        make()
    assert caught.value.sentence == sentence
    assert caught.value.hint == hint
    assert caught.value.loc is not None
    assert caught.value.loc.file == __file__
    assert caught.value.loc.line == inspect.getsourcelines(make)[1]


def test_numbers_of_numpy_become_python_s() -> None:
    optimizer = gc.SGD(np.float64(0.5), accumulate=np.int64(2))  # type: ignore[arg-type]
    assert repr(optimizer) == repr(gc.SGD(0.5, accumulate=2))
    assert type(optimizer.lr) is float


@pytest.mark.parametrize(
    "text",
    [
        "SGD(lr=0.1)",
        "SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.5)",
        "Adam()",
        "AdamW(lr=0.5, schedule=WarmUp(steps=5, then=Cosine(total=9)), ema=0.9)",
        "AdamW(weight_decay=0.0)",
        "RMSprop(lr=0.1, accumulate=2)",
        "Lion(groups=(Group(names=('head.*',), frozen=True),))",
    ],
)
def test_the_text_is_the_call_without_defaults(text: str) -> None:
    names = {name: getattr(gc, name) for name in gc.__all__}
    made = eval(text, names)
    assert repr(made) == text
    assert eval(repr(made), names) == made


def test_optimizers_are_values() -> None:
    first = gc.Adam(decay=["*.weight"], schedule=gc.WarmUp(3))  # type: ignore[arg-type]
    second = gc.Adam(decay=("*.weight",), schedule=gc.WarmUp(3))
    assert first == second
    assert hash(first) == hash(second)
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.lr = 1.0  # type: ignore[misc]


def test_an_update_is_not_differentiable() -> None:
    net = gc.Net("net", dtype="float64")
    p, g, rate = (net.parameter(n, s) for n, s in (("p", (2,)), ("g", (2,)), ("rate", ())))
    net.loss("loss", gc.sum(gc.apply(ops.SgdStep(), p, g, rate)))
    with pytest.raises(gc.GraphError, match=r"sgd_step .*: it has no gradient rule"):
        gc.compile(net, batch=1)


def test_operands_that_do_not_fit_are_named() -> None:
    vector, matrix = TensorType((3,), "float32"), TensorType((3, 3), "float32")
    rate = vector.with_shape(())
    with pytest.raises(ValueError, match=r"gradient is float32\[3, 3\], it must be float32\[3\]"):
        ops.SgdStep().infer([vector, matrix, rate])
    with pytest.raises(ValueError, match="velocity, gradient or also parameter, decay, not 3 "):
        ops.Momentum(0.9).infer([vector] * 3)
    with pytest.raises(ValueError, match=r"updates is float32\[\], it must be int64\[\]"):
        moments.AdamStep(0.9, 0.99, 1e-8).infer([vector, vector, vector, rate, rate])
    with pytest.raises(ValueError, match="only floats of a fixed shape"):
        ops.SgdStep().infer([TensorType((gc.N,), "float32")] * 2 + [rate])
