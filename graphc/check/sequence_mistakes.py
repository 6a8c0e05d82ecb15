"""The results of usual mistakes in the course's layers of sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations
from typing import Any

import numpy as np

from graphc import layers
from graphc.check.layer_cases import Candidate, Case, Results
from graphc.check.layer_mistakes import Mistake, Mistakes, by_result, wrong_axis
from graphc.ir.op import Array

# ------------------------------------------------------------------ one step of an rnn


@dataclass(frozen=True)
class _Step:
    """What a step of a recurrent layer reads and computes; `c` is 0 in a simple one."""

    x: Array
    h: Array
    c: Array
    weights: tuple[Array, Array, Array]

    @property
    def own(self) -> Array:
        """What the input adds."""
        return np.asarray(self.x @ self.weights[0])

    @cached_property
    def pre(self) -> Array:
        """The pre-activation of the state, or of all gates side by side."""
        return np.asarray(self.own + self.h @ self.weights[1] + self.weights[2])

    @cached_property
    def pres(self) -> list[Array]:
        """The pre-activation of each gate of an LSTM."""
        width = self.pre.shape[1] // 4
        return [self.pre[:, k * width : (k + 1) * width] for k in range(4)]

    @cached_property
    def gates(self) -> tuple[Array, Array, Array, Array]:
        """The gates i, f, o and g of an LSTM."""
        i, f, o, g = self.pres
        return _sigmoid(i), _sigmoid(f), _sigmoid(o), np.tanh(g)


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


States = tuple[Array, ...]
"""The state h, and c of an LSTM; or their gradients."""
Forward = Callable[[_Step], States]
"""One step, right or with a mistake."""
Backward = Callable[[_Step, States], tuple[Array, States]]
"""From the gradients of the next states to that of the pre-activation, and of c."""


def _rnn(s: _Step) -> States:
    return (np.tanh(s.pre),)


def _rnn_back(slope: Callable[[_Step, Array], Any]) -> Backward:
    """Return the backward step of an rnn with a derivative of tanh, from the step and its h."""
    return lambda s, d: (d[0] * slope(s, np.tanh(s.pre)), ())


_RNN_FORWARD: dict[str, Forward] = {
    "tanh is left out": lambda s: (s.pre,),
    "the sigmoid takes the place of tanh": lambda s: (_sigmoid(s.pre),),
    "relu takes the place of tanh": lambda s: (np.maximum(s.pre, 0),),
    "the bias is not added": lambda s: (np.tanh(s.pre - s.weights[2]),),
    "the state before is left out": lambda s: (np.tanh(s.own + s.weights[2]),),
    "the input is left out": lambda s: (np.tanh(s.pre - s.own),),
    "Wh is transposed; the state takes prev_h @ Wh": lambda s: (
        np.tanh(s.own + s.h @ s.weights[1].T + s.weights[2]),
    ),
}
_RNN_BACKWARD: dict[str, Backward] = {
    "tanh's derivative is left out; it is 1 - next_h**2": _rnn_back(lambda s, h: 1),
    "tanh's derivative takes the pre-activation; it is 1 - next_h**2": _rnn_back(
        lambda s, h: 1 - s.pre**2
    ),
    "tanh's derivative takes the state before; it is 1 - next_h**2": _rnn_back(
        lambda s, h: 1 - s.h**2
    ),
    "tanh is taken twice: its derivative is 1 - next_h**2": _rnn_back(
        lambda s, h: 1 - np.tanh(h) ** 2
    ),
    "the square is missing: tanh's derivative is 1 - next_h**2": _rnn_back(lambda s, h: 1 - h),
    "the sign is wrong: tanh's derivative is 1 - next_h**2": _rnn_back(lambda s, h: 1 + h**2),
    "next_h**2 is not subtracted from 1": _rnn_back(lambda s, h: h**2),
    "the sigmoid's derivative takes the place of tanh's": _rnn_back(lambda s, h: h * (1 - h)),
    "relu's derivative takes the place of tanh's": _rnn_back(lambda s, h: h > 0),
}


# ------------------------------------------------------------------ one step of an lstm


def _lstm(s: _Step) -> States:
    i, f, o, g = s.gates
    return _cell(f * s.c + i * g, o)


def _cell(c: Array, o: Array) -> States:
    return o * np.tanh(c), c


def _gate_as(changed: int) -> Forward:
    """Return an LSTM whose gate of that number has the other's activation."""

    def forward(s: _Step) -> States:
        gates = list(s.gates)
        part = s.pres[changed]
        gates[changed] = _sigmoid(part) if changed == 3 else np.tanh(part)
        i, f, o, g = gates
        return _cell(f * s.c + i * g, o)

    return forward


