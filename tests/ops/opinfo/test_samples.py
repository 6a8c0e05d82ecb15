"""PyTorch's own samples of its operators: values, and gradients of both orders, are the same.

What is not compared, and what differs, is listed with a reason; the lists hold both ways.
"""

from __future__ import annotations

import pytest

from tests.extras import lacks
from tests.ops.opinfo.lists import outcomes, reasons
from tests.ops.opinfo.signatures import OURS

VERSION = "2.13"
"""Of PyTorch, in which samples have the numbers that the lists have."""


pytestmark = [pytest.mark.slow, pytest.mark.needs("torch")]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """What is so small is slower on several."""
    import torch

    if not torch.__version__.startswith(VERSION):
        lacks(f"the lists are of PyTorch {VERSION}")
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", OURS)
def test_samples_are_the_same(name: str) -> None:
    from tests.ops.opinfo.outcome import outcome

    found = outcome(name)
    assert found.refused == outcomes("refused.txt").get(name, {})
    assert found.differ.keys() == outcomes("differ.txt").get(name, {}).keys(), found.differ


def test_every_operator_of_pytorch_is_translated_or_listed() -> None:
    from tests.ops.opinfo.samples import opinfos

    alone = reasons("theirs_alone.txt").keys()
    assert not alone & OURS.keys()
    assert alone | OURS.keys() == opinfos().keys()


def test_what_is_listed_is_translated() -> None:
    assert outcomes("refused.txt").keys() <= OURS.keys()
    assert outcomes("differ.txt").keys() <= OURS.keys()
