"""Certificates of small nets as plain data, to plant faults in."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

import graphc as gc
from graphc.base import usable_cores
from graphc.check.certificate.export import certify
from graphc.check.certificate.text import certificate_data, certificate_of
from graphc.check.verify import Report, verify
from graphc.ir.tensor_type import TensorType
from graphc.ops.source import state

Data = dict[str, Any]

BATCH = 64


def declare() -> gc.Net:
    """Batchnorm, a join of two values, and a loss: every kind of kernel has a place in it.

    The next value of the state `seen` is another's bytes, so it is copied when all is done.
    """
    net = gc.Net("net")
    x = net.input("x", (gc.N, 16))
    y = net.input("y", (gc.N,), dtype="int64")
    h = gc.relu(gc.batchnorm(gc.affine(x, 24, name="first"), name="norm"), name="active")
    both = gc.concat([h, gc.tanh(h, name="bent")], axis=1, name="both")
    scores = gc.affine(both, 8, name="scores")
    seen = state(net.builder, "seen", TensorType((24,), "float32"))
    net.builder.update(seen, gc.reshape(gc.mean(h, 0, keepdims=True), (24,), name="seen.next"))
    net.output("scores", scores)
    net.output("mean", net["norm.running_mean"])
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def called() -> gc.Net:
    """Calls of ops that have no kernel: of one that may write over its operand, and of others."""
    net = gc.Net("called")
    h = gc.tanh(gc.affine(net.input("x", (gc.N, 16)), 16, name="first"), name="bent")
    wave = gc.sin(gc.cumsum(h, axis=1, name="summed"), name="wave")
    net.loss("loss", gc.mean(h * wave))
    return net


@cache
def _data(net: Callable[[], gc.Net], backend: str) -> Data:
    optimizer = gc.SGD(lr=0.1, momentum=0.9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(usable_cores, "cores", lambda: 2)  # whatever this machine has
        plan = gc.compile(net(), batch=BATCH, optimizer=optimizer, backend=backend, threads=2)
        return certificate_data(certify(plan.without_kept))


class Claims:
    """What a plan says of itself, to be changed."""

    def __init__(
        self, backend: str, program: str = "step", net: Callable[[], gc.Net] = declare
    ) -> None:
        self.data = copy.deepcopy(_data(net, backend))
        self.program: Data = next(p for p in self.data["programs"] if p["name"] == program)
        self.steps: list[Data] = self.program["steps"]

    def buffer(self, name: str) -> Data:
        """The line of a buffer."""
        return next(line for line in self.program["buffers"] if line["name"] == name)

    def writer(self, name: str) -> Data:
        """The step that writes a buffer."""
        return self.steps[self.position(name)]

    def position(self, name: str) -> int:
        """The number of the step that writes a buffer."""
        return next(i for i, s in enumerate(self.steps) if name in _names(s, "writes"))

    def insert(self, i: int, step: Data) -> None:
        """One more step, in the pass of the step before it."""
        self.steps.insert(i, step)
        self.program["boundary"] += i <= self.program["boundary"]

    def remove(self, i: int) -> Data:
        """Take a step out."""
        self.program["boundary"] -= i < self.program["boundary"]
        return self.steps.pop(i)

    def access(self, step: Data, name: str) -> Data:
        """How a step touches a buffer."""
        touched = [*step.get("reads", []), *step.get("writes", [])]
        return next(item for item in touched if item["buffer"] == name)

    def slot(self, name: str) -> Data:
        """The slot of a buffer."""
        key = self.buffer(name)["slot"]
        return next(line for line in self.program["slots"] if line["name"] == key)

    def move(self, name: str, offset: int) -> None:
        """Let a buffer, its slot and all that lies there begin at another byte of the arena."""
        slot = self.slot(name)
        for line in self.program["buffers"]:
            if line.get("slot") == slot["name"]:
                line["at"][2] += offset - slot["offset"]
        slot["offset"] = offset

    def report(self) -> Report:
        """The verification of what is claimed now."""
        return verify(certificate_of(self.data))


def _names(step: Data, word: str) -> list[str]:
    return [item["buffer"] for item in step.get(word, [])]
