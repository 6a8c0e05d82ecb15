"""A recurrent net that guesses the next letter of lines of this documentation, of any length."""

from pathlib import Path

import numpy as np

import graphc as gc

LONGEST, WIDTH, BATCH = 100, 128, 32


def lines() -> list[str]:
    pages = sorted(Path(__file__).resolve().parents[1].rglob("*.md"))
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    return [line[:LONGEST] for line in text.splitlines() if len(line) > 1]


def net(letters: int) -> gc.Net:
    net = gc.Net("letters")
    x, y = (net.input(name, (gc.N, LONGEST), dtype="int64") for name in ("x", "y"))
    n = gc.lengths(x, y)
    zeros = gc.broadcast_to(net.constant(np.zeros(WIDTH, np.float32)), (gc.N, WIDTH))

    def step(x: gc.Value, h: gc.Value, c: gc.Value) -> tuple[gc.Value, tuple[gc.Value, gc.Value]]:
        """A long short-term memory (Hochreiter, Schmidhuber 1997)."""
        both = gc.affine(gc.concat([x, h], 1), 4 * WIDTH, init=gc.Glorot(), name="gates")
        i, f, g, o = (both[:, k * WIDTH : (k + 1) * WIDTH] for k in range(4))
        c = gc.sigmoid(f + 1.0) * c + gc.sigmoid(i) * gc.tanh(g)
        h = gc.sigmoid(o) * gc.tanh(c)
        return h, (h, c)

    codes = gc.embedding(x, letters, WIDTH, name="codes")
    states, _ = gc.scan(step, codes, (zeros, zeros), lengths=n, name="lstm")
    scores = gc.affine(gc.dropout(states, drop_prob=0.1), letters, axis=-1, name="scores")
    net.output("scores", scores)
    mask = gc.length_mask(n, LONGEST)
    by_class = gc.transpose(scores, (0, 2, 1))
    net.loss("loss", gc.softmax_loss(by_class, y, weight=mask))
    return net


def bigram(train: list[np.ndarray], test: list[np.ndarray], letters: int) -> float:
    """The loss of guessing each letter from the one before, by counts with one added to each."""
    counts = np.ones((letters, letters))
    for line in train:
        np.add.at(counts, (line[:-1], line[1:]), 1)
    guess = counts / counts.sum(axis=1, keepdims=True)
    return float(-np.log(np.concatenate([guess[line[:-1], line[1:]] for line in test])).mean())


def main(epochs: int = 8, share: float = 1.0) -> tuple[float, float]:
    text = lines()
    letters = {letter: i for i, letter in enumerate(sorted(set("".join(text))))}
    rows = [np.array([letters[letter] for letter in line]) for line in text]
    order = np.random.default_rng(0).permutation(len(rows))[: int(share * len(rows))]
    train, test = ([rows[i] for i in part] for part in np.split(order, [len(order) * 9 // 10]))
    (x, y), held = (
        ([line[:-1] for line in part], [line[1:] for line in part]) for part in (train, test)
    )
    total = epochs * -(-len(x) // BATCH)
    adam = gc.AdamW(lr=4e-3, schedule=gc.Cosine(total=total, warmup=total // 20))
    ex = gc.Executor(gc.compile(net(len(letters)), batch=BATCH, optimizer=adam), seed=0)
    gc.fit(ex, (x, y), epochs=epochs, by_length=True)
    return ex.evaluate(*held)["loss"], bigram(train, test, len(letters))


if __name__ == "__main__":
    print("loss on lines not seen: {:.3f}; of letter pairs: {:.3f}".format(*main()))
