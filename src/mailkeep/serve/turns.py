"""Small works of many sessions, as many in one round of the loop as fit into a slice of time.

One delivery concerns every client that idles on the mailbox. Told all at once, five hundred of them hold the loop for
ten milliseconds; told in turns, nobody else waits for longer than the slice.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Final

SLICE_S: Final = 0.0003


class Turns:
    """A queue of works. Touched on the event loop only."""

    __slots__ = ("_scheduled", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._scheduled = False

    def add(self, work: Callable[[], None]) -> None:
        """Do it in one of the next rounds, after what was added before."""
        self._waiting.append(work)
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        end = perf_counter() + SLICE_S
        try:
            while self._waiting and perf_counter() < end:
                self._waiting.popleft()()
        finally:  # one that failed is no reason to forget the others
            if self._waiting and not self._scheduled:
                self._schedule()
