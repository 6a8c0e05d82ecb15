"""Exported code from strangers' names: it compiles, is right, and runs nothing of a name."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.extras import needs
from tests.files.c_model import STRICT
from tests.files.hostile_names import CANARY, CODE, executor, names, write_callers

NAMES = 300
ROLES = 6


def written(chosen: list[str], folder: Path) -> str:
    """The C file of a net with these names, as `x.c`, and the start of its functions."""
    file, header, _ = gc.export_c(executor(chosen), folder / "x.c", backward=True, self_test=True)
    file.read_text().encode("ascii")
    match = re.search(r"^void (\w+)_infer\(", header.read_text(), re.MULTILINE)
    assert match is not None
    return match[1]


def tokens(code: str) -> str:
    """C code without comments and strings, after its trigraphs and spliced lines."""
    code = re.sub(r"\\\n", "", code.replace("??/", "\\"))
    return re.sub(r'/\*.*?\*/|"(?:[^"\\\n]|\\.)*"', " ", code, flags=re.DOTALL)


def run(*command: str, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr[:3000]}{done.stdout[:1000]}"
    assert not done.stderr
    return done.stdout


def check(chosen: list[str], folder: Path, cc: str) -> None:
    """Compile and test a file strictly, and include its header from C and C++ after others."""
    macro = f"-D{written(chosen, folder).upper()}_SELF_TEST"
    run(cc, *STRICT, "-O1", macro, "x.c", "-o", "x", folder=folder)
    lines = run("./x", folder=folder).splitlines()
    assert len(lines) > 10 and all(line.endswith(": right") for line in lines), lines
    write_callers(folder)
    run(cc, "-std=gnu11", *STRICT[1:], "-fsyntax-only", "caller.c", folder=folder)


@pytest.mark.parametrize("number", range(len(CODE)))
def test_no_part_of_a_name_is_code(number: int, tmp_path: Path) -> None:
    evil = CODE[number].format(c=CANARY)
    written([evil, evil, f"{evil}2", f"{evil}3", f"{evil}4", evil], tmp_path)
    for suffix in (".c", ".h"):
        code = tokens((tmp_path / f"x{suffix}").read_text())
        assert not re.search(rf"\b(?:puts|evil|{CANARY})\b|constructor\)|\?\?", code)


def test_words_of_languages_compile(tmp_path: Path) -> None:
    check(["linux", "errno", "i", "_Bool", "asm", "wrong"], tmp_path, needs("cc"))


@pytest.mark.parametrize("evil", ["*/ int x; /*", '"); puts("'])
def test_a_strange_name_compiles(evil: str, tmp_path: Path) -> None:
    check([evil, evil, f"{evil}1", "??/", "\ud800\0", f"{evil}\n"], tmp_path, needs("cc"))


def test_names_that_no_text_can_have_draw_numbers() -> None:
    """Half of a pair of UTF-16, which UTF-8 cannot write, as a weight's name and a layer's."""
    net = gc.Net("net")
    w = net.parameter("\ud800", (5, 3))
    x = net.input("x", (gc.N, 5))
    net.loss("loss", gc.mean(gc.dropout(x, keep_prob=0.5, name="\ud801") @ w))
    ex = gc.Executor(gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1)), seed=0)
    assert len(set(ex.parameters["\ud800"].flat)) == 15
    ex.step(x=np.ones((4, 5), np.float32))


@pytest.mark.one_in(15)
@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, NAMES, 10))
@pytest.mark.parametrize("cc", ["gcc", "clang"])
def test_hostile_names(start: int, cc: str, tmp_path: Path) -> None:
    """Each of 300 names is the net's, and that of each kind of array, in some file."""
    chosen = names(NAMES)
    for number in range(start, start + 10):
        six = [chosen[(number + 37 * role) % NAMES] for role in range(ROLES)]
        check(six, tmp_path, needs(cc))
        if cc == "gcc":
            flags = "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"
            run(needs("g++"), *flags, "caller.cpp", folder=tmp_path)


@pytest.mark.slow
@pytest.mark.needs("native")
@pytest.mark.parametrize("start", range(0, NAMES, 50))
def test_hostile_names_in_objects(start: int, tmp_path: Path) -> None:
    chosen, cc = names(NAMES), needs("cc")
    for number in range(start, start + 50, 5):
        six = [chosen[(number + 37 * role) % NAMES] for role in range(ROLES)]
        gc.export_object(executor(six, "native"), tmp_path / "x.o", backward=True)
        header = (tmp_path / "x.h").read_text()
        (prefix,) = re.findall(r"^void (\w+)_infer\(", header, re.MULTILINE)
        call = f'#include "x.h"\nint main(void) {{ static double s[999]; {prefix}_init(s);'
        (tmp_path / "main.c").write_text(f"{call} return 0; }}\n")
        run(cc, *STRICT, "main.c", "x.o", "-o", "main", folder=tmp_path)
        assert run("./main", folder=tmp_path) == ""


def test_names_that_look_alike_stay_apart(tmp_path: Path) -> None:
    names = ["a/b", "a.b", "a b", "a_b", "a__b", "a_b_2"]
    net = gc.Net("net")
    for number, name in enumerate(names):
        net.output(f"{name}o", net.input(name, (gc.N, 2)) * float(number))
    _, header, _ = gc.export_c(gc.Executor(gc.compile(net, batch=2)), tmp_path / "x.c")
    found = re.findall(r"\*((?:in|out)_\w+)[,)]", header.read_text())
    assert len(found) == len(set(found)) == 2 * len(names)