def _with_pre(pre: Callable[[_Step], Array]) -> Forward:
    """Return an LSTM whose gates come from another pre-activation."""

    def forward(s: _Step) -> States:
        Wx, Wh, _ = s.weights
        return _lstm(replace(s, weights=(Wx * 0, Wh * 0, pre(s))))

    return forward


_LSTM_FORWARD: dict[str, Forward] = {
    "g takes the sigmoid; it takes tanh": _gate_as(3),
    "the input gate takes tanh; it takes the sigmoid": _gate_as(0),
    "the forget gate takes tanh; it takes the sigmoid": _gate_as(1),
    "the output gate takes tanh; it takes the sigmoid": _gate_as(2),
    "tanh of the cell state is left out; next_h is o * tanh(next_c)": lambda s: (
        s.gates[2] * _lstm(s)[1],
        _lstm(s)[1],
    ),
    "next_h takes the cell state before; it is o * tanh(next_c)": lambda s: (
        s.gates[2] * np.tanh(s.c),
        _lstm(s)[1],
    ),
    "the forget gate is left out": lambda s: _cell(s.c + s.gates[0] * s.gates[3], s.gates[2]),
    "the input gate is left out": lambda s: _cell(s.gates[1] * s.c + s.gates[3], s.gates[2]),
    "the output gate is left out": lambda s: (np.tanh(_lstm(s)[1]), _lstm(s)[1]),
    "the bias is not added": _with_pre(lambda s: s.pre - s.weights[2]),
    "the state before is left out": _with_pre(lambda s: s.own + s.weights[2]),
    "the input is left out": _with_pre(lambda s: s.pre - s.own),
}


Slope = Callable[[Array, Array], Any]
"""The derivative of a gate from the gate and its pre-activation."""


def _gate_slope(gate: Array, pre: Array) -> Any:
    return gate * (1 - gate)


def _cell_slope(gate: Array, pre: Array) -> Any:
    return 1 - gate**2


def _lstm_back(
    dc: Callable[[Array, Array, Array, Array], Array] | None = None,
    inner: Mapping[int, Callable[[_Step, Array, Array, Array], Array]] | None = None,
    slopes: dict[int, Slope] | None = None,
    carried: Callable[[Array, Array], Array] = lambda dc, f: dc * f,
    order: Sequence[int] = (0, 1, 2, 3),
) -> Backward:
    """Return the backward step of an LSTM with some of its parts replaced.

    `dc` is that of the cell state from (dnext_h, dnext_c, o, next_c), `inner` that of a gate from
    (step, dnext_h, dc, next_c), `slopes` a gate's derivative, `carried` dprev_c from (dc, f), and
    `order` that of the gates' gradients.
    """

    def backward(s: _Step, d: States) -> tuple[Array, States]:
        (dh, dnext), (i, f, o, g), (_, c) = d, s.gates, _lstm(s)
        whole = (dc or _dc)(dh, dnext, o, c)
        parts = [whole * g, whole * s.c, dh * np.tanh(c), whole * i]
        for gate, rule in (inner or {}).items():
            parts[gate] = rule(s, dh, whole, c)
        rules = {k: _gate_slope for k in range(3)} | {3: _cell_slope} | (slopes or {})
        parts = [p * rules[k](s.gates[k], s.pres[k]) for k, p in enumerate(parts)]
        return np.concatenate([parts[k] for k in order], 1), (carried(whole, f),)

    return backward


