"""What members of a family say alike is added to the docstrings of each."""

from __future__ import annotations

from graphc.base.docstrings import with_shared

SHARED = """
Parameters
----------
a, b
    Numbers.
c
    A name.

Returns
-------
str
    {what}, by {public}.
"""


def test_a_docstring_gets_the_entries_and_sections_that_it_lacks() -> None:
    @with_shared(SHARED, what="A sum")
    def total(a: float, own: int, b: float) -> str:
        """Return a sum.

        Parameters
        ----------
        own
            A digit.

        Raises
        ------
        ValueError
            For text.
        """
        raise ValueError

    assert (total.__doc__ or "").splitlines() == [
        "Return a sum.",
        "",
        *("Parameters", "----------", "a, b", "    Numbers.", "own", "    A digit.", ""),
        *("Returns", "-------", "str", "    A sum, by total.", ""),
        *("Raises", "------", "ValueError", "    For text."),
    ]


def test_its_own_words_come_before_those_of_the_family() -> None:
    @with_shared(SHARED, what="A sum")
    def first(a: float, b: float) -> str:
        """Return a.

        Parameters
        ----------
        b
            Not read.

        Returns
        -------
        str
            The text of a.
        """
        return str(a)

    text = first.__doc__ or ""
    assert "a\n    Numbers.\nb\n    Not read.\n\n" in text
    assert text.endswith("The text of a.") and "sum" not in text


def test_entries_of_any_number_of_arguments_are_shared() -> None:
    @with_shared("Parameters\n----------\n*arrays, **by_name\n    The inputs.\nother\n    Another.")
    def run(*arrays: object, rows: int, **by_name: object) -> None:
        """Run.

        Parameters
        ----------
        rows
            The rows.
        """

    expected = "Parameters\n----------\n*arrays, **by_name\n    The inputs.\nrows\n    The rows."
    assert run.__doc__ == f"Run.\n\n{expected}"
