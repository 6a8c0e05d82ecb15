"""The report of a plan: what it runs, and what runs outside of native code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from graphc.compiler.remat.told import computes_again, keeping_all, repeated
from graphc.ir.plan import Instr, Plan, Program
from graphc.kernels.reasons import reason_for_call
from graphc.runtime.exchange import buckets


def plan_report(plan: Plan) -> str:
    """Return the report of what was compiled, in a few lines."""
    lines = [f"plan of {plan.declared.name!r} for up to {plan.batch} rows on {plan.backend}"]
    lines.extend(_shards(plan))
    for name, program in plan.programs.items():
        told = _instructions(program)
        lines.append(f"  {name}: {len(program.graph)} nodes, {told}")
    lines.extend(_outside(plan))
    if computes_again(plan):
        lines.extend(f"  {told}" for told in repeated(plan, keeping_all(plan)))
    idle = [name for name in plan.parameter_names if name not in plan.wrt]
    if idle and plan.losses:
        lines.append(f"  not trained: {', '.join(idle)}")
    return "\n".join(lines)


def _shards(plan: Plan) -> Iterator[str]:
    """Yield a line on how a step is cut and what is exchanged, if it is cut."""
    if plan.shards is None:
        return
    found = list(buckets(plan))
    nbytes = sum(bucket.nbytes for bucket in found)
    yield (
        f"  a step of up to {plan.rows} rows is cut into {_several(plan.shards, 'shard')} on "
        f"{_several(plan.ranks, 'rank')}; {nbytes:,} bytes are exchanged in "
        f"{_several(len(found), 'bucket')}"
    )


def _instructions(program: Program) -> str:
    found = Counter(instr.kind for instr in program.instrs)
    exchanges = found["send"] + found["receive"]
    calls = found.total() - found["kernel"] - found["barrier"] - exchanges
    numbers = (
        ("kernel", found["kernel"]),
        ("barrier", found["barrier"]),
        ("exchange", exchanges),
        ("call", calls),
    )
    return ", ".join(_several(number, word) for word, number in numbers if number)


def _several(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _outside(plan: Plan) -> Iterator[str]:
    """Yield a line for each kind of op that is not native code: its nodes, and why."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for program in plan.programs.values():
        for instr in program.instrs:
            if instr.kind == "call":
                names = found.setdefault(_told(program, instr), [])
                if instr.node not in names:
                    names.append(instr.node)
    for (op, way, reason), names in found.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield f"  {op} {way}: {reason} ({', '.join(names[:3])}{more})"


def _told(program: Program, instr: Instr) -> tuple[str, str, str]:
    """Return the op, what runs in its place, and why."""
    assert instr.op is not None, "a native plan copies by kernels"
    ins = [program.graph[name].type for name in program.graph[instr.node].inputs]
    return instr.op.name, "runs its reference rule", reason_for_call(instr.op, ins)
