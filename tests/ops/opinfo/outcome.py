"""What becomes of samples: they are the same, they differ, or graphc does not express them.

    python -m tests.ops.opinfo.outcome > tests/ops/opinfo/refused.txt

writes the list of those that graphc does not express.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from graphc.base.errors import GraphError
from tests.ops.opinfo.call import Call, difference
from tests.ops.opinfo.lists import Outcomes, lines_of
from tests.ops.opinfo.ours import ours
from tests.ops.opinfo.refused import Refused
from tests.ops.opinfo.samples import calls, opinfos
from tests.ops.opinfo.signatures import OURS
from tests.ops.opinfo.theirs import theirs


@dataclass
class Outcome:
    """Of the samples of one operator."""

    compared: dict[int, int] = field(default_factory=dict)
    """Up to which order of derivatives, by the sample's number."""
    refused: Outcomes = field(default_factory=dict)
    differ: Outcomes = field(default_factory=dict)


def outcome(name: str, numbers: range | None = None, backend: str = "numpy") -> Outcome:
    """Run the samples of an operator, or those of some numbers."""
    found = Outcome()
    for number, call in enumerate(calls(name)):
        if numbers is None or number in numbers:
            _run(name, number, call, backend, found)
    return found


def _run(name: str, number: int, call: Call, backend: str, outcome: Outcome) -> None:
    try:
        mine = ours(OURS[name], call, backend)
    except (Refused, GraphError) as error:
        outcome.refused[number] = getattr(error, "sentence", str(error))
        return
    wanted = theirs(opinfos()[name], call)
    told = difference(mine, wanted)
    if told is not None:
        outcome.differ[number] = told
    else:
        outcome.compared[number] = max(key.count("d") for key in wanted)


def main() -> None:
    """Print the lines of refused.txt."""
    for name in OURS:
        lines = lines_of(name, outcome(name).refused)
        sys.stdout.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main()
