"""The words of the native backend are those of `graphc.kernels.philox`."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.backends.native.elements import GROUP, group_words
from graphc.backends.native.ir import Value
from graphc.backends.native.vectors import Vectors
from graphc.kernels.philox import keep_words
from tests.backends.native.compiled_function import TARGETS, Compiled, function_of

SCALARS = ["i64 %seed", "i64 %draws", "i64 %row", "i64 %groups"]


def mask_function(stream: int, lanes: int, target: str) -> Compiled:
    """out[0 : 64 * groups] = the words of a row."""

    def write(v: Vectors) -> None:
        def group(g: Value, carried: list[Value]) -> None:
            words = group_words(v, "%seed", "%draws", stream, "%row", g)
            whole = Vectors(v.function, 16)
            for i, word in enumerate(words):
                place = v.function.add(v.function.mul(g, GROUP), 16 * i)
                whole.store(word, v.function.address("%out", place, "i32"), "uint32")

        v.function.loop(0, "%groups", 1, group)

    return function_of([*SCALARS, "ptr %out"], write, lanes, target)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("lanes", [16, 4])
def test_words(lanes: int, target: str) -> None:
    for stream in (0, 0xDEADBEEF):
        fill = mask_function(stream, lanes, target)
        for seed, draws, row in [
            (0, 0, 0),
            (2**64 - 1, 2**63 - 1, 2**33 + 5),
            (0x0123456789ABCDEF, 77, 2**32 - 1),
            (2**63 + 12345, -1, 3),
        ]:
            out = np.empty((1, 5 * GROUP), np.uint32)
            fill(_signed(seed), draws, row, 5, out)
            np.testing.assert_array_equal(
                out, keep_words(seed, stream, draws, 1, 5 * GROUP, first_row=row)
            )


def test_literal_rows_and_groups() -> None:
    def write(v: Vectors) -> None:
        for i, word in enumerate(group_words(v, "7", "9", 5, "3", "2")):
            v.store(word, v.function.address("%out", 16 * i, "i32"), "uint32")

    out = np.empty(GROUP, np.uint32)
    function_of(["ptr %out"], write, 16)(out)
    np.testing.assert_array_equal(out, keep_words(7, 5, 9, 4, 3 * GROUP)[3, 2 * GROUP :])


def _signed(seed: int) -> int:
    return seed - 2**64 if seed >= 2**63 else seed
