"""A test of many cases runs them all, and a failure names its case."""

from __future__ import annotations

import inspect

import pytest

from tests.extras import lacks
from tests.together import together


def test_every_case_runs_and_those_that_fail_are_named(tmp_path: object) -> None:
    ran = []

    @together("a, b", [(1, 1), (2, 3), (4, 4), (5, 6)])
    def equal(a: int, b: int, tmp_path: object) -> None:
        ran.append(a)
        assert a == b

    assert [*inspect.signature(equal).parameters] == ["tmp_path"]
    with pytest.raises(BaseExceptionGroup, match="2 cases fail") as caught:
        equal(tmp_path=tmp_path)
    assert ran == [1, 2, 4, 5]
    assert [error.__notes__ for error in caught.value.exceptions] == [
        ["a, b: (2, 3)"],
        ["a, b: (5, 6)"],
    ]


def test_one_failure_is_itself_also_beside_a_skip() -> None:
    @together("x", [1, 2, 3])
    def odd(x: int) -> None:
        if x == 1:
            lacks("one is missing")
        assert x % 2

    with pytest.raises(AssertionError) as caught:
        odd()
    assert caught.value.__notes__ == ["x: 2"]


def test_what_is_missing_for_a_case_skips_after_the_others() -> None:
    ran = []

    @together("x", [1, 2])
    def some(x: int) -> None:
        ran.append(x)
        if x == 1:
            lacks("one is missing")

    with pytest.raises(pytest.skip.Exception, match="one is missing"):
        some()
    assert ran == [1, 2]
