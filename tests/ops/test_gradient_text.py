"""Each formula in `gradient_text`, evaluated as it is written, equals what `grad` computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphc.ir.op import Array, Layer, Op, attributes
from graphc.ir.tensor_type import shape_at
from graphc.ops import OPS
from graphc.ops.conv import Convolution
from graphc.ops.gather import AxisIndexed, GatherGrad
from graphc.ops.pool import Pooling
from graphc.ops.select import Comparison
from graphc.ops.slicing import cut_index
from tests.ops.convolved import Convolved
from tests.ops.example import Example
from tests.ops.examples import DOUBLE
from tests.ops.harness import worst_error
from tests.ops.pooled import Pooled
from tests.ops.test_contract import by_op
from tests.ops.test_gradients import ROWS, Net, has_gradient, run
from tests.together import together

EXAMPLES = by_op([e for e in DOUBLE if has_gradient(e.op) and not isinstance(e.op, Layer)])


@together("examples", EXAMPLES.values())
def test_every_gradient_rule_has_a_formula_for_each_operand(examples: list[Example]) -> None:
    for example in examples:
        texts = example.op.gradient_text
        assert texts, f"{example.op.name} has a gradient rule without a formula"
        assert len(texts) == (len(example.op.roles) or 1), example


@together("examples", EXAMPLES.values())
def test_the_formulas_give_what_the_rule_gives(examples: list[Example]) -> None:
    for example in examples:
        if example.op.infer(example.types).is_float:
            check(example)


def check(example: Example) -> None:
    net = Net(example, train=False)
    rng = np.random.default_rng(5)
    feeds = dict(zip(net.names, example.operands(ROWS), strict=True))
    cotangent = rng.standard_normal(shape_at(net.out.shape, ROWS))
    feeds["cotangent"] = cotangent.astype(net.out.dtype)
    found = net.differentiate(net.out, "cotangent", "d_")
    graph = net.b.graph()
    out = run(graph, net.out.name, feeds)
    for position, name in enumerate(net.names):
        text = formula(example.op, position)
        if not text or not example.types[position].is_float:
            assert name not in found, f"{example}: nothing is said of {name}"
            continue
        words = vocabulary(
            example, [feeds[n] for n in net.names], out, feeds["cotangent"], position
        )
        said = summed(np.asarray(eval(text, {}, words)), feeds[name].shape)
        ours = run(graph, found[name].name, feeds) if name in found else np.zeros_like(said)
        assert worst_error(said, ours) < 1e-9, f"{example}: {text}"


def formula(op: Op, position: int) -> str:
    return op.gradient_text[min(position, len(op.gradient_text) - 1)]


def summed(value: Array, shape: tuple[int, ...]) -> Array:
    """The gradient, summed to the operand's shape over the axes that were broadcast."""
    if value.size == int(np.prod(shape)):
        return value.reshape(shape)
    value = value.sum(axis=tuple(range(value.ndim - len(shape))))
    axes = tuple(i for i, dim in enumerate(shape) if dim == 1)
    whole = np.broadcast_to(value, np.broadcast_shapes(value.shape, shape))
    summed_axes = tuple(i for i in axes if value.shape[i] != 1)
    return np.asarray(whole.sum(axis=summed_axes, keepdims=True))


class Matrix(np.ndarray[Any, Any]):
    """An array whose T swaps the last two axes, as products of stacks of matrices mean it."""

    @property
    def T(self) -> Any:
        return self.swapaxes(-1, -2)


def vocabulary(
    example: Example, ins: list[Array], out: Array, cotangent: Array, position: int
) -> Mapping[str, Any]:
    """The meaning of the names in formulas, in NumPy."""
    op, x = example.concrete(ROWS), ins[0]
    rows = tuple(axis for axis in range(x.ndim) if axis != 1)
    own = attributes(op)
    axes = own.get("axes", ())
    eps = own.get("eps", 0.0)

    def total(value: Array, axis: Any) -> Array:
        return np.asarray(np.asarray(value).sum(axis=axis, keepdims=True))

    def average(value: Array) -> Array:
        return np.asarray(value.mean(axis=rows, keepdims=True))

    def running(value: Array, axis: int, exclusive: bool, reverse: bool) -> Array:
        where = np.arange(value.shape[axis])
        later, earlier = (where[:, None], where) if reverse else (where, where[:, None])
        counts = (earlier < later if exclusive else earlier <= later) * 1.0
        return np.moveaxis(np.tensordot(np.moveaxis(value, axis, -1), counts, 1), -1, axis)

    def std(value: Array) -> Array:
        return np.asarray(np.sqrt(average((value - average(value)) ** 2) + eps))

    def xhat(value: Array) -> Array:
        return np.asarray((value - average(value)) / std(value))

    def project(value: Array) -> Array:
        return np.asarray(value - average(value) - xhat(x) * average(value * xhat(x)))

    def spread(value: Array) -> Array:
        kept = tuple(1 if axis in axes else dim for axis, dim in enumerate(x.shape))
        return np.broadcast_to(value.reshape(kept), x.shape)

    words: dict[str, Any] = {
        "sum": total, "mean": average, "std": std, "xhat": xhat, "project": project,
        "spread": spread, "rows": rows, "exp": np.exp, "sign": np.sign, "sqrt": np.sqrt,
        "log": np.log, "sin": np.sin, "cos": np.cos, "sinh": np.sinh, "cosh": np.cosh,
        "cumsum": running, "sigmoid": lambda value: 1 / (1 + np.exp(-value)),
        "pi": np.pi, "where": np.where, "reshape": np.reshape, "argsort": np.argsort,
        "softmax": softmax, "violations": violations, "column": lambda value: value[:, None],
        "onehot": lambda labels: np.eye(x.shape[-1])[labels],
        "count": np.prod([(out if op.name == "mean_grad" else x).shape[axis] for axis in axes]),
    }  # fmt: skip
    words |= own | {"out": out.view(Matrix), "d_out": spaced(cotangent, x).view(Matrix)}
    words |= {role: spaced(a, x).view(Matrix) for role, a in zip(op.roles, ins, strict=False)}
    return words | by_index(op, ins, cotangent) | parts(example, ins, position)


