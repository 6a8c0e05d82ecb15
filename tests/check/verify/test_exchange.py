"""Faults in what is exchanged between shards: each is found, by the rule for it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

import graphc as gc
from graphc.check.certificate.export import certify
from graphc.check.certificate.text import certificate_data, certificate_of
from graphc.check.verify import Report, verify
from graphc.check.verify.claims import EXCHANGE, TOTALS
from graphc.check.verify.invariants import DEFINED
from graphc.compiler.transfer_lowering import TransferLowering
from tests.runtime.distributed.nets import classes

Data = dict[str, Any]


def plan(backend: str, **options: Any) -> gc.Plan:
    chosen = {"shards": 2, "optimizer": gc.SGD(lr=0.1, momentum=0.9), "threads": 1, **options}
    return gc.compile(classes(dropout=False), batch=32, backend=backend, **chosen)


class Claims:
    """What a plan of several buckets says of itself, to be changed."""

    def __init__(self, backend: str) -> None:
        self.data: Data = copy.deepcopy(certificate_data(certify(plan(backend))))
        self.program: Data = next(p for p in self.data["programs"] if p["name"] == "step")
        self.steps: list[Data] = self.program["steps"]

    def at(self, kind: str, number: int = 0) -> int:
        return [i for i, step in enumerate(self.steps) if step["step"] == kind][number]

    def buffer(self, name: str) -> Data:
        return next(line for line in self.program["buffers"] if line["name"] == name)

    def verify(self) -> Report:
        return verify(certificate_of(self.data))


def nobody_awaits(c: Claims) -> None:
    """Its results are said to be those of another step, so that they are defined."""
    i = c.at("receive")
    step = c.steps[i]
    c.steps[i] = {**step, "step": "call"}


def half_a_bucket_is_awaited(c: Claims) -> None:
    step = c.steps[c.at("receive")]
    step["reads"], step["writes"] = step["reads"][:-1], step["writes"][:-1]


def awaited_in_another_order(c: Claims) -> None:
    step = c.steps[c.at("receive")]
    step["reads"].reverse()


def read_under_way(c: Claims) -> None:
    name = c.steps[c.at("send")]["writes"][0]["buffer"]
    c.steps.insert(c.at("send") + 1, {"step": "call", "node": "odd", "reads": [{"buffer": name}]})
    c.program["boundary"] += 1


def sent_from_another_place(c: Claims) -> None:
    step = c.steps[c.at("send")]
    step["reads"] = [dict(step["reads"][0]) for _ in step["reads"]]


def not_in_one_piece(c: Claims) -> None:
    step = c.steps[c.at("send")]
    for use in ("reads", "writes"):
        c.buffer(step[use][1]["buffer"])["at"][2] += 64


FAULTS: dict[Callable[[Claims], None], tuple[str, str]] = {
    nobody_awaits: (EXCHANGE, ""),
    half_a_bucket_is_awaited: (DEFINED, "before it is written"),
    awaited_in_another_order: (EXCHANGE, "does not leave its results where its operands are"),
    read_under_way: (EXCHANGE, "between step"),
    sent_from_another_place: (EXCHANGE, "does not leave its results where its operands are"),
    not_in_one_piece: (EXCHANGE, ""),
}


@pytest.mark.one_in(7)
@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found(
    fault: Callable[[Claims], None], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("passes.data_parallel.BUCKET_BYTES", 1024)
    claims = Claims(backend)
    assert claims.verify().ok
    fault(claims)
    found = claims.verify().counterexample
    rule, words = FAULTS[fault]
    assert found is not None
    assert found.rule == rule, found
    assert words in str(found)


@pytest.mark.parametrize("name", ["exchange", "lanes", "ranks", "workspaces"])
def test_a_wrong_memory_report_is_found(name: str) -> None:
    claims = Claims("numpy")
    claims.data["memory"][name] *= 2
    found = claims.verify().counterexample
    assert found is not None
    assert found.rule == TOTALS
    assert "exchange is reported as" in str(found)


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_a_planner_that_sends_what_others_read_is_found(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient of gamma is read by that of x, too, after it may have been sent."""
    monkeypatch.setattr("passes.data_parallel.BUCKET_BYTES", 64)
    assert plan(backend).verify().ok
    monkeypatch.setattr(TransferLowering, "_sendable", lambda self, name, node: name)
    with pytest.raises(AssertionError, match="data that is exchanged is left alone"):
        proof = plan(backend).verify()  # unless building proved some of its programs
        assert proof.ok, proof.counterexample


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("sync", [False, True])
def test_plans_of_ranks_are_proved(backend: str, sync: bool) -> None:
    optimizer = gc.AdamW(accumulate=2, clip_norm=1)
    made = plan(backend, ranks=2, sync_batchnorm=sync, optimizer=optimizer)
    report = made.verify()
    assert report.ok, report
