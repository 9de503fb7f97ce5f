"""An event loop in a thread of its own, beside whatever a test does: begun, waited for, ended.

Knows threads and loops; what runs there is a coroutine that listens and one that ends what it began. What listening
raises (a port that is taken) is raised where it was asked for.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any


class Aside:
    """One loop. `begin` returns once it listens; `end` closes sessions; both run on the loop."""

    def __init__(
        self,
        name: str,
        begin: Callable[[], Awaitable[Any]],
        end: Callable[[], Awaitable[None]],
        *,
        new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    ) -> None:
        self.loop = new_loop()
        self._begin = begin
        self._end = end
        self._ready = threading.Event()
        self._problem: OSError | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Returns once `begin` has. Raises the OSError that it raised."""
        self._thread.start()
        self._ready.wait()
        if self._problem is not None:
            raise self._problem

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def _run(self) -> None:
        try:
            kept = self.loop.run_until_complete(self._begin())  # a server that nobody holds is collected
            self._ready.set()
            self.loop.run_forever()
            del kept
            self.loop.run_until_complete(self._end())
        except OSError as error:
            self._problem = error
        finally:
            self._ready.set()
            self.loop.close()
