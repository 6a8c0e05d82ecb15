"""Draw the pictures of the documents.

    python docs/pictures.py           rewrites docs/pictures/

The pictures are laid out by Graphviz.  Drawn twice with one version of it they are the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphc.declare.net import Net

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "pictures"


def draw(folder: Path) -> list[Path]:
    """All pictures, in a folder; their paths."""
    import graphc as gc
    from graphc.cli.model import load_model
    from graphc.view.render import render_plan
    from graphc.view.render.memory_view import render_arena

    folder.mkdir(parents=True, exist_ok=True)
    net = load_model(f"{ROOT}/docs/examples/digits.py:net").net
    plan = gc.compile(net, batch=128)
    # Where native code keeps what may differ between processors.
    trained = gc.compile(net, batch=128, optimizer=gc.SGD(lr=0.1), backend="numpy")
    return [
        render_plan(plan, folder / "digits.svg"),
        draw_pass("backward", folder / "backward.svg"),
        draw_pass("fuse_affine_relu", folder / "fuse_affine_relu.svg"),
        render_arena({"step": trained.programs["step"]}, "digits", folder / "arena.svg"),
    ]


def draw_pass(name: str, path: Path) -> Path:
    """What one pass changes in a plainer digits network."""
    import graphc as gc
    from graphc.ir.difference import difference
    from graphc.view.cost import changed_totals, totals
    from graphc.view.render.difference import render_difference

    records = gc.compile(plain(), batch=128).graphs["grad"]
    step = [record.name for record in records].index(name)
    made = difference(records[step - 1].graph, records[step].graph)
    saved = changed_totals(totals(made.before, 128), totals(made.after, 128))
    return render_difference(made, path, name=name, words=tuple(saved))


def plain() -> Net:
    """The digits network without batchnorm and dropout: affine meets relu."""
    import graphc as gc

    net = gc.Net("digits")
    x = net.input("x", (gc.N, 64))
    y = net.input("y", (gc.N,), dtype="int64")
    h = x
    for width in (100, 50):
        h = gc.relu(gc.affine(h, width))
    scores = gc.affine(h, 10, name="scores")
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    for path in draw(FOLDER):
        print(path.relative_to(ROOT))
