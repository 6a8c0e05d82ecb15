"""The agents of docs/examples beside stable-baselines3: returns along the steps, and time.

    python -m tests.tools.benchmarks.agents FOLDER [--seeds 10] [--together 5] [--draw FILE.png]

Soft actor-critic swings Pendulum-v1 up in 6,000 steps, PPO balances CartPole-v1 in 50,000, both at
stable-baselines3's default hyper-parameters.  Its agents run one by one, in gymnasium's
environments.  Ours are a population that takes each step together, in the environments of the
examples.  Each run leaves a file in the folder, and a run that has one is not made again; so the
two sides may be run in turns, or where only one of them is installed.

A trial counts where it ends, with the actions that training took.  A point of a curve is the mean
of the trials that ended in the last steps; over the seeds it is the interquartile mean, with the
95% interval of 2,000 bootstrap samples (Agarwal et al. 2021, arXiv:2108.13264).  Times are CPU
time of one thread.
"""

from __future__ import annotations

import argparse
import json
import runpy
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

import graphc as gc

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
Trials = list[tuple[int, float]]
"""For each trial the step after which it ended, and its return."""


class Task(NamedTuple):
    """An environment, its steps, and the steps in which trials count for a point of a curve."""

    environment: str
    steps: int
    window: int
    train: Callable[[Sequence[int], int], list[Trials]]


def swings(seeds: Sequence[int], steps: int) -> list[Trials]:
    """Train soft actor-critics, each on a pendulum of its own."""
    sac, count = runpy.run_path(str(EXAMPLES / "sac.py")), len(seeds)
    rules = sac["updates"](3e-4)
    plan = gc.compile(sac["agent"](3, 1, width=256), batch=256, updates=rules, threads=1)
    population = gc.Population(plan, seeds=seeds)
    rows, rng = gc.ReplayBuffer(plan, steps * count), np.random.default_rng(seeds)
    trials: list[Trials] = [[] for _ in seeds]
    for t in range(steps):
        if t % sac["STEPS"] == 0:
            pendulums, total = sac["Pendulums"](count, rng), np.zeros(count)
        state = pendulums.seen()
        action = rng.uniform(-1, 1, (count, 1))
        if t >= 100:
            action = population.forward(state=state[:, None], count=t)["explore"][:, 0]
        reward = pendulums.push(action)
        after, going = pendulums.seen(), np.ones((count, 1))
        rows.add(state=state, action=action, reward=reward[:, None], after=after, going=going)
        if t >= 100:
            drawn = rng.integers(t + 1, size=(count, 256)) * count + np.arange(count)[:, None]
            population.step(rows.arrays, rows=drawn)
        total += reward
        if (t + 1) % sac["STEPS"] == 0:
            for ended, value in zip(trials, total, strict=True):
                ended.append((t + 1, float(value)))
    return trials


