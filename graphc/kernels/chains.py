"""Chains: kernels of a stack of matrices that run together, one matrix after the other.

    gemm N x 4 of 512 x 512   s = q @ k.T         chain N x 4   for each of N x 4 matrices
    loop 2048*N x 512         p = softmax(s)  ->      gemm  s = q @ k.T
    gemm N x 4 of 512 x 32    o = p @ v               loop  p = softmax(s)
                                                      gemm  o = p @ v

Each element is computed as before, so bits stay.  A value that only kernels of the chain read, such
as s and p, is private: a thread keeps one matrix of it, which stays in its cache, rather than all.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

from graphc.ir.expr import Body
from graphc.ir.tensor_type import Shape, TensorType, align, count, dim_at
from graphc.kernels.kernel import BatchedGemm, Chain, Loop, Permutation, Private, ScatterAdd
from graphc.kernels.program import Instr
from graphc.kernels.stack import rows_of, strides_of

LEAST = 1 << 17
"""The fewest elements of a private matrix: smaller stacks stay in the caches as a whole."""
LINKS = BatchedGemm | Loop
"""The kinds of kernel that a chain may have."""


def has_large_matrices(shape: Shape) -> bool:
    """Return whether a value is a stack of matrices of which a thread should keep only one."""
    return len(shape) > 2 and dim_at(count(shape[-2:]), 0) >= LEAST


@dataclass(frozen=True)
class Stacks:
    """The facts of a program for chains, on up to `capacity` rows and up to `threads` threads."""

    type: Callable[[str], TensorType]
    kept: Callable[[str], bool]
    """True of a buffer that something besides instructions reads, or whose place is given."""
    is_part: Callable[[str], bool]
    """True of a buffer that is only some columns of another, or written to a state."""
    capacity: int
    threads: int


def chained(
    instrs: Sequence[Instr], boundary: int, stacks: Stacks
) -> tuple[list[Instr], dict[str, TensorType], int]:
    """Return the instructions, those that share large private values as chains.

    Return also the types of the workspaces, and how many instructions are forward now.  A chain
    takes the place of its first kernel.
    """
    found: list[Instr] = []
    workspaces: dict[str, TensorType] = {}
    groups = {group[0]: group for group in _groups(instrs, boundary, stacks)}
    later = {i for group in groups.values() for i in group[1:]}
    for i, instr in enumerate(instrs):
        if i in groups:
            instr = _chain([instrs[j] for j in groups[i]], stacks)
            assert isinstance(instr.body, Chain)
            size = instr.body.share * instr.body.threads
            workspaces[instr.body.workspace] = TensorType((size,), "int8")
        if i not in later:
            found.append(instr)
    return found, workspaces, boundary - sum(i < boundary for i in later)


def _groups(instrs: Sequence[Instr], boundary: int, stacks: Stacks) -> list[list[int]]:
    """Return the numbers of the instructions of each chain, in order."""
    readers: dict[str, list[int]] = {}
    for i, instr in enumerate(instrs):
        for name in instr.ins:
            readers.setdefault(name, []).append(i)
    writer = {name: i for i, instr in enumerate(instrs) for name in instr.outs}

    def may_join(group: Sequence[int], private: Container[str]) -> bool:
        """Return whether all that the group reads is private, or written before its first."""
        read = {name for j in group for name in instrs[j].ins if name not in private}
        return all(writer.get(name, -1) < group[0] for name in read)

    candidates = {
        name: [i, *readers.get(name, ())]
        for name, i in writer.items()
        if _is_private(name, [instrs[j] for j in (i, *readers.get(name, ()))], stacks)
    }
    group_of: dict[int, list[int]] = {}
    sizes: dict[int, Shape] = {}
    private: set[str] = set()
    for name, users in candidates.items():
        own = stacks.type(name).shape[:-2]
        joined = sorted({j for user in users for j in group_of.get(user, [user])})
        same_part = joined[-1] < boundary or joined[0] >= boundary
        alike = all(sizes.get(j, own) == own for j in joined)
        if alike and same_part and may_join(joined, candidates):
            private.add(name)
            group_of.update(dict.fromkeys(joined, joined))
            sizes.update(dict.fromkeys(joined, own))
    groups = {id(group): group for group in group_of.values()}.values()
    return [group for group in groups if may_join(group, private)]


def _is_private(name: str, users: Sequence[Instr], stacks: Stacks) -> bool:
    """Return whether a buffer can be private to the kernels that write and read it."""
    shape = stacks.type(name).shape
    if len(users) == 1 or stacks.kept(name) or not has_large_matrices(shape):
        return False
    if dim_at(count(shape[:-2]), stacks.capacity) <= stacks.threads:
        return False  # nothing would be saved
    return all(_fits(user, shape[:-2], stacks) for user in users)


def _fits(instr: Instr, sizes: Shape, stacks: Stacks) -> bool:
    """Return whether an instruction is a kernel that can run for one matrix of a stack."""
    kernel = instr.body
    if not isinstance(kernel, LINKS) or any(map(stacks.is_part, (*instr.ins, *instr.outs))):
        return False
    if isinstance(kernel, BatchedGemm):
        rows = kernel.m if kernel.sizes == sizes else 0
    elif isinstance(kernel, (Permutation, ScatterAdd)) or kernel.places:
        return False
    else:
        rows = rows_of(kernel, sizes) if kernel.axis == "columns" else 0
    if not isinstance(rows, int) or not rows or not _is_local(kernel.body, rows):
        return False
    strides = set(strides_of(kernel, sizes))
    return len(strides) == len({name for name, _ in strides})


def _is_local(body: Body, rows: int) -> bool:
    """Return whether a body computes the same for one matrix of so many rows as for a stack.

    The number of a row may only be used as that within its matrix, i - i // rows * rows.
    """
    if any(store.broadcast not in ("each", "row") for store in body.stores):
        return False
    steps = body.steps

    def is_number(i: int) -> bool:
        return steps[i].op == "const" and steps[i].value == rows

    index = {i for i, s in enumerate(steps) if s.op == "index" and s.broadcast == "row"}
    matrix = {
        i
        for i, s in enumerate(steps)
        if s.op == "floor_div" and s.args[0] in index and is_number(s.args[1])
    }
    first = {
        i
        for i, s in enumerate(steps)
        if s.op == "mul" and s.args[0] in matrix and is_number(s.args[1])
    }
    for i, step in enumerate(steps):
        if step.op in ("fetch", "offset", "size", "philox", "scatter_add"):
            return False
        within = step.op == "sub" and step.args[0] in index and step.args[1] in first
        known = within or i in matrix or i in first
        if not known and not (index | matrix | first).isdisjoint(step.args):
            return False
    return not any(store.step in index | matrix | first for store in body.stores)


def _chain(instrs: Sequence[Instr], stacks: Stacks) -> Instr:
    """Return the instruction that runs others one matrix after the other."""
    kernels = tuple(instr.body for instr in instrs if isinstance(instr.body, LINKS))
    outs = [name for instr in instrs for name in instr.outs]
    read = [name for instr in instrs for name in instr.ins]
    inner = [name for name in outs if name in read]
    private, share = _placed(instrs, {name: stacks.type(name) for name in inner})
    last, sizes = instrs[-1].node, stacks.type(inner[0]).shape[:-2]
    chain = Chain(sizes, kernels, private, f"{last}.workspace", share, stacks.threads)
    ins = tuple(operand.buffer for operand in chain.operands)
    nodes = tuple(name for instr in instrs for name in instr.nodes)
    return Instr("kernel", "chain", None, ins, chain.body.written, last, chain, nodes)


def _placed(
    instrs: Sequence[Instr], types: Mapping[str, TensorType]
) -> tuple[tuple[Private, ...], int]:
    """Return the private values, and the bytes of a thread's workspace.

    A value takes the place of one that no later kernel reads; that of one that the same kernel
    reads for the last time only if that is a loop, which reads each element before it writes it.
    """
    last = {name: i for i, instr in enumerate(instrs) for name in instr.ins if name in types}
    free: dict[int, list[int]] = {}
    found: dict[str, Private] = {}
    end = 0

    def release(names: Sequence[str]) -> None:
        for name in names:
            free.setdefault(_matrix_bytes(types[name]), []).append(found[name].start)

    for i, instr in enumerate(instrs):
        ending = [name for name in instr.ins if last.get(name) == i]
        in_place = isinstance(instr.body, Loop)
        if in_place:
            release(ending)
        for name in (out for out in instr.outs if out in types):
            type, nbytes = types[name], _matrix_bytes(types[name])
            places = free.get(nbytes)
            start = places.pop() if places else end
            rows, columns = type.shape[-2:]
            assert isinstance(rows, int) and isinstance(columns, int), "a matrix is counted"
            found[name] = Private(name, start, (rows, columns), type.dtype)
            end = max(end, start + align(nbytes))
        if not in_place:
            release(ending)
    return tuple(found.values()), end


def _matrix_bytes(type: TensorType) -> int:
    return type.with_shape(type.shape[-2:]).nbytes(1)
