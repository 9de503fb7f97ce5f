"""What was fetched goes to the disk: gathered into batches, hashed and rendered, committed, all three at once.

Each batch is staged in a thread (in a child process where there is much to do, see `store.renderer`) and committed in
another, in the order of their coming, while the next one gathers. Knows bodies and books, no connection.

The hard idea is the bound: three batches are under way at most, so whoever fetches faster than the disk takes waits.
And nothing waits for company: a batch that is not full goes as well when nothing has come for a moment, so what was
fetched before a server went silent is kept, whatever happens to this process meanwhile.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mailkeep.backup.books import Books, Row, clean_flags, tried
from mailkeep.backup.imap_remote import Body
from mailkeep.backup.recognise import identity_of
from mailkeep.mail.flags import Flags
from mailkeep.mail.selection import Known, Need, Selection
from mailkeep.store.remotes import State
from mailkeep.store.renderer import Renderer
from mailkeep.store.staging import Staged, Staging

BATCH_MESSAGES: Final = 200
BATCH_BYTES: Final = 16 << 20
BATCHES_MAX: Final = 2  # besides the one that gathers
SILENCE_S: Final = 0.5
DECIDE_MAX: Final = 64 << 20  # of a larger message only the facts are looked at
STATES: Final = {
    "empty": State.EMPTY,
    "failed": State.REFUSED,
    "replaced": State.REPLACED,
    "too large": State.TOO_LARGE,
}


@dataclass(slots=True)
class Conveyor:
    """See the module. `add` bodies, then `close`; `done` counts what was committed."""

    books: Books
    selection: Selection
    renderer: Renderer
    done: int = 0
    reported: Any = None  # called with (bytes, messages) after each commit, in a thread
    flags_before: dict[int, Flags] = field(default_factory=dict)  # where fetching changes flags: those of before
    _batch: list[Body] = field(default_factory=list)
    _size: int = 0
    _came: float = 0.0
    _going: "deque[asyncio.Task[None]]" = field(default_factory=deque)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _watch: "asyncio.Task[None] | None" = None

    async def add(self, body: Body) -> None:
        """Waits while too much is under way. Raises what the commit of an earlier batch raised."""
        if self._watch is None:
            self._watch = asyncio.ensure_future(self._watch_silence())
        self._came = asyncio.get_running_loop().time()
        self._batch.append(body)
        self._size += len(body.data) if isinstance(body.data, bytes) else 0 if body.data is None else body.data.size
        if len(self._batch) >= BATCH_MESSAGES or self._size >= BATCH_BYTES:
            await self._send()

    async def close(self) -> None:
        """All that was added is committed after this; on an error, what was not is let go."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait((self._watch,))
        try:
            await self._send()
            await self._wait(0)
        finally:
            if self._going:
                await asyncio.wait(self._going)
            _discard(self._batch)
            self._batch = []

    async def _watch_silence(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SILENCE_S)
            if self._batch and loop.time() - self._came >= SILENCE_S and not self._turn.locked():
                await self._send()

    async def _send(self) -> None:
        async with self._turn:
            await self._wait(BATCHES_MAX - 1)
            batch, self._batch, self._size = self._batch, [], 0
            if batch:
                before = self._going[-1] if self._going else None
                self._going.append(asyncio.ensure_future(self._carry(batch, before)))

    async def _wait(self, left: int) -> None:
        while len(self._going) > left:
            # Whoever is cancelled here comes again, by `close`, and waits for the same commit.
            await asyncio.shield(self._going[0])
            self._going.popleft()

    async def _carry(self, batch: list[Body], before: "asyncio.Task[None] | None") -> None:
        rows = await asyncio.to_thread(self._stage, batch)
        try:
            if before is not None:
                await asyncio.shield(before)
            await asyncio.to_thread(self._commit, rows, len(batch))
        finally:
            for row in rows:
                if row.staged is not None:
                    row.staged.close()

    # ---- in threads

    def _stage(self, batch: list[Body]) -> list[Row]:
        plain = [body.data for body in batch if isinstance(body.data, bytes)]
        ready = iter(self.renderer.stage(plain))
        rows = []
        for body in batch:
            staged: Staged | None = None
            if isinstance(body.data, bytes):
                staged = next(ready)
            elif isinstance(body.data, Staging):
                staged = body.data.finish()
            row = self._row(body, staged)
            if row is not None:
                rows.append(row)
        return rows

    def _commit(self, rows: Sequence[Row], count: int) -> None:
        size = sum(row.staged.size for row in rows if row.staged is not None)
        self.books.keep(rows)
        self.done += count
        if self.reported is not None:
            self.reported(size, count)

    def _row(self, body: Body, staged: Staged | None) -> Row | None:
        """What to put on the books for a body; None for what vanished while it was asked for."""
        flags = clean_flags(self.flags_before.get(body.uid, body.flags))
        if body.problem == "vanished":
            self.books.ledger.server -= 1
            return None
        if body.problem is not None or staged is None:
            tries = self.books.tries.get(body.uid, 0) + 1
            state = STATES.get(body.problem or "", State.FAILED)
            detail = body.detail or (f"{body.size:,} bytes" if body.size and state is State.TOO_LARGE else None)
            return Row(body.uid, flags, state=state, detail=tried(tries, detail))
        identity, labels = identity_of(body.values), labels_of(body.values)
        row = Row(body.uid, flags, body.internaldate, detail=identity, staged=staged, labels=labels)
        if self.selection.need() > Need.FACTS and not self._takes(body, flags, staged.data()):
            row.state, row.detail = State.FILTERED, None
            staged.close()
            row.staged = None
        return row

    def _takes(self, body: Body, flags: Flags, data: Any) -> bool:
        known = bytes(data) if len(data) <= DECIDE_MAX else None
        return self.selection.decide(Known(flags, body.internaldate, len(data), data=known)) is not False


def labels_of(values: Mapping[str, Any]) -> tuple[str, ...]:
    """X-GM-LABELS of a FETCH."""
    found = values.get("X-GM-LABELS")
    return tuple(map(str, found)) if isinstance(found, (tuple, list)) else ()


def _discard(batch: Sequence[Body]) -> None:
    for body in batch:
        if isinstance(body.data, Staging):
            body.data.discard()
