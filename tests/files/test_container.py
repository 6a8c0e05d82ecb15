"""The bytes of a model file: arrays by name, and what is refused although its checksum is right."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.files.container import pack, unpack

ARRAYS = {
    "wide": np.arange(6.0).reshape(2, 3),
    "bytes": np.array([1, 2, 255], np.uint8),
    "flags": np.array([True, False, True]),
    "none": np.zeros((0, 2), np.float32),
    "one": np.array(7),
}


def test_arrays_come_back_with_their_bits() -> None:
    metadata, found = unpack(b"".join(pack({"about": "numbers"}, ARRAYS)))
    assert metadata == {"about": "numbers"} and found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype and not found[name].flags.writeable
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("byte", [2, 128, 255])
def test_a_boolean_is_0_or_1(byte: int) -> None:
    odd = np.array([1, byte, 0], np.uint8).view(np.bool_)
    with pytest.raises(ValueError, match="'flags' has booleans other than 0 and 1"):
        unpack(b"".join(pack({}, {**ARRAYS, "flags": odd})))


def test_each_byte_counts_for_the_checksum() -> None:
    data = b"".join(pack({"about": "numbers"}, ARRAYS))
    for place in range(len(data)):
        with pytest.raises(ValueError):
            unpack(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
