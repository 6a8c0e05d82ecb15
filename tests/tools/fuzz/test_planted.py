"""Faults that are planted are found, made small, and written as a test that fails with them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import graphc.compiler.program
import graphc.compiler.schedule
from graphc.backends.numpy import access, kernels, products
from graphc.backends.numpy.functions import FUNCTIONS as _FUNCTIONS
from graphc.backends.numpy.functions import Function
from graphc.ir.build import Value
from graphc.kernels.program import LiveRange, Storage
from graphc.ops.functions import Tanh
from graphc.ops.linalg import MatMul
from graphc.ops.source import Constant
from graphc.runtime.distributed.step import Shards
from passes.cse import cse
from tests.tools.fuzz.campaign import collected_rarely
from tests.tools.fuzz.check import Verdict, judge
from tests.tools.fuzz.draw import Wishes, draw
from tests.tools.fuzz.shrink import shrink
from tests.tools.fuzz.write import write

FUNCTIONS = cast("dict[str, Function]", _FUNCTIONS)
CASES = 150
WISHES = Wishes(native=0.0, interpreted=0.0)

Plant = Callable[[pytest.MonkeyPatch], None]


def forgotten_mask(patch: pytest.MonkeyPatch) -> None:
    """What stands where a condition holds, else 0, as in the gradient of relu, everywhere."""

    def rule(out: Any, condition: Any, a: Any) -> Sequence[Any]:
        return (partial(np.copyto, out, a),)

    patch.setitem(FUNCTIONS, "select_or_zero", replace(FUNCTIONS["select_or_zero"], rule=rule))


def small_error(patch: pytest.MonkeyPatch) -> None:
    """A hundred roundings more in tanh."""
    whole = FUNCTIONS["tanh"]

    def rule(out: Any, x: Any) -> Sequence[Any]:
        factor = np.asarray(1 + 100 * np.finfo(out.dtype).eps, out.dtype)
        return (*whole.rule(out, x), partial(np.multiply, out, factor, out))

    patch.setitem(FUNCTIONS, "tanh", replace(whole, rule=rule))


def a_pixel_late(patch: pytest.MonkeyPatch) -> None:
    """What a window meets in a padded image lies a pixel further."""
    whole = products._spread

    def spread(window: Any, images: Any, held: Any) -> Any:
        return whole(window, np.roll(images, 1, axis=-2), held)

    patch.setattr(products, "_spread", spread)


def no_fill(patch: pytest.MonkeyPatch) -> None:
    """Gathered elements outside of the buffer are 0, whatever the fill value."""
    whole = access.fetch

    def fetch(step: Any, *args: Any) -> Any:
        return whole(step._replace(value=replace(step.value, fill=0.0)), *args)

    patch.setattr(access, "fetch", fetch)


def merged_too_much(patch: pytest.MonkeyPatch) -> None:
    """Products are the same whatever is transposed, to cse."""
    monkey = MatMul.__eq__, MatMul.__hash__
    assert monkey[0] is not object.__eq__
    whole = cse.run

    def run(graph: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(MatMul, "__eq__", lambda a, b: isinstance(b, MatMul))
            inner.setattr(MatMul, "__hash__", lambda a: 1)
            inner.setattr(MatMul, "__repr__", lambda a: "matmul")
            return whole(graph)

    _set_frozen(patch, cse, "run", run)


def factors_dropped(patch: pytest.MonkeyPatch) -> None:
    """Every positive constant is 1, to fold_constants."""

    def is_all(node: Any, number: int) -> bool:
        return isinstance(node.op, Constant) and number == 1 and bool((node.op.array() > 0).all())

    patch.setattr(importlib.import_module("passes.fold_constants"), "_is_all", is_all)


def fused_though_read(patch: pytest.MonkeyPatch) -> None:
    """An affine map is fused with a relu, whoever else reads it."""
    module = importlib.import_module("passes.fuse_affine_relu")
    patch.setattr(module.Graph, "feeds_only", lambda graph, name, user: True)


def wrong_rule(patch: pytest.MonkeyPatch) -> None:
    """A gradient rule that is wrong for every backend alike."""

    def grad(self: Tanh, b: Any, ins: Sequence[Value], out: Value, dout: Value) -> Any:
        return (dout * (1.0 - out),)

    patch.setattr(Tanh, "grad", grad)


def written_too_early(patch: pytest.MonkeyPatch) -> None:
    """Updates do not wait for those that read the old value."""

    patch.setattr(graphc.compiler.schedule, "_waits", lambda in_place, readers: {})


def dead_too_early(patch: pytest.MonkeyPatch) -> None:
    """Values give their memory away before they have been read for the last time."""

    def range_at(self: Storage, n: int) -> LiveRange:
        size = sum(t.nbytes(n) for t in self.parts)
        return LiveRange(self.key, size, self.first, max(self.first, self.last - 2))

    patch.setattr(Storage, "range_at", range_at)


def counted_again(patch: pytest.MonkeyPatch) -> None:
    """A loss that is a sum counts on shards without rows, too."""
    whole = Shards._number

    def number(self: Shards, name: str, *args: Any) -> float:
        return 1.0 if ".share.sum." in name else whole(self, name, *args)

    patch.setattr(Shards, "_number", number)


def masks_of_first_rows(patch: pytest.MonkeyPatch) -> None:
    """Every shard has the masks of the first one."""
    patch.setattr(importlib.import_module("passes.shard"), "_keyed", lambda b, node: node)


def statistics_of_a_shard(patch: pytest.MonkeyPatch) -> None:
    """What shards have to share they find on their own."""
    patch.setattr(importlib.import_module("passes.shard"), "STATISTICS", ())
    patch.setattr(importlib.import_module("passes.shard"), "_normalised", lambda node: node)


def masks_of_the_next_draw(patch: pytest.MonkeyPatch) -> None:
    """What is computed again reads the counter as it is by then."""
    patch.setattr(graphc.compiler.program, "keep_old_states", lambda graph: graph)


def _set_frozen(patch: pytest.MonkeyPatch, target: object, name: str, value: object) -> None:
    """As `patch.setattr`, on a frozen dataclass."""
    patch.setitem(vars(target), name, value)


FAULTS: dict[Plant, int] = {
    forgotten_mask: 6,
    small_error: 4,
    a_pixel_late: 8,
    no_fill: 8,
    merged_too_much: 12,
    factors_dropped: 12,
    fused_though_read: 12,
    wrong_rule: 6,
    written_too_early: 8,
    dead_too_early: 12,
    counted_again: 8,
    masks_of_first_rows: 8,
    statistics_of_a_shard: 10,
    masks_of_the_next_draw: 10,
}
"""And the most nodes that a case may have once it is small, inputs and weights included."""
ALWAYS = (forgotten_mask, small_error, wrong_rule)
CUT = Wishes(native=0.0, interpreted=0.0, cut=1.0)
CHOSEN: dict[Plant, Wishes] = {
    counted_again: CUT,
    masks_of_first_rows: CUT,
    statistics_of_a_shard: CUT,
    masks_of_the_next_draw: Wishes(native=0.0, interpreted=0.0, again=0.5, cut=0.0),
}
"""What cases are about, where it is not all kinds of things."""


@contextmanager
def planted(fault: Plant) -> Iterator[None]:
    """With the fault, and with plans of kernels that are made with it or without it alone."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            kernels.known_plan.cache_clear()
            fault(patch)
            yield
    finally:
        kernels.known_plan.cache_clear()


