"""A small GPT on the letters of this documentation, and what one letter tells of the next."""

from pathlib import Path

import numpy as np

import graphc as gc

CONTEXT, WIDTH, HEADS, LAYERS, BATCH = 64, 128, 4, 4, 16


def text() -> str:
    pages = sorted(Path(__file__).resolve().parents[1].rglob("*.md"))
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def net(letters: int, layers: int = LAYERS) -> gc.Net:
    net, init = gc.Net("gpt"), gc.Normal(0.02)
    ids, y = (net.input(name, (gc.N, CONTEXT), dtype="int64") for name in ("ids", "y"))
    h = gc.learned_positions(gc.embedding(ids, letters, WIDTH, init=init, name="letters"))
    for i in range(layers):
        with net.block(f"block{i}"):
            h = h + gc.multi_head_attention(gc.layernorm(h), HEADS, causal=True, init=init)
            up = gc.gelu(gc.affine(gc.layernorm(h), 4 * WIDTH, axis=-1, init=init), "tanh")
            h = h + gc.affine(up, WIDTH, axis=-1, init=init)
    scores = gc.affine(gc.layernorm(h), letters, axis=-1, bias=False, init=init, name="scores")
    net.output("scores", scores)
    rows = gc.reshape(scores, (CONTEXT * gc.N, letters)), gc.reshape(y, (CONTEXT * gc.N,))
    net.loss("loss", gc.softmax_loss(*rows))
    return net


def bigram(train: np.ndarray, test: np.ndarray, letters: int) -> float:
    """The loss of guessing each letter from the one before, by counts with one added to each."""
    counts = np.ones((letters, letters))
    np.add.at(counts, (train[:-1], train[1:]), 1)
    guess = counts / counts.sum(axis=1, keepdims=True)
    return float(-np.log(guess[test[:-1], test[1:]]).mean())


def windows(data: np.ndarray, starts: np.ndarray) -> dict[str, np.ndarray]:
    rows = data[starts[:, None] + np.arange(CONTEXT + 1)]
    return {"ids": rows[:, :-1], "y": rows[:, 1:]}


def main(steps: int = 1500, layers: int = LAYERS) -> tuple[float, float]:
    letters, data = np.unique(list(text()), return_inverse=True)
    train, test = np.split(data.astype(np.int64), [len(data) * 9 // 10])
    adam = gc.AdamW(lr=2e-3, schedule=gc.Cosine(total=steps, warmup=steps // 20))
    plan = gc.compile(net(len(letters), layers), batch=BATCH, optimizer=adam)
    ex = gc.Executor(plan, seed=0)
    rng = np.random.default_rng(0)
    for i in range(steps):
        loss = ex.step(windows(train, rng.integers(len(train) - CONTEXT, size=BATCH)))
        if i % 100 == 0:
            print(f"step {i:5}: loss {loss:.3f}", flush=True)
    starts = np.arange(0, len(test) - CONTEXT - 1, CONTEXT)
    found = ex.evaluate(windows(test, starts))["loss"]
    return found, bigram(train, test, len(letters))


if __name__ == "__main__":
    print("loss on text not seen: {:.3f}; of letter pairs: {:.3f}".format(*main()))
