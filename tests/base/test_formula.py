"""Formulas are parsed into applications of ops, as Python reads them."""

import pytest

from graphc.base.formula import parsed


def test_a_formula_is_read_as_python_reads_it() -> None:
    assert parsed("-x ** 2") == ("neg", (("power", ("x", 2.0)),))
    assert parsed("where(a >= b, d_out * 0.5, -1)") == (
        "where",
        (("greater_equal", ("a", "b")), ("mul", ("d_out", 0.5)), -1),
    )


@pytest.mark.parametrize("text", ["x[0]", "x if y else z", "a < b < c", "a // b", "x.sum()", "'x'"])
def test_what_no_op_computes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no op computes"):
        parsed(text)
