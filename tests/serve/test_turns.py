"""Works take turns: in order, in portions, and one that fails stops no other."""

import asyncio
from unittest.mock import patch

from mailkeep.serve import turns
from mailkeep.serve.turns import Turns


def test_works_run_in_order_and_give_way_between_portions() -> None:
    async def scenario() -> None:
        done: list[object] = []
        clock = iter(range(1000))
        queue = Turns()
        with patch.object(turns, "perf_counter", lambda: next(clock)), patch.object(turns, "SLICE_S", 3.5):
            for number in range(6):
                queue.add(lambda number=number: done.append(number))  # type: ignore[misc]
            asyncio.get_running_loop().call_soon(done.append, "others")
            while len(done) < 7:
                await asyncio.sleep(0)
        assert done == [0, 1, 2, "others", 3, 4, 5]

    asyncio.run(scenario())


def test_one_that_fails_stops_no_other() -> None:
    async def scenario() -> None:
        done: list[int] = []
        failed: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context["exception"]))
        queue = Turns()
        queue.add(lambda: done.append(1))
        queue.add(lambda: done.append(1 // 0))
        queue.add(lambda: done.append(2))
        while len(done) < 2:
            await asyncio.sleep(0)
        queue.add(lambda: done.append(3))
        await asyncio.sleep(0)
        assert done == [1, 2, 3] and isinstance(failed[0], ZeroDivisionError)

    asyncio.run(scenario())