def poles(seeds: Sequence[int], steps: int) -> list[Trials]:
    """Train actor-critics by PPO, each on a pole of its own."""
    ppo, count, horizon = runpy.run_path(str(EXAMPLES / "ppo.py")), len(seeds), 2048
    trials: list[Trials] = [[] for _ in seeds]

    class Noted(ppo["Poles"]):
        steps = 0

        def restart(self, where: np.ndarray) -> None:
            self.steps += 1
            for member in np.flatnonzero(where):
                trials[member].append((self.steps, float(self.age[member, 0])))
            super().restart(where)

    net, optimizer = ppo["net"](entropy=0.0), gc.Adam(lr=3e-4, eps=1e-5, clip_norm=0.5)
    plan = gc.compile(ppo["acting"](net), batch=64, optimizer=optimizer, threads=1)
    population, rng = gc.Population(plan, seeds=seeds), np.random.default_rng(seeds)
    carts = Noted((count, 1), rng)
    while carts.steps < steps:
        feeds = ppo["rollout"](population, carts, horizon, carts.steps)
        for _ in range(10):
            orders = [rng.permutation(horizon) * count + member for member in range(count)]
            for rows in np.split(np.stack(orders), horizon // 64, axis=1):
                population.step(feeds, rows=rows)
    return trials


TASKS = {
    "SAC": Task("Pendulum-v1", 6_000, 600, swings),
    "PPO": Task("CartPole-v1", 50_000, 2_500, poles),
}


def baseline(name: str, seed: int) -> Callable[[], list[Trials]]:
    """Return what trains an agent of stable-baselines3."""
    import gymnasium
    import stable_baselines3
    import torch
    from stable_baselines3.common.monitor import Monitor

    torch.set_num_threads(1)
    task = TASKS[name]
    environment = Monitor(gymnasium.make(task.environment))
    algorithm = getattr(stable_baselines3, name)
    agent = algorithm("MlpPolicy", environment, seed=seed, device="cpu")

    def train() -> list[Trials]:
        agent.learn(task.steps)
        ends = np.cumsum(environment.get_episode_lengths()).tolist()
        return [list(zip(ends, environment.get_episode_rewards(), strict=True))]

    return train


def timed(file: Path, train: Callable[[], list[Trials]]) -> None:
    """Keep what a run finds, and the seconds of CPU time that it takes."""
    begin = time.process_time()
    trials = train()
    seconds = time.process_time() - begin
    file.write_text(json.dumps({"seconds": seconds, "trials": trials}))
    print(f"{file.stem}: {seconds:.0f} s", flush=True)


def run(name: str, folder: Path, seeds: Sequence[int]) -> None:
    """Train the agents of both sides with these seeds, where there is no file of them."""
    for seed in seeds if find_spec("stable_baselines3") else ():
        file = folder / f"{name} stable-baselines3 {seed}.json"
        if not file.exists():
            timed(file, baseline(name, seed))
    task, file = TASKS[name], folder / f"{name} graphc {'-'.join(map(str, seeds))}.json"
    if not file.exists():
        timed(file, lambda: task.train(seeds, task.steps))


def curve(task: Task, trials: Trials, steps: np.ndarray) -> np.ndarray:
    """The mean return of the trials that ended in the window before each of the steps."""
    ends, returns = np.array(trials).T
    chosen = (ends <= steps[:, None]) & (ends > steps[:, None] - task.window)
    return (chosen * returns).sum(axis=1) / chosen.sum(axis=1)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """The mean over the first axis without its least and its largest quarter."""
    cut = len(values) // 4
    mean: np.ndarray = np.sort(values, axis=0)[cut : len(values) - cut].mean(axis=0)
    return mean


class Curves(NamedTuple):
    """The returns of one side at some steps, and its seconds for an agent."""

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    agents: int
    seconds: float

    @classmethod
    def of(cls, name: str, side: str, folder: Path) -> Curves:
        task = TASKS[name]
        found = [json.loads(file.read_text()) for file in sorted(folder.glob(f"{name} {side} *"))]
        steps = np.arange(1, 21) * task.steps // 20
        steps = steps[steps >= task.window]
        each = np.array([curve(task, one, steps) for run in found for one in run["trials"]])
        rng = np.random.default_rng(0)
        samples = rng.integers(len(each), size=(2000, len(each)))
        means = [interquartile_mean(each[sample]) for sample in samples]
        low, high = np.percentile(means, [2.5, 97.5], axis=0)
        seconds = sum(run["seconds"] for run in found) / len(each)
        return cls(steps, interquartile_mean(each), low, high, len(each), seconds)


def draw(found: dict[str, dict[str, Curves]], path: str) -> None:
    """Draw the curves of each task, with their intervals."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(9, 3.4), layout="constrained")
    for axis, (name, sides) in zip(axes, found.items(), strict=True):
        for side, curves in sides.items():
            axis.plot(curves.steps, curves.mean, label=side)
            axis.fill_between(curves.steps, curves.low, curves.high, alpha=0.2)
        axis.set(title=f"{name}, {TASKS[name].environment}", xlabel="steps", ylabel="return")
        axis.grid(alpha=0.3)
        axis.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="keeps a file of each run")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--together", type=int, default=5)
    parser.add_argument("--draw")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, asked.seeds, asked.together):
        for name in TASKS:
            run(name, asked.folder, range(first, min(first + asked.together, asked.seeds)))
    sides = "graphc", "stable-baselines3"
    found = {name: {side: Curves.of(name, side, asked.folder) for side in sides} for name in TASKS}
    for name, curves in found.items():
        for side, one in curves.items():
            print(f"{name}, {side}: {one.agents} agents, {one.seconds:.1f} s each")
            for i in range(len(one.steps) % 4, len(one.steps), 4):
                values = one.steps[i], one.mean[i], one.low[i], one.high[i]
                print("  {:>6,} steps: {:7.1f} ({:.1f} to {:.1f})".format(*values))
    if asked.draw:
        draw(found, asked.draw)


if __name__ == "__main__":
    main()
