"""Ctrl-C between steps, never inside one."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class StepBorder:
    """Holds an interrupt back until `check` or the end of the `with` block.

    A step that is cut off half-way would leave weights of two updates.  Only the main thread
    gets signals, so in another one this does nothing.
    """

    def __enter__(self) -> StepBorder:
        self._held: tuple[int, FrameType | None] | None = None
        self._before = signal.getsignal(signal.SIGINT)
        self._holds = callable(self._before)
        if self._holds:
            try:
                signal.signal(signal.SIGINT, self._hold)
            except ValueError:  # not the main thread
                self._holds = False
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._holds:
            signal.signal(signal.SIGINT, self._before)
        if kind is None:
            self.check()

    def check(self) -> None:
        """Let what was held back happen now: usually KeyboardInterrupt."""
        if self._held is not None:
            (number, frame), self._held = self._held, None
            assert callable(self._before)
            self._before(number, frame)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self._held = number, frame
