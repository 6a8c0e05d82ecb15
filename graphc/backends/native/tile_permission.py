"""The system's permission to use the registers of tiles that some processors of x86 have.

Linux keeps their large state for those processes alone that ask for it, once for all threads:
https://docs.kernel.org/arch/x86/xstate.html.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import lru_cache

ARCH_PRCTL = 158
"""The number of the system call."""
REQUEST = 0x1023
"""The request of the permission to use a part of the processor's state."""
TILES = 18
"""The number of that part."""


@lru_cache(maxsize=1)
def permitted() -> bool:
    """Ask for the registers of tiles; return whether this process may use them."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    return bool(ctypes.CDLL(None).syscall(ARCH_PRCTL, REQUEST, TILES) == 0)
