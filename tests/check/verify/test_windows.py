"""Windows over images, and gathered elements, in certificates: faults are found, and threads
write what the verifier says."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.check.certificate import Pattern
from graphc.check.certificate.export import certify
from graphc.check.certificate.text import certificate_data, certificate_of
from graphc.check.verify import Report, verify
from graphc.check.verify.threads import ALL
from tests.backends.native.window_function import WindowProduct, specs
from tests.check.verify.test_threads import claims, owners

Data = dict[str, Any]


@cache
def _data() -> Data:
    net = gc.Net("images")
    x, y = net.input("x", (gc.N, 3, 8, 8)), net.input("y", (gc.N,), dtype="int64")
    h = gc.relu(gc.conv2d(x, 4, 3, padding=1, name="first"))
    h = gc.max_pool(gc.relu(gc.conv2d(h, 8, 3, name="second"), name="active"), 2, name="pool")
    net.loss("loss", gc.softmax_loss(gc.affine(h, 3), y))
    optimizer = gc.SGD(lr=0.1)
    return certificate_data(certify(gc.compile(net, batch=16, optimizer=optimizer, threads=2)))


def step_of(data: Data) -> Data:
    return next(p for p in data["programs"] if p["name"] == "step")


def windows(program: Data) -> list[tuple[int, Data, Data]]:
    """Steps that read through a window: their number, they, and the access."""
    return [
        (i, step, item)
        for i, step in enumerate(program["steps"])
        for item in step.get("reads", ())
        if item.get("by") == "window"
    ]


def report(data: Data) -> Report:
    return verify(certificate_of(data))


def test_all_is_proved() -> None:
    data = copy.deepcopy(_data())
    kinds = {step["step"] for _, step, _ in windows(step_of(data))}
    assert report(data).ok and kinds == {"loop", "gemm"}


def test_a_barrier_before_a_window_is_missed() -> None:
    """Whatever thread makes the images, all read them."""
    program = step_of(_data())
    written = {item["buffer"] for step in program["steps"] for item in step.get("writes", ())}
    missed = 0
    for i, step, item in windows(program):
        before = program["steps"][i - 1]
        if before["step"] != "barrier" or item["buffer"] not in written:
            continue
        data = copy.deepcopy(_data())
        changed = step_of(data)
        del changed["steps"][i - 1]
        changed["boundary"] -= i - 1 < changed["boundary"]
        found = report(data).counterexample
        assert found is not None and step["node"] in str(found), found
        missed += 1
    assert missed > 3


def test_a_window_ends_within_its_images() -> None:
    for number, (_, step, item) in enumerate(windows(step_of(_data()))):
        data = copy.deepcopy(_data())
        changed = windows(step_of(data))[number][2]
        fixed, _, per_row = changed["reach"].rpartition("+")
        changed["reach"] = f"{int(fixed or 0) + 10_000}+{per_row}" if "N" in per_row else "10000"
        found = report(data).counterexample
        assert found is not None and found.rule.startswith("a kernel touches a whole buffer")
        assert step["node"] in str(found) and item["buffer"] in str(found)


def test_nothing_is_updated_in_place_under_a_window() -> None:
    """Other threads, or later rows, still read what would be overwritten."""
    data = copy.deepcopy(_data())
    program = step_of(data)
    _, step, item = next(w for w in windows(program) if w[1]["step"] == "gemm" and w[0] > 2)
    places = {line["name"]: line for line in program["buffers"]}
    target, source = places[step["writes"][0]["buffer"]], places[item["buffer"]]
    target["at"], target["slot"] = list(source["at"]), source["slot"]
    item["in_place"] = 1
    assert not report(data).ok


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", range(3), ids=("y", "dx", "dw"))
@pytest.mark.parametrize("partition", ["rows", "columns"])
def test_threads_write_what_is_said(kind: int, partition: Any) -> None:
    """Each by itself, with all other rows and columns left alone."""
    spec = specs((7, 7, 4), (3, 3, 4, 40), (1, 1), (1, 1), partition=partition)[kind]
    n, arrays = 3, spec.operands(3)
    product = WindowProduct(spec)
    _, threads = claims(spec.kernel(), arrays, n)
    uses = threads.f.accesses
    (seen,) = np.flatnonzero(uses.pattern == Pattern.WINDOW)
    (made,) = threads.f.writes
    assert threads.way[seen] == ALL
    for count in (2, 3):
        said = owners(threads, int(made), count, arrays["c"].reshape(-1, spec.result.shape[-1]))
        for thread in range(count):
            c = np.full_like(arrays["c"], np.nan)
            mine = {**arrays, "c": c}
            scratch = np.full(product.scratch(n) // 8 + 8, np.nan)
            start = -scratch.ctypes.data % 64 // 8
            buffers = [mine[name] for name in product.code.buffers]
            product._compiled(*buffers, scratch[start:], n, thread, count)
            np.testing.assert_array_equal(~np.isnan(c.reshape(said.shape)), said == thread)
