"""What a run over one remote is given: the store, what is wanted, who watches, and how it is told to stop.

Plain values; the engines (`pull`, `pop3_pull` …) take one Context each and share nothing else.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from mailkeep.backup.imap_bodies import Clock
from mailkeep.jobs.progress import Progress
from mailkeep.mail.selection import Selection
from mailkeep.store.store import Store


def _now() -> int:
    return int(time.time())


@dataclass(slots=True)
class Context:
    """One run over one remote. `stop` is set by Ctrl-C: what is fetched is still committed, then the run ends.

    `selection` and `into` None: as the remote's settings have them.
    """

    store: Store
    selection: Selection | None = None
    into: str | None = None
    retry: bool = False  # try again what was booked as failed, however often it was tried
    allow_mass: bool = False  # a mirror may remove most of a folder at once, and what was only marked before
    size_max: int | None = None  # larger messages are booked as too large
    progress: Progress = field(default_factory=Progress)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    now: Callable[[], int] = _now  # Unix seconds
    clock: Clock = field(default_factory=Clock)  # by which is waited for a server


async def until_stopped(context: Context, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Await the run; told to stop, cancel it, and wait while it writes down what it has. Raises what it raised."""
    work = asyncio.ensure_future(run())
    stop = asyncio.ensure_future(context.stop.wait())
    try:
        await asyncio.wait((work, stop), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.cancel()
        if not work.done():
            work.cancel()
        await asyncio.wait((work,))
    if not work.cancelled():
        work.result()
