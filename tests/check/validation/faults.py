"""Faults that are planted in passes and rules: nets to show them, and how one is planted.

A fault is an edit of the source of a function: the function is compiled again with a few
characters exchanged, and takes the place of the right one.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import graphc as gc
from graphc.ops.source import Parameter, State, constant_op
from passes.contract import FunctionPass
from passes.pipeline import PassList
from tests.tools.generate import random_state


def layers() -> gc.Net:
    """Affine, batchnorm, relu, two dropouts of one shape, a residual connection, softmax."""
    net = gc.Net("layers", dtype="float64")
    x = net.input("x", (gc.N, 5))
    y = net.input("y", (gc.N,), dtype="int64")
    h = gc.relu(gc.batchnorm(gc.affine(x, 4, name="first"), name="bn"))
    h = gc.dropout(h, keep_prob=0.5, name="a") + gc.dropout(h, keep_prob=0.5, name="b")
    h = h + gc.relu(gc.affine(h, 4, name="square"))
    h = gc.relu(gc.affine(gc.relu(gc.affine(h, 4, name="third")), 4, name="fourth"))
    scores = gc.affine(h, 3, name="scores")
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def ops() -> gc.Net:
    """An op of each kind that rewrites and gradient rules know."""
    net = gc.Net("ops", dtype="float64")
    x, z = net.input("x", (gc.N, 4)), net.input("z", (gc.N, 4))
    w, bias = net.parameter("w", (4, 4)), net.parameter("bias", (4,), init=1.0)
    h = gc.tanh(gc.matmul(x, w) + bias)
    h = gc.concat([h[:, 1:3], h * z, z / (2 + h * h)], axis=1)
    h = gc.clip(h, -0.4, 0.4) + h**2 - h**3
    h = h - gc.max(h, 1, keepdims=True)
    cube = gc.transpose(gc.reshape(h, (gc.N, 2, 5)), (1, 2, 0))
    cube = gc.transpose(gc.exp(gc.transpose(cube, (1, 2, 0))), (1, 2, 0))
    cube = gc.transpose(gc.transpose(cube, (1, 2, 0)), (1, 2, 0))
    net.output("cube", gc.sum(cube, (0, 1)))
    net.loss("loss", gc.mean(cube * cube))
    net.loss("tied", gc.mean(gc.sum(x * gc.where(x < z, x, z), axis=1) * gc.mean(w)))
    return net


def derivative() -> gc.Net:
    """A derivative inside the net, a weighted loss, and a statistic of the inputs."""
    net = gc.Net("derivative")
    x, w = net.input("x", (gc.N, 3)), net.input("w", (gc.N,))
    y = net.input("y", (gc.N,), dtype="int64")
    h = gc.tanh(gc.affine(gc.standardize(x), 4))
    slope = gc.grad(gc.sum(h**2), x)
    scores = gc.affine(gc.concat([h, slope], axis=1), 3)
    net.output("slope", slope)
    net.output("label", gc.argmax(scores, axis=1))
    net.loss("loss", gc.softmax_loss(scores, y, weight=w))
    return net


def numbers() -> gc.Net:
    """What fold_constants and identities look at."""
    net = gc.Net("numbers", dtype="float32")
    x = net.input("x", (gc.N, 3))
    one = net.constant(1.0) * gc.exp(net.constant(0.0))
    wide = x[:, :1] * net.constant([1.0, 1.0, 1.0])
    h = gc.transpose(gc.transpose(gc.reshape(x * one, (gc.N, 3, 1)), (1, 2, 0)), (1, 2, 0))
    net.output("y", gc.sum(h, (0, 2)) + 0.0)
    net.output("wide", wide)
    net.output("less", x - net.constant(-0.0))
    net.output("neg", gc.neg(gc.neg(x)) - 0.5)
    left, right = x[:, :1], x[:, 1:2]
    net.output("same", gc.tanh(left - right) * 2 + gc.tanh(right - left))
    return net


def images() -> gc.Net:
    """Between two convolutions what images may pass without a transpose, and what may not."""
    net = gc.Net("images", dtype="float64")
    x = net.input("x", (gc.N, 3, 3, 3))
    h = gc.conv2d(x, 3, (2, 2), padding=1, name="first")
    h = gc.relu(h[:, :, :3, 1:]) * net.parameter("lines", (3, 3, 1), init="ones")
    turned = gc.transpose(gc.tanh(h), (0, 3, 2, 1))  # as large as one that is transposed back
    h = gc.concat([h, turned], axis=2)
    h = gc.pad(gc.conv2d(h, 3, (2, 1), name="second"), (0, 0, 1, 1), 0.5)
    net.output("h", h)
    net.loss("loss", gc.mean(h**2))
    return net


def frozen() -> gc.Graph:
    """Two affine maps with batchnorm, for inference with constant weights."""
    net = gc.Net("frozen", dtype="float64")
    h = gc.batchnorm(gc.affine(net.input("x", (gc.N, 5)), 4), name="one")
    inner = gc.affine(gc.relu(h), 3, name="inner")
    net.output("out", gc.batchnorm(inner, name="two"))
    net.output("inner", inner)
    graph = net.graph()
    state = random_state(graph)
    changed: dict[str, gc.Node | None] = {}
    for node in graph:
        if isinstance(node.op, (Parameter, State)):
            op = replace(constant_op(state[node.name]), label=node.name)
            changed[node.name] = gc.Node(node.name, op, (), node.type, node.locs)
    return graph.replace(changed)


class Fault(NamedTuple):
    """A planted fault, and what catches it."""

    what: str
    net: Callable[[], gc.Net | gc.Graph]
    where: str
    old: str
    new: str
    caught: str
    """`verify`, or the pass that validation refuses and the result that it names."""
    optimizer: gc.optim.Optimizer | None = None


def plant(fault: Fault, patch: pytest.MonkeyPatch) -> PassList:
    """Put the faulty function in its place; the passes to compile with."""
    owner, method = place(fault)
    right = inspect.getattr_static(owner, method)
    made = edited(right, fault.old, fault.new)
    patch.setattr(owner, method, made)
    for user in importers(method, right) if isinstance(owner, ModuleType) else []:
        patch.setattr(user, method, made)
    if not isinstance(right, FunctionPass):
        return gc.passes.DEFAULT
    entries = tuple(made if entry is right else entry for entry in gc.passes.DEFAULT)
    return PassList(entries, gc.passes.DEFAULT.required)


def place(fault: Fault) -> tuple[Any, str]:
    """Return the owner, a module or class, and the name of the function that the fault changes."""
    path, _, name = fault.where.partition(":")
    module = importlib.import_module(path)
    owner_name, _, method = name.rpartition(".")
    return getattr(module, owner_name) if owner_name else module, method


def importers(name: str, function: Any) -> list[ModuleType]:
    """The modules of graphc and of passes that have imported the function by its name."""
    modules = [m for key, m in sys.modules.items() if key.startswith(("graphc.", "passes."))]
    return [module for module in modules if vars(module).get(name) is function]


def source(function: Any) -> str:
    """The text that a fault changes: of a function, of a pass, or the formulas of a gradient."""
    if isinstance(function, tuple):
        return "; ".join(function)
    run = function.run if isinstance(function, FunctionPass) else function
    return textwrap.dedent(inspect.getsource(run))


def edited(function: Any, old: str, new: str) -> Any:
    """The function with other source."""
    text = source(function)
    assert old in text, f"{old!r} is not in {function}"
    if isinstance(function, tuple):
        return tuple(text.replace(old, new).split("; "))
    run = function.run if isinstance(function, FunctionPass) else function
    names: dict[str, Any] = {}
    code = compile(text.replace(old, new), f"<faulty {run.__name__}>", "exec")
    exec(code, vars(sys.modules[run.__module__]), names)
    return names[run.__name__]
