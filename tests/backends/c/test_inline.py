"""Lines of C as a person would write them: the same operations, in fewer lines."""

from __future__ import annotations

import random
import re

import pytest

from graphc.backends.c.inline import WIDTH, inlined, wrapped
from tests.together import together


def test_a_value_that_is_used_once_is_written_where_it_is_used() -> None:
    lines = ["const float v1 = a[0];", "const float v2 = v1 + b[0];", "c[0] = v2 * v2;"]
    assert inlined(lines) == ["const float v2 = a[0] + b[0];", "c[0] = v2 * v2;"]


def test_a_value_is_read_before_what_overwrites_it() -> None:
    lines = ["const float v1 = a[0];", "a[0] = 1.0f;", "b[0] = v1;"]
    assert inlined(lines) == lines


def test_a_value_stays_outside_a_loop() -> None:
    lines = ["const float v1 = gc_exp(x);", "for (i = 0; i < 3; ++i) {", "    y[i] = v1;", "}"]
    assert inlined(lines) == lines


@pytest.mark.parametrize("operation", ["-", "!=", "=="])
def test_operations_keep_their_order(operation: str) -> None:
    lines = ["const float v1 = x - y;", f"const bool v2 = z {operation} v1;", "return f(v2);"]
    assert inlined(lines) == [f"return f(z {operation} (x - y));"]


def test_indices_lose_what_changes_nothing() -> None:
    lines = ["y = x[(i / 1) * 1 + 0] * 1.0f + 0.5f - 0 * k + 10 / 1;"]
    assert inlined(lines) == ["y = x[(i)] * 1.0f + 0.5f - 0 * k + 10;"]


@together("seed", range(50))
def test_random_lines_compute_the_same(seed: int) -> None:
    draw = random.Random(seed)
    lines: list[str] = []
    operands = ["a[0]", "a[1]", "2.5", "1 / 3"]
    for number in range(30):
        x, y = draw.choices(operands, k=2)
        if draw.random() < 0.3:
            lines.append(f"a[{draw.randrange(2)}] = {x};")
        else:
            lines.append(f"const float v{number} = {x} {draw.choice('+-*')} {y};")
            operands.append(f"v{number}")
    found = inlined(lines)
    assert len(found) <= len(lines)
    assert computed(found) == computed(lines)


def computed(lines: list[str]) -> list[float]:
    """What the lines leave in an array, by Python's own arithmetic."""
    names: dict[str, list[float]] = {"a": [1.1, -0.7]}
    exec("\n".join(re.sub(r"const \w+ ", "", line).rstrip(";") for line in lines), names)
    return names["a"]


def test_long_lines_are_broken_between_words() -> None:
    head = f"static void f({', '.join(f'const float *argument_{i}' for i in range(20))})"
    text = f"{head}\n#define LONG {'x' * 200}\n    y = {' + '.join(['value[i + j]'] * 20)};"
    broken = wrapped(text)
    kept = [line for line in broken.splitlines() if not line.startswith("#")]
    assert max(map(len, kept)) <= WIDTH
    assert broken.split() == text.split()
    assert not [line for line in kept if line.endswith(("const", "*", "value[i"))]
