"""Long commands on a loop of their own, and what Ctrl-C does to them.

The first Ctrl-C (or TERM) sets `stop`, upon which the work writes down what it has and ends by itself; the second ends
it where it is. Either loses nothing but time: the same command goes on where it was.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mailkeep.cli.output import Out

T = TypeVar("T")


def run_until_done(out: Out, work: Callable[[], Awaitable[T]], *, stop: asyncio.Event) -> tuple[T, bool]:
    """What the work gave, and whether Ctrl-C ended it. The second Ctrl-C raises KeyboardInterrupt.

    `stop` may be set by the work itself too; that is no interruption.
    """
    import uvloop

    interrupted = False

    async def main() -> T:
        nonlocal interrupted
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def interrupt() -> None:
            nonlocal interrupted
            if interrupted:
                task.cancel()
                return
            interrupted = True
            stop.set()
            out.warn("Stopping: what is done so far is being kept. Once more to stop at once.")

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt)
        try:
            return await work()
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main()), interrupted
