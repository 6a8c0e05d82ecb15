"""The exponential moving average of the weights."""

from __future__ import annotations

from graphc.declare.optim.slots import next_name, next_value, slot
from graphc.ir.build import Builder, Value
from graphc.ops.elementwise import add
from graphc.ops.optim import Average
from graphc.ops.source import COUNTER, global_state

KIND = "ema"
"""The last part of the slot's name."""
COUNT = "ema_updates"
"""The name of the state that counts the averages made so far."""


def add_average(p: Value, decay: float) -> None:
    """Make the slot `<parameter>.ema` follow the parameter's next value."""
    b, average = p.builder, slot(p, KIND)
    new = b.value(b.updates[p.name])
    next_value(average, Average(decay), average, new, averaged_so_far(b))


def averaged_so_far(b: Builder) -> Value:
    """Return the counter of averages, which is 0 when the first average is made."""
    return global_state(b, COUNT, COUNTER)


def count_average(b: Builder) -> None:
    """Add the node that adds 1 to the counter of averages."""
    count = averaged_so_far(b)
    b.update(count, add(count, 1, name=next_name(count)))
