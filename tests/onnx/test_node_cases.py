"""ONNX's own cases of each op: every one passes, or skipped.txt lists it with a reason."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from graphc.base.errors import GraphError
from tests.onnx.cases import (
    S1,
    S2,
    all_cases,
    modules,
    of_dtypes,
    ops_of,
    run,
    skipped,
    some_cases,
)

DEAR = frozenset(
    {"attention", "averagepool", "causal_conv_with_state", "flexattention", "linear_attention"}
    | {"maxpool", "rotaryembedding", "softmax_cross_entropy_loss"}
)
"""The modules whose cases take half of the time of all; slow tests run them."""


def fails(case: Any, **how: Any) -> str | None:
    """What goes wrong with a case; None where all is well."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(case, **how)
    except (GraphError, AssertionError) as error:
        return f"{case.name}: {error}"
    return None


def test_the_cases_of_most_ops() -> None:
    cases = [case for case in some_cases({*modules()} - DEAR) if case.name not in skipped()]
    assert len(cases) > 1100
    assert not [told for case in cases if (told := fails(case, backend="numpy"))]


def test_there_are_41_and_95_ops() -> None:
    assert (len(S1), len(S2)) == (41, 95)


@pytest.mark.slow
def test_every_case_passes_unless_it_is_listed() -> None:
    assert len(all_cases()) >= 1800
    others = [case for name, case in all_cases().items() if name not in skipped()]
    assert not [told for case in others if (told := fails(case, backend="numpy"))]


@pytest.mark.slow
def test_listed_cases_still_fail() -> None:
    assert skipped().keys() <= all_cases().keys()
    assert not [name for name in skipped() if fails(all_cases()[name], backend="numpy") is None]


@pytest.mark.slow
def test_all_cases_of_the_first_set_pass_and_nearly_all_of_the_second() -> None:
    ours = [case for case in all_cases().values() if of_dtypes(case)]
    first = [case.name for case in ours if ops_of(case) <= S1]
    second = [case.name for case in ours if ops_of(case) <= S2]
    assert len(first) > 280
    assert not skipped().keys() & first
    assert len(second) - len(skipped().keys() & second) >= 700


@pytest.mark.slow
def test_native_code_gives_the_same() -> None:
    cases = [case for case in all_cases().values() if ops_of(case) <= S1 and of_dtypes(case)]
    cases = [case for case in cases if case.name not in skipped()]
    assert not [told for case in cases if (told := fails(case, backend="native"))]
