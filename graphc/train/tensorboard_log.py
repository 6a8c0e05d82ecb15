"""The history for TensorBoard; the only module that imports tensorboardX."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from graphc.errors import GraphError
from graphc.executor import Executor
from graphc.loc import caller_loc
from graphc.train.callbacks import Callback, Epoch


class TensorBoardLog(Callback):
    """Writes losses and metrics into a folder that `tensorboard --logdir` shows, by epoch.

    A resumed run withdraws what was written of epochs that it makes again.  Raises GraphError
    when tensorboardX is missing.
    """

    only_reads_numbers = True

    def __init__(self, folder: str | Path) -> None:
        try:
            import tensorboardX  # noqa: F401
        except ImportError:
            raise GraphError(
                "a log for TensorBoard is written by tensorboardX, which is not installed",
                loc=caller_loc(),
                hint="pip install 'graphc-nn[tensorboard]'",
            ) from None
        self.folder = Path(folder)
        self._writer: Any = None

    def __call__(self, epoch: Epoch) -> None:
        """Write the numbers of the epoch."""
        if self._writer is None:
            from tensorboardX import SummaryWriter

            again = epoch.number if epoch.number > 1 else None
            # Files are named by the second, which a run and its successor may share.
            mark = f".{epoch.number:09d}.{os.getpid()}"
            # A thread of the writer's puts numbers into the file, so often; its `flush` does not
            # wait for those that the thread has not got yet.
            self._writer = SummaryWriter(
                str(self.folder), purge_step=again, filename_suffix=mark, flush_secs=0.1
            )
        for name, value in epoch.numbers.items():
            self._writer.add_scalar(name, value, epoch.number)

    def finish(self, ex: Executor) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
