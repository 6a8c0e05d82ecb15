"""Soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905) swings a pendulum up.

One call of a step updates the temperature, both critics and the actor, and moves the targets.  The
pendulum is that of OpenAI's Gym: 1 kg, 1 m, up to 2 Nm; a step of 0.05 s is rewarded by at most 0.
"""

from itertools import pairwise

import numpy as np

import graphc as gc

STEPS, TORQUE = 200, 2.0


class Dense:
    """Layers with relu between them, the same wherever they are called; they start close to 0."""

    def __init__(self, net: gc.Net, name: str, *widths: int) -> None:
        self.layers = []
        for i, sizes in enumerate(pairwise(widths)):
            init = gc.Uniform(-(sizes[0] ** -0.5), sizes[0] ** -0.5)
            weight = net.parameter(f"{name}/{i}.weight", sizes, init=init)
            bias = net.parameter(f"{name}/{i}.bias", sizes[1], init=init)
            self.layers.append((weight, bias))

    def __call__(self, x: gc.Value) -> gc.Value:
        for i, (weight, bias) in enumerate(self.layers):
            x = gc.affine(gc.relu(x) if i else x, weight=weight, bias=bias)
        return x


def agent(states: int, actions: int, width: int = 64, discount: float = 0.99) -> gc.Net:
    net = gc.Net("sac")
    state, after = (net.input(name, (gc.N, states)) for name in ("state", "after"))
    action = net.input("action", (gc.N, actions))
    reward, going = (net.input(name, (gc.N, 1)) for name in ("reward", "going"))
    count = net.input("count", (), dtype="int64")
    log_alpha = net.parameter("log_alpha", (), init="zeros")
    alpha = gc.exp(log_alpha)
    actor = Dense(net, "actor", states, width, width, 2 * actions)
    critic = [Dense(net, f"critic{i}", states + actions, width, width, 1) for i in (1, 2)]
    target = [Dense(net, f"target{i}", states + actions, width, width, 1) for i in (1, 2)]

    def policy(state: gc.Value) -> gc.Gaussian:
        both = actor(state)
        return gc.Gaussian(both[:, :actions], gc.clip(both[:, actions:], -20, 2), squash=True)

    def worth(both: list[Dense], state: gc.Value, action: gc.Value) -> list[gc.Value]:
        return [one(gc.concat([state, action], axis=1)) for one in both]

    now, then = policy(state), policy(after)
    new, later = now.sample(name="new"), then.sample(name="later")
    surprise = gc.reshape(now.log_prob(new), (gc.N, 1))
    next_surprise = gc.reshape(then.log_prob(later), (gc.N, 1))
    critics = worth(critic, state, action)
    least = gc.minimum(*worth(target, after, later))
    goal = reward + discount * going * (least - alpha * next_surprise)
    net.loss("temperature_loss", -gc.mean(log_alpha * (surprise - actions)))
    net.loss("critic_loss", sum(0.5 * gc.mean((value - goal) ** 2) for value in critics))
    net.loss("actor_loss", gc.mean(alpha * surprise - gc.minimum(*worth(critic, state, new))))
    gc.track(net, "target*", of="critic*", rate=0.005)
    net.output("explore", now.sample(counter=count))
    net.output("best", now.mode())
    return net


def updates(lr: float = 1e-3) -> list[gc.UpdateRule]:
    """The rules of a step; each sees what those before it wrote."""
    return [
        gc.UpdateRule("temperature_loss", "log_alpha", gc.Adam(lr=lr, name="temperature")),
        gc.UpdateRule("critic_loss", "critic*", gc.Adam(lr=lr, name="critic")),
        gc.UpdateRule("actor_loss", "actor/*", gc.Adam(lr=lr, name="actor")),
    ]


class Pendulums:
    """Pendulums that swing side by side."""

    def __init__(self, number: int, rng: np.random.Generator) -> None:
        self.angle, self.speed = rng.uniform(-np.pi, np.pi, number), rng.uniform(-1, 1, number)

    def seen(self) -> np.ndarray:
        return np.stack([np.cos(self.angle), np.sin(self.angle), self.speed], axis=1)

    def push(self, action: np.ndarray) -> np.ndarray:
        """Push by actions (N, 1) from -1 to 1, and return the rewards."""
        torque, angle = TORQUE * action[:, 0], (self.angle + np.pi) % (2 * np.pi) - np.pi
        reward = -(angle**2 + 0.1 * self.speed**2 + 0.001 * torque**2)
        self.speed = np.clip(self.speed + 0.75 * np.sin(self.angle) + 0.15 * torque, -8, 8)
        self.angle += 0.05 * self.speed
        return reward


def mean_return(actor: gc.Executor, swings: int, seed: int) -> float:
    """The mean over swings of the sum of rewards, with the best actions."""
    pendulums, total = Pendulums(swings, np.random.default_rng(seed)), np.zeros(swings)
    for _ in range(STEPS):
        total += pendulums.push(actor.forward(state=pendulums.seen(), count=0)["best"])
    return float(total.mean())


def main(swings: int = 30, seed: int = 0) -> float:
    net, rng = agent(3, 1), np.random.default_rng(seed)
    plan = gc.compile(net, batch=256, updates=updates())
    learner, buffer = gc.Executor(plan, seed=seed), gc.ReplayBuffer(plan, swings * STEPS, seed=seed)
    act = gc.compile(net, batch=100, outputs=["explore", "best"], losses=[])
    actor = gc.Executor(act, state=learner.state)
    for t in range(swings * STEPS):
        if t % STEPS == 0:
            pendulum = Pendulums(1, rng)
        state = pendulum.seen()
        explored = actor.forward(state=state, count=t)["explore"]
        action = explored if t >= 2 * STEPS else rng.uniform(-1, 1, (1, 1))
        reward = pendulum.push(action)
        buffer.add(state=state, action=action, reward=reward, after=pendulum.seen(), going=[1])
        if t >= 2 * STEPS:
            learner.step(buffer.sample(256))
        if t % (5 * STEPS) == 5 * STEPS - 1:
            print(f"{t + 1} steps: {mean_return(actor, 100, seed=t):.0f} a swing", flush=True)
    return mean_return(actor, 100, seed=swings * STEPS)


if __name__ == "__main__":
    print(f"mean of 100 new swings: {main():.0f}")
