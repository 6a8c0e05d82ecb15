"""Actor-critic with the losses of PPO: push a point on a line to 0 and hold it there."""

import numpy as np

import graphc as gc

net = gc.Net("ppo")
obs, action = net.input("obs", (gc.N, 2)), net.input("action", (gc.N,), dtype="int64")
old, gain, goal = (net.input(name, (gc.N,)) for name in ("old", "gain", "goal"))
with net.block("actor"):
    log_prob = gc.log_softmax(gc.affine(gc.tanh(gc.affine(obs, 32)), 3))
with net.block("critic"):
    value = gc.reshape(gc.affine(gc.tanh(gc.affine(obs, 32)), 1), (gc.N,))
ratio = gc.exp(gc.pick(log_prob, action) - old)
net.loss("policy", -gc.mean(gc.minimum(ratio * gain, gc.clip(ratio, 0.8, 1.2) * gain)))
net.loss("value_loss", 0.5 * gc.mean((value - goal) ** 2))
net.loss("entropy", 0.01 * gc.mean(gc.sum(gc.exp(log_prob) * log_prob, axis=1)))
act = gc.compile(net, batch=1, outputs=[log_prob, value], losses=[])
train = gc.compile(net, batch=256, outputs=[log_prob, value], optimizer=gc.Adam())
learner, target, rng = gc.Executor(train), gc.Executor(train), np.random.default_rng(0)
actor = gc.Executor(act, state=learner.state)  # sees every update at once
for i in range(40):
    learner.hyper["lr"] = 0.01 * (1 - i / 40)
    s, after, a, p = np.zeros((256, 2)), np.zeros((256, 2)), np.zeros(256, int), np.zeros(256)
    for t in range(256):  # every 32 steps the point starts anew
        s[t] = after[t - 1] if t % 32 else rng.uniform(-1, 1, 2)
        log = actor.forward(obs=s[t : t + 1])[log_prob.name][0]
        a[t] = np.argmax(log + rng.gumbel(size=3))  # draws with these probabilities
        p[t], speed = log[a[t]], 0.8 * s[t, 1] + 0.3 * (a[t] - 1)
        after[t] = s[t, 0] + 0.3 * speed, speed
    reward = -np.abs(after[:, 0])
    aims = reward + 0.9 * target.forward(obs=after)[value.name]
    lead = aims - learner.forward(obs=s)[value.name]
    lead = (lead - lead.mean()) / lead.std()
    for _ in range(8):
        learner.step(obs=s, action=a, old=p, gain=lead, goal=aims)
    target.parameters.copy_from(learner.parameters, mix=0.5, names="critic/*")
    print(f"round {i:2}: mean reward {reward.mean():.3f}")
