"""Values, gradients and gradients of gradients are those that PyTorch gave once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.images.cases import seen
from tests.ops.opinfo.ours import ours
from tests.ops.opinfo.stored import STORED

TABLE = json.loads(Path(__file__).with_name("stored.json").read_text(encoding="utf-8"))

LONG = [label for label in STORED if label.endswith("both ways")]
LONG += ["graphc gru", "graphc lstm"]


@pytest.mark.one_in(9)
@pytest.mark.parametrize("label", [label for label in STORED if label not in LONG])
def test_stored_calls(label: str) -> None:
    assert_same(label, "numpy")


@pytest.mark.slow
@pytest.mark.parametrize("label", LONG)
def test_long_stored_calls(label: str) -> None:
    assert_same(label, "numpy")


@pytest.mark.campaign
@pytest.mark.parametrize("label", STORED)
def test_stored_calls_on_native(label: str) -> None:
    assert_same(label, "native")


def assert_same(label: str, backend: str) -> None:
    stored = STORED[label]
    found = ours(stored.ours, stored.call, backend)
    for key, sums in TABLE[label].items():
        np.testing.assert_allclose(seen(found[key]), sums, rtol=1e-9, atol=1e-9, err_msg=key)
    assert {key for key in found if key.startswith("y")} <= TABLE[label].keys()


def test_the_table_has_both_orders_of_all_that_is_differentiated() -> None:
    assert TABLE.keys() == STORED.keys()
    first = {label for label, row in TABLE.items() if any(k.startswith("d0") for k in row)}
    second = {label for label in first if any(k.startswith("dd") for k in TABLE[label])}
    assert len(second) > 150
    assert first - second == {"nn.functional.multi_margin_loss"}, "PyTorch has no second order"
