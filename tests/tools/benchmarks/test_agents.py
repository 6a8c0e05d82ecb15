"""The comparison with stable-baselines3 compares what it says."""

from __future__ import annotations

import runpy

import numpy as np
import pytest

from tests.extras import needs
from tests.tools.benchmarks.agents import EXAMPLES, TASKS, curve, interquartile_mean


def test_a_point_is_the_mean_of_the_trials_that_ended_in_its_window() -> None:
    task = TASKS["SAC"]._replace(window=600)
    trials = [(200, 1.0), (400, 2.0), (600, 3.0), (800, 7.0), (1000, 5.0)]
    assert curve(task, trials, np.array([600, 900])).tolist() == [2.0, 4.0]


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end() -> None:
    values = np.array([[9.0], [1.0], [2.0], [-50.0], [3.0], [100.0], [4.0], [5.0]])
    assert interquartile_mean(values) == pytest.approx(np.mean([2, 3, 4, 5]))


def test_the_poles_of_the_example_are_gymnasium_s() -> None:
    gymnasium = needs("gymnasium")
    ours, game = runpy.run_path(str(EXAMPLES / "ppo.py")), gymnasium.make("CartPole-v1")
    pole, ends = ours["Poles"]((1,), np.random.default_rng(0)), set()
    for trial in range(4):
        game.reset(seed=trial)
        pole.state, pole.age, over = np.array(game.unwrapped.state)[None], np.zeros(1, int), False
        while not over:
            # Odd trials push where the pole leans, so that it stands until the last step.
            lean = pole.state[0, 2] + 0.3 * pole.state[0, 3] + 0.02 * pole.state[0, 1]
            action = int(lean > 0) if trial % 2 else 1
            seen, _, fell, late, _ = game.step(action)
            assert [bool(x[0]) for x in pole.push(np.array([action]))] == [fell, late and not fell]
            assert np.allclose(seen, pole.state[0], atol=1e-6)
            over = fell or late
        ends.add((fell, late))
    assert ends == {(True, False), (False, True)}


def test_the_pendulum_of_the_example_is_gymnasium_s() -> None:
    gymnasium = needs("gymnasium")
    ours, game = runpy.run_path(str(EXAMPLES / "sac.py")), gymnasium.make("Pendulum-v1")
    rng, late = np.random.default_rng(0), False
    game.reset(seed=0)
    pendulum = ours["Pendulums"](1, rng)
    pendulum.angle, pendulum.speed = np.array(game.unwrapped.state)[:, None]
    for t in range(ours["STEPS"]):
        assert not late, t
        action = rng.uniform(-1, 1, (1, 1))
        seen, reward, _, late, _ = game.step(ours["TORQUE"] * action[0])
        assert reward == pytest.approx(pendulum.push(action)[0], abs=1e-5)
        assert np.allclose(seen, pendulum.seen()[0], atol=1e-5)
    assert late
