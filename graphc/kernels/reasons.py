"""The reasons why a node is not part of a fused kernel."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.op import Op
from graphc.ir.tensor_type import TensorType


def reason_for_call(op: Op, ins: Sequence[TensorType]) -> str:
    """Return, in a few words, why an op is called: what it lacks, or its operands' types."""
    types = ", ".join(map(str, ins))
    if type(op).product is not Op.product:
        if any(type.rank != 2 for type in ins[:2]):
            return f"only products of matrices are generated, not of {types}"
    elif type(op).along is Op.along:
        return "it has no scalar rule"
    return f"no generated form for {types}"
