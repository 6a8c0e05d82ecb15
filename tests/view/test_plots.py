"""What pictures of training show, by the numbers in the figures; and what they say of mistakes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.view import plots
from graphc.view.plots import confusion_counts, confusion_matrix, histograms
from graphc.view.plots import histograms as draw_histograms
from tests.error_text import error_text
from tests.extras import needs

Figure = Any
PNG = b"\x89PNG\r\n"


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is made, with matplotlib's own objects in it."""
    needs("matplotlib")
    made: list[Figure] = []
    original = plots.new_figure

    def new_figure(*args: Any) -> Figure:
        made.append(original(*args))
        return made[-1]

    monkeypatch.setattr(plots, "new_figure", new_figure)
    return made


def test_confusion_counts_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 4, 200), rng.integers(0, 6, 200)
    wanted = np.zeros((6, 6), int)
    for a, b in zip(truth, predicted, strict=True):
        wanted[a, b] += 1
    np.testing.assert_array_equal(confusion_counts(truth, predicted), wanted)
    found = confusion_counts(truth.astype(np.uint8), predicted.astype(np.int32), 7)
    np.testing.assert_array_equal(found, np.pad(wanted, (0, 1)))
    assert confusion_counts([], [], 2).tolist() == [[0, 0], [0, 0]]


def test_the_confusion_matrix_shows_counts_and_shares(
    tmp_path: Path, figures: list[Figure]
) -> None:
    truth, predicted = [0, 0, 0, 0, 1, 2], [0, 0, 0, 2, 1, 1]
    path = confusion_matrix(truth, predicted, tmp_path / "c.png", names=["ant", "bee", "cat"])
    assert path.read_bytes().startswith(PNG)
    axis = figures[0].axes[0]
    cells = {text.get_position(): text.get_text() for text in axis.texts}
    assert cells == {(0, 0): "3", (2, 0): "1", (1, 1): "1", (1, 2): "1"}  # across, down
    shares = axis.images[0].get_array().tolist()
    assert shares == [[0.75, 0, 0.25], [0, 1, 0], [0, 1, 0]]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["ant", "bee", "cat"]
    assert axis.get_title() == "66.67% right of 6 rows"


def test_members_of_one_name_have_one_colour(tmp_path: Path, figures: list[Figure]) -> None:
    members = [gc.History(loss=[3.0, 2.0 + i]) for i in range(3)]
    plots.learning_curve(members, tmp_path / "c.png", names=["slow", "fast", "slow"])
    axis = figures[0].axes[0]
    first, second, third, *_ = (line.get_color() for line in axis.lines)
    assert tuple(first) == tuple(third) != tuple(second)
    named = {text.get_text() for text in axis.get_legend().get_texts()}
    assert named == {"training, 3 members", "slow", "fast"}
    shown = {line.get_label(): line.get_color() for line in axis.lines}
    assert tuple(shown["slow"]) == tuple(first) and tuple(shown["fast"]) == tuple(second)
    with pytest.raises(gc.GraphError, match=r"^2 names for 3 members\n"):
        plots.learning_curve(members, tmp_path / "c.png", names=["slow", "fast"])


@pytest.mark.slow
def test_many_classes_have_colours_but_no_numbers(tmp_path: Path, figures: list[Figure]) -> None:
    confusion_matrix(np.arange(40), np.arange(40), tmp_path / "c.png")
    assert not figures[0].axes[0].texts
    assert figures[0].axes[0].images[0].get_array().shape == (40, 40)


def test_each_array_has_a_panel_with_all_its_values(tmp_path: Path, figures: list[Figure]) -> None:
    rng = np.random.default_rng(0)
    now = {
        "w": rng.normal(size=(30, 20)).astype(np.float32),
        "half": np.array([0.0, 0, 1, 2]),
        "odd": np.array([1.0, np.nan, np.inf, 3]),
        "same": np.full(5, 7.0),
        "none": np.zeros((0, 3)),
        "a/name/of/many/letters/affine_1.weight": np.zeros(3),
    }
    before = {"w": now["w"] / 2, "half": np.ones(4)}
    path = histograms(now, tmp_path / "h.png", before=before)
    assert path.read_bytes().startswith(PNG)
    panels = [axis for axis in figures[0].axes if axis.get_visible()]
    heights = [[int(p.get_data().values.sum()) for p in axis.patches] for axis in panels]
    assert heights == [[600, 600], [4, 2], [2], [5], [0], [0]]
    edges = panels[0].patches[1].get_data().edges
    counts = np.histogram(now["w"], edges)[0]
    np.testing.assert_array_equal(panels[0].patches[1].get_data().values, counts)
    assert [axis.get_title() for axis in panels[1:]] == [
        "half\n4 values, mean 0.75, std 0.83\n50% zero",
        "odd\n4 values, mean 2, std 1\n2 NOT FINITE",
        "same\n5 values, mean 7, std 0",
        "none\n0 values",
        "...any/letters/affine_1.weight\n3 values, mean 0, std 0\nall zero",
    ]


