"""`graphc verify`: proofs, counterexamples, and exit statuses 0, 1 and 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import graphc as gc
from graphc.cli import main
from graphc.data import table
from graphc.ops.losses.labels import SoftmaxRows
from graphc.ops.select import Relu
from tests.extras import needs

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


def test_a_model_is_run(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["verify", model, "--batch", "3", "--backend", "numpy", "--run"]
    assert main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "plan of 'shell': proved"
    (ran,) = (line for line in lines if line.startswith("ran infer, grad, cotangent of scores"))
    assert " with 1, 2, 3 rows and 1 and 2 threads: " in ran
    assert lines[-1].startswith("the executor agrees: forward, ")


@pytest.mark.parametrize("json_too", [False, True])
def test_a_wrong_kernel_is_status_1(
    json_too: bool, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Relu, "scalar", lambda self, ins, axis: ins[0] * 2)
    argv = ["verify", model, "--batch", "3", "--backend", "numpy", "--run"]
    assert main([*argv, "--json"] if json_too else argv) == 1
    out = capsys.readouterr().out
    if json_too:
        found = json.loads(out)
        assert found["ok"] is False
        assert found["wrong"]["layer"] == "lowering"
        assert "relu_1 = " in found["wrong"]["kernel"]
    else:
        assert "\nwrong: program 'infer', lowering: '" in out
        assert "net.py:" in out


def test_a_certificate_cannot_be_run(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.json"
    assert main(["plan", model, "--batch", "8", "--certificate", str(path)]) == 0
    assert main(["verify", str(path), "--run"]) == 2
    assert "a certificate holds no program to run" in capsys.readouterr().err


def test_bisection_goes_below_the_passes(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SoftmaxRows, "scalar", lambda self, ins, axis: ins[0].sum(axis))
    argv = ["bisect", model, "--rows", "2", "--backend", "numpy"]
    assert main(argv) == 1
    out = capsys.readouterr().out
    assert out.startswith("the passes are right; below them this is wrong:\nprogram '")
    assert ", lowering: '" in out
    assert main([*argv, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["found"], found["layer"]) == (True, "lowering")


@pytest.mark.slow
@pytest.mark.parametrize("both", [False, True])
def test_bisection_of_a_command_finds_the_backend(
    both: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A command that fails on one backend, or on both, whatever the passes."""
    monkeypatch.delenv("GRAPHC_BACKEND", raising=False)
    path = tmp_path / "train.py"
    path.write_text(COMMAND.replace("BOTH", str(both)), encoding="utf-8")
    status = main(["bisect", "--run", f"python {path}"])
    out, err = capsys.readouterr()
    if both:
        assert status == 2
        assert err.startswith("error: without passes it is the same")
    else:
        assert status == 1
        assert out == "passes are not the cause; with GRAPHC_BACKEND=numpy it does not occur\n"


COMMAND = """\
import graphc as gc
net = gc.Net("one")
net.output("y", gc.exp(net.input("x", (gc.N, 3))))
plan = gc.compile(net, batch=2)
raise SystemExit(BOTH or plan.backend == "native")
"""


def test_the_cells_of_a_table_are_compared(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.csv"
    path.write_text('a,b,"c, d",e,y\n1,2,3,4,0\n5,6,"7",8,2\n', encoding="utf-8")
    argv = ["verify", model, "--batch", "8", "--backend", "numpy", "--data", str(path)]
    assert main(argv) == 0
    assert f"2 rows of {path} agree" in capsys.readouterr().out
    right = table.number_in
    monkeypatch.setattr(table, "number_in", lambda text: 8.0 if text == "7" else right(text))
    assert main([*argv, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert found["table"].endswith("line 3, column 'c, d': 8 was read of '7', it is 7")


def test_a_precision_is_compiled(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["verify", model, "--batch", "8", "--backend", "numpy", "--precision", "*=bf16"]
    assert main([*argv, "--run"]) == 0
    rounded = capsys.readouterr().out
    assert main(argv[:-2]) == 0
    assert rounded.splitlines()[1] != capsys.readouterr().out.splitlines()[1]
    assert main([*argv[:-1], "nothing=bf16"]) == 2


@pytest.mark.parametrize("wrong", [False, True])
def test_an_onnx_file_is_compared_with_what_was_read_of_it(
    wrong: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needs("onnx")
    from graphc.onnx import call

    net = gc.Net("file")
    x = net.input("x", (gc.N, 4))
    net.output("y", gc.layernorm(gc.affine(x, 8), eps=0.125))
    path = str(gc.onnx.save(net, tmp_path / "file.onnx"))
    if wrong:
        right = call.Call.attribute
        monkeypatch.setattr(
            call.Call,
            "attribute",
            lambda self, name, *more: right(self, "eps" if name == "epsilon" else name, *more),
        )
    assert main(["verify", path, "--batch", "8", "--backend", "numpy", "--run"]) == wrong
    out = capsys.readouterr().out
    assert (f"after {path} itself" if wrong else f"{path} itself") in out
