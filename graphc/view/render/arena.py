"""The contents of a picture of an arena: the bytes that each buffer occupies, and its epochs."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from graphc.base.loc import Loc
from graphc.ir.graph import Graph, joint_results
from graphc.ir.tensor_type import ITEMSIZE, align
from graphc.kernels.program import Buffer, Program
from graphc.view.render.layers import known_prefix
from graphc.view.render.style import listed, printable

Role = Literal["forward", "kept", "backward", "wrt", "recomputed", "update", "sent", "loop"]
ROLES: Mapping[Role, str] = {
    "forward": "values",
    "kept": "values kept for backward",
    "backward": "gradients",
    "wrt": "gradients of parameters",
    "recomputed": "recomputed values",
    "update": "updates of states",
    "sent": "copies of values that are sent",
    "loop": "workspace of the steps of a loop",
}
"""The purpose of a buffer, in words."""

MOST_NAMED = 20
"""The most buffers live at the peak that are named; the largest are."""


@dataclass(frozen=True, slots=True)
class Part:
    """A buffer: its place, and the time during which it is the newest value of its bytes."""

    name: str
    role: Role
    nbytes: int
    formula: str
    offset: int
    height: int
    """The bytes that it is drawn as; for some columns of a matrix, their share of it."""
    first: int
    last: int
    begin: float
    end: float
    loc: Loc | None

    @property
    def live_range(self) -> str:
        """The steps of its live range, as the plan counts them."""
        return str(self.first) if self.first == self.last else f"{self.first} to {self.last}"


@dataclass(frozen=True, slots=True)
class Slot:
    """Bytes of the arena that several buffers occupy, one after the other."""

    offset: int
    nbytes: int
    first: int
    last: int
    parts: tuple[Part, ...]


class ArenaMap:
    """The arena of one program over its steps, which are epochs."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.nbytes, self.peak = program.arena.nbytes, program.arena.peak
        self.slots = tuple(_slots(program))
        self.steps = 1 + max((s.last for s in program.storages), default=0)

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """All buffers, sorted by live range."""
        found = [part for slot in self.slots for part in slot.parts]
        return tuple(sorted(found, key=lambda p: (p.first, p.last, p.offset, p.name)))

    @cached_property
    def live(self) -> tuple[int, ...]:
        """The bytes in use at each step, alignment included."""
        change = [0] * (self.steps + 1)
        for storage in self.program.storages:
            size = align(storage.range_at(self.program.capacity).nbytes)
            change[storage.first] += size
            change[storage.last + 1] -= size
        now, found = 0, []
        for step in range(self.steps):
            now += change[step]
            found.append(now)
        return tuple(found)

    @cached_property
    def peak_step(self) -> int:
        """The first step that uses the most bytes."""
        return self.live.index(max(self.live))

    @cached_property
    def at_peak(self) -> tuple[Part, ...]:
        """The buffers live at the peak, largest first; of buffers that share bytes, the newest."""
        found: dict[tuple[int, int], Part] = {}
        for part in self.parts:
            if part.first <= self.peak_step <= part.last:
                found[part.offset, part.height] = part
        return tuple(sorted(found.values(), key=lambda p: (-p.nbytes, p.first, p.name)))

    @cached_property
    def running(self) -> tuple[str, ...]:
        """The nodes that the instructions of the peak step compute."""
        instrs = self.program.instrs
        found: dict[str, None] = {}
        for instr, step in zip(instrs, self.program.epochs, strict=True):
            if step == self.peak_step and instr.kind != "barrier":
                found.update(dict.fromkeys((instr.node, *instr.nodes)))
        return tuple(found)


def roles(graph: Graph) -> dict[str, Role]:
    """Return the role of each node; what a forward loop keeps for its gradient is a value, too."""
    forward = graph.forward()
    groups = (dict.fromkeys(n.name for n in nodes) for nodes in joint_results(graph))
    forward |= {name for some in groups if not forward.isdisjoint(some) for name in some}
    found: dict[str, Role] = {}
    for node in graph:
        known = node.name in forward
        found[node.name] = "forward" if known else _backward_role(node.name, graph, forward)
    for name in forward:
        if any(found[user] in ("backward", "wrt", "recomputed") for user in graph.users[name]):
            found[name] = "kept"
    return found


