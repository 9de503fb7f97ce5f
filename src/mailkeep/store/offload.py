"""From async into the store: the only way to write from an event loop.

Group commit: while one transaction of an account commits, in a thread, all further writes to that account gather, and
go into the next one together: one sync of the pack and one commit for all. Each is a part of its own and fails alone.
Then, in one step on the loop: the indexes take in what was done, their watchers are called, the futures resolve.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Final, TypeVar, TypeVarTuple

from mailkeep.errors import StoreBusy
from mailkeep.store.account import Account
from mailkeep.store.failure import translated
from mailkeep.store.index import MailboxIndex
from mailkeep.store.ledger import Ledger, Outcome
from mailkeep.store.store import Store
from mailkeep.store.transaction import Transaction

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

GROUP_MAX: Final = 256
WRITERS_MAX: Final = 8
READERS_MAX: Final = 8


@dataclass(slots=True)
class _Work:
    """What one caller wants done."""

    run: Callable[[Transaction], Any]
    future: "asyncio.Future[Any]"
    durable: bool
    by: object | None
    value: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class _Lane:
    """The writes that wait for one account, whether a thread is at them, and those whose answer is on its way."""

    account: Account
    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: deque[_Work] = field(default_factory=deque)
    running: bool = False
    pending: int = 0  # works not answered yet; the loop's, as `done` and `steps`
    done: deque[tuple[Outcome | None, list[_Work]]] = field(default_factory=deque)
    steps: Iterator[None] | None = None


class _Writers:
    """The threads that write. An executor does the same for three times the price, most of what a hop costs."""

    def __init__(self, drain: Callable[[_Lane], None]) -> None:
        self._drain = drain
        self._lanes: SimpleQueue[_Lane | None] = SimpleQueue()
        self._idle: deque[None] = deque()  # one entry for each thread that waits, or soon will
        self._threads: list[threading.Thread] = []
        self._closed = False

    def start(self, lane: _Lane) -> None:
        """See to a lane in a thread. On the loop's thread. Raises StoreBusy once closed."""
        if self._closed:
            raise StoreBusy("The mail store is closing")
        if self._idle:
            self._idle.pop()
        elif len(self._threads) < WRITERS_MAX:
            thread = threading.Thread(target=self._work, name="store-write", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._lanes.put(lane)

    def _work(self) -> None:
        while (lane := self._lanes.get()) is not None:
            self._drain(lane)
            self._idle.append(None)

    def close(self) -> None:
        """Return when all that was started is done."""
        self._closed = True
        for _ in self._threads:
            self._lanes.put(None)
        for thread in self._threads:
            thread.join()


class Offload:
    """See the module. One per loop; its coroutines belong to that loop. `close` it before the store."""

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop
        self._lanes: dict[int, _Lane] = {}
        self._writers = _Writers(self._drain)
        self._readers = ThreadPoolExecutor(READERS_MAX, "store-read")

    async def write(
        self,
        account: Account,
        work: Callable[[Transaction], T],
        *,
        durable: bool = True,
        by: object | None = None,
    ) -> T:
        """Run `work` in a write transaction and return what it returns, once committed.

        `durable=False` is for works that only change flags: written, not synced. `by` comes back in `Batch.by`. Raises
        what the work raised, or the StoreError that the commit failed with; nothing of it has happened then.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        lane = self._lanes.get(account.info.id)
        if lane is None or lane.account is not account:
            lane = self._lanes[account.info.id] = _Lane(account)
        lane.pending += 1
        with lane.lock:
            lane.waiting.append(_Work(work, future, durable, by))
            start, lane.running = not lane.running, True
        if start:
            self._writers.start(lane)
        return await future

    def write_now(self, account: Account, work: Callable[[Transaction], T], *, by: object | None = None) -> T | None:
        """As `write(durable=False)`, here and now on the loop, if nothing is in the way; None: use `write`.

        For small changes of flags: two changes of thread cost several times the work itself. Nothing waits here for a
        lock or a sync. Raises what the work raised.
        """
        lane = self._lanes.get(account.info.id)
        if lane is not None and lane.pending:
            return None
        if not account.write_lock.acquire(blocking=False):
            return None
        try:
            ledger = account.try_begin()
            if ledger is None:
                return None
            ledger.by = by
            try:
                with translated():
                    value = work(Transaction(ledger))
            except BaseException:
                ledger.abort()
                raise
            outcome = account.commit(ledger)
        finally:
            account.write_lock.release()
        if outcome.moved:
            self._store.tell(account)
        account.apply(outcome)
        account.checkpoint_soon()
        return value

    async def read(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a function in a thread."""
        return await self._loop.run_in_executor(self._readers, function, *args)

    async def index(self, account: Account, mailbox_id: int) -> MailboxIndex:
        """As `Account.index`, loading in a thread."""
        if account.loaded(mailbox_id):
            return account.index(mailbox_id)
        return account.attach(mailbox_id, await self.read(account.snapshot, mailbox_id))

    async def close(self) -> None:
        """Finish the writes that wait, and end the threads."""
        await self._loop.run_in_executor(None, self._shut_down)

    def _shut_down(self) -> None:
        self._writers.close()
        self._readers.shutdown(wait=True, cancel_futures=True)

    # ---- in a thread

    def _drain(self, lane: _Lane) -> None:
        account = lane.account
        while True:
            with lane.lock:
                works = [lane.waiting.popleft() for _ in range(min(len(lane.waiting), GROUP_MAX))]
                if not works:
                    lane.running = False
                    return
            outcome = self._run(account, works)
            if outcome is not None and outcome.moved:
                self._store.tell(account)
            try:
                self._loop.call_soon_threadsafe(self._deliver, lane, outcome, works)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more
            account.checkpoint()

    def _run(self, account: Account, works: list[_Work]) -> Outcome | None:
        """Do the works in one transaction. Every work has a value or an error then."""
        try:
            with account.write_lock:
                ledger = account.begin(durable=any(work.durable for work in works))
                try:
                    for work in works:
                        self._run_one(ledger, work, alone=len(works) == 1)
                except BaseException:
                    ledger.abort()
                    raise
                if all(work.error is not None for work in works):
                    ledger.abort()
                    return None
                return account.commit(ledger)
        except Exception as error:  # a StoreError, else a bug of ours: in either case nobody shall wait for ever
            for work in works:
                work.error = work.error or error
        return None

    def _run_one(self, ledger: Ledger, work: _Work, *, alone: bool) -> None:
        ledger.by = work.by
        try:
            # Alone, it takes the whole transaction with it when it fails: no part is needed.
            with nullcontext() if alone else ledger.part(), translated():
                work.value = work.run(Transaction(ledger))
        except Exception as error:  # the caller's, whatever it is; it goes to him
            work.error = error

    # ---- on the loop

    def _deliver(self, lane: _Lane, outcome: Outcome | None, works: list[_Work]) -> None:
        lane.done.append((outcome, works))
        if lane.steps is None:
            self._advance(lane)

    def _advance(self, lane: _Lane) -> None:
        """Take in and answer what is done, in its order; give way to others between the steps of a long one."""
        while lane.done:
            outcome, works = lane.done[0]
            if lane.steps is None:
                lane.steps = iter(()) if outcome is None else lane.account.applying(outcome)
            finished = True
            try:
                for _ in lane.steps:
                    finished = False
                    self._loop.call_soon(self._advance, lane)
                    return
            except BaseException:
                self._loop.call_soon(self._advance, lane)  # the others' answers do not hang on it
                raise
            finally:
                if finished:  # also when a watcher raised: it is committed, so it is answered
                    lane.steps = None
                    lane.done.popleft()
                    lane.pending -= len(works)
                    _answer(works)


def _answer(works: list[_Work]) -> None:
    for work in works:
        if work.future.done():  # the caller was cancelled
            continue
        if work.error is not None:
            work.future.set_exception(work.error)
        else:
            work.future.set_result(work.value)
