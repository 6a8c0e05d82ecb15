"""Programs without what their code does not depend on.

The writer of code gets one, and the key of the cache is its text.  So what is left
out cannot change code, and what is not left out is in the key.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain

from graphc.backends.layout import has_code
from graphc.ir.graph import Graph, Node
from graphc.kernels.program import Arena, Buffer, Instr, Program

NOTHING, NO_ARENA = Graph("", ()), Arena({}, 0, 0)


def code_of(program: Program, constants: Graph = NOTHING, handed: Iterable[str] = ()) -> Program:
    """Return a program without what its code does not depend on: names, live ranges, the graph.

    The code of a loop's step has the numbers of its `constants` in it, and moves the buffers that
    are `handed` to it and on.
    """
    buffers = program.buffers
    instrs = tuple([_instr(program, instr) for instr in program.instrs])
    # A constant that is also a result keeps its order: see `packed_factors`.
    results = [name for name in program.outputs.values() if buffers[name].space == "constant"]
    operands = chain.from_iterable([(*instr.ins, *instr.outs) for instr in instrs])
    names = dict.fromkeys(chain(operands, results, constants.nodes, handed))
    return Program(
        name="",
        graph=constants,
        capacity=program.capacity,
        instrs=instrs,
        buffers={name: _place(buffers[name]) for name in names},
        storages=(),
        arena=NO_ARENA,
        boundary=program.boundary,
        outputs={name: name for name in results},
        gradients={},
        index_bounds={},
        aliases={name: root for name, root in program.aliases.items() if name in names},
        backend="",
        contract=program.contract,
    )


def _place(buffer: Buffer) -> Buffer:
    """Return a buffer without its live range."""
    name, type, space, key, offset, _, _, shift, pitch = buffer
    return Buffer(name, type, space, key, offset, 0, 0, shift, pitch)


def _instr(program: Program, instr: Instr) -> Instr:
    """Return what code depends on of an instruction: its kernel, or that something else runs."""
    if not has_code(instr):
        kind = "call" if instr.kind == "repeat" else instr.kind
        constants = [name for name in instr.ins if program.buffers[name].space == "constant"]
        return Instr(kind, "", None, tuple(constants), (), "")
    inside = instr.inside
    if inside is not None:
        step = inside.program
        inside = replace(inside, program=code_of(step, _constants(step), inside.handed))
    return Instr(instr.kind, "", None, instr.ins, instr.outs, "", instr.body, (), inside)


def _constants(step: Program) -> Graph:
    """Return the constants of a step, without the lines that declared them."""
    found = [step.graph[name] for name in step.constants]
    if not found:
        return NOTHING
    return Graph("", [Node(node.name, node.op, (), node.type) for node in found])
