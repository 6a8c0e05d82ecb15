"""The exponential moving average of the weights."""

from __future__ import annotations

from graphc.build import Builder, Value
from graphc.ops.elementwise import add
from graphc.ops.optim import Average
from graphc.ops.source import COUNTER, global_state
from graphc.optim.slots import next_name, next_value, slot

KIND = "ema"
"""What the name of the slot ends with."""
COUNT = "ema_updates"
"""The state that counts what has been averaged."""


def add_average(p: Value, decay: float) -> None:
    """The slot `<parameter>.ema` follows the parameter's next value."""
    b, average = p.builder, slot(p, KIND)
    new = b.value(b.updates[p.name])
    next_value(average, Average(decay), average, new, averaged_so_far(b))


def averaged_so_far(b: Builder) -> Value:
    """The counter of averages, which the first of them is told by."""
    return global_state(b, COUNT, COUNTER)


def count_average(b: Builder) -> None:
    """One more."""
    count = averaged_so_far(b)
    b.update(count, add(count, 1, name=next_name(count)))