def _backward_role(name: str, graph: Graph, forward: Container[str]) -> Role:
    """Return the role of a node outside the forward part, judged by its name.

    A clone is a recomputed value.  A gradient is named `d_` and the name of its value.  All other
    nodes update states.
    """
    if graph[name].recomputes:
        return "recomputed"
    owner = known_prefix(name.rpartition(".")[0], graph)
    given = owner and (owner in forward or graph[owner].op.persistent)
    if given or not name.startswith("d_"):
        return "update"
    of = known_prefix(name.removeprefix("d_"), graph)
    return "wrt" if of and graph[of].op.is_parameter else "backward"


def _slots(program: Program) -> Iterator[Slot]:
    """Return the slots in order of time: groups of buffers with equal bytes of one storage."""
    known = roles(program.graph)
    known |= {i.inside.workspace: "loop" for i in program.instrs if i.inside is not None}
    found: dict[tuple[str, int, int], list[Buffer]] = {}
    wholes = {b.key: b for b in program.buffers.values() if b.space == "arena" and not b.pitch}
    for buffer in program.buffers.values():
        if buffer.space == "arena" and buffer.last >= 0:
            place = _place(buffer, wholes.get(buffer.key, buffer), program.capacity)
            found.setdefault((buffer.key, *place), []).append(buffer)
    slots = []
    for (_, offset, height), buffers in found.items():
        buffers.sort(key=lambda b: (b.first, b.last))
        begins = _begins(buffers)
        times = zip(begins, [*begins[1:], buffers[-1].last + 1.0], strict=True)
        parts = tuple(
            _part(program, buffer, known.get(buffer.name, "sent"), (offset, height), time)
            for buffer, time in zip(buffers, times, strict=True)
        )
        last = max(part.last for part in parts)
        slots.append(Slot(offset, height, parts[0].first, last, parts))
    return iter(sorted(slots, key=lambda s: (s.first, s.offset, s.last)))


def _part(
    program: Program, buffer: Buffer, role: Role, place: tuple[int, int], time: tuple[float, float]
) -> Part:
    """Return the part of a buffer that is drawn from an offset on, so high, and at a time."""
    node = program.graph.nodes.get(buffer.name)
    size, formula = buffer.type.nbytes(program.capacity), buffer.type.bytes_text()
    live, loc = (buffer.first, buffer.last), None if node is None else node.loc
    return Part(buffer.name, role, size, formula, *place, *live, time[0], max(time), loc)


def _place(buffer: Buffer, whole: Buffer, n: int) -> tuple[int, int]:
    """Return a buffer's offset and size as drawn; columns of a matrix are drawn as its rows."""
    size = buffer.type.nbytes(n)
    if not buffer.pitch:
        return buffer.offset, size
    rows = max(1, whole.type.nbytes(n) // (buffer.pitch * ITEMSIZE[buffer.type.dtype]))
    return buffer.offset + buffer.shift * rows * ITEMSIZE[buffer.type.dtype], size


def _begins(buffers: Iterable[Buffer]) -> list[float]:
    """Return when each buffer becomes the newest; several of one epoch share it evenly."""
    together: dict[int, int] = {}
    for buffer in buffers:
        together[buffer.first] = together.get(buffer.first, 0) + 1
    seen: dict[int, int] = {}
    found = []
    for buffer in buffers:
        nth = seen[buffer.first] = seen.get(buffer.first, -1) + 1
        found.append(buffer.first + nth / together[buffer.first])
    return found


def arena_text(arena: ArenaMap) -> str:
    """Return the picture in words: the peak, its epoch, and the buffers live there."""
    program, most = arena.program, max(arena.live)
    running = listed([printable(name) for name in arena.running], 3) or "nothing"
    lines = [
        f"{program.name}: an arena of {arena.nbytes:,} bytes at {program.capacity} rows; at most "
        f"{most:,} of them are in use at once, at epoch {arena.peak_step} of "
        f"{arena.steps}, which computes {running}.",
        "Alive there:",
    ]
    lines += [f"  {_described(part, arena)}" for part in arena.at_peak[:MOST_NAMED]]
    rest = arena.at_peak[MOST_NAMED:]
    if rest:
        lines.append(f"  and {len(rest)} more of {sum(p.nbytes for p in rest):,} bytes together")
    return "\n".join(lines)


def _described(part: Part, arena: ArenaMap) -> str:
    where = f", {part.loc}" if part.loc else ""
    return printable(
        f"{part.name}: {part.nbytes:,} bytes ({part.formula}), {ROLES[part.role]}, "
        f"epoch {part.live_range}{where}"
    )