def test_many_names_of_one_word_take_no_time_of_their_square() -> None:
    from graphc.backends.names import Identifiers

    identifiers = Identifiers()
    found = [identifiers.new("in_", "a-") for _ in range(20_000)]
    assert len(set(found)) == 20_000


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("iris", "iris"),
        ("größe-1", "gr_e_1"),
        ("", "model"),
        ("3x", "model_3x"),
        ("sem", "model_sem"),
        ("pthread_mutex", "model_pthread_mutex"),
        ("gc_product", "model_gc_product"),
        ("in", "model_in"),
        ("a__B_", "a_b"),
        ("日本", "model"),
    ],
)
def test_the_start_of_all_names(name: str, start: str, tmp_path: Path) -> None:
    net = gc.Net("net")
    net.output("y", net.input("x", (gc.N, 2)) * 2)
    ex = gc.Executor(gc.compile(net, batch=2))
    _, header, _ = gc.export_c(ex, tmp_path / "x.c", name=name or "--")
    assert f"void {start}_infer(" in header.read_text()


@pytest.mark.parametrize("name", ['x".c', "x\n.c", "x??-.c", "x\\y.c"])
def test_a_file_whose_name_code_cannot_have_is_refused(name: str, tmp_path: Path) -> None:
    chosen = ["net", "a", "b", "w", "h", "o"]
    with pytest.raises(gc.GraphError, match="cannot be written in code"):
        gc.export_c(executor(chosen), tmp_path / name)
    assert not [*tmp_path.iterdir()]


def line(width: int) -> gc.Executor:
    net = gc.Net("line")
    x = net.input("x", (gc.N, 4))
    net.output("y", gc.affine(gc.relu(gc.affine(x, width)), 1))
    return gc.Executor(gc.compile(net, batch=4, backend="numpy"), seed=0)


def test_a_header_of_another_layout_is_not_linked(tmp_path: Path) -> None:
    symbols: list[Any] = []
    for width, batch in ((9, 4), (9, 8), (70, 4), (9, 4)):
        _, header, _ = gc.export_c(line(width), tmp_path / "line.c", batch=batch)
        symbols.append(re.findall(r"#define line_\w+ (\w+)", header.read_text()))
        assert len(symbols[-1]) == 2
    assert symbols[0] == symbols[3]
    assert all(not {*one} & {*other} for one, other in pairwise(symbols))


def test_weights_do_not_change_what_linkers_see(tmp_path: Path) -> None:
    ex, texts = line(9), []
    for _ in range(2):
        _, header, _ = gc.export_c(ex, tmp_path / "line.c")
        texts.append(re.findall(r"#define line_\w+ (\w+)", header.read_text()))
        ex.parameters["affine_1.weight"] = ex.parameters["affine_1.weight"] * 2
    assert texts[0] == texts[1]


@pytest.mark.needs("native")
def test_linkers_refuse_an_object_with_the_header_of_a_c_file(tmp_path: Path) -> None:
    cc = needs("cc")
    gc.export_object(line(70), tmp_path / "line.o")
    shutil.copy(tmp_path / "line.h", tmp_path / "object.h")
    gc.export_c(line(70), tmp_path / "line.c")
    sizes = [
        re.findall(r"WORK_BYTES (\d+)", (tmp_path / f).read_text()) for f in ("line.h", "object.h")
    ]
    assert sizes[0] != sizes[1], "this net does not show the fault"
    body = "int main(void) { static double s[999], w[9999]; float x[4], y[1]; (void)x;\n"
    body += "    line_init(s); line_infer(s, w, 1, x, y); return 0; }\n"
    for header, links in (("line.h", False), ("object.h", True)):
        (tmp_path / "main.c").write_text(f'#include "{header}"\n{body}')
        command = [cc, "-std=c99", "main.c", "line.o", "-o", "main"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == links, done.stderr
        assert links or "undefined reference to `line_infer_" in done.stderr


@pytest.mark.slow
def test_clang_ends_on_a_pool_of_many_pixels(tmp_path: Path) -> None:
    net = gc.Net("pool")
    net.output("y", gc.global_max_pool(net.input("x", (gc.N, 3, 8, 8))))
    gc.export_c(gc.Executor(gc.compile(net, batch=4, backend="numpy")), tmp_path / "x.c")
    command = [needs("clang"), *STRICT, "-O2", "-c", "x.c"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)


def test_choices_are_not_constants_of_choices(tmp_path: Path) -> None:
    """Compilers evaluate constants, and of a choice both values: that doubles with each level."""
    net = gc.Net("pool")
    net.output("y", gc.global_max_pool(net.input("x", (gc.N, 3, 8, 8))))
    file, *_ = gc.export_c(gc.Executor(gc.compile(net, batch=4, backend="numpy")), tmp_path / "x.c")
    chosen = re.findall(r"^ *(.*) = .* \?.*", file.read_text(), re.MULTILINE)
    assert len(chosen) > 50 and not [one for one in chosen if one.startswith("const float v")]
