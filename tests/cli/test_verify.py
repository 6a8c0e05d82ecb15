"""`graphc verify`: proofs, counterexamples, and exit statuses 0, 1 and 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graphc.cli import main

MODEL = """\
import graphc as gc


def net():
    net = gc.Net("shell")
    h = gc.relu(gc.batchnorm(gc.affine(net.input("x", (gc.N, 4)), 8)))
    scores = gc.affine(h, 3)
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, net.input("y", (gc.N,), dtype="int64")))
    return net
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(MODEL, encoding="utf-8")
    return f"{tmp_path}/net.py:net"


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_a_model_is_proved(model: str, backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["verify", model, "--batch", "40", "--optimizer", "adam", "--backend", backend]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert out.startswith("plan of 'shell': proved\n")
    for name in ("infer", "grad", "step", "apply", "cotangent of scores"):
        assert f"  {name} ({backend}, 1 to 40 rows): " in out
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert {program["name"] for program in found["programs"]} >= {"infer", "step"}
    assert all(program["counts"]["reads"] > 0 for program in found["programs"])


def test_a_certificate_is_proved_or_refuted(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.json"
    assert main(["plan", model, "--batch", "8", "--certificate", str(path)]) == 0
    assert f"wrote {path}" in capsys.readouterr().out
    assert main(["verify", str(path)]) == 0
    data = json.loads(path.read_text(encoding="utf-8"))
    data["programs"][0]["arena"] += 64
    path.write_text(json.dumps(data), encoding="utf-8")
    capsys.readouterr()
    assert main(["verify", str(path)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("plan of 'shell': REFUTED\n")
    assert "the arena is as large as reported" in out
    assert main(["verify", str(path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert found["programs"][0]["counterexample"]["rule"] == "the arena is as large as reported"


@pytest.mark.parametrize("text", [None, "{}", "not JSON"])
def test_no_plan_is_status_2(
    text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert main(["verify", str(path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_no_model_is_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", f"{tmp_path}/none.py:net"]) == 2
    assert "does not exist" in capsys.readouterr().err