def _dc(dh: Array, dnext: Array, o: Array, c: Array) -> Array:
    return np.asarray(dnext + dh * o * (1 - np.tanh(c) ** 2))


_GATES = {0: "input", 1: "forget", 2: "output"}
_NO_SLOPE = "the sigmoid's derivative s * (1 - s) is left out"
_LSTM_BACKWARD: dict[str, Backward] = {
    "dnext_c is left out": _lstm_back(lambda dh, dn, o, c: dh * o * (1 - np.tanh(c) ** 2)),
    "the path from next_h to next_c is missing": _lstm_back(lambda dh, dn, o, c: dn),
    "tanh's derivative at next_c is left out; it is 1 - tanh(next_c)**2": _lstm_back(
        lambda dh, dn, o, c: dn + dh * o
    ),
    "tanh's derivative takes next_c; it is 1 - tanh(next_c)**2": _lstm_back(
        lambda dh, dn, o, c: dn + dh * o * (1 - c**2)
    ),
    "tanh's derivative takes next_h; it is 1 - tanh(next_c)**2": _lstm_back(
        lambda dh, dn, o, c: dn + dh * o * (1 - (o * np.tanh(c)) ** 2)
    ),
    "the output gate is left out of the path from next_h to next_c": _lstm_back(
        lambda dh, dn, o, c: dn + dh * (1 - np.tanh(c) ** 2)
    ),
    "the output gate's gradient takes next_c; it is dnext_h * tanh(next_c)": _lstm_back(
        inner={2: lambda s, dh, dc, c: dh * c}
    ),
    "the forget gate's gradient takes next_c; it takes prev_c": _lstm_back(
        inner={1: lambda s, dh, dc, c: dc * c}
    ),
    "the gradients of i and g are swapped: i takes g, and g takes i": _lstm_back(
        inner={
            0: lambda s, dh, dc, c: dc * s.gates[0],
            3: lambda s, dh, dc, c: dc * s.gates[3],
        }
    ),
    "the forget gate is left out of dprev_c": _lstm_back(carried=lambda dc, f: dc),
    f"{_NO_SLOPE} in all gates": _lstm_back(slopes=dict.fromkeys(_GATES, lambda gate, pre: 1)),
    **{
        f"{_NO_SLOPE} in the {name} gate": _lstm_back(slopes={k: lambda gate, pre: 1})
        for k, name in _GATES.items()
    },
    "the sigmoid's derivative takes the pre-activation; it is s * (1 - s)": _lstm_back(
        slopes=dict.fromkeys(_GATES, lambda gate, pre: pre * (1 - pre))
    ),
    "the derivative of g is left out; it is 1 - g**2": _lstm_back(slopes={3: lambda gate, pre: 1}),
    "the derivative of g takes the pre-activation; it is 1 - g**2": _lstm_back(
        slopes={3: lambda gate, pre: 1 - pre**2}
    ),
    "the derivative of g is the sigmoid's; it is 1 - g**2": _lstm_back(
        slopes={3: lambda gate, pre: gate * (1 - gate)}
    ),
    "the square is missing: the derivative of g is 1 - g**2": _lstm_back(
        slopes={3: lambda gate, pre: 1 - gate}
    ),
    **{
        f"the gates' gradients are in the order {', '.join('ifog'[k] for k in order)}; "
        "it is i, f, o, g": _lstm_back(order=order)
        for order in permutations(range(4))
        if order != (0, 1, 2, 3)
    },
}


# ------------------------------------------------------------------ steps and sequences


