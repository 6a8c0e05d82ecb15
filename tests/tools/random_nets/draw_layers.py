"""Layers with parameters, images, sequences, and derivatives inside a net."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .calls import Rows
from .draw_shapes import ids, scores
from .drawer import Drawer, Skip, Var


def affine(d: Drawer) -> None:
    v = d.batched(low=2)
    last = v.rank > 1 and d.chance(0.3)
    inner = v.shape[-1] if last else v.width
    options: dict[str, Any] = {"axis": -1} if last else {}
    if d.chance(0.3):
        assert isinstance(inner, int)
        options["weight"] = d.parameter((inner, d.size()))
        units: tuple[int, ...] = ()
    else:
        units = (d.size(),)
    if d.chance(0.3):
        options["bias"] = False
    own = bool(units) or options.get("bias", True)
    d.call("gc.affine", v, *units, name=d.name("fc"), trained=own, **options)


def norm(name: str, low: int = 2) -> Callable[[Drawer], None]:
    def draw(d: Drawer) -> None:
        v = d.batched(low=low)
        args = (
            (d.one([k for k in range(1, 7) if int(v.shape[1]) % k == 0]),)
            if name == "groupnorm"
            else ()
        )  # type: ignore[arg-type]
        options: dict[str, Any] = {"eps": 1e-3} if d.chance(0.3) else {}
        d.call(f"gc.{name}", v, *args, name=d.name(name), trained=True, **options)

    return draw


def batchnorm(d: Drawer) -> None:
    v = d.batched(low=2)
    options: dict[str, Any] = {}
    if d.chance(0.3):
        options["running_decay"] = d.one([0.5, 0.99, 0.0])
    if d.chance(0.15):
        options["frozen"] = True
    d.call(
        "gc.batchnorm",
        v,
        name=d.name("bn"),
        trained=True,
        mixed=not options.get("frozen"),
        **options,
    )


def dropout(d: Drawer) -> None:
    v = d.real(low=1)
    if isinstance(v.shape[0], Rows) and not v.batched:
        return
    if any(isinstance(size, Rows) for size in v.shape[1:]):
        return
    keep, name = d.one([0.3, 0.5, 0.8, 1.0]), d.name("drop")
    option = {"keep_prob": keep} if d.chance(0.5) else {"drop_prob": round(1 - keep, 2)}
    d.masks[name] = (v.shape, keep)
    d.call("gc.dropout", v, name=name, **option)


def prelu(d: Drawer) -> None:
    d.call("gc.prelu", d.batched(low=2), name=d.name("prelu"), trained=True)


def embedding(d: Drawer) -> None:
    count = d.whole(1, 12)
    if d.chance(0.3):
        weight = d.parameter((count, d.size()))
        d.call("gc.embedding", ids(d, count), weight=weight, name=d.name("table"))
    else:
        name = d.name("table")
        d.call(
            "gc.embedding", ids(d, count), count, d.size(), dtype=d.dtype, name=name, trained=True
        )


def mlp(d: Drawer) -> None:
    hidden = [d.size() for _ in range(d.whole(0, 2))]
    options = {"batchnorm": d.chance(0.3)}
    name = d.name("mlp")
    # Its hidden layers have names of their own choice: a second one in a net would number on.
    if any(call.function == "gc.mlp" for call in d.calls):
        return
    mixed = options["batchnorm"] and bool(hidden)
    d.call(
        "gc.mlp",
        d.batched(low=2),
        hidden,
        d.size(),
        name=name,
        trained=True,
        mixed=mixed,
        **options,
    )


# Sequences.


def sequence(d: Drawer, even: bool = False, multiple: int = 1) -> Var:
    """Return floats (N, T, C)."""

    def fits(v: Var) -> bool:
        return (
            v.real
            and v.batched
            and v.rank == 3
            and int(v.shape[2]) % (2 if even else multiple) == 0
        )  # type: ignore[arg-type]

    v = d.pick(fits)
    if v is not None and d.chance(0.8):
        return v
    width = d.whole(1, 4) * (2 if even else multiple)
    return d.input((Rows(), d.whole(1, 5), width))


def attention(d: Drawer) -> None:
    q = sequence(d)
    width = q.shape[2]
    k = q if d.chance(0.5) else d.input((Rows(), d.whole(1, 5), width))
    v = k if d.chance(0.5) else d.input((Rows(), k.shape[1], d.whole(1, 6)))
    options: dict[str, Any] = {"causal": d.chance(0.4)}
    if d.chance(0.3):
        options["scale"] = d.number(0.1, 1)
    if d.chance(0.3):
        options["mask"] = d.parameter((int(q.shape[1]), int(k.shape[1])))  # type: ignore[arg-type]
    d.call("gc.attention", q, k, v, **options)


def multi_head_attention(d: Drawer) -> None:
    heads = d.whole(1, 3)
    v = sequence(d, multiple=heads)
    options: dict[str, Any] = {"causal": d.chance(0.4), "bias": d.chance(0.7)}
    if d.chance(0.3):
        options["context"] = d.input((Rows(), d.whole(1, 5), v.shape[2]))
    d.call("gc.multi_head_attention", v, heads, name=d.name("mha"), trained=True, **options)


def positions(name: str) -> Callable[[Drawer], None]:
    def draw(d: Drawer) -> None:
        trained = name == "learned_positions"
        options = {"name": d.name("pos")} if trained else {}
        d.call(f"gc.{name}", sequence(d, even=not trained), trained=trained, **options)

    return draw


def recurrent(name: str) -> Callable[[Drawer], None]:
    def draw(d: Drawer) -> None:
        width = d.whole(1, 6)
        options: dict[str, Any] = {"bias": d.chance(0.7), "reverse": d.chance(0.3)}
        if d.chance(0.2):
            options = {"bidirectional": True}
        elif d.chance(0.3):
            initial = [d.input((Rows(), width)) for _ in range(1 + (name == "lstm"))]
            options["initial"] = tuple(initial) if name == "lstm" else initial[0]
        if name == "rnn":
            options["activation"] = d.one(["tanh", "relu"])
        if name == "gru":
            options["reset_after"] = d.chance(0.7)
        d.call(f"gc.{name}", sequence(d), width, name=d.name(name), trained=True, **options)

    return draw


def cell(name: str) -> Callable[[Drawer], None]:
    def draw(d: Drawer) -> None:
        gates = {"rnn_cell": 1, "gru_cell": 3, "lstm_cell": 4}[name]
        x, width = scores(d), d.whole(1, 5)
        states = [d.input((Rows(), width)) for _ in range(1 + (name == "lstm_cell"))]
        weights = [d.parameter((x.width, gates * width)), d.parameter((width, gates * width))]
        if d.chance(0.6):
            weights += [d.parameter((gates * width,)), d.parameter((gates * width,))]
        d.call(f"gc.{name}", x, *states, *weights)

    return draw


def standardize(d: Drawer) -> None:
    v = d.pick(lambda v: v.name in d.values and v.real and v.batched and is_input(d, v))
    if d.mode != "whole":
        raise Skip
    d.call("gc.standardize", v or d.input((Rows(), *d.sizes(1))), name=d.name("std"))


def is_input(d: Drawer, v: Var) -> bool:
    """Return whether a value is an input."""
    return any(call.function == "net.input" and v.name in call.results for call in d.calls)


# Images.


def image(d: Drawer, space: int = 2, multiple: int = 1, least: int = 1) -> Var:
    """Return floats (N, channels, *space)."""

    def fits(v: Var) -> bool:
        dims = [int(dim) for dim in v.shape[1:]]  # type: ignore[arg-type]
        return dims[0] % multiple == 0 and min(dims[1:]) >= least

    v = d.pick(lambda v: v.real and v.batched and v.rank == 2 + space and fits(v))
    if v is not None and d.chance(0.8):
        return v
    most = least if d.chance(0.1) else max({1: 12, 2: 7, 3: 4}[space], least)
    places = (d.whole(least, most) for _ in range(space))
    return d.input((Rows(), multiple * d.whole(1, 4), *places))


def conv(space: int) -> Callable[[Drawer], None]:
    def draw(d: Drawer) -> None:
        groups = d.one([1, 1, 1, 2, 3])
        v = image(d, space, groups)
        kernel, options = wide_window(d, v) if d.chance(0.2) else window(d, v)
        options["groups"] = groups
        if options["padding"] == "same" and options["dilation"] != 1:
            options["padding"] = kernel
        name = d.name("conv")
        many = groups * d.whole(1, 4)
        bias = d.chance(0.7)
        d.call(f"gc.conv{space}d", v, many, kernel, name=name, bias=bias, trained=True, **options)

    return draw


def window(d: Drawer, v: Var) -> tuple[int, dict[str, Any]]:
    """Return a kernel that fits an image, and stride, padding, dilation."""
    least = min(int(dim) for dim in v.shape[2:])  # type: ignore[arg-type]
    kernel, dilation = d.whole(1, min(3, least)), 1
    if kernel > 1 and d.chance(0.2) and (kernel - 1) * 2 < least:
        dilation = 2
    around = d.whole(0, kernel // 2)
    pairs = [(d.whole(0, kernel // 2), d.whole(0, kernel // 2)) for _ in v.shape[2:]]
    padding: Any = d.one([0, around, around, pairs])
    return kernel, {"stride": d.whole(1, 3), "padding": padding, "dilation": dilation}


def wide_window(d: Drawer, v: Var) -> tuple[int, dict[str, Any]]:
    """Return a kernel that may span more than an image, and perhaps has no tap inside."""
    kernel, dilation = d.whole(1, 3), d.whole(1, 4)
    padding = []
    for size in v.shape[2:]:
        short = max(0, (kernel - 1) * dilation + 1 - int(size))  # type: ignore[arg-type]
        before = d.whole(0, short + 1)
        padding.append((before, max(0, short - before) + d.whole(0, 1)))
    return kernel, {"stride": d.whole(1, 3), "padding": padding, "dilation": dilation}


def conv_given(d: Drawer) -> None:
    v = image(d)
    kernel, options = wide_window(d, v) if d.chance(0.2) else window(d, v)
    if d.chance(0.3):
        options["padding"], options["dilation"] = "same", 1
    weight = d.parameter((d.whole(1, 4), int(v.shape[1]), kernel, kernel))  # type: ignore[arg-type]
    d.call("gc.conv", v, weight, **options)


def conv_transpose(space: int) -> Callable[[Drawer], None]:
    def draw(d: Drawer) -> None:
        groups = d.one([1, 1, 2])
        v = image(d, space, groups)
        kernel, stride = d.whole(1, 3), d.whole(1, 2)
        options: dict[str, Any] = {"stride": stride, "groups": groups}
        if kernel > 1 and d.chance(0.4):
            options["padding"] = 1 if min(int(x) for x in v.shape[2:]) > 2 else 0  # type: ignore[arg-type]
        if stride == 2 and d.chance(0.4):
            options["output_padding"] = 1
        many, name = groups * d.whole(1, 3), d.name("convt")
        d.call(f"gc.conv_transpose{space}d", v, many, kernel, name=name, trained=True, **options)

    return draw


def conv_transpose_given(d: Drawer) -> None:
    v = image(d)
    weight = d.parameter((int(v.shape[1]), d.whole(1, 4), d.whole(1, 3), d.whole(1, 3)))  # type: ignore[arg-type]
    d.call("gc.conv_transpose", v, weight, stride=d.whole(1, 2))


def pool(name: str) -> Callable[[Drawer], None]:
    def draw(d: Drawer) -> None:
        v = image(d, d.one([1, 2, 2, 3]))
        kernel, options = window(d, v)
        if d.chance(0.3):
            options["stride"] = None
        if isinstance(options["padding"], int) and options["dilation"] == 1:
            options["ceil"] = d.chance(0.3)
        if name == "avg_pool":
            options["count_include_pad"] = d.chance(0.4)
        d.call(f"gc.{name}", v, kernel, **options)

    return draw


def adaptive_avg_pool(d: Drawer) -> None:
    v = image(d)
    d.call("gc.adaptive_avg_pool", v, tuple(d.whole(1, int(dim)) for dim in v.shape[2:]))  # type: ignore[arg-type]


def global_pool(name: str) -> Callable[[Drawer], None]:
    return lambda d: d.call(f"gc.{name}", image(d, d.one([1, 2, 3])))


# Derivatives.


def grad(d: Drawer) -> None:
    v = d.pick(lambda v: v.real and len(v.smooth) > 1)
    if v is None:
        return
    if v.shape:
        v = d.call(d.one(["gc.sum", "gc.mean"]), v, mixed=not v.fixed())
    known = {o.name: o for o in d.pool}
    wrt = [known[name] for name in sorted(v.smooth) if name != v.name]
    chosen = [d.one(wrt) for _ in range(d.whole(1, 2))]
    d.call("gc.grad", v, chosen[0] if d.chance(0.5) else chosen, mixed=True)


DRAWS: dict[str, Callable[[Drawer], None]] = {
    "affine": affine,
    "affine_again": affine,
    "batchnorm": batchnorm,
    "groupnorm": norm("groupnorm"),
    "instancenorm": norm("instancenorm", 3),
    "layernorm": norm("layernorm"),
    "rmsnorm": norm("rmsnorm"),
    "dropout": dropout,
    "prelu": prelu,
    "embedding": embedding,
    "mlp": mlp,
    "attention": attention,
    "multi_head_attention": multi_head_attention,
    **{n: positions(n) for n in ("sinusoidal_positions", "learned_positions", "rotary_positions")},
    **{name: recurrent(name) for name in ("rnn", "lstm", "gru")},
    **{name: cell(name) for name in ("rnn_cell", "lstm_cell", "gru_cell")},
    "standardize": standardize,
    **{f"conv{space}d": conv(space) for space in (1, 2, 3)},
    **{f"conv_transpose{space}d": conv_transpose(space) for space in (1, 2)},
    "conv": conv_given,
    "conv_transpose": conv_transpose_given,
    "max_pool": pool("max_pool"),
    "avg_pool": pool("avg_pool"),
    "adaptive_avg_pool": adaptive_avg_pool,
    "global_avg_pool": global_pool("global_avg_pool"),
    "global_max_pool": global_pool("global_max_pool"),
    "grad": grad,
    "grad_again": grad,
}
