"""Every function and op of graphc is compared with PyTorch, or listed with what else holds it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import graphc as gc
from graphc.ir.op import Layer
from graphc.ops import OPS
from passes.specialize import Specialize
from tests.ops.opinfo.lists import reasons
from tests.ops.opinfo.ours import declared
from tests.ops.opinfo.stored import STORED

ALONE = reasons("ours_alone.txt").keys()
SIGNATURES = Path(__file__).parent / "signatures"


def public_functions() -> set[str]:
    found = {name: getattr(gc, name) for name in gc.__all__}
    return {
        name
        for name, value in found.items()
        if inspect.isfunction(value) and value.__module__.startswith("graphc.ops.")
    }


def named(source: str) -> Iterator[str]:
    """What a translation takes from gc, and the texts that may name it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "gc":
            yield node.attr
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_function_is_called_by_a_translation() -> None:
    sources = [path.read_text(encoding="utf-8") for path in SIGNATURES.glob("*.py")]
    called = {name for source in sources for name in named(source)}
    assert public_functions() - called - {"grad"} == public_functions() & ALONE


@pytest.mark.slow
def test_every_op_is_in_a_stored_call_or_in_its_derivatives() -> None:
    seen = set()
    for stored in STORED.values():
        graph = declared(stored.ours, stored.call).graph()
        for node in [*graph, *Specialize(train=True)(graph)]:
            prefix = "layer " if isinstance(node.op, Layer) else ""
            seen.add(f"{prefix}{node.op.name}")
    # The function scan is compared by itself; its op is that of recurrent layers, too.
    assert OPS.keys() - seen == OPS.keys() & ALONE - {"scan"}


def test_what_is_listed_is_there() -> None:
    assert OPS.keys() | public_functions() >= ALONE