@dataclass(frozen=True)
class _Kind:
    """A recurrent layer: its right step, and its wrong ones."""

    forward: Forward
    backward: Backward
    wrong_forward: Mapping[str, Forward]
    wrong_backward: Mapping[str, Backward]


_KINDS = {
    1: _Kind(_rnn, _rnn_back(lambda s, h: 1 - h**2), _RNN_FORWARD, _RNN_BACKWARD),
    4: _Kind(_lstm, _lstm_back(), _LSTM_FORWARD, _LSTM_BACKWARD),
}
"""The layers by their number of gates."""


def _gates_of(case: Case) -> int:
    return int(case.arrays["Wh"].shape[1] // case.arrays["Wh"].shape[0])


def _weights(case: Case) -> tuple[Array, Array, Array]:
    return case.arrays["Wx"], case.arrays["Wh"], case.arrays["b"]


def _step_of(case: Case) -> _Step:
    h = case.arrays["prev_h"]
    return _Step(case.x, h, case.arrays.get("prev_c", np.zeros_like(h)), _weights(case))


def _step_gradients(s: _Step, da: Array) -> dict[str, Array]:
    """Return the gradients from that of the pre-activation."""
    Wx, Wh, _ = s.weights
    found = {"dx": da @ Wx.T, "dprev_h": da @ Wh.T, "dWx": s.x.T @ da, "dWh": s.h.T @ da}
    return {**found, "db": da.sum(0)}


def _step_results(s: _Step, douts: States, backward: Backward) -> dict[str, Array]:
    """Return the gradients of one step."""
    da, dc = backward(s, douts)
    return _step_gradients(s, da) | dict(zip(("dprev_c",), dc, strict=False))


def _step_mistakes(case: Case, ours: Results) -> Iterator[Mistake]:
    """Yield mistakes in one step of an rnn or an LSTM."""
    kind, s, douts = _KINDS[_gates_of(case)], _step_of(case), (case.dout, *case.douts)
    for text, forward in kind.wrong_forward.items():
        yield text, dict(zip(("next_h", "next_c"), forward(s), strict=False))
    for text, backward in kind.wrong_backward.items():
        yield text, _step_results(s, douts, backward)
    (Wx, Wh, _), da = s.weights, kind.backward(s, douts)[0]
    if Wh.shape[0] == Wh.shape[1]:
        yield "Wh is not transposed; dprev_h takes Wh.T", {"dprev_h": da @ Wh}
    if Wx.shape[0] == Wx.shape[1]:
        yield "Wx is not transposed; dx takes Wx.T", {"dx": da @ Wx}
    yield "dWh takes next_h; it takes prev_h", {"dWh": np.asarray(ours["next_h"]).T @ da}
    yield from ((text, {"db": wrong}) for text, wrong in wrong_axis("db", da))
    yield from _divided(case, ours, "dx", "dprev_h", "dprev_c", "dWx", "dWh", "db")

    def results(weights: Sequence[Array]) -> dict[str, Array]:
        Wx, Wh, b = weights
        step = replace(s, weights=(Wx, Wh, b))
        outputs = dict(zip(("next_h", "next_c"), kind.forward(step), strict=False))
        return outputs | _step_results(step, douts, kind.backward)

    yield from _gate_orders(case, results)


def _divided(case: Case, ours: Results, *names: str) -> Iterator[Mistake]:
    for name in names:
        if name in ours:
            text = f"{name} is divided by N; the loss has done that already"
            yield text, {name: ours[name] / len(case.x)}


def _gate_orders(
    case: Case, results: Callable[[Sequence[Array]], dict[str, Array]]
) -> Iterator[Mistake]:
    """Yield LSTMs that read the gates in another order than i, f, o, g.

    `results` computes the right layer with other weights, of which a student's layer has the
    gradients in its own order.
    """
    if _gates_of(case) == 1:
        return
    width = case.arrays["Wh"].shape[0]
    for order in permutations(range(4)):
        if order == (0, 1, 2, 3):
            continue
        columns = np.concatenate([np.arange(width) + width * order.index(k) for k in range(4)])
        found = results([weight[..., columns] for weight in _weights(case)])
        for name in ("dWx", "dWh", "db"):
            restored = np.empty_like(found[name])
            restored[..., columns] = found[name]
            found[name] = restored
        names = ", ".join("ifog"[k] for k in order)
        yield f"the gates are read in the order {names}; it is i, f, o, g", found


_PARAMETERS = ("Wx", "Wh", "b")


@dataclass(frozen=True)
class _Slip:
    """A mistake in a loop over time; the defaults are right."""

    forward: Forward | None = None
    backward: Backward | None = None
    carried: bool = True
    """Whether a step begins with the state of the step before it."""
    starts: Callable[[Array], States] | None = None
    """The states before the first step, from h0."""
    flows: tuple[bool, bool] = (True, True)
    """Whether the gradients of h and c flow to the step before."""
    reads: Callable[[int, int], bool] = lambda t, steps: True
    """Whether step t reads dh."""
    sums: Callable[[int, int], bool] = lambda t, steps: True
    """Whether step t adds to the gradients of the parameters."""
    forwards: bool = False
    """Whether backward goes from the first step to the last."""


def _slips(kind: _Kind, gates: int) -> Iterator[tuple[str, _Slip]]:
    """Yield mistakes in the loop over time, then those in all of its steps."""
    yield "h0 is left out; it is the first state", _Slip(starts=lambda h: (h * 0, h * 0))
    text = "every step begins with h0; it begins with the state of the step before"
    yield text, _Slip(carried=False)
    text = "the state's gradient does not flow to the step before; add dprev_h to that step's dh"
    yield text, _Slip(flows=(False, True))
    text = "only the last step reads dh; each step adds its dh[:, t]"
    yield text, _Slip(reads=lambda t, steps: t == steps - 1)
    text = "the parameters' gradients are not summed over time; add them up with +="
    yield text, _Slip(sums=lambda t, steps: t == 0)
    yield text, _Slip(sums=lambda t, steps: t == steps - 1)
    text = "backward goes from the first step to the last; it goes from the last to the first"
    yield text, _Slip(forwards=True)
    if gates == 4:
        yield "the first cell state is h0; it is 0", _Slip(starts=lambda h: (h, h))
        yield "dprev_c does not flow to the step before", _Slip(flows=(True, False))
        both = "neither dprev_h nor dprev_c flows to the step before"
        yield both, _Slip(flows=(False, False))
    for text, forward in kind.wrong_forward.items():
        yield text, _Slip(forward=forward)
    for text, backward in kind.wrong_backward.items():
        yield text, _Slip(backward=backward)


def _unrolled(case: Case, slip: _Slip) -> dict[str, Array]:
    """Return all results of a recurrent layer with a mistake in its loop."""
    kind, h0 = _KINDS[_gates_of(case)], case.arrays["h0"]
    start = (slip.starts or (lambda h: (h, np.zeros_like(h))))(h0)
    states, taken, found = start, list[_Step](), list[Array]()
    for t in range(case.x.shape[1]):
        h, c = (*(states if slip.carried else start), np.zeros_like(h0))[:2]
        taken.append(_Step(case.x[:, t], h, c, _weights(case)))
        states = (slip.forward or kind.forward)(taken[-1])
        found.append(states[0])
    return {"h": np.stack(found, 1)} | _back(case, slip, taken)


def _back(case: Case, slip: _Slip, taken: Sequence[_Step]) -> dict[str, Array]:
    """Return the gradients, from the last step to the first."""
    kind, steps = _KINDS[_gates_of(case)], len(taken)
    dx, flowing = np.zeros_like(case.x), (np.zeros_like(case.arrays["h0"]),) * 2
    total = {f"d{name}": np.zeros_like(case.arrays[name]) for name in _PARAMETERS}
    for t in range(steps) if slip.forwards else reversed(range(steps)):
        dh = flowing[0] + (case.dout[:, t] if slip.reads(t, steps) else 0)
        da, dc = (slip.backward or kind.backward)(taken[t], (dh, flowing[1]))
        own = _step_gradients(taken[t], da)
        dx[:, t], dh0 = own["dx"], own["dprev_h"]
        if slip.sums(t, steps):
            total = {name: array + own[name] for name, array in total.items()}
        pair = (dh0, *dc, flowing[1])[:2]
        h, c = (flow * kept for flow, kept in zip(pair, slip.flows, strict=True))
        flowing = (h, c)
    return {"dx": dx, "dh0": dh0, **total}


def _sequence_mistakes(case: Case, ours: Results) -> Iterator[Mistake]:
    """Yield mistakes in an rnn or an LSTM."""
    gates = _gates_of(case)
    for text, slip in _slips(_KINDS[gates], gates):
        found = _unrolled(case, slip)
        # after a wrong step forward the gradients are of no layer that is known
        yield text, found if slip.forward is None else {"h": found["h"]}
    backwards = _unrolled(replace(case, arrays={**case.arrays, "x": case.x[:, ::-1]}), _Slip())["h"]
    for h in (backwards, backwards[:, ::-1]):
        yield "the steps run from the last to the first", {"h": h}
    yield "dx is in the order of the backward loop; reverse it", {"dx": ours["dx"][:, ::-1]}
    yield from _divided(case, ours, "dx", "dh0", "dWx", "dWh", "db")
    for name in ("dWx", "dWh", "db"):
        text = f"{name} is a mean over the steps; it is their sum"
        yield text, {name: ours[name] / case.x.shape[1]}

    def results(weights: Sequence[Array]) -> dict[str, Array]:
        arrays = dict(zip(_PARAMETERS, weights, strict=True))
        return _unrolled(replace(case, arrays={**case.arrays, **arrays}), _Slip())

    yield from _gate_orders(case, results)


# ------------------------------------------------------------------ words


def _embedding_mistakes(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    x, W = case.arrays["x"], case.arrays["W"]
    if what == "dW":
        once = np.zeros_like(W)
        once[x] = case.dout
        text = "a word that occurs several times takes one of its gradients; add them up, as "
        yield text + "np.add.at does", once
        counts = np.maximum(np.bincount(x.ravel(), minlength=len(W)), 1)[:, None]
        yield "dW is a mean over a word's places; it is their sum", ours["dW"] / counts
        yield "dW is divided by N; the loss has done that already", ours["dW"] / len(x)


def _temporal_softmax_mistakes(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    x, y, mask = case.arrays.values()
    rows, steps = y.shape
    right, name = ours[what], "the loss is" if what == "loss" else "dx is"
    yield f"missing /N: {name} a sum over the rows; divide it by N", right * rows
    yield f"{name} divided by N * T; divide it by N", right / steps
    counted = f"{name} divided by the number of steps that count; divide it by N"
    yield counted, right * rows / max(mask.sum(), 1)
    loss, dx = layers.temporal_softmax_loss(x, y, np.ones_like(mask))
    yield "the mask is left out", loss if what == "loss" else dx
    yield (
        "the mask is turned round: it is true for steps that count",
        dict(zip(("loss", "dx"), layers.temporal_softmax_loss(x, y, ~mask), strict=True))[what],
    )
    if what == "dx":
        hit = np.eye(x.shape[2])[y] * mask[..., None] / rows
        yield "1 is not subtracted at the labels", right + hit


MISTAKES: dict[str, Mistakes] = {
    "rnn_step": _step_mistakes,
    "lstm_step": _step_mistakes,
    "rnn": _sequence_mistakes,
    "lstm": _sequence_mistakes,
    "word_embedding": by_result(_embedding_mistakes),
    "temporal_softmax_loss": by_result(_temporal_softmax_mistakes),
}
"""The mistakes of layers of sequences."""
