"""Mistakes with the exact text that they are told in.

A mistake is a function with marked lines: `# here` is the line at fault, `# x` the line that
declares x.  In the expected text `{here}` and `{x}` stand for these lines as errors show them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

import graphc as gc

Call = Callable[..., object]


@dataclass(frozen=True)
class Mistake:
    """What a person does, and what they are told."""

    call: Call
    text: str

    def expected(self, **more: str) -> str:
        """The text with its lines filled in."""
        places = marked(self.call, CALLED_INLINE)
        this = places.pop("here")
        return self.text.format(here=at(self.call, "here", CALLED), this=this, **places, **more)


def collector() -> tuple[list[Mistake], Callable[[str], Callable[[Call], Call]]]:
    """A list of mistakes, and the decorator that adds to it."""
    found: list[Mistake] = []

    def mistake(text: str) -> Callable[[Call], Call]:
        def add(call: Call) -> Call:
            found.append(Mistake(call, dedent(text).strip("\n")))
            return call

        return add

    return found, mistake


def name_of(mistake: Mistake) -> str:
    """The function's name, for the names of tests."""
    return str(mistake.call.__name__)


def refused(mistake: Mistake, *args: Any, **more: str) -> None:
    """The mistake is told in exactly its text, in fewer than 15 lines."""
    with pytest.raises(gc.GraphError) as caught:
        mistake.call(*args)  # called
    assert str(caught.value) == mistake.expected(**more)
    assert len(str(caught.value).splitlines()) < 15


def first_line(error: gc.GraphError, file: str) -> str:
    """The sentence of an error, which is told of a line in the user's file."""
    assert error.loc is not None
    assert error.loc.file == file
    return str(error).splitlines()[0]


# ---------------------------------------------------------------- lines as errors show them


def lines_of(function: Call) -> list[tuple[int, str]]:
    """The numbered source lines of a function."""
    source, first = inspect.getsourcelines(function)
    return [(first + i, line.strip()) for i, line in enumerate(source)]


def line_of(function: Call, mark: str) -> tuple[int, str]:
    """The number and the text of the last line that ends with a mark."""
    return [found for found in lines_of(function) if found[1].endswith(f"  # {mark}")][-1]


def place(function: Call, line: int) -> str:
    """A line of a function, as `file:line in function`."""
    file = inspect.getfile(function).rpartition("/")[2]
    return f"{file}:{line} in {function.__name__}"


def at(function: Call, mark: str, called: str = "") -> str:
    """The `at` and `called at` lines of an error, as far as they follow `  at `."""
    number, text = line_of(function, mark)
    return f"{place(function, number)}: {text}{called}"


def marked(function: Call, suffix: str) -> dict[str, str]:
    """Each mark of a function and where its line is."""
    marks = ((number, re.search(r"  # (\w+)$", text)) for number, text in lines_of(function))
    return {m[1]: place(function, number) + suffix for number, m in marks if m is not None}


CALLED = f"\n  called at {at(refused, 'called')}"
CALLED_INLINE = f", called at {place(refused, line_of(refused, 'called')[0])}"


# ---------------------------------------------------------------- an executor to make them with


def digits() -> gc.Net:
    """A small classifier with batchnorm and dropout, whose lines are marked."""
    net = gc.Net("digits")
    x = net.input("x", (gc.N, 64))  # x
    y = net.input("y", (gc.N,), dtype="int64")  # y
    h = gc.affine(x, 8, name="hidden")  # hidden
    h = gc.dropout(gc.relu(gc.batchnorm(h)), keep_prob=0.8)
    scores = gc.affine(h, 10, name="scores")  # scores
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def trainer() -> gc.Executor:
    """An executor of it, for batches up to 32, a few steps old."""
    net = digits()  # net
    ex = gc.Executor(gc.compile(net, batch=32, optimizer=gc.SGD(lr=0.1, momentum=0.9)))
    rng = np.random.default_rng(0)
    for _ in range(2):
        ex.step(x=rng.standard_normal((4, 64)), y=rng.integers(0, 10, 4))
    return ex


DECLARED = marked(digits, f", called at {place(trainer, line_of(trainer, 'net')[0])}")
"""Where the inputs and layers of `trainer` are declared."""


def state_of(ex: gc.Executor) -> dict[str, bytes]:
    """All bytes of an executor's state."""
    return {name: ex.state[name].tobytes() for name in ex.state}