def failures(wishes: Wishes) -> Iterator[Verdict]:
    """The first three, since not every net has something small in it to be left."""
    failed = (v for v in (judge(draw(seed, wishes)) for seed in range(CASES)) if v.failed)
    found = next(failed, None)
    assert found is not None, f"not found in {CASES} cases"
    yield found
    yield from islice(failed, 2)


def written_test(path: Path) -> Callable[[], None]:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[], None] = getattr(module, path.stem)
    return found


def first_small(shrunk: Iterator[Verdict], most: int) -> Verdict:
    """The first case of so few nodes, or the last."""
    for small in shrunk:
        if len(small.case.graph) <= most:
            break
    return small


@pytest.mark.one_in(4)
@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [pytest.param(f, marks=() if f in ALWAYS else pytest.mark.slow, id=f.__name__) for f in FAULTS],
)
def test_a_planted_fault_becomes_a_small_test(fault: Plant, tmp_path: Path) -> None:
    with collected_rarely(), planted(fault):
        tried = (shrink(failing, judge) for failing in failures(CHOSEN.get(fault, WISHES)))
        small = first_small(tried, FAULTS[fault])
        path = write(small, tmp_path)
        test = written_test(path)
        with pytest.raises(AssertionError):
            test()
    assert len(small.case.events) == 1
    assert len(small.case.graph) <= FAULTS[fault], path.read_text()
    test()  # without the fault it is right
