"""What a cell prints is shown as it was printed, however the kernel's messages cut it.

MyST-NB joins messages with a line break between them; nbclient joins them as they are.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from jupyter_cache.executors import utils
from nbclient import execute


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    utils.executenb = partial(execute, coalesce_streams=True)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
