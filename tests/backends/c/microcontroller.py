"""Nets for small processors, and a Cortex-M4 under emulation, started as the documents say."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import graphc as gc
from tests.backends.c.trained import Target
from tests.extras import needs

PAGE = Path(__file__).parents[3] / "docs" / "from_net_to_microcontroller.md"
HARD = ("-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
SOFT = ("-mfloat-abi=soft",)
ROWS = 8
CORE = ("-mcpu=cortex-m4", "-mthumb")


def blocks() -> list[tuple[str, str]]:
    """The blocks of the page: their kinds and texts."""
    return re.findall(r"^```(\w*)\n(.*?)^```", PAGE.read_text(), re.M | re.S)


def cortex_m4(folder: Path, *flags: str) -> Target:
    """The emulated board as a target of programs in a folder."""
    for _, text in blocks():
        named = re.match(r"/\* (startup\.c|mps2\.ld):", text)
        if named:
            (folder / named[1]).write_text(text)
    start = ("startup.c", "-nostartfiles", "--specs=rdimon.specs", "-T", "mps2.ld")
    board = ("qemu-system-arm", "-M", "mps2-an386", "-nographic", "-semihosting", "-kernel")
    return Target("arm-none-eabi-gcc", (*CORE, *flags, *start), board)


def mlp() -> gc.Net:
    net = gc.Net("mlp")
    h = net.input("x", (gc.N, 17))
    for width in (64, 64):
        h = gc.relu(gc.affine(h, width))
    return classifier(net, h, 6)


def digits() -> gc.Net:
    net = gc.Net("digits")
    h = net.input("x", (gc.N, 64))
    for width in (100, 50):
        h = gc.dropout(gc.relu(gc.batchnorm(gc.affine(h, width))), keep_prob=0.8)
    return classifier(net, h, 10)


def classifier(net: gc.Net, h: gc.Value, classes: int) -> gc.Net:
    scores = net.output("scores", gc.affine(h, classes))
    net.loss("loss", gc.softmax_loss(scores, net.input("y", (gc.N,), dtype="int64")))
    return net


NETS = {"mlp": (mlp, 17, 6), "digits": (digits, 64, 10)}


def executor(name: str, backend: str = "native", contract: str = "fused") -> gc.Executor:
    optimizer = gc.SGD(lr=0.1, momentum=0.9)
    options: Any = {"optimizer": optimizer, "backend": backend, "contract": contract}
    return gc.Executor(gc.compile(NETS[name][0](), batch=ROWS, **options), seed=0)


def objects(folder: Path, command: Sequence[str], name: str = "model") -> None:
    """Compile the model in a folder, with what it calls and the stack of each function."""
    flags = ["-std=c99", "-fcallgraph-info=su", "-c", f"{name}.c", "-o", "model.o"]
    subprocess.run(
        [needs(command[0]), *command[1:], *flags], cwd=folder, check=True, capture_output=True
    )


def deepest(folder: Path) -> int:
    """The bytes of stack of the deepest chain of calls, by the compiler's own account."""
    text = (folder / "model.ci").read_text()
    nodes = re.findall(r'node: \{ title: "([^"]*)" label: "([^"]*)"', text)
    edges = re.findall(r'edge: \{ sourcename: "([^"]*)" targetname: "([^"]*)"', text)
    own = {name: int((re.findall(r"(\d+) bytes", label) or ["0"])[0]) for name, label in nodes}

    def below(name: str) -> int:
        return own.get(name, 0) + max((below(b) for a, b in edges if a == name), default=0)

    return max(map(below, own))
