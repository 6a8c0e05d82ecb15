"""Draw a case: a random net and random options, all from one seed."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, replace

import graphc as gc
from graphc.compiler.loss_share import divisors
from graphc.declare.optim import Optimizer
from graphc.declare.optim.optimizer import Schedule
from graphc.features.precision.option import layers_of
from graphc.ir.graph import Graph
from graphc.ir.op import Layer
from graphc.ops.dropout import Dropout
from graphc.ops.loops.op import Scan
from graphc.ops.norm import BatchNorm
from graphc.ops.random_numbers import Noise
from graphc.ops.source import Parameter
from passes.set_precision import Precision
from tests.tools.fuzz.case import Case, Event
from tests.tools.generate import WIDTHS, random_net

WIDER = (1, 2, 5, 8, 16, 17, 33)
SLOPES = 0.25
"""The share of cases whose gradients are compared with differences."""
OTHERS = 0.03
"""The share of training cases whose state another plan trains, too."""
EVALUATED = 0.08
"""The share of cases that are evaluated on more rows than a batch."""
CAPACITIES = (1, 2, 3, 5, 5, 7, 8, 13, 40)
LARGE = 13
"""Rows whose values are large enough to be worth computing again."""
OPTIONAL = tuple(
    name for name in dict.fromkeys(gc.passes.DEFAULT.names) if name not in gc.passes.REQUIRED
)


@dataclass(frozen=True)
class Wishes:
    """What a campaign is about."""

    native: float = 0.05
    """The share of cases that run on the native backend; 0 is right where there is none."""
    interpreted: float = 0.1
    """The share of cases whose native programs are interpreted."""
    torch: float = 0.0
    """The share of cases that are compared with PyTorch."""
    tight: float = 0.04
    """The share of training cases whose memory is too small to keep all values."""
    again: float = 0.03
    """The share of cases that compute values again at random; more of those with dropout."""
    cut: float = 0.05
    """The share of training cases whose steps are cut into shards."""
    proved: bool = False
    """Whether all plans are proved, too."""
    most: int = 7
    """Steps of a net."""
    without: tuple[str, ...] = ()
    """Steps that are not taken."""
    once: str = ""
    """A step that each net has."""
    precision: float = 0.05
    """The share of cases some of whose layers multiply in bfloat16."""


def draw(seed: int, wishes: Wishes | None = None) -> Case:
    """The case of a seed."""
    wishes = wishes or Wishes()
    r = random.Random(seed)
    widths = WIDER if r.random() < 0.1 else WIDTHS
    dtype = r.choice(("float32", "float64"))
    other_random = random.Random(f"precision {seed}")
    rounds = other_random.random() < wishes.precision
    dtype = "float32" if rounds else dtype
    net = random_net(
        r, dtype, widths=widths, most=wishes.most, without=wishes.without, once=wishes.once
    )
    graph = net.graph()
    backend = _backend(r, wishes)
    optimizer = _grouped(r, random_optimizer(r), graph) if r.random() < 0.75 else None
    batch = r.choice(CAPACITIES)
    other = _other(r, optimizer, backend)
    case = Case(
        graph,
        batch,
        _events(r, graph, batch, optimizer, other, backend),
        optimizer,
        random_off(r),
        _losses(r, graph),
        _outputs(r, graph),
        _wrt(r, graph),
        backend,
        r.randint(1, 4) if backend == "native" else 1,
        r.random() < SLOPES,
        r.random() < wishes.torch,
        optimizer is not None and r.random() < wishes.tight,
        draw=seed,
        other=other,
    )
    if rounds:
        return _rounded(other_random, case)
    if r.random() < _cut_share(case, wishes):
        return _cut(r, case)
    if "rematerialize" not in case.off and r.random() < _again_share(case, wishes):
        return replace(case, again=True, tight=False, batch=max(case.batch, LARGE))
    return case


def _rounded(r: random.Random, case: Case) -> Case:
    """The case with all, some, or all but one of its layers in bfloat16, in any order; if any.

    Nothing else says what gradients of rounded products are.  A batchnorm that is folded into
    frozen weights scales them before they are rounded.
    """
    layers = layers_of(case.graph)
    if not layers:
        return case
    one = r.choice(layers)
    orders: tuple[Precision, ...] = ("bf16", "bf16_blocks")
    some = tuple((name, r.choice(orders)) for name in layers if name == one or r.random() < 0.5)
    every = "*", r.choice(orders)
    precision = r.choice(((every,), some, (every, (one, "float32"))))
    off = tuple(dict.fromkeys((*case.off, "fold_batchnorm")))
    return replace(case, precision=precision, off=off, slopes=False, torch=False)


def _again_share(case: Case, wishes: Wishes) -> float:
    """Most nets with dropout, whose masks are of the counter as it was."""
    return wishes.again * (20 if _has(case.graph, Dropout, Noise) else 1)


def _cut_share(case: Case, wishes: Wishes) -> float:
    """More of the nets with batch normalisation, which shards may have together."""
    if case.optimizer is None or case.batch == 1 or case.backend == "interpreted":
        return 0.0
    if any(isinstance(node.op, Scan) for node in case.graph):
        return 0.0  # tests.tools.fuzz.copies does not cut the steps of loops
    if any(_learned(case.graph, divisor.operands) for divisor in divisors(case.graph)):
        return 0.0  # refused: a shard cannot know what the whole batch's weights are
    return wishes.cut * (4 if _has(case.graph, BatchNorm) else 1)


def _learned(graph: Graph, names: Collection[str]) -> bool:
    """Whether values are computed from parameters, or with masks."""
    ops = [graph[name].op for name in graph.upstream(names)]
    return any(isinstance(op, (Parameter, Dropout, Noise)) for op in ops)


def _cut(r: random.Random, case: Case) -> Case:
    """The case in shards; with a step, and with other runs of no more rows than a shard has."""
    shards = r.choice([number for number in (2, 2, 4, 8) if number <= case.batch])
    synchronised = r.random() < (0.7 if _has(case.graph, BatchNorm) else 0.1)
    cut = replace(case, shards=shards, synchronised=synchronised, tight=False, torch=False)
    last = Event("step", case.events[-1].n)
    kinds = [*case.events, *([] if any(e.kind == "step" for e in case.events) else [last])]
    return replace(cut, events=tuple(Event(e.kind, min(e.n, cut.most(e.kind))) for e in kinds))


def _grouped(r: random.Random, optimizer: Optimizer, graph: Graph) -> Optimizer:
    """At times with other numbers for some of the parameters, which a plan has to have."""
    names = [node.name for node in graph if isinstance(node.op, Parameter)]
    if len(names) < 2 or r.random() < 0.75:
        return optimizer
    one, other = r.sample(names, 2)
    groups = (gc.Group(one, lr=0.03), gc.Group((other, "p*"), weight_decay=0.05))
    return replace(optimizer, groups=groups)


def _backend(r: random.Random, wishes: Wishes) -> str:
    share = r.random()
    if share < wishes.native:
        return "native"
    return "interpreted" if share < wishes.native + wishes.interpreted else "numpy"


def random_off(r: random.Random) -> tuple[str, ...]:
    """Passes that are left out: mostly none, else any of the optional ones."""
    if r.random() < 0.6:
        return ()
    return tuple(name for name in OPTIONAL if r.random() < 0.4)


def random_optimizer(r: random.Random) -> Optimizer:
    """Any kind, with all options that optimizers have in common."""
    kind = r.choice(OPTIMIZERS)
    chosen: dict[str, object] = {"lr": r.choice((0.01, 0.05))}
    if kind is gc.SGD and r.random() < 0.6:
        chosen |= {"momentum": r.choice((0.5, 0.9)), "nesterov": r.random() < 0.5}
    if kind is gc.RMSprop:
        chosen["momentum"] = r.choice((0.0, 0.5))
    if kind not in (gc.SGD, gc.Lion):
        chosen["eps"] = r.choice((0.01, 0.1))
    if r.random() < 0.4:
        chosen |= {"weight_decay": r.choice((0.01, 0.1)), "decay": r.choice(DECAYS)}
    if r.random() < 0.3:
        chosen["schedule"] = random_schedule(r)
    if r.random() < 0.25:
        chosen["clip_norm"] = r.choice((0.1, 1.0, 100.0))
    if r.random() < 0.1:
        chosen["clip_value"] = r.choice((0.01, 1.0))
    if r.random() < 0.2:
        chosen["accumulate"] = r.choice((2, 3))
    if r.random() < 0.2:
        chosen["ema"] = r.choice((0.5, 0.99))
    return kind(**chosen)  # type: ignore[arg-type]


OPTIMIZERS = (
    gc.SGD,
    gc.SGD,
    gc.Adam,
    gc.AdamW,
    gc.NAdam,
    gc.Adamax,
    gc.RMSprop,
    gc.Adagrad,
    gc.Adadelta,
    gc.Lion,
)
DECAYS = (None, None, ("*.weight",), ("*.bias", "p*"), ("*",))


def random_schedule(r: random.Random) -> Schedule:
    """Any kind; cases start at update 3."""
    return r.choice(
        (
            gc.Cosine(total=5),
            gc.Cosine(total=9, floor=0.1, warmup=4),
            gc.Step(every=2, factor=0.5),
            gc.WarmUp(5),
            gc.WarmUp(4, then=gc.Step(every=1, factor=0.8)),
            gc.WarmUp(2, then=gc.Cosine(total=6)),
        )
    )


def _other(r: random.Random, optimizer: Optimizer | None, backend: str) -> Optimizer | None:
    """At times the optimizer of another plan on the state."""
    if optimizer is None or backend == "interpreted" or r.random() >= OTHERS:
        return None
    plain = replace(random_optimizer(r), accumulate=1)
    return replace(plain, name="other")


def _events(
    r: random.Random,
    graph: Graph,
    batch: int,
    optimizer: Optimizer | None,
    other: Optimizer | None,
    backend: str,
) -> tuple[Event, ...]:
    """A few kinds of run; fewer on the native backend, where each kind is compiled, but those
    again with other batches."""
    kinds = ["infer"]
    kinds += r.choices(("train", "forward", "unlabelled", "cotangents"), (5, 2, 1, 1))
    if optimizer is not None:
        kinds += ["step"] * r.randint(1, 3)
        if optimizer.accumulate == 1 and r.random() < 0.2:
            kinds.append("update")
    if r.random() < (0.25 if _has(graph, BatchNorm) else 0.03):
        kinds.append("frozen")
    if backend != "interpreted" and r.random() < EVALUATED:
        kinds.append("evaluate")
    r.shuffle(kinds)
    if backend == "native":
        kinds = kinds[:3]
        kinds += [r.choice(kinds) for _ in range(2)]
    if other is not None:
        kinds.insert(r.randrange(len(kinds)), "other")
    return tuple(Event(kind, _rows(r, kind, batch)) for kind in kinds)


def _rows(r: random.Random, kind: str, batch: int) -> int:
    return r.randint(1, 3 * batch if kind == "evaluate" else batch) if r.random() < 0.4 else batch


def _has(graph: Graph, *layers: type[Layer]) -> bool:
    return any(isinstance(node.op, layers) for node in graph)


def _losses(r: random.Random, graph: Graph) -> tuple[str, ...] | None:
    if r.random() < 0.85:
        return None
    if r.random() < 0.3:
        return (r.choice(graph.losses),)
    others = [name for name in graph.losses[1:] if r.random() < 0.5]
    return (graph.losses[0], *others)


def _outputs(r: random.Random, graph: Graph) -> tuple[str, ...] | None:
    """Any nodes, those that were no outputs included; scores, so that there is one to freeze."""
    if r.random() < 0.85:
        return None
    names = [*graph.nodes, *(name for name in graph.outputs if name not in graph.losses)]
    return tuple(dict.fromkeys(["scores", *r.choices(names, k=2)]))


def _wrt(r: random.Random, graph: Graph) -> tuple[str, ...] | None:
    """The last bias, patterns of some parameters, and perhaps an input or a value inside."""
    if r.random() < 0.75:
        return None
    parameters = [node.name for node in graph if isinstance(node.op, Parameter)]
    patterns = [f"{name}*" for name in parameters[:-1] if r.random() < 0.5]
    chosen = patterns + parameters[-1:]
    return tuple(chosen + _inner(r, graph))


def _inner(r: random.Random, graph: Graph) -> list[str]:
    """A value between, which the scores and so the first loss depend on."""
    if r.random() < 0.5:
        return []
    scores = graph.outputs["scores"]
    needed = _differentiably_upstream(graph, scores)
    return [r.choice(needed)] if needed else []


def _differentiably_upstream(graph: Graph, name: str) -> list[str]:
    """Float values that are read as the first operand of layers alone on the way to a node."""
    found = []
    while graph[name].inputs:
        name = graph[name].inputs[0]
        node = graph[name]
        smooth = node.op.name in ("affine", "reshape", "batchnorm", "tanh", "input", "relu", "mul")
        if not smooth or not node.type.is_float:
            break
        found.append(name)
    return found


def steps_of(names: Collection[str]) -> tuple[str, ...]:
    """All other steps than these."""
    from tests.tools.generate.steps import STEPS

    known = [step.__name__ for step in STEPS]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise SystemExit(f"there is no step {', '.join(unknown)}; there are {', '.join(known)}")
    return tuple(name for name in known if name not in names)
