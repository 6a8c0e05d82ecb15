"""The course's layers of sequences: inputs, and usual mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np

from graphc.check.course.compare import Candidate
from graphc.check.course.formulas import Formulas, table
from graphc.check.course.rows import affine_mistakes, wrong_axis
from graphc.check.course.spec import AFFINE, Case, Mistake, Results, Rng, Spec, by_result, pair
from graphc.ir.op import Array

# ------------------------------------------------------------------ inputs


def _recurrent(
    gates: int, steps: tuple[int, ...], states: tuple[str, ...], rng: Rng
) -> Iterator[Case]:
    """Yield cases of one step, or of sequences of so many `steps`."""
    for k, (rows, features, width) in enumerate(((3, 4, 5), (2, 3, 3), (1, 2, 4))):
        length = steps[k : k + 1]
        columns = gates * width
        shapes = {"x": (rows, *length, features), **dict.fromkeys(states, (rows, width))}
        shapes |= {"Wx": (features, columns), "Wh": (width, columns), "b": (columns,)}
        arrays = {name: rng.standard_normal(shape) * 0.7 for name, shape in shapes.items()}
        douts = [rng.standard_normal((rows, *length, width)) for _ in states]
        yield Case(arrays, douts[0], douts=tuple(douts[1:]))


def _words(rng: Rng) -> Iterator[Case]:
    for rows, steps, words, size in ((3, 4, 5, 3), (1, 2, 6, 2), (2, 3, 2, 4)):
        arrays = {
            "x": rng.integers(0, words, (rows, steps)),
            "W": rng.standard_normal((words, size)),
        }
        yield Case(arrays, rng.standard_normal((rows, steps, size)))


def _temporal_affine(rng: Rng) -> Iterator[Case]:
    for rows, steps, size, units in ((3, 4, 5, 2), (2, 3, 4, 4), (1, 2, 3, 4), (2, 1, 3, 2)):
        shapes = {"x": (rows, steps, size), "w": (size, units), "b": (units,)}
        arrays = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
        yield Case(arrays, rng.standard_normal((rows, steps, units)))


# ------------------------------------------------------------------ one step

_GRADIENTS = """
dx = da @ Wx.T
dprev_h = da @ Wh.T
dWx = x.T @ da
dWh = prev_h.T @ da
db = da.sum(0)
"""
_RNN_BACK = f"""
da = dnext_h * (1 - next_h**2)
{_GRADIENTS.strip()}
"""
_RNN = """
own = x @ Wx
pre = own + prev_h @ Wh + b
next_h = tanh(pre)
"""
_RNN_MISTAKES = table("""
next_h = pre | tanh is left out
next_h = sigmoid(pre) | the sigmoid takes the place of tanh
next_h = maximum(pre, 0) | relu takes the place of tanh
next_h = tanh(pre - b) | the bias is not added
next_h = tanh(own + b) | the state before is left out
next_h = tanh(pre - own) | the input is left out
next_h = tanh(own + prev_h @ Wh.T + b) | Wh is transposed; the state takes prev_h @ Wh
da = dnext_h | tanh's derivative is left out; it is 1 - next_h**2
da = dnext_h * (1 - pre**2) | tanh's derivative takes the pre-activation; it is 1 - next_h**2
da = dnext_h * (1 - prev_h**2) | tanh's derivative takes the state before; it is 1 - next_h**2
da = dnext_h * (1 - tanh(next_h) ** 2) | tanh is taken twice: its derivative is 1 - next_h**2
da = dnext_h * (1 - next_h) | the square is missing: tanh's derivative is 1 - next_h**2
da = dnext_h * (1 + next_h**2) | the sign is wrong: tanh's derivative is 1 - next_h**2
da = dnext_h * next_h**2 | next_h**2 is not subtracted from 1
da = dnext_h * next_h * (1 - next_h) | the sigmoid's derivative takes the place of tanh's
da = dnext_h * (next_h > 0) | relu's derivative takes the place of tanh's
dWh = next_h.T @ da | dWh takes next_h; it takes prev_h
""")
_LSTM = """
own = x @ Wx
pre = own + prev_h @ Wh + b
i = sigmoid(block(pre, 0))
f = sigmoid(block(pre, 1))
o = sigmoid(block(pre, 2))
g = tanh(block(pre, 3))
next_c = f * prev_c + i * g
tc = tanh(next_c)
next_h = o * tc
"""
_LSTM_BACK = f"""
dc = dnext_c + dnext_h * o * (1 - tc**2)
di = dc * g * i * (1 - i)
df = dc * prev_c * f * (1 - f)
do = dnext_h * tc * o * (1 - o)
dg = dc * i * (1 - g**2)
dprev_c = dc * f
da = join(di, df, do, dg)
{_GRADIENTS.strip()}
"""
_LSTM_MISTAKES = table("""
g = sigmoid(block(pre, 3)) | g takes the sigmoid; it takes tanh
i = tanh(block(pre, 0)) | the input gate takes tanh; it takes the sigmoid
f = tanh(block(pre, 1)) | the forget gate takes tanh; it takes the sigmoid
o = tanh(block(pre, 2)) | the output gate takes tanh; it takes the sigmoid
next_h = o * next_c | tanh of the cell state is left out; next_h is o * tanh(next_c)
next_h = o * tanh(prev_c) | next_h takes the cell state before; it is o * tanh(next_c)
next_c = prev_c + i * g | the forget gate is left out
next_c = f * prev_c + g | the input gate is left out
next_h = tc | the output gate is left out
pre = own + prev_h @ Wh | the bias is not added
pre = own + b | the state before is left out
pre = prev_h @ Wh + b | the input is left out
dc = dnext_h * o * (1 - tc**2) | dnext_c is left out
dc = dnext_c | the path from next_h to next_c is missing
dc = dnext_c + dnext_h * o | tanh's derivative at next_c is left out; it is 1 - tanh(next_c)**2
dc = dnext_c + dnext_h * o * (1 - next_c**2) | tanh's derivative takes next_c, not tanh(next_c)
dc = dnext_c + dnext_h * o * (1 - next_h**2) | tanh's derivative takes next_h, not tanh(next_c)
dc = dnext_c + dnext_h * (1 - tc**2) | the output gate is left out of the path from next_h to next_c
do = dnext_h * next_c * o * (1 - o) | the output gate's gradient takes next_c, not tanh(next_c)
df = dc * next_c * f * (1 - f) | the forget gate's gradient takes next_c; it takes prev_c
di = dc * i * i * (1 - i); dg = dc * g * (1 - g**2) | the gradients of i and g are swapped
dprev_c = dc | the forget gate is left out of dprev_c
di = dc * g; df = dc * prev_c; do = dnext_h * tc | the sigmoid's derivative is left out in all gates
di = dc * g | the sigmoid's derivative is left out in the input gate
df = dc * prev_c | the sigmoid's derivative is left out in the forget gate
do = dnext_h * tc | the sigmoid's derivative is left out in the output gate
dg = dc * i | g's derivative is left out; it is 1 - g**2
dg = dc * i * (1 - block(pre, 3) ** 2) | g's derivative takes the pre-activation; it is 1 - g**2
dg = dc * i * g * (1 - g) | g's derivative is the sigmoid's; it is 1 - g**2
dg = dc * i * (1 - g) | the square is missing: g's derivative is 1 - g**2
""")


def _gate_orders() -> Iterator[tuple[str, str]]:
    """Yield the lines that read the gates in another order, and that join their gradients so."""
    for order in permutations("ifog"):
        if order != ("i", "f", "o", "g"):
            names, joined = ", ".join(order), ", ".join(f"d{gate}" for gate in order)
            reads = "; ".join(
                f"{gate} = {'tanh' if gate == 'g' else 'sigmoid'}(block(pre, {order.index(gate)}))"
                for gate in "ifog"
            )
            text = f"the gates are read in the order {names}; it is i, f, o, g"
            yield text, f"{reads}; da = join({joined})"
            text = f"the gates' gradients are in the order {names}; it is i, f, o, g"
            yield text, f"da = join({joined})"


@dataclass(frozen=True)
class _Kind:
    """A recurrent layer: the formulas of a step, forward and backward, and wrong lines."""

    forward: Formulas
    backward: Formulas
    mistakes: Mapping[str, str]
    states: tuple[str, ...]

    def split(self, mistake: str) -> tuple[str, str]:
        """Return the lines of a mistake that are of forward, and those of backward."""
        lines = [line for line in mistake.split("; ") if line]
        ahead = [line for line in lines if line.partition(" = ")[0] in self.forward.lines]
        return "; ".join(ahead), "; ".join(line for line in lines if line not in ahead)


_KINDS = {
    1: _Kind(Formulas(_RNN), Formulas(_RNN_BACK), _RNN_MISTAKES, ("h",)),
    4: _Kind(
        Formulas(_LSTM), Formulas(_LSTM_BACK), _LSTM_MISTAKES | dict(_gate_orders()), ("h", "c")
    ),
}
"""The layers by their number of gates."""
_PARAMETERS = ("Wx", "Wh", "b")


def _kind_of(case: Case) -> _Kind:
    Wh = case.arrays["Wh"]
    return _KINDS[Wh.shape[1] // Wh.shape[0]]


def _step_mistakes(case: Case, ours: Results) -> Iterator[Mistake]:
    """Yield mistakes in one step of an rnn or an LSTM."""
    kind = _kind_of(case)
    names = [f"dnext_{state}" for state in kind.states]
    given = {**case.arrays, **dict(zip(names, (case.dout, *case.douts), strict=True))}

    def results(mistake: str = "") -> dict[str, Any]:
        ahead, back = kind.split(mistake)
        return kind.backward.results(kind.forward.results(given, ahead), back)

    wrong = dict(kind.mistakes)
    if case.arrays["Wx"].shape[0] == case.arrays["Wx"].shape[1]:
        wrong["Wx is not transposed; dx takes Wx.T"] = "dx = da @ Wx"
    if len(kind.states) == 1:
        wrong["Wh is not transposed; dprev_h takes Wh.T"] = "dprev_h = da @ Wh"
    yield from ((text, results(mistake)) for text, mistake in wrong.items())
    yield from ((text, {"db": db}) for text, db in wrong_axis("db", results()["da"]))


# ------------------------------------------------------------------ many steps


@dataclass(frozen=True)
class _Slip:
    """A mistake in a loop over time; the defaults are right."""

    mistake: str = ""
    """The wrong lines of each step."""
    carried: bool = True
    """If False, each step begins with the first state."""
    starts: Callable[[Array], tuple[Array, Array]] = lambda h: (h, np.zeros_like(h))
    """The states h and c before the first step, from h0."""
    flows: tuple[bool, bool] = (True, True)
    """If False, the gradient of h, or of c, does not go to the step before."""
    reads: Callable[[int, int], bool] = lambda t, steps: True
    """If True for t, step t reads dh."""
    sums: Callable[[int, int], bool] = lambda t, steps: True
    """If True for t, step t adds to the gradients of the parameters."""
    forwards: bool = False
    """If True, backward goes from the first step to the last."""


def _slips(kind: _Kind) -> Iterator[tuple[str, _Slip]]:
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
    if len(kind.states) == 2:
        yield "the first cell state is h0; it is 0", _Slip(starts=lambda h: (h, h))
        yield "dprev_c does not flow to the step before", _Slip(flows=(True, False))
        both = "neither dprev_h nor dprev_c flows to the step before"
        yield both, _Slip(flows=(False, False))
    yield from ((text, _Slip(mistake)) for text, mistake in kind.mistakes.items())


def _unrolled(case: Case, slip: _Slip) -> dict[str, Array]:
    """Return all results of a recurrent layer with a mistake in its loop."""
    kind, start = _kind_of(case), slip.starts(case.arrays["h0"])
    (ahead, back), states, taken = kind.split(slip.mistake), start, list[dict[str, Any]]()
    for t in range(case.x.shape[1]):
        h, c = states if slip.carried else start
        given = {**case.arrays, "x": case.x[:, t], "prev_h": h, "prev_c": c, "next_c": c}
        taken.append(kind.forward.results(given, ahead))
        states = taken[-1]["next_h"], taken[-1]["next_c"]
    return {"h": np.stack([step["next_h"] for step in taken], 1), **_back(case, slip, taken, back)}


def _back(case: Case, slip: _Slip, taken: list[dict[str, Any]], mistake: str) -> dict[str, Array]:
    """Return the gradients, from the last step to the first."""
    kind, steps = _kind_of(case), len(taken)
    dx, dh, dc = np.zeros_like(case.x), *(np.zeros_like(case.arrays["h0"]),) * 2
    total = {f"d{name}": np.zeros_like(case.arrays[name]) for name in _PARAMETERS}
    for t in range(steps) if slip.forwards else reversed(range(steps)):
        read = dh * slip.flows[0] + (case.dout[:, t] if slip.reads(t, steps) else 0)
        given = {**taken[t], "dnext_h": read, "dnext_c": dc * slip.flows[1], "dprev_c": dc}
        own = kind.backward.results(given, mistake)
        dx[:, t], dh, dc = own["dx"], own["dprev_h"], own["dprev_c"]
        if slip.sums(t, steps):
            total = {name: array + own[name] for name, array in total.items()}
    return {"dx": dx, "dh0": dh, **total}


def _sequence_mistakes(case: Case, ours: Results) -> Iterator[Mistake]:
    """Yield mistakes in an rnn or an LSTM."""
    yield from ((text, _unrolled(case, slip)) for text, slip in _slips(_kind_of(case)))
    backwards = _unrolled(replace(case, arrays={**case.arrays, "x": case.x[:, ::-1]}), _Slip())["h"]
    for h in (backwards, backwards[:, ::-1]):
        yield "the steps run from the last to the first", {"h": h}
    yield "dx is in the order of the backward loop; reverse it", {"dx": ours["dx"][:, ::-1]}
    for name in (f"d{parameter}" for parameter in _PARAMETERS):
        text = f"{name} is a mean over the steps; it is their sum"
        yield text, {name: ours[name] / case.x.shape[1]}


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


def _recurrent_spec(
    name: str, gates: int, steps: tuple[int, ...], ins: tuple[str, ...], outs: tuple[str, ...]
) -> Spec:
    """Return the Spec of a recurrent layer, given the names of its states."""
    gradients = ("dx", *(f"d{name}" for name in (*ins, *_PARAMETERS)))
    cases = partial(_recurrent, gates, steps, ins)
    mistakes = _sequence_mistakes if steps else _step_mistakes
    return Spec(*pair(name), gradients, cases, mistakes, outs)


SPECS = {
    "rnn_step": _recurrent_spec("rnn_step", 1, (), ("prev_h",), ("next_h",)),
    "rnn": _recurrent_spec("rnn", 1, (4, 3, 1), ("h0",), ("h",)),
    "lstm_step": _recurrent_spec("lstm_step", 4, (), ("prev_h", "prev_c"), ("next_h", "next_c")),
    "lstm": _recurrent_spec("lstm", 4, (4, 3, 1), ("h0",), ("h",)),
    "word_embedding": Spec(
        *pair("word_embedding"), ("dW",), _words, by_result(_embedding_mistakes)
    ),
    "temporal_affine": Spec(
        *pair("temporal_affine"), AFFINE, _temporal_affine, by_result(affine_mistakes)
    ),
}
"""Recurrent layers, words, and an affine map of each step."""
