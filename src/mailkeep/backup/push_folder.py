"""One folder brought to another server: compared, sent, its flags completed, counted.

Knows one connection at a time and the books of one folder; which folders there are is `push`'s to know.

The hard idea is that there is one way to go on, whatever happened. After a kill, a cut line or a lost answer nobody
knows what arrived; so every attempt begins by comparing: what we remember to be there, and of the rest what is known
again by content. Only what is missing then is sent. A message that was on its way when the line was cut is sent alone
the next time, so that one which breaks the server is found out and the others pass.
"""

import asyncio
import re
import tempfile
from array import array
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Final

from mailkeep.backup import push_ledger
from mailkeep.backup.imap_append import Appended
from mailkeep.backup.imap_remote import ImapConnection, Selected
from mailkeep.backup.names import lost_flags, target_flags
from mailkeep.backup.presence import Presence, Theirs, identity_of
from mailkeep.backup.push_books import UID_MASK, Link, PushBooks, Row
from mailkeep.backup.push_ledger import FolderPush
from mailkeep.errors import MailkeepError, RemoteBusy, RemoteError, Unreachable
from mailkeep.mail.numset import NumSet
from mailkeep.wire import imap_command as command

BATCH: Final = 100  # messages read and sent before what arrived is written down
BATCH_BYTES: Final = 8 << 20
FILE_MIN: Final = 4 << 20  # a larger message is read into a file, piece by piece
PIECE: Final = 1 << 20
CUTS_MAX: Final = 2  # so often a message may be on its way alone when the line is cut
BUSY_MAX: Final = 5  # so often a message is put off because the server is busy
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")
_RATE = re.compile(r"rate|throttl|later|connection|bandwidth", re.IGNORECASE)  # LIMIT says this as well
_OVER: Final = frozenset(("OVERQUOTA",))


