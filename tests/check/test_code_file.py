"""graphc verify model.c: the certificate of an exported file, and the file against it."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphc as gc
from graphc.check.code_file import verify_code


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    net = gc.Net("line")
    h = gc.relu(gc.affine(net.input("x", (gc.N, 3)), 4, name="hidden"))
    scores = net.output("scores", gc.affine(h, 2, name="scores"))
    net.loss("loss", gc.softmax_loss(scores, net.input("y", (gc.N,), dtype="int64")))
    ex = gc.Executor(gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1), backend="numpy"))
    return gc.export_c(ex, tmp_path / "line.c", backward=True)[0]


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_an_exported_file_is_proved(exported: Path) -> None:
    report = verify_code(exported)
    assert report.ok
    assert [proof.name for proof in report.programs] == ["infer", "step", "grad"]


def test_a_changed_file_is_refuted(exported: Path) -> None:
    for suffix, old, new, said in (
        (".c", "state + 64)", "state + 65)", "line_init: to lies at state byte 65, where no"),
        (".c", "work + 64)", "work + 0)", "does not lie at work byte 64"),
        (".c", "float line_train_step", "float line_step", "no function line_train_step"),
        (".h", "LINE_BATCH 4", "LINE_BATCH 8", "LINE_BATCH is 8, it must be 4"),
        (".h", "LINE_WORK_BYTES ", "LINE_WORK_BYTES 1", "LINE_WORK_BYTES is 1"),
        (".json", '"batch": 4', '"batch":  4', "LINE_CERTIFICATE is"),
    ):
        path = exported.with_suffix(suffix)
        before = path.read_text()
        edited(path, old, new)
        report = verify_code(exported)
        assert not report.ok, old
        assert said in str(report), old
        path.write_text(before)
    assert verify_code(exported).ok


def test_a_missing_file_is_named(exported: Path) -> None:
    exported.with_suffix(".json").unlink()
    with pytest.raises(gc.GraphError, match=r"cannot read .*line.json"):
        verify_code(exported)


def test_results_that_no_kernel_computes_lie_where_they_are(tmp_path: Path) -> None:
    net = gc.Net("kept")
    x, w = net.input("x", (gc.N, 3)), net.parameter("w", (3,))
    scale = net.parameter("scale", ())
    net.output("x", x)
    net.output("w", w)
    net.output("column", gc.reshape(w, (3, 1)))
    net.loss("scale", scale)
    net.loss("loss", gc.mean(x * w))
    ex = gc.Executor(gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1), backend="numpy"))
    (path, *_) = gc.export_c(ex, tmp_path / "kept.c", backward=True)
    report = verify_code(path)
    assert report.ok, report
    edited(path, "unsigned char *)state + 0)", "unsigned char *)state + 64)")
    assert not verify_code(path).ok
