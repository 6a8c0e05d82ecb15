"""A Cortex-M4 under emulation, started as the documents say."""

from __future__ import annotations

import re
from pathlib import Path

from tests.backends.c.trained import Target

PAGE = Path(__file__).parents[3] / "docs" / "from_net_to_microcontroller.md"
HARD = ("-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
SOFT = ("-mfloat-abi=soft",)
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
