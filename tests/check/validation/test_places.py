"""The functions that planted faults change stand where the faults look for them."""

import inspect

from tests.check.validation import test_faults, test_loop_faults, test_run_faults, test_shard_faults
from tests.check.validation.faults import place, source
from tests.tools.fuzz import test_planted_windows


def test_each_place_is_there() -> None:
    """Most faults are planted in slow tests alone; a moved function shows here first."""
    gone = []
    lists = test_faults, test_loop_faults, test_run_faults, test_shard_faults, test_planted_windows
    for fault in [fault for module in lists for fault in module.FAULTS]:
        owner, name = place(fault)
        if fault.old not in source(inspect.getattr_static(owner, name)):
            gone.append(fault.what)
    assert gone == []
