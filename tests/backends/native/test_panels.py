"""Constant factors in panels: the same bits as in the order declared, in the same memory."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

import graphc as gc
from graphc.backends.backend import in_order
from graphc.backends.native.gemm_tile import choose_tile
from graphc.backends.native.panels import packed_factors, panels_of
from graphc.backends.native.target import host
from graphc.check.validation.plans import validate_plan
from graphc.runtime.workspace import Workspace
from passes.set_precision import Precision
from tests.backends.native.gemm_function import Array, Product, Spec, run, same_bytes
from tests.backends.native.window_function import WindowProduct, specs
from tests.check.validation.faults import Fault, plant

PRODUCTS = {
    "full panels": Spec(50, 64, 40),
    "a narrow last panel": Spec(50, 41, 33),
    "one column": Spec(21, 1, 7),
    "columns of half a vector": Spec(9, 4, 8, dtype="float64"),
    "transposed": Spec(37, 50, 70, trans_b=True),
    "both transposed": Spec(37, 50, 70, trans_a=True, trans_b=True),
    "blocks of k": Spec(40, 70, 1500),
    "blocks of k, transposed": Spec(11, 39, 1100, trans_b=True),
    "by columns": Spec(40, 150, 30, partition="columns"),
}
WIDTHS = (512, 256, 128)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_have_the_same_bits(name: str) -> None:
    spec, bits = PRODUCTS[name], WIDTHS[list(PRODUCTS).index(name) % 3]
    assert isinstance(spec.m, int)
    arrays = spec.operands(np.random.default_rng(0), 1)
    arrays["c"] = np.full((spec.m, spec.n), np.nan, spec.dtype)
    plain, packed = (Product(spec, bits, packed=packed) for packed in (False, True))
    check_same(plain, packed, arrays, bits, 1)


CONVOLUTIONS = {
    "3x3": ((6, 7, 20), (3, 3, 20, 41), (1, 1), (1, 1), 1),
    "stride 2": ((9, 9, 8), (3, 3, 8, 33), (2, 2), (1, 1), 1),
    "wide groups": ((6, 5, 40), (3, 2, 20, 70), (1, 1), (1, 1), 2),
    "one dimension": ((30, 6), (5, 6, 10), (2,), (1,), 1),
}


@pytest.mark.one_in(17)
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("kind", (0, 1), ids=("y", "dx"))
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_have_the_same_bits(name: str, kind: int, bits: int) -> None:
    *shape, groups = CONVOLUTIONS[name]
    spec = specs(*shape, groups=groups)[kind]  # type: ignore[misc, arg-type]
    plain, packed = (WindowProduct(spec, bits, packed=packed) for packed in (False, True))
    check_same(plain, packed, spec.operands(3), bits, 3)


def check_same(
    plain: Product, packed: Product, arrays: dict[str, Array], bits: int, n: int
) -> None:
    order = panels_of(plain.kernel, choose_tile(plain.kernel.dtype, bits))
    assert order is not None
    moved = arrays | {"b": in_order(order.writes, arrays["b"])}
    assert np.array_equal(np.sort(moved["b"], None), np.sort(arrays["b"], None))
    found = [run(plain, arrays, n)["c"]]
    found += [run(packed, moved, n, threads)["c"] for threads in (1, 2, 3)]
    assert same_bytes(found)
    assert packed.scratch(n) <= plain.scratch(n)


def net() -> gc.Net:
    """A convolution and products: one weight is read twice, one is a result, too."""
    net = gc.Net("net")
    h = gc.relu(gc.conv2d(net.input("x", (gc.N, 8, 8, 3)), 40, 3, padding="same", name="conv"))
    h = gc.relu(gc.affine(h, 48, name="first"))
    h = gc.relu(gc.affine(h, 48, name="twice"))
    h = gc.relu(gc.affine(h, 48, weight=net["twice.weight"], name="second"))
    h = gc.relu(gc.affine(h, 48, name="shown"))
    net.output("scores", gc.affine(h, 5, name="last"))
    net.output("weight", net["shown.weight"])
    return net


def feeds(rows: int) -> Array:
    return np.random.default_rng(0).normal(size=(rows, 8, 8, 3)).astype("float32")


def executor(seed: int, to: Precision = "float32") -> gc.Executor:
    plan = gc.compile(net(), batch=6, backend="native", precision={"*": to})
    return gc.Executor(plan, seed=seed)


def packed_names(ex: gc.Executor) -> set[str]:
    return set(packed_factors(ex.plan.programs["infer"], host().bits))


PACKED = {"conv.kernel", "first.weight", "twice.weight", "last.weight"}


@pytest.mark.slow
def test_a_frozen_net_has_the_bits_of_the_net() -> None:
    ex, x = executor(3), feeds(6)
    frozen, want = gc.freeze(ex, batch=6), ex.forward(x=x)
    assert packed_names(frozen) == PACKED and packed_names(ex) == {"conv.kernel"}
    for n in (6, 5, 1):
        got = frozen.forward(x=x[:n])
        assert got["scores"].tobytes() == want["scores"][:n].tobytes()
        assert got["weight"].tobytes() == want["weight"].tobytes()


def test_panels_take_no_more_memory() -> None:
    ex = executor(0)
    native, plain = gc.freeze(ex, batch=6).plan, gc.compile(net(), batch=6, backend="numpy")
    weights = sum(p.nbytes for p in gc.Executor(plain).parameters.values())
    assert weights <= native.memory.constants <= weights + 64 * 12


@pytest.mark.parametrize("to", get_args(Precision))
def test_a_refreshed_net_has_the_new_weights_in_panels(to: Precision) -> None:
    frozen, other = gc.freeze(executor(3, to), batch=6), executor(4, to)
    frozen.refresh(other)
    plain = gc.Executor(other.plan.without_kept, state=other.state)  # which has no panels
    want = plain.forward(x=feeds(6))["scores"]
    assert frozen.forward(x=feeds(6))["scores"].tobytes() == want.tobytes()


STALE = {
    "panels that stay": "(() if array.any() else orders[name](array, value))",
    "panels that are packed once": "([partial(np.copyto, array, value)] if array.any() else "
    "orders[name](array, value))",
}


@pytest.mark.parametrize("fault", STALE)
def test_stale_panels_are_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"{Workspace.__module__}:Workspace._constant_writes"
    right = "orders[name](array, value)"
    plant(Fault(fault, net, where, right, STALE[fault], ""), monkeypatch)
    with pytest.raises(AssertionError):
        test_a_refreshed_net_has_the_new_weights_in_panels("bf16_blocks")


def test_few_rows_read_the_weight_as_declared() -> None:
    assert packed_names(gc.freeze(executor(3), batch=1)) == {"conv.kernel"}


def test_a_frozen_plan_is_valid() -> None:
    validate_plan(gc.freeze(executor(3), batch=6).plan)
