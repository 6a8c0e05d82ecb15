"""Reports in text: the layers of a net, and the instructions of a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from graphc.backends.backend import backend
from graphc.base.errors import counted, first_of
from graphc.base.text_table import aligned
from graphc.compiler.plan import Plan
from graphc.compiler.remat.recomputation import keeping_all, recomputes, repeated
from graphc.compiler.sharding import buckets
from graphc.features.precision.choice import Times, relative_times
from graphc.features.precision.option import layers_of
from graphc.ir.graph import Graph, Node
from graphc.ir.step_graph import Kind
from graphc.ir.tensor_type import shape_text
from graphc.kernels.duration import is_shared, microseconds
from graphc.kernels.program import Instr, Program
from graphc.kernels.traits import reason_for_call
from graphc.ops.loops.op import Scan
from passes.set_precision import Precision, SetPrecision

_RESULTS: Mapping[Kind, str] = {"stacked": "all", "last": "the last", "sum": "the sum"}
_FACTORS: Mapping[Precision, str] = {
    "bf16": "bfloat16",
    "bf16_blocks": "bfloat16 in blocks",
    "float32": "float32",
}
_HEAD = ("Layer (type)", "Output shape", "Params", "Connected to")


def summary(graph: Graph) -> str:
    """Return the table of a net's layers, and the totals of its trainable and other numbers.

    A parameter that several layers share counts at its first user; counters and seeds do not.
    """
    lines = aligned([_HEAD, *_rows(graph)], "<<>")
    rule = "-" * max(map(len, lines))
    table = [f"Net {graph.name!r}", rule, lines[0], rule, *lines[1:], rule]
    return "\n".join([*table, *_totals(graph)])


def _rows(graph: Graph) -> Iterator[tuple[str, str, str, str]]:
    counted: set[str] = set()
    for node in graph:
        if node.op.is_source and not node.op.is_input:
            continue
        own = [n for n in node.inputs if _counts(graph[n]) and n not in counted]
        counted.update(own)
        reads = [n for n in node.inputs if not graph[n].op.persistent]
        yield (
            f"{node.name} ({_kind(node)})",
            shape_text(node.type.shape),
            f"{sum(graph[n].type.size(1) for n in dict.fromkeys(own)):,}",
            ", ".join(reads),
        )


def _kind(node: Node) -> str:
    """Return the op, and for a loop what the result is of its steps."""
    if not isinstance(node.op, Scan):
        return node.op.name
    steps = f"{node.op.steps:,} steps{', last first' * node.op.reverse}"
    return f"{node.op.name}, {_RESULTS[node.op.kind]} of {steps}"


def _totals(graph: Graph) -> Iterator[str]:
    trained = [node for node in graph if node.op.is_parameter]
    fixed = [node for node in graph if node.op.is_state and node.type.is_float]
    kinds = (("Total", trained + fixed), ("Trainable", trained), ("Non-trainable", fixed))
    for kind, nodes in kinds:
        nbytes = sum(node.type.nbytes(1) for node in nodes)
        yield f"{kind} params: {sum(node.type.size(1) for node in nodes):,} ({nbytes:,} bytes)"


def _counts(node: Node) -> bool:
    return node.op.persistent and node.type.is_float


def plan_report(plan: Plan) -> str:
    """Return the report of a plan in a few lines."""
    lines = [f"plan of {plan.declared.name!r} for up to {plan.batch} rows on {plan.backend}"]
    lines.extend(_shards(plan))
    for name, program in plan.programs.items():
        lines.append(f"  {name}: {len(program.graph)} nodes, {_instructions(program)}")
    lines.extend(_multiplied(plan))
    lines.extend(_called(plan))
    if recomputes(plan):
        lines.extend(f"  {again}" for again in repeated(plan, keeping_all(plan)))
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
        f"  a step of up to {plan.rows} rows is cut into {counted(plan.shards, 'shard')} on "
        f"{counted(plan.ranks, 'rank')}; {nbytes:,} bytes are exchanged in "
        f"{counted(len(found), 'bucket')}"
    )


def _multiplied(plan: Plan) -> Iterator[str]:
    """Yield a line for each precision with its layers and estimates, if any layer was given one."""
    options = plan.options
    if not options.precision:
        return
    rates = backend(options.backend).rates_of_orders()
    times = relative_times(plan.declared, options.batch, bool(plan.rules), rates)
    layers: dict[Precision, list[str]] = {to: [] for to in _FACTORS}
    for name in layers_of(plan.declared):
        to = SetPrecision(options.precision).precision(name)
        layers[to].append(name + _estimate(times.get(name, {}), to))
    for to, names in layers.items():
        if names:
            yield f"  products of {_FACTORS[to]}: {first_of(names)}"
    if times:
        yield "    in brackets the time in bfloat16, where it is 1 in float32, by estimate"


def _estimate(times: Times, to: Precision) -> str:
    """Return the time in a precision in brackets, the least for float32; empty if unknown."""
    known = times.values() if to == "float32" else [times[to]] if to in times else []
    return f" ({min(known):.2f})" if known else ""


def _instructions(program: Program) -> str:
    found = Counter(instr.kind for instr in program.instrs)
    inside = Counter(instr.kind for step in program.steps() for instr in step.instrs)
    numbers = (
        ("kernel", found["kernel"], inside["kernel"]),
        ("loop", found["repeat"], 0),
        ("barrier", found["barrier"], 0),
        ("exchange", found["send"] + found["receive"], 0),
        ("call", found["call"], inside["call"]),
    )
    texts = {
        word: counted(own + more, word) + (f", of which {more} in loops" if more else "")
        for word, own, more in numbers
        if own + more
    }
    if "barrier" in texts:
        texts["barrier"] += f" ({_shared(program)})"
    return ", ".join(texts.values())


def _shared(program: Program) -> str:
    """Return how many epochs threads share: in those too short for that no thread waits."""
    kernels: dict[int, list[Instr]] = {}
    for instr, epoch in zip(program.instrs, program.epochs, strict=True):
        if instr.body is not None:
            kernels.setdefault(epoch, []).append(instr)
    shared = [is_shared(microseconds(some, program.capacity)) for some in kernels.values()]
    return f"{sum(shared)} of {len(shared)} epochs shared"


def _called(plan: Plan) -> Iterator[str]:
    """Yield a line for each kind of op that no kernel computes: its nodes, and why."""
    found: dict[tuple[str, str], list[str]] = {}
    programs = [one for own in plan.programs.values() for one in (own, *own.steps())]
    for program in programs:
        for instr in program.instrs:
            if instr.kind == "call" and instr.op is not None:
                ins = [program.graph[name].type for name in program.graph[instr.node].inputs]
                why = reason_for_call(instr.op, ins)
                names = found.setdefault((instr.op.name, why), [])
                if instr.node not in names:
                    names.append(instr.node)
    for (op, reason), names in found.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield f"  {op} runs its reference rule: {reason} ({', '.join(names[:3])}{more})"
