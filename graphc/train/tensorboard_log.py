"""Writes the history for TensorBoard; only this module imports tensorboardX."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from graphc.base.errors import DataError, GraphError
from graphc.base.loc import caller_loc
from graphc.files.paths import make_folder
from graphc.files.writing import cannot_write
from graphc.runtime.executor import Executor
from graphc.train.callbacks import Callback, Epoch


class TensorBoardLog(Callback):
    """Writes losses and metrics into a folder that `tensorboard --logdir` shows, by epoch.

    A resumed run withdraws what was written of epochs that it makes again.  Raise GraphError
    if tensorboardX is missing, DataError if the folder cannot be written.
    """

    only_reads_numbers = True
    writes_files = True

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
        self._events: Any = None

    def __call__(self, epoch: Epoch) -> None:
        """Write the numbers of the epoch and flush the file: a run may end at any time."""
        try:
            self._write(epoch)
        except OSError as error:
            with suppress(OSError):
                self._close()
            raise cannot_write(self.folder, error, DataError) from error

    def _write(self, epoch: Epoch) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        if self._events is None:
            self._events = self._opened(epoch.number)
        now = time.time()
        for name, value in epoch.numbers.items():
            event = Event(wall_time=now, step=epoch.number, summary=scalar(name, value))
            self._events.write_event(event)
        self._events.flush()

    def _opened(self, first: int) -> Any:
        """Open and return a new file that withdraws earlier files' epochs from `first` on."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        make_folder(self.folder, DataError)
        # Files are named by the second, which a run and its successor may share.
        events = EventsWriter(str(self.folder / "events"), f".{first:09d}.{os.getpid()}")
        if first > 1:
            start = SessionLog(status=SessionLog.START)
            events.write_event(Event(wall_time=time.time(), step=first, session_log=start))
        return events

    def finish(self, ex: Executor) -> None:
        """Close the file."""
        try:
            self._close()
        except OSError as error:
            raise cannot_write(self.folder, error, DataError) from error

    def _close(self) -> None:
        events, self._events = self._events, None
        if events is not None:
            events.close()
