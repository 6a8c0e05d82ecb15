"""Several update rules in one step: critic, then actor by the new critic, then temperature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.check.validation.explain import ValidationError
from passes import backward
from tests.error_text import error_text

Array = Any
ROWS = 5
CRITIC, ACTOR, ALPHA = (
    gc.SGD(0.1, momentum=0.9, name="critic"),
    gc.Adam(0.05, name="actor"),
    gc.SGD(0.2, name="alpha"),
)
RULES = (
    gc.UpdateRule("td", "critic/*", CRITIC),
    gc.UpdateRule("policy", "actor/*", ACTOR),
    gc.UpdateRule("entropy", "alpha", ALPHA),
)


def net() -> gc.Net:
    net = gc.Net("net", dtype="float64")
    x, u, y = net.input("x", (gc.N, 3)), net.input("u", (gc.N, 2)), net.input("y", (gc.N, 1))
    with net.block("critic"):
        w = net.parameter("w", (5, 1))
    with net.block("actor"):
        p = net.parameter("p", (3, 2))
    alpha = net.parameter("alpha", ())
    a = gc.tanh(x @ p)
    net.output("action", a)
    net.loss("td", gc.mean((gc.concat([x, u], 1) @ w - y - a[:, :1]) ** 2))
    net.loss("policy", -gc.mean(gc.concat([x, a], 1) @ w))
    net.loss("entropy", gc.mean(alpha * gc.stop_gradient(a)))
    return net


def feeds(seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((ROWS, n)) for name, n in (("x", 3), ("u", 2), ("y", 1))}


def plan(rules: Any = RULES, **options: Any) -> gc.Plan:
    return gc.compile(net(), batch=ROWS, updates=rules, **{"backend": "numpy", **options})


@pytest.fixture(scope="module")
def trained() -> gc.Plan:
    return plan()


class ByHand:
    """The same step in plain NumPy, written from the formulas."""

    def __init__(self, ex: gc.Executor) -> None:
        self.w, self.p, self.alpha = (ex.parameters[n] for n in ("critic/w", "actor/p", "alpha"))
        self.velocity, self.mean, self.square = (np.zeros_like(v) for v in (self.w, self.p, self.p))
        self.t = 0

    def step(self, x: Array, u: Array, y: Array) -> float:
        xu = np.concatenate([x, u], 1)
        error = xu @ self.w - y - np.tanh(x @ self.p)[:, :1]  # so critic/w.next depends on p
        self.velocity = 0.9 * self.velocity + 2 / len(x) * xu.T @ error
        self.w = self.w - 0.1 * self.velocity
        a = np.tanh(x @ self.p)
        policy = -np.mean(np.concatenate([x, a], 1) @ self.w)  # by the critic's new weights
        g = x.T @ (-self.w[3:].T / len(x) * (1 - a**2))
        self.t += 1
        self.mean = 0.9 * self.mean + 0.1 * g
        self.square = 0.999 * self.square + 0.001 * g * g
        direction = np.sqrt(self.square / (1 - 0.999**self.t)) + 1e-8
        self.p = self.p - 0.05 * self.mean / (1 - 0.9**self.t) / direction
        a = np.tanh(x @ self.p)  # by the actor's new weights
        entropy = np.mean(self.alpha * a)
        self.alpha = self.alpha - 0.2 * np.mean(a)
        return float(np.mean(error**2) + policy + entropy)


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_each_rule_sees_what_those_before_it_wrote(backend: str) -> None:
    ex = gc.Executor(plan(backend=backend), seed=1)
    by_hand = ByHand(ex)
    for seed in range(4):
        assert ex.step(feeds(seed)) == pytest.approx(by_hand.step(**feeds(seed)), rel=1e-12)
    for name, wanted in (("critic/w", by_hand.w), ("actor/p", by_hand.p), ("alpha", by_hand.alpha)):
        np.testing.assert_allclose(ex.parameters[name], wanted, rtol=1e-11)
    assert {int(ex.state[f"updates:{name}"]) for name in ("critic", "actor", "alpha")} == {4}


def test_a_rule_alone_is_a_plan_with_one_optimizer() -> None:
    one = gc.compile(
        net(), batch=ROWS, losses="td", wrt="critic/*", optimizer=CRITIC, backend="numpy"
    )
    rule = plan(RULES[0])
    assert rule.rules == one.rules
    assert str(rule.programs["step"].graph) == str(one.programs["step"].graph)


def test_backward_and_update_apply_all_rules_to_gradients_of_one_point(trained: gc.Plan) -> None:
    ex, alone = gc.Executor(trained, seed=1), gc.Executor(trained, seed=1)
    ex.forward(feeds(0), train=True)
    gradients = ex.backward()
    assert list(gradients) == ["critic/w", "actor/p", "alpha"]
    ex.update()
    alone.step(feeds(0))
    np.testing.assert_array_equal(ex.parameters["critic/w"], alone.parameters["critic/w"])
    assert not np.array_equal(ex.parameters["alpha"], alone.parameters["alpha"])


def test_a_plan_of_one_of_the_rules_shares_its_counters(trained: gc.Plan) -> None:
    ex = gc.Executor(trained, seed=1)
    often = gc.Executor(plan(RULES[0]), state=ex.state)
    ex.step(feeds(0))
    often.step(feeds(1))
    assert [int(ex.state[f"updates:{n}"]) for n in ("critic", "actor")] == [2, 1]
    other = gc.UpdateRule("td", "critic/*", gc.SGD(0.5, name="critic"))
    with pytest.raises(gc.StateError, match="this plan's has lr=0"):
        gc.Executor(plan(other), state=ex.state)


def test_masks_are_those_of_the_one_forward() -> None:
    net = gc.Net("net", dtype="float64")
    x = net.input("x", (gc.N, 4))
    w, v = net.parameter("w", (4, 4)), net.parameter("v", (4, 4))
    h = gc.dropout(x @ w, keep_prob=0.5)
    net.output("h", h)
    net.loss("first", gc.mean(h))
    net.loss("second", gc.mean(h * (x @ v)))
    rules = [
        gc.UpdateRule("first", "w", gc.SGD(0.1, name="w")),
        gc.UpdateRule("second", "v", gc.SGD(0.1, name="v")),
    ]
    made = gc.compile(net, batch=ROWS, updates=rules, outputs="h", backend="numpy")
    ex = gc.Executor(made)
    before, rows = ex.parameters["v"], np.random.default_rng(0).standard_normal((ROWS, 4))
    ex.step(x=rows)
    mask = ex.values["h"] != 0  # by the values before the step, as the first rule sees them
    assert 0 < mask.sum() < mask.size
    again = 2 * mask * (rows @ ex.parameters["w"])
    np.testing.assert_allclose(ex.parameters["v"], before - 0.1 * rows.T @ again / mask.size)


def test_the_text_of_a_step() -> None:
    text = str(plan(RULES[:2]).programs["step"].graph)
    assert text.index("critic/w.next") < text.index("actor/p.next")
    assert "update critic/w = critic/w.next" in text
    assert [line for line in text.splitlines() if line.startswith("losses")] == [
        "losses td, policy"
    ]


def test_validation_finds_a_rule_that_does_not_see_the_ones_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(validate=True)
    monkeypatch.chdir(tmp_path)  # where validation writes what fails
    monkeypatch.setattr(backward, "_retaken", lambda b, values, written: {})
    with pytest.raises(ValidationError, match="backward"):
        plan(validate=True)


def test_saved_loaded_and_resumed(tmp_path: Path, trained: gc.Plan) -> None:
    ex = gc.Executor(trained, seed=1)
    ex.hyper["lr:actor"] = 0.01
    ex.step(feeds(0))
    gc.save(tmp_path / "m.gc", ex)
    again = gc.load(tmp_path / "m.gc")
    assert again.plan.rules == ex.plan.rules
    assert [ex.step(feeds(1)), ex.step(feeds(2))] == [again.step(feeds(1)), again.step(feeds(2))]
    for name, value in ex.state.items():
        np.testing.assert_array_equal(again.state[name], value)
    with pytest.raises(gc.GraphError, match="has several update rules, which one optimizer"):
        gc.load(tmp_path / "m.gc", optimizer=gc.SGD(0.1))


def test_a_run_is_stopped_resumed_and_replayed(tmp_path: Path, trained: gc.Plan) -> None:
    data = {name: np.tile(rows, (3, 1)) for name, rows in feeds(0).items()}
    whole, half = (gc.Executor(trained, seed=1) for _ in range(2))
    gc.fit(whole, data, epochs=4)
    gc.fit(half, data, epochs=2, checkpoint=tmp_path, record=tmp_path)
    both = gc.UpdateRule(["policy", "entropy"], ["actor/*", "alpha"], ACTOR)
    other = gc.Executor(plan([RULES[0], both]), seed=1)
    with pytest.raises(gc.GraphError, match="had 3 update rules, now there are 2"):
        gc.fit(other, data, epochs=4, checkpoint=tmp_path, resume=True)
    resumed = gc.Executor(trained, seed=1)
    resumed.hyper["lr:actor"] = 0.3
    with pytest.raises(gc.GraphError, match="had lr:actor 0"):
        gc.fit(resumed, data, epochs=4, checkpoint=tmp_path, resume=True)
    resumed.hyper["lr:actor"] = 0.05
    gc.fit(resumed, data, epochs=4, checkpoint=tmp_path, record=tmp_path, resume=True)
    for name, value in whole.state.items():
        np.testing.assert_array_equal(resumed.state[name], value)
    assert gc.replay(tmp_path, step=8).unlike is None


def test_averages_of_each_rule() -> None:
    rules = [
        gc.UpdateRule("td", "critic/*", gc.SGD(0.1, ema=0.5, name="critic")),
        gc.UpdateRule("policy", "actor/*", gc.SGD(0.1, name="actor")),
    ]
    ex = gc.Executor(plan(rules), seed=1)
    weights = []
    for seed in range(2):
        ex.step(feeds(seed))
        weights.append(ex.parameters["critic/w"])
    smooth = ex.averaged().parameters
    np.testing.assert_allclose(smooth["critic/w"], (weights[0] + weights[1]) / 2)
    np.testing.assert_array_equal(smooth["actor/p"], ex.parameters["actor/p"])


TWICE = gc.UpdateRule("policy", ["actor/p", "critic/w"], gc.SGD(0.1, name="both"))
MISTAKES: list[tuple[Callable[[], object], str]] = [
    (lambda: gc.UpdateRule("td", "w", "adam"), "UpdateRule: optimizer is 'adam'"),  # type: ignore[arg-type]
    (lambda: gc.UpdateRule([], "w", CRITIC), "UpdateRule: losses is \\[\\], it must be names"),
    (lambda: gc.UpdateRule("td", 3, CRITIC), "UpdateRule: wrt is 3, it must be names"),  # type: ignore[arg-type]
    (lambda: plan([]), "compile: updates is \\[\\], it must be update rules"),
    (lambda: plan(CRITIC), "it must be update rules"),
    (lambda: plan(optimizer=CRITIC), "compile: optimizer= does not go with updates="),
    (lambda: plan(wrt="critic/*"), "compile: wrt= does not go with updates="),
    (lambda: plan(shards=2), "3 update rules do not go with shards or ranks"),
    (lambda: plan([RULES[0], TWICE]), "parameter 'critic/w' is trained by two update rules"),
    (
        lambda: plan([RULES[0], gc.UpdateRule("policy", "actor/*", gc.Adam())]),
        "the optimizers of 2 update rules are named 'critic', ''",
    ),
    (
        lambda: plan(
            [RULES[0], gc.UpdateRule("policy", "actor/*", gc.Adam(name="b", accumulate=2))]
        ),
        "accumulate= goes with one update rule alone",
    ),
    (lambda: plan([gc.UpdateRule("dt", "actor/*", ACTOR)]), "no loss matches 'dt'"),
    (lambda: plan([gc.UpdateRule("td", "alpha", ACTOR)]), "no loss depends on the values of wrt"),
]


@pytest.mark.parametrize(("make", "sentence"), MISTAKES)
def test_mistakes(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(gc.GraphError, match=sentence) as caught:
        make()
    assert caught.value.loc is not None
    assert caught.value.loc.file == __file__
    lines, first = inspect.getsourcelines(make)
    here = caught.value.loc.line
    helper = plan.__code__.co_firstlineno
    assert first <= here < first + len(lines) or helper <= here < helper + 3
    assert error_text(caught.value).startswith(caught.value.sentence)
