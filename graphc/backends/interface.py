"""The interface of an exported model: its functions, their arguments, and the memory they need."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from graphc.backends.layout import CODE, start_of
from graphc.backends.names import OWN, READ, WRITTEN, Identifiers
from graphc.ir.op import Array
from graphc.ir.tensor_type import Batch, Dim, TensorType, align
from graphc.kernels.program import Buffer, Program
from graphc.ops.source import Constant

C_TYPES = {"float32": "float", "float64": "double", "bfloat16": "uint16_t", "bool": "bool"} | {
    f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
"""The C type of each dtype."""


class Place(NamedTuple):
    """The memory of a buffer: an argument or a constant, and the bytes before the buffer in it."""

    base: str
    offset: int


class Argument(NamedTuple):
    """An array that a function reads or writes."""

    name: str
    """The C name."""
    declared: str
    """The name in the net."""
    type: TensorType


@dataclass(frozen=True)
class Entry:
    """A function of the model: a program, and the arrays that it takes besides the memory."""

    name: str
    program: Program
    feeds: tuple[Argument, ...]
    results: tuple[tuple[Argument, Buffer], ...]
    """The outputs and gradients that are written, and the buffers that they are copies of."""
    losses: tuple[Buffer, ...]
    """The losses whose sum is returned; none for a function without result."""

    @property
    def arguments(self) -> list[Argument]:
        """All arguments besides the memory, in order."""
        return [*self.feeds, *(argument for argument, _ in self.results)]

    @cached_property
    def numbers(self) -> list[int]:
        """The numbers of the instructions that are kernels or loops."""
        return [i for i, instr in enumerate(self.program.instrs) if instr.kind in CODE]


class Interface:
    """The functions of some programs over one state.

    A function gets `state`, the bytes that last, and `work`, which holds the arena, the gradients
    and the scratch, in this order.
    """

    def __init__(
        self, prefix: str, programs: Mapping[str, Program], state: Mapping[str, Array], scratch: int
    ) -> None:
        self.prefix, self.state = prefix, state
        self.entries = [entry(f"{prefix}_{name}", p) for name, p in programs.items()]
        self.offsets: dict[str, int] = {}
        at = 0
        for name, array in state.items():
            self.offsets[name] = at
            at += align(array.nbytes)
        self.state_bytes = at
        self.gradients_at = align(max(p.arena.nbytes for p in programs.values()))
        gradients = max(p.gradient_bytes for p in programs.values())
        self.scratch_at = self.gradients_at + align(gradients)
        self.work_bytes = self.scratch_at + scratch
        self.constants: dict[str, Array] = {}
        """The constants that places name, by their C names."""
        self._names: dict[bytes, str] = {}
        self._identifiers = Identifiers()

    @cached_property
    def first_values(self) -> dict[str, Array]:
        """The first values of the states that are not 0 as a whole."""
        return {name: x for name, x in self.state.items() if x.tobytes().strip(b"\0")}

    @property
    def nbytes(self) -> int:
        """The bytes of memory that a caller gives: the state, and the work of one call."""
        return self.state_bytes + self.work_bytes

    @cached_property
    def layout(self) -> str:
        """A digest of all that a caller and the code must agree on: arrays, places and sizes."""
        places = [
            (name, x.dtype.name, x.shape, self.offsets[name]) for name, x in self.state.items()
        ]
        called = [
            (declaration(self, e), [(a.declared, str(a.type)) for a in e.arguments])
            for e in self.entries
        ]
        known = (self.batch, self.state_bytes, self.work_bytes, places, called)
        return hashlib.sha256(repr(known).encode()).hexdigest()[:8]

    def symbol(self, function: str) -> str:
        """Return the name of a function for linkers, which refuse a header of another layout."""
        return f"{function}_{self.layout}"

    @property
    def batch(self) -> int:
        """The most rows of a call."""
        return max(entry.program.capacity for entry in self.entries)

    def state_image(self, state: Mapping[str, Array], gap: int = 0) -> bytes:
        """Return the bytes of a state of this model; `gap` is each between arrays."""
        image = bytearray([gap]) * self.state_bytes
        for name, at in self.offsets.items():
            content = state[name].tobytes()
            image[at : at + len(content)] = content
        return bytes(image)

    def place(self, entry: Entry, buffer: Buffer) -> Place:
        """Return where a buffer lies in a call of a function."""
        start = start_of(buffer)
        if buffer.space == "state":
            return Place("state", self.offsets[buffer.key] + start)
        if buffer.space == "feed":
            return Place(next(a.name for a in entry.feeds if a.declared == buffer.key), start)
        if buffer.space == "constant":
            return Place(self._constant(entry.program, buffer.key), start)
        if buffer.space == "gradient":
            return Place("work", self.gradients_at + buffer.offset + start)
        return Place("work", start)

    def _constant(self, program: Program, key: str) -> str:
        """Return the C name of a constant; equal ones of several programs are one."""
        op = program.graph[key].op
        assert isinstance(op, Constant), "constants are nodes"
        array = op.array()
        content = str(array.dtype).encode() + array.tobytes()
        if content not in self._names:
            name = self._names[content] = self._identifiers.new(f"{OWN}constant_", key)
            self.constants[name] = array
        return self._names[content]


def entry(name: str, program: Program) -> Entry:
    """Return the function of a program."""
    losses = () if program.name == "infer" else program.graph.losses
    outputs = {k: v for k, v in program.outputs.items() if k not in losses}
    results, names = [*outputs, *(f"d_{k}" for k in program.gradients)], Identifiers()
    feeds = tuple(Argument(names.new(READ, k), k, t) for k, t in program.feeds.items())
    buffers = [program.buffers[b] for b in (*outputs.values(), *program.gradients.values())]
    written = zip(results, buffers, strict=True)
    arguments = tuple((Argument(names.new(WRITTEN, k), k, b.type), b) for k, b in written)
    return Entry(
        name, program, feeds, arguments, tuple(program.buffers[program.outputs[k]] for k in losses)
    )


def declaration(model: Interface, entry: Entry) -> str:
    """Return the head of a function."""
    arguments = ["void *state"] if model.state else []
    arguments += ["void *work", "ptrdiff_t n"]
    arguments += [f"const {C_TYPES[a.type.dtype]} *{a.name}" for a in entry.feeds]
    arguments += [f"{C_TYPES[a.type.dtype]} *{a.name}" for a, _ in entry.results]
    returned = C_TYPES[entry.losses[0].type.dtype] if entry.losses else "void"
    return f"{returned} {entry.name}({', '.join(arguments)})"


def type_text(type: TensorType) -> str:
    """Return the dtype and shape of an array, with `n` for the rows of a call."""
    return f"{type.dtype}[{', '.join(map(_dim, type.shape))}]"


def _dim(dim: Dim) -> str:
    if not isinstance(dim, Batch):
        return str(dim)
    rows = "*".join(["n"] * dim.power)
    return rows if dim.factor == 1 else f"{dim.factor}*{rows}"
