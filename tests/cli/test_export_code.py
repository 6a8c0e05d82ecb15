"""`graphc export --c` and `--object`: which options go with which kind of file."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphc.cli import main
from tests.extras import needs


def test_an_object_for_another_machine(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs("LLVM")
    words = ["--object", "small.o", "--target", "riscv64-linux", "--infer-only", "--batch", "2"]
    assert main(["export", "model.py:net", *words]) == 0
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines()] == [
        "small.o:",
        "small.h:",
        "small.json:",
    ]
    head = (folder / "small.o").read_bytes()[:20]
    assert head[:5] == b"\x7fELF\x02"  # of 64 bits
    assert head[18:20] == bytes([243, 0])  # for RISC-V
    assert "#define SMALL_BATCH 2 " in (folder / "small.h").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--c", "a.c", "--object", "a.o"], "--c does not go with --object"),
        (["--target", "wasm32"], "--target does not go with an ONNX file"),
        (["--c", "a.c", "--cpu", "x"], "--cpu does not go with a C file"),
        (["--object", "a.o", "--self-test"], "--self-test does not go with an object"),
        (["--object", "a.o", "--training"], "--training does not go with an object"),
        (["--batch", "3"], "--batch does not go with an ONNX file"),
    ],
)
def test_options_of_another_kind_of_file(
    words: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "model.py:net", *words]) == 1
    assert said in capsys.readouterr().err
    assert not [*folder.glob("a.*")]
