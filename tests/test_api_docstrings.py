"""The docstrings of the public API have their sections, and their examples run."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.extras import needs

needs("numpydoc")  # brings Sphinx, so it is in the extra of those who build the site

from tests.api_docstrings import Public, faults, names  # noqa: E402

NAMES = list(dict.fromkeys(names()))


def affine_with_a_wrong_name(x: gc.Value, units: int) -> gc.Value:
    """Return an affine map of `x`.

    Parameters
    ----------
    x
        Rows of features.
    unit
        The number of columns of the result.

    Returns
    -------
    Value
        Of the shape (N, units).

    Examples
    --------
    >>> 1 + 1
    2
    """
    if units < 1:
        raise gc.GraphError("units")
    return gc.affine(x, units)


def test_wrong_names_and_unlisted_errors_are_found() -> None:
    path = f"{__name__}.affine_with_a_wrong_name"
    texts = "\n".join(faults(Public(path)))
    assert "['units'] are not described" in texts
    assert "Unknown parameters {'unit'}" in texts
    assert "GraphError" in texts
    assert "example" not in texts


@pytest.mark.slow
@pytest.mark.parametrize("public", NAMES, ids=lambda public: public.path)
def test_a_docstring_has_its_sections(public: Public) -> None:
    assert not faults(public)


@pytest.mark.slow
@pytest.mark.parametrize("public", NAMES, ids=lambda public: public.path)
def test_an_example_prints_what_it_says(
    public: Public, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    value = public.value
    example = doctest.DocTestParser().get_doctest(
        value.__doc__ or "", {"gc": gc, "np": np}, public.path, None, None
    )
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    texts: list[str] = []
    runner.run(example, out=texts.append)
    assert not runner.failures, "".join(texts)
