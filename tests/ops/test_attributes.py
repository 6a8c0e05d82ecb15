"""Examples give every attribute of every op more than one value, so that no rule may ignore it."""

from __future__ import annotations

from graphc.ops import OPS
from tests.ops.examples import BETWEEN_SHARDS, EXAMPLES, values_of

OF_PRECISION = "order"
"""How factors of bfloat16 are paired: tests of the pass `set_precision`, which sets it, compare."""


def test_each_attribute_has_two_values_in_the_examples() -> None:
    values = values_of(EXAMPLES)
    assert {type(example.op) for example in EXAMPLES} - {*BETWEEN_SHARDS} <= {*OPS.values()}
    single = [
        f"{kind.__name__}.{name} is {found[0]!r} in each of tests/ops/examples.py"
        for (kind, name), found in values.items()
        if len(found) < 2 and kind not in BETWEEN_SHARDS and name != OF_PRECISION
    ]
    assert not single
