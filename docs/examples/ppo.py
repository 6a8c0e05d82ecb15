"""PPO (Schulman et al. 2017, arXiv:1707.06347) balances poles on carts.

One call of a step updates actor and critic together.  The equations are Barto, Sutton and
Anderson's (1983), with the constants of OpenAI's Gym: a cart of 1 kg, pushed by 10 N left or right
every 0.02 s, and a pole of 0.1 kg and 1 m.  A trial ends at 12 degrees, at 2.4 m from the middle,
or after 500 steps.  Solved: a mean of 475 steps in 100 trials.
"""

import numpy as np

import graphc as gc

LIMIT, SOLVED, DISCOUNT, TRACE = 500, 475, 0.99, 0.95


def net(entropy: float = 0.01) -> gc.Net:
    net = gc.Net("ppo")
    state, action = net.input("state", (gc.N, 4)), net.input("action", (gc.N,), dtype="int64")
    old, gain, goal = (net.input(name, (gc.N,)) for name in ("old", "gain", "goal"))
    init = gc.Orthogonal(1.4)
    h, g = (gc.tanh(gc.affine(state, 64, init=init)) for _ in range(2))
    h, g = (gc.tanh(gc.affine(x, 64, init=init)) for x in (h, g))
    log_prob = gc.log_softmax(gc.affine(h, 2, init=gc.Orthogonal(0.01)), name="log_prob")
    value = gc.reshape(gc.affine(g, 1, init=gc.Orthogonal(1.0)), (gc.N,), name="value")
    gain = gain - gc.mean(gain)
    gain = gain / (gc.sqrt(gc.mean(gain**2)) + 1e-8)
    ratio = gc.exp(gc.pick(log_prob, action) - old)
    net.loss("policy", -gc.mean(gc.minimum(ratio * gain, gc.clip(ratio, 0.8, 1.2) * gain)))
    net.loss("value_loss", 0.5 * gc.mean((value - goal) ** 2))
    net.loss("entropy", entropy * gc.mean(gc.sum(gc.exp(log_prob) * log_prob, axis=1)))
    net.output("log_prob", log_prob)
    net.output("value", value)
    return net


def acting(net: gc.Net) -> gc.Net:
    """Add actions that are drawn with the net's probabilities (Gumbel 1954), and their logs."""
    log_prob, count = net["log_prob"], net.input("count", (), dtype="int64")
    gumbel = -gc.log(-gc.log(gc.random_uniform(log_prob, counter=count)))
    drawn = net.output("drawn", gc.argmax(log_prob + gumbel))
    net.output("drawn_log_prob", gc.pick(log_prob, drawn))
    return net


class Poles:
    """Poles that stand side by side, in an array of any shape."""

    def __init__(self, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        self.rng, self.state = rng, rng.uniform(-0.05, 0.05, (*shape, 4))
        self.age = np.zeros(shape, int)

    def push(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Push right (1) or left (0), and return which have fallen, and which end standing."""
        speed, angle, turn = (self.state[..., i] for i in (1, 2, 3))
        sin, cos = np.sin(angle), np.cos(angle)
        push = (np.where(action == 1, 10.0, -10.0) + 0.05 * turn**2 * sin) / 1.1
        bend = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
        drive = push - 0.05 * bend * cos / 1.1
        self.state = self.state + 0.02 * np.stack((speed, drive, turn, bend), axis=-1)
        self.age = self.age + 1
        place, angle = np.abs(self.state[..., 0]), np.abs(self.state[..., 2])
        fell = (place > 2.4) | (angle > np.radians(12))
        return fell, (self.age >= LIMIT) & ~fell

    def restart(self, where: np.ndarray) -> None:
        self.state[where] = self.rng.uniform(-0.05, 0.05, (where.sum(), 4))
        self.age[where] = 0


def rollout(agent: gc.Executor, poles: Poles, steps: int, count: int) -> dict[str, np.ndarray]:
    """Steps of all poles, and what they teach: generalised advantages (arXiv:1506.02438)."""
    kept = []
    for t in range(steps):
        seen, found = poles.state, agent.forward(state=poles.state, count=count + t)
        fell, late = poles.push(found["drawn"])
        reward = np.ones(late.shape)
        if late.any():  # as if it went on
            ahead = agent.forward(state=poles.state, count=0)["value"]
            reward += DISCOUNT * late * ahead
        poles.restart(fell | late)
        going = ~(fell | late)
        kept.append((seen, found["drawn"], found["drawn_log_prob"], found["value"], reward, going))
    state, action, old, value, reward, going = map(np.stack, zip(*kept, strict=True))
    ahead, lead = agent.forward(state=poles.state, count=0)["value"], 0.0
    gain = np.zeros_like(reward)
    for t in reversed(range(steps)):
        delta = reward[t] + DISCOUNT * going[t] * ahead - value[t]
        gain[t] = lead = delta + DISCOUNT * TRACE * going[t] * lead
        ahead = value[t]
    found = {"action": action, "old": old, "gain": gain, "goal": gain + value}
    return {"state": state.reshape(-1, 4)} | {name: x.ravel() for name, x in found.items()}


def mean_length(agent: gc.Executor, trials: int, seed: int) -> float:
    """The mean length of trials in which the likelier action is taken."""
    poles, standing = Poles((trials,), np.random.default_rng(seed)), np.ones(trials, bool)
    length = 0.0
    for _ in range(LIMIT):
        length += standing.mean()
        fell, _ = poles.push(agent.forward(state=poles.state)["log_prob"].argmax(axis=1))
        standing &= ~fell
    return length


def main(rounds: int = 100, poles: int = 16, steps: int = 128) -> tuple[float, int]:
    optimizer = gc.Adam(lr=1e-3, eps=1e-5, clip_norm=0.5)
    plan = gc.compile(acting(net()), batch=256, optimizer=optimizer)
    agent, rng = gc.Executor(plan, seed=0), np.random.default_rng(0)
    carts = Poles((poles,), rng)
    for i in range(rounds):
        feeds = rollout(agent, carts, steps, i * steps)
        for _ in range(8):
            for rows in rng.permutation(poles * steps).reshape(-1, 256):
                agent.step({name: array[rows] for name, array in feeds.items()})
        mean = mean_length(agent, 100, seed=i)
        print(f"round {i + 1:3}: {mean:.0f} steps", flush=True)
        if mean >= SOLVED:
            break
    return mean_length(agent, 100, seed=rounds), i + 1


if __name__ == "__main__":
    print("mean of 100 new trials: {:.1f} steps, after {} rounds".format(*main()))
