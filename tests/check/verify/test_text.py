"""Certificates as text: what is written is read back, and nothing else is taken for one."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import random
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.check.certificate.columns import CertificateError
from graphc.check.certificate.export import certify
from graphc.check.certificate.text import (
    FORMAT,
    certificate_data,
    certificate_of,
    certificate_text,
    parse_certificate,
)
from graphc.check.verify import verify
from tests.check.verify.claims import BATCH, Claims, declare


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_round_trip(backend: str) -> None:
    plan = gc.compile(declare(), batch=BATCH, optimizer=gc.Adam(), backend=backend)
    certificate = certify(plan)
    text = certificate_text(certificate)
    again = parse_certificate(text)
    assert same(certificate, again)
    assert certificate_text(again) == text
    assert verify(again).ok
    assert str(verify(again)) == str(plan.verify())


def test_a_line_a_buffer_and_a_step() -> None:
    text = certificate_text(certify(gc.compile(declare(), batch=BATCH, backend="native")))
    (line,) = [line for line in text.splitlines() if '"step": "gemm", "node": "first"' in line][:1]
    step = json.loads(line.strip().rstrip(","))
    assert (step["split"], step["rows"], step["columns"], step["depth"]) == (
        "rows",
        "N",
        "24",
        "16",
    )
    assert step["reads"][0] == {"buffer": "x", "by": "left"}
    assert step["writes"] == [{"buffer": "first", "by": "each"}]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        "nonsense",
        "[" * 100_000,
        '{"format": "another format 2"}',
        '{"format": "graphc certificate 3"}',
        "1" * 9,
    ],
)
def test_other_texts(text: str) -> None:
    with pytest.raises(CertificateError, match="this is not a certificate of a plan"):
        parse_certificate(text)


@pytest.mark.parametrize("version", ["2", "4", ""])
def test_of_another_version(version: str) -> None:
    data = Claims("numpy").data
    assert data["format"] == FORMAT
    text = json.dumps({**data, "format": f"graphc certificate {version}"})
    with pytest.raises(CertificateError, match=f"'graphc certificate {version}', this version of"):
        parse_certificate(text)


def test_of_a_backend_that_is_not_here() -> None:
    """The verifier asks no backend: it reads what the certificate says."""
    claims = Claims("numpy")
    claims.data["backend"] = claims.program["backend"] = "elsewhere"
    report = claims.report()
    assert report.ok
    assert "step (elsewhere, 1 to 64 rows)" in str(report)


WRONG: tuple[Any, ...] = (
    None, True, -5, 1.5, "", "N*N", "9" * 40, 1 << 60, [], {}, [[]], ["arena", "arena", -1],
)  # fmt: skip


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_any_entry_may_be_anything(backend: str) -> None:
    """Each entry of a certificate replaced by something else: refused, refuted, or harmless."""
    r = random.Random(0)
    whole = Claims(backend).data
    program = whole["programs"][0]
    for _ in range(400):
        data = {**whole, "programs": [copy.deepcopy(program)]}
        spoil(r, data["programs"][0])
        with contextlib.suppress(CertificateError):
            verify(certificate_of(data))


def spoil(r: random.Random, data: Any) -> None:
    """Replace, or leave out, something at any depth."""
    keys = list(data) if isinstance(data, dict) else list(range(len(data)))
    key = r.choice(keys)
    if isinstance(data[key], dict | list) and data[key] and r.random() < 0.8:
        spoil(r, data[key])
    elif r.random() < 0.2:
        del data[key]
    else:
        data[key] = copy.deepcopy(r.choice(WRONG))


def test_data_is_what_text_says() -> None:
    certificate = certify(gc.compile(declare(), batch=BATCH, backend="numpy"))
    assert json.loads(certificate_text(certificate)) == certificate_data(certificate)
