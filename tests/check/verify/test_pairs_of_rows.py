"""Certificates of nets with the batch in two axes: sizes of the second power, and faults."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import pytest

import graphc as gc
from graphc.check.certificate.columns import CertificateError
from graphc.check.certificate.export import certify
from graphc.check.certificate.text import certificate_data, certificate_of
from graphc.check.verify import verify
from tests.pairs_of_rows import clip

Data = dict[str, Any]


@cache
def _data() -> Data:
    plan = gc.compile(clip(), batch=48, optimizer=gc.SGD(lr=0.1), backend="native", threads=2)
    return json.loads(json.dumps(certificate_data(certify(plan))))  # type: ignore[no-any-return]


@pytest.fixture
def data() -> Data:
    return copy.deepcopy(_data())


def step_of(data: Data) -> Data:
    return next(p for p in data["programs"] if p["name"] == "step")


def test_what_is_written_is_read_and_proved(data: Data) -> None:
    assert "N*N" in json.dumps(data)
    certificate = certificate_of(data)
    assert verify(certificate).ok
    assert json.loads(json.dumps(certificate_data(certificate))) == _data()


def test_a_slot_for_rows_is_too_small_for_pairs(data: Data) -> None:
    slots = [slot for slot in step_of(data)["slots"] if slot["bytes"] == "8*N*N"]
    assert slots
    slots[0]["bytes"] = "8*N"
    assert not verify(certificate_of(data)).ok


def test_threads_wait_where_columns_follow_rows(data: Data) -> None:
    """Each barrier of the step is needed: without it one thread reads what another writes."""
    step = step_of(data)
    places = [i for i, one in enumerate(step["steps"]) if one["step"] == "barrier"]
    assert places
    for place in places:
        other = copy.deepcopy(data)
        del step_of(other)["steps"][place]
        assert not verify(certificate_of(other)).ok


@pytest.mark.parametrize("size", ["N*N*N", "N+3", "N*N+N", "2*", "N*N+N*N", "", "-N"])
def test_sizes_that_are_none(data: Data, size: str) -> None:
    step_of(data)["slots"][0]["bytes"] = size
    with pytest.raises(CertificateError, match="is not a size such as"):
        certificate_of(data)


def test_no_size_has_the_batch_three_times(data: Data) -> None:
    gemm = next(s for s in step_of(data)["steps"] if s.get("columns") == "N" == s.get("rows"))
    gemm["columns"] = "N*N"
    with pytest.raises(CertificateError, match="depends on N three times"):
        certificate_of(data)