class Refused(Exception):
    """The server has no room: no other message of any folder need be tried. `text` says so."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def _keywords(flags: frozenset[str]) -> frozenset[str]:
    return frozenset(flag for flag in flags if not flag.startswith("\\"))


def _about_keywords(error: RemoteError) -> bool:
    """A refusal that may be for them: how servers that have a limit say it (RFC 5530: LIMIT)."""
    if error.code == "LIMIT":
        return _RATE.search(error.text) is None
    return error.code in ("CANNOT", "BADFLAGS") or "keyword" in error.text.lower()


@dataclass(slots=True)
class Sending:
    """A message on its way."""

    row: Row
    body: bytes | mmap
    flags: frozenset[str]
    future: "asyncio.Future[Appended]"
    mended: bool = False

    def close(self) -> None:
        if isinstance(self.body, mmap):
            self.body.close()


@dataclass(slots=True)
class _Flight:
    """What is on its way, what has arrived and is not written down yet, and why another attempt is due."""

    flying: deque[Sending] = field(default_factory=deque)
    links: list[Link] = field(default_factory=list)
    again: list[MailkeepError] = field(default_factory=list)


@dataclass(slots=True)
class FolderCopy:
    """One folder of a run. `wait` is told the size of what goes out next, and returns when the pace allows it."""

    books: PushBooks
    ledger: FolderPush
    tmp: Path
    append_max: int | None
    wait: Callable[[int], Awaitable[None]]
    report: Callable[[int, str], None]  # bytes, folder
    stopped: Callable[[], bool]
    mapping: dict[int, int] = field(default_factory=dict)  # our key → UID there
    foreign: dict[int, Theirs] = field(default_factory=dict)  # what else is there, as far as looked at
    completed: set[int] = field(default_factory=set)  # keys whose flags there were seen to
    remembered: set[int] = field(default_factory=set)  # keys that earlier runs wrote down
    booked: set[int] = field(default_factory=set)  # keys that will not be sent any more
    accepted: set[int] = field(default_factory=set)  # keys that the server took without saying where to
    bare: set[int] = field(default_factory=set)  # keys that had to be sent without their keywords
    cuts: Counter[int] = field(default_factory=Counter)
    busy: Counter[int] = field(default_factory=Counter)
    selected: Selected | None = None
    begun: int = 0  # UIDNEXT before anything was sent
    first: bool = True
    sent: int = 0  # messages, in all attempts: whether there is progress
    by_id: bool = True  # whether the server leaves Message-IDs as they are
    custom: bool = True  # whether the server keeps keywords that it does not list

    # ---- comparing

    async def compare(self, connection: ImapConnection, *, writable: bool) -> list[int]:
        """Select the folder and see what of ours it has. Returns the keys that are missing, in the order to send."""
        before = self.selected
        self.selected = await connection.select(self.ledger.name, writable=writable)
        if before is not None and before.uidvalidity != self.selected.uidvalidity:
            self.foreign.clear()
        self.custom = connection.quirks.custom_keywords
        await asyncio.to_thread(self.books.open, self.selected.uidvalidity)
        there = await connection.uids()
        self.mapping = await asyncio.to_thread(self.books.known, there)
        if self.first:
            self.begun = self.selected.uidnext or max(there, default=0) + 1
            self.remembered = set(self.mapping)
            self.first = False
        missing = [key for key in self.books.keys if key not in self.mapping]
        taken = set(self.mapping.values())
        others = array("I", [uid for uid in there if uid not in taken])
        if missing and others:
            await self._recognise(connection, others, link=writable)
            missing = [key for key in missing if key not in self.mapping]
            if any(key in self.accepted for key in missing):
                await self._recognise_changed(missing, others, link=writable)
                missing = [key for key in missing if key not in self.mapping]
        for key in missing:
            if key in self.accepted and key not in self.booked:  # sent again it might be there twice
                self.booked.add(key)
                self.ledger.book(key & UID_MASK, push_ledger.NOT_FOUND)
        return [key for key in missing if key not in self.booked]

    async def _recognise(self, connection: ImapConnection, others: "array[int]", *, link: bool) -> None:
        by_id = self.by_id = connection.quirks.stable_message_id
        unseen = [uid for uid in others if uid not in self.foreign]
        if unseen:
            async for part in connection.facts(NumSet.of(unseen), envelope=True):
                for each in part:
                    size = each.size if connection.quirks.trust_size else None
                    identity = identity_of(each.values.get("ENVELOPE"), by_id=by_id)
                    self.foreign[each.uid] = Theirs(each.uid, identity, size, each.internaldate)
        presence = Presence()
        for uid in others:
            if uid in self.foreign:
                presence.add(self.foreign[uid])
        known = self.mapping
        found = await asyncio.to_thread(lambda: presence.match(self.books.candidates(known, by_id=by_id)))
        await self._meet(found, link=link)

    async def _recognise_changed(self, missing: Sequence[int], others: "array[int]", *, link: bool) -> None:
        """What the server took in this run without saying where to, and changed, in size or date.

        As many as it took of what looks alike have come since the run began: these are they.
        """
        taken = set(self.mapping.values())
        came: dict[bytes, list[int]] = {}
        for uid in others:
            if uid >= self.begun and uid not in taken and uid in self.foreign:
                came.setdefault(self.foreign[uid].identity, []).append(uid)
        wanted = set(missing) & self.accepted
        sent: dict[bytes, list[int]] = {}
        for ours in await asyncio.to_thread(lambda: list(self.books.candidates(self.mapping, by_id=self.by_id))):
            if ours.key in wanted:
                sent.setdefault(ours.identity, []).append(ours.key)
        found: dict[int, int] = {}
        for identity, keys in sent.items():
            uids = came.get(identity, [])
            if len(uids) == len(keys):
                found.update(zip(keys, uids, strict=True))
        await self._meet(found, link=link)

    async def _meet(self, found: dict[int, int], *, link: bool) -> None:
        self.mapping |= found
        if link and found:
            rows = {row.key: row for row in await asyncio.to_thread(self.books.rows, list(found))}
            links = [Link(key, uid, rows[key].flags) for key, uid in found.items() if key in rows]
            await asyncio.to_thread(self.books.link, links)

    # ---- planning

    async def plan(self, missing: Sequence[int]) -> None:
        """What sending these would mean."""
        for start in range(0, len(missing), BATCH * 10):
            rows = await asyncio.to_thread(self.books.rows, missing[start : start + BATCH * 10])
            for row in rows:
                if self._too_large(row):
                    continue
                self.ledger.copied += 1
                self.ledger.copied_bytes += row.size
                self._count_lost(row)
        self.ledger.there = len(self.books.keys) - len(missing)

    def _too_large(self, row: Row) -> bool:
        if self.append_max is None or row.size <= self.append_max:
            return False
        self._book(row, push_ledger.TOO_LARGE, f"{row.size:,} bytes, it takes {self.append_max:,}")
        return True

    def _count_lost(self, row: Row) -> None:
        self.ledger.lost.update(lost_flags(row.flags, self._allowed, custom=self.custom))

    @property
    def _allowed(self) -> frozenset[str]:
        return self.selected.permanentflags if self.selected is not None else frozenset()

    def _book(self, row: Row, reason: str, detail: str | None = None) -> None:
        if row.key not in self.booked:
            self.booked.add(row.key)
            self.ledger.book(row.uid, reason, detail)

    # ---- sending

    async def send(self, connection: ImapConnection, missing: Sequence[int]) -> None:
        """Send these. Raises Unreachable or RemoteBusy when another attempt is due, Refused when none is."""
        flight = _Flight()
        suspects = [key for key in missing if self.cuts[key]]
        plain = [key for key in missing if not self.cuts[key]]
        try:
            for keys, alone in ((plain, False), (suspects, True)):
                async for rows, bodies in self._portions(keys):
                    await self._launch(connection, rows, bodies, flight=flight, alone=alone)
                    if len(flight.links) >= BATCH:
                        links, flight.links = flight.links, []
                        await asyncio.to_thread(self.books.link, links)
                    if flight.again or self.stopped():
                        break
                while flight.flying:
                    await self._land(connection, flight)
                if flight.again:
                    raise flight.again[0]
        finally:
            for each in flight.flying:
                each.close()
            await asyncio.shield(asyncio.to_thread(self.books.link, flight.links))

    async def _portions(
        self, keys: Sequence[int]
    ) -> AsyncIterator[tuple[list[Row], list[bytes | mmap | MailkeepError]]]:
        """Rows with their bytes, so many at a time as memory may hold."""
        for start in range(0, len(keys), BATCH):
            rows = await asyncio.to_thread(self.books.rows, keys[start : start + BATCH])
            rows = [row for row in rows if not self._too_large(row)]
            portion: list[Row] = []
            size = 0
            for row in rows:
                if portion and (size + row.size > BATCH_BYTES or row.size > FILE_MIN):
                    yield portion, await asyncio.to_thread(self._read, portion)
                    portion, size = [], 0
                portion.append(row)
                size += row.size
            if portion:
                yield portion, await asyncio.to_thread(self._read, portion)

    def _read(self, rows: list[Row]) -> list[bytes | mmap | MailkeepError]:
        if len(rows) > 1 or rows[0].size <= FILE_MIN:
            return list(self.books.read(rows))
        try:
            return [self._read_file(rows[0])]
        except MailkeepError as error:
            return [error]

    def _read_file(self, row: Row) -> mmap:
        with tempfile.TemporaryFile(dir=self.tmp) as file:
            for start in range(0, row.size, PIECE):
                file.write(self.books.account.read(row.email, start, PIECE))
            file.flush()
            return mmap(file.fileno(), 0, access=ACCESS_READ)

    async def _launch(
        self,
        connection: ImapConnection,
        rows: list[Row],
        bodies: list[bytes | mmap | MailkeepError],
        *,
        flight: _Flight,
        alone: bool,
    ) -> None:
        """Send a portion on its way; land what has its answer."""
        for row, body in zip(rows, bodies, strict=True):
            if isinstance(body, MailkeepError):
                self._book(row, push_ledger.UNREADABLE, body.text)
            elif (longest := self._long_line(connection, body)) is not None:
                self._book(row, push_ledger.LONG_LINE, f"{longest:,} bytes")
            else:
                await self.wait(row.size)
                flight.flying.append(await self._start(connection, row, body))
            while flight.flying and (alone or flight.flying[0].future.done()):
                await self._land(connection, flight)
            if flight.again:
                return

    def _long_line(self, connection: ImapConnection, body: bytes | mmap) -> int | None:
        """The length of a line that is too long for the server."""
        line_max = connection.quirks.line_max
        if line_max is None or len(body) <= line_max:
            return None
        start = 0
        while start < len(body):
            stop = body.find(b"\n", start)
            stop = len(body) if stop < 0 else stop
            if stop - start > line_max:
                return stop - start
            start = stop + 1
        return None

    async def _start(
        self, connection: ImapConnection, row: Row, body: bytes | mmap, *, mended: bool = False
    ) -> Sending:
        flags = target_flags(row.flags, self._allowed, custom=self.custom)
        pieces: list[bytes] = [body]  # type: ignore[list-item]  # an mmap does as well
        if connection.quirks.append_final_crlf and body[-2:] != b"\r\n":
            pieces.append(b"\r\n")
        future = await connection.append(self.ledger.name, pieces, flags=sorted(flags), internaldate=row.internaldate)
        return Sending(row, body, flags, future, mended)

    async def _land(self, connection: ImapConnection, flight: _Flight) -> None:
        """What became of the first that was sent."""
        sending = flight.flying.popleft()
        try:
            await self._see(connection, sending, flight)
        finally:
            sending.close()

    async def _see(self, connection: ImapConnection, sending: Sending, flight: _Flight) -> None:
        row, again = sending.row, flight.again
        try:
            appended = await sending.future
        except RemoteError as error:
            if _about_keywords(error) and (keywords := _keywords(sending.flags)) and connection.alive:
                await self._without(connection, sending, keywords, flight)
                return
            if not isinstance(error, RemoteBusy):
                await self._refused(connection, sending, error, flight)
                return
            self.busy[row.key] += 1
            if self.busy[row.key] >= BUSY_MAX:
                self._book(row, push_ledger.REFUSED, error.text)
            again.append(error)
        except Unreachable as error:
            self.cuts[row.key] += 1
            if self.cuts[row.key] > CUTS_MAX:
                self._book(row, push_ledger.CUT, error.text)
            again.append(error)
        else:
            await self._landed(connection, sending, appended, flight.links)

    async def _without(
        self, connection: ImapConnection, sending: Sending, keywords: frozenset[str], flight: _Flight
    ) -> None:
        """Again without its keywords: the mailbox has as many as it can have, or they are too long."""
        row = sending.row
        bare = row._replace(flags=row.flags - keywords)
        retried = await self._start(connection, bare, sending.body, mended=sending.mended)
        if retried.flags == sending.flags:
            self._book(row, push_ledger.REFUSED, "its keywords")
            return
        self.bare.add(row.key)
        self.ledger.lost.update(keywords)
        await self._see(connection, retried, flight)

    async def _refused(self, connection: ImapConnection, sending: Sending, error: RemoteError, flight: _Flight) -> None:
        row, body = sending.row, sending.body
        if error.code in _OVER:
            raise Refused(error.text) from None
        if not sending.mended and isinstance(body, bytes) and _BARE.search(body):
            fixed = _BARE.sub(lambda match: b"" if match[0] == b"\0" else b"\r\n", body)
            retried = await self._start(connection, row, fixed, mended=True)
            await self._see(connection, retried, flight)
            return
        self._book(row, push_ledger.TOO_LARGE if error.code == "TOOBIG" else push_ledger.REFUSED, error.text)

    async def _landed(
        self, connection: ImapConnection, sending: Sending, appended: Appended, links: list[Link]
    ) -> None:
        row = sending.row
        self.sent += 1
        self.ledger.copied += 1
        self.ledger.copied_bytes += row.size
        self.ledger.changed += sending.mended
        self._count_lost(row)
        self.report(row.size, self.ledger.name)
        if appended.uid is None or self.selected is None or appended.uidvalidity != self.selected.uidvalidity:
            self.accepted.add(row.key)  # known again by content, in the comparison that follows
            return
        lost = sending.flags.intersection(connection.quirks.store_flags_after_append)
        if lost:
            await connection.run(command.Store(True, NumSet.of([appended.uid]), "+", True, tuple(sorted(lost))))
        self.mapping[row.key] = appended.uid
        links.append(Link(row.key, appended.uid, sending.flags))

    # ---- afterwards

    async def complete_flags(self, connection: ImapConnection) -> None:
        """Put flags onto messages of this run that the server has not kept when it took them."""
        new = {key: uid for key, uid in self.mapping.items() if key not in self.remembered | self.completed}
        wanted: dict[int, frozenset[str]] = {}
        chosen = set(self.books.keys)
        keys = [key for key in new if key in chosen]
        for start in range(0, len(keys), BATCH * 10):
            for row in await asyncio.to_thread(self.books.rows, keys[start : start + BATCH * 10]):
                flags = target_flags(row.flags, self._allowed, custom=self.custom)
                if row.key in self.bare:
                    flags -= _keywords(flags)
                if flags:
                    wanted[new[row.key]] = flags
        lacking: dict[frozenset[str], list[int]] = {}
        if wanted:
            async for part in connection.listing(NumSet.of(sorted(wanted))):
                for uid, index in zip(part.uids, part.flags, strict=True):
                    have = {name.lower() for name in part.flagsets[index]}
                    lack = frozenset(flag for flag in wanted.get(uid, ()) if flag.lower() not in have)
                    if lack:
                        lacking.setdefault(lack, []).append(uid)
        for flags, uids in lacking.items():
            for start in range(0, len(uids), 500):
                some = NumSet.of(uids[start : start + 500])
                try:
                    await connection.run(command.Store(True, some, "+", True, tuple(sorted(flags))))
                except RemoteError as error:
                    if isinstance(error, RemoteBusy) and not _about_keywords(error):
                        raise
                    self.ledger.lost.update({flag: len(some) for flag in flags})
                else:
                    self.ledger.flags += len(some)
        self.completed |= set(new)

    def count(self) -> None:
        """What is there in the end, as the last comparison found it."""
        chosen = set(self.books.keys)
        self.ledger.there = sum(key in chosen for key in self.mapping)