def test_magnitudes_are_those_of_all_values_but_zeros(
    tmp_path: Path, figures: list[Figure]
) -> None:
    values = np.array([0.0, 1e-7, -1e-5, 2e-5, 1.0, np.nan])
    before = {"g": np.array([3.0, -30.0]), "zero": np.ones(2)}
    arrays = {"g": values, "zero": np.zeros(2), "one": np.full(3, -5.0)}
    draw_histograms(arrays, tmp_path / "h.png", before=before, magnitudes=True)
    axis, zero, one = (axis for axis in figures[0].axes if axis.get_visible())
    old, now = (patch.get_data() for patch in axis.patches)
    assert axis.get_xscale() == "log"
    assert axis.get_xlim() == (1e-7, 100)
    assert (old.edges[0], old.edges[-1]) == (pytest.approx(1e-7), pytest.approx(30))
    places = np.searchsorted(now.edges, [1.2e-7, 1e-5, 2e-5, 0.99]) - 1
    assert now.values.sum() == 4
    assert now.values[places].all()
    assert old.values[-1] == 1
    assert [int(patch.get_data().values.sum()) for patch in zero.patches] == [2, 0]
    assert one.patches[0].get_data().values[4] == 3  # in the middle


def test_parameters_and_gradients_of_an_executor(tmp_path: Path, figures: list[Figure]) -> None:
    net = gc.Net("small")
    out = gc.affine(net.input("x", (gc.N, 3)), 2, name="out")
    net.loss("loss", gc.mean(out * out))
    ex = gc.Executor(gc.compile(net, batch=4, optimizer=gc.SGD(0.1)))
    ex.forward(x=np.ones((4, 3)), train=True)
    gc.plots.histograms(ex.parameters, tmp_path / "w.svg")
    gc.plots.histograms(ex.backward(), tmp_path / "g.svg")
    titles = [[axis.get_title().split("\n")[0] for axis in f.axes] for f in figures]
    assert titles == [["out.weight", "out.bias"]] * 2
    assert "<svg" in (tmp_path / "g.svg").read_text()


MISTAKES = {
    "lengths": (lambda p: confusion_matrix([0, 1], [0], p), "truth has 2 rows, predicted has 1"),
    "scores": (
        lambda p: confusion_matrix([0, 1], np.zeros((2, 3)), p),
        "predicted is float64 of shape (2, 3), not a vector of class numbers\n"
        "  hint: for scores take the largest: scores.argmax(axis=1)",
    ),
    "negative": (lambda p: confusion_matrix([0, -1], [0, 0], p), "truth contains the class -1"),
    "too many": (
        lambda p: confusion_matrix([0, 5], [0, 0], p, classes=3),
        "the class 5 occurs, but there are only 3 classes\n  hint: classes go from 0 to 2",
    ),
    "nothing": (lambda p: confusion_matrix([], [], p), "there are no rows and no classes"),
    "names": (
        lambda p: confusion_matrix([0], [0], p, classes=2, names=["a"]),
        "2 classes have 1 names",
    ),
    "no arrays": (lambda p: draw_histograms({}, p), "histograms were given no arrays"),
    "suffix": (
        lambda p: draw_histograms({"w": np.ones(3)}, p.with_suffix(".odd")),
        "cannot draw {folder}/a.odd: Format 'odd' is not supported",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str, tmp_path: Path) -> None:
    needs("matplotlib")
    call, text = MISTAKES[name]
    with pytest.raises(gc.GraphError) as caught:
        call(tmp_path / "a.png")
    assert error_text(caught.value).startswith(text.format(folder=tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda p: confusion_matrix([0], [0], p), "a confusion matrix"),
        (lambda p: draw_histograms({"w": np.ones(3)}, p), "a histogram"),
    ],
)
def test_without_matplotlib(
    call: Any, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(gc.GraphError) as caught:
        call(tmp_path / "a.png")
    assert error_text(caught.value) == (
        f"{what} is drawn by matplotlib, which is not installed\n"
        "  hint: pip install 'graphc-nn[plot]'"
    )


@pytest.mark.parametrize(("suffix", "kind"), [("png", "image/png"), ("svg", "image/svg+xml")])
def test_a_notebook_shows_what_was_drawn(suffix: str, kind: str, tmp_path: Path) -> None:
    needs("matplotlib")
    formatter = needs("IPython.core.formatters").DisplayFormatter()
    path = confusion_matrix([0, 1, 1], [0, 1, 0], tmp_path / f"matrix.{suffix}")
    assert path == tmp_path / f"matrix.{suffix}"
    shown, _ = formatter.format(path)
    assert str(path) in shown["text/plain"]
    content = path.read_bytes()
    assert shown[kind] in (content, content.decode("latin-1"), content.decode("utf-8", "replace"))
    assert kind not in formatter.format(path.parent)[0]
    path.unlink()
    assert set(formatter.format(path)[0]) == {"text/plain"}
