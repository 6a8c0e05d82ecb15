"""Ranks as threads of one process: the same protocol without MPI, for tests and for inspection."""

from __future__ import annotations

import pickle
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from graphc.base.arguments import is_power_of_two
from graphc.base.errors import RankError
from graphc.compiler.sharding import room
from graphc.ir.op import Array
from graphc.runtime.distributed.communicator import LIMIT, Request, Swap, TreeSum, wait

T = TypeVar("T")


class Post:
    """The mailbox by which threads exchange messages: a queue, first in first out, per address."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._boxes: dict[tuple[Any, ...], deque[Any]] = defaultdict(deque)
        self.failed: BaseException | None = None
        """The error that ended a rank; once it is set, no rank waits any more."""

    def put(self, address: tuple[Any, ...], thing: Any) -> None:
        """Append a message to the queue of an address."""
        with self._lock:
            self._boxes[address].append(thing)

    def take(self, address: tuple[Any, ...]) -> list[Any]:
        """Return the oldest message in a list, empty if none; raise RankError if a rank ended."""
        if self.failed is not None:
            raise RankError(f"another rank has ended: {self.failed}")
        with self._lock:
            box = self._boxes.get(address)
            return [box.popleft()] if box else []


class Loopback:
    """The communicator of a rank that is one of several threads."""

    def __init__(self, post: Post, rank: int, size: int, limit: float = LIMIT) -> None:
        self._post, self.rank, self.size, self.limit = post, rank, size, limit
        self._calls = 0

    def expect(self, sizes: Sequence[int]) -> None:
        """Do nothing: threads post copies of any size."""

    def swap(self, partner: int, out: Array, into: Array, tag: int) -> Swap:
        """Post a copy for the partner and return a request for the partner's copy."""
        self._post.put((self.rank, partner, tag), out.copy())
        return _Taking(self._post, (partner, self.rank, tag), into)

    def total(self, buffer: Array, tag: int) -> Request:
        """Sum the buffer over ranks: by the tree if they are a power of two, else by a gather."""
        if is_power_of_two(self.size):
            scratch = np.empty(room(len(buffer), buffer.itemsize), buffer.dtype)
            return TreeSum(self, buffer, scratch, tag)
        parts = self.gather(buffer.copy())
        buffer[...] = sum(parts[1:], parts[0])
        return _Taking(self._post, (), buffer)

    def broadcast(self, buffer: Array) -> None:
        """Copy rank 0's bytes, found by a gather, into the buffer."""
        buffer[...] = self.gather(buffer.copy())[0]

    def gather(self, thing: Any) -> list[Any]:
        """Return the objects of all ranks, exchanged as bytes so that ranks share no object."""
        self._calls += 1
        thing = pickle.dumps(thing)
        for rank in range(self.size):
            self._post.put(("gather", self._calls, self.rank, rank), thing)
        found = []
        for rank in range(self.size):
            taking = _Taking(self._post, ("gather", self._calls, rank, self.rank), None)
            wait(taking, self.limit)
            found.append(pickle.loads(taking.thing))
        return found


class _Taking:
    """A request for a message that another thread posts."""

    def __init__(self, post: Post, address: tuple[Any, ...], into: Array | None) -> None:
        self._post, self._address, self._into = post, address, into
        self._done = not address
        self.thing: Any = None

    @property
    def arrived(self) -> Array:
        """The buffer that the message was copied into."""
        assert self._into is not None
        return self._into

    def test(self) -> bool:
        """Return whether the message has arrived."""
        if not self._done and (found := self._post.take(self._address)):
            self._done, self.thing = True, found[0]
            if self._into is not None:
                self._into[...] = self.thing
        return self._done

    def who(self) -> str:
        """Return the sender's name."""
        return f"rank {self._address[-3 if len(self._address) == 3 else 2]}"


def run_ranks(size: int, main: Callable[[Loopback], T], limit: float = LIMIT) -> list[T]:
    """Run `main` on `size` ranks and return their results; raise the first error of any rank."""
    post = Post()
    found: list[Any] = [None] * size
    errors: list[tuple[int, BaseException]] = []

    def run(rank: int) -> None:
        try:
            found[rank] = main(Loopback(post, rank, size, limit))
        except BaseException as error:
            errors.append((rank, error))
            post.failed = post.failed or error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0][1]
    return found