def by_index(op: Op, ins: list[Array], cotangent: Array) -> dict[str, Any]:
    """Reads and writes by indices, one after the other."""

    def grid(indices: Array, axis: int) -> tuple[Array, ...]:
        places = list(np.indices(indices.shape))
        places[axis] = indices
        return tuple(places)

    def take(value: Array, indices: Array, axis: int) -> Array:
        if isinstance(op, GatherGrad):
            return np.asarray(np.take(value, indices, axis))
        return np.asarray(value[grid(indices, axis)])

    def scatter(how: str, value: Array, indices: Array, updates: Array, axis: int) -> Array:
        found = np.array(value)
        for place in np.ndindex(indices.shape):
            target = tuple(axes[place] for axes in grid(indices, axis))
            found[target] = updates[place] + (found[target] if how == "add" else 0)
        return found

    def last(indices: Array, axis: int) -> Array:
        numbers = np.arange(indices.size).reshape(indices.shape)
        board = scatter("none", np.zeros((99,) * indices.ndim), indices, numbers, axis)
        return np.asarray(board[grid(indices, axis)] == numbers)

    def add_at(value: Array, indices: Array, axis: int, more: Array) -> Array:
        slices = np.moveaxis(value, axis, 0)
        axis %= value.ndim
        for place in np.ndindex(indices.shape):
            slices[indices[place]] += more[(slice(None),) * axis + place]
        return value

    words = {
        "take": take, "take_along_axis": np.take_along_axis, "scatter": scatter, "last": last,
        "add_at": add_at, "zeros": np.zeros,
    }  # fmt: skip
    operands = dict(zip(op.roles, ins, strict=False)) | {"d_out": cotangent}
    return words | operands if isinstance(op, AxisIndexed) else {}


def spaced(array: Array, x: Array) -> Array:
    """A number a feature, beside images; all else is as it is."""
    features = array.ndim == 1 and x.ndim > 2
    return array.reshape((1, -1) + (1,) * (x.ndim - 2)) if features else array


def parts(example: Example, ins: list[Array], position: int) -> dict[str, Any]:
    """Indices: the part of a joined value that an operand is, and cuts."""
    op, rank = example.concrete(ROWS), ins[0].ndim
    found: dict[str, Any] = {}
    if op.name == "concat":
        axis = attributes(op)["axis"] % rank
        start = sum(a.shape[axis] for a in ins[:position])
        stop = start + ins[position].shape[axis]
        found["part"] = (slice(None),) * axis + (slice(start, stop),)
    if "cuts" in attributes(op):
        cuts = cut_index(attributes(op)["cuts"], len(attributes(op).get("shape", ins[0].shape)))
        found["cuts"] = cuts
        found["place"] = placed(ins[0])
    if op.name == "pad":
        pads = zip(attributes(op)["pads"], ins[0].shape, strict=True)
        found["inside"] = tuple(slice(before, before + size) for (before, _), size in pads)
    if isinstance(op, Convolution):
        by = attributes(op)
        x, w = by["shape"] if op.name == "conv_dx" else ins[0].shape, ins[1].shape
        said = Convolved(by, x, by["shape"] if op.name == "conv_dw" else w)
        found |= {"conv": said.conv, "conv_dx": said.conv_dx, "conv_dw": said.conv_dw}
    if isinstance(op, Pooling):
        images = attributes(op).get("shape", ins[-1].shape)
        words = (name for name in vars(Pooled) if "pool" in name)
        found |= {name: getattr(Pooled(attributes(op), images), name) for name in words}
    return found


def placed(like: Array) -> Callable[[Array, Any], Array]:
    def place(value: Array, cuts: Any) -> Array:
        zeros = np.zeros_like(like)
        zeros[cuts] = value
        return zeros

    return place


def softmax(scores: Array) -> Array:
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def violations(scores: Array, labels: Array) -> Array:
    """1 where a margin is violated, and minus their number at the label."""
    found = np.zeros(scores.shape)
    for row, label in enumerate(np.asarray(labels)):
        wrong = scores[row] - scores[row, label] + 1 > 0
        wrong[label] = False
        found[row] = wrong
        found[row, label] = -wrong.sum()
    return found


def test_what_carries_no_gradient_says_so() -> None:
    for cls in OPS.values():
        if issubclass(cls, Comparison):
            assert cls.gradient_text == ("", "")
