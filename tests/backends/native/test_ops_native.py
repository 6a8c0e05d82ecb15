"""Every op's scalar rule, as generated code, means what its reference says."""

from __future__ import annotations

import numpy as np
import pytest

from tests.backends.native.loop_function import LoopFunction
from tests.ops.example import Example
from tests.ops.loops import operands_of, own_loop, resized
from tests.ops.test_contract import by_op, close
from tests.ops.test_scalar_rules import FUSED

SIZES = {3: 17, 7: 37, 70: 16}
ROWS = (1, 19)
GROUPS = by_op(FUSED)


def chosen(examples: list[Example]) -> list[Example]:
    """The last two of each dtype: those of more dimensions, since compiling is slow."""
    half = len(examples) // 2
    return [*examples[max(half - 2, 0) : half], *examples[-2:]]


@pytest.mark.one_in(20)
@pytest.mark.parametrize("examples", GROUPS.values(), ids=GROUPS)
def test_generated_code_equals_reference(examples: list[Example]) -> None:
    for example in (resized(e, SIZES) for e in chosen(examples)):
        function = LoopFunction(own_loop(example.op, example.types)[0])
        for n in ROWS:
            arrays = operands_of(example, n)
            read = {name: arrays[name] for name in function.buffers}
            found = function(read, n)["out"]
            wanted = example.concrete(n).reference(example.operands(n))
            assert found.dtype == wanted.dtype
            assert close(found, np.asarray(wanted)), f"{example} of {n}: {found} is not {wanted}"
