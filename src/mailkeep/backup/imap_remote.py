"""Another IMAP server as the backup sees it: mailboxes, UIDs, facts, bodies, and what changes them.

`ImapConnection` is one logged-in connection; `Pool` is as many of them as pace and provider allow. It speaks commands
of `wire.imap_command` through `imap_link` and turns answers into a few plain values; it knows no store but `Staging`,
into which large messages flow.

The one hard idea: nothing here waits for one answer before the next question goes out. All listing is done in slices
that are pipelined, what comes is handed on slice by slice, and reading stops when the caller is behind.
"""

import asyncio
import contextlib
import functools
from array import array
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from mailkeep.backup.imap_append import Appended, Appender
from mailkeep.backup.imap_bodies import (
    LINE_MAX,
    SIZE_MAX,
    Body,
    BodyRun,
    Clock,
    Joining,
    Lane,
    Wish,
    forms_for,
    lasting,
)
from mailkeep.backup.imap_link import ImapLink, Reply, Sink
from mailkeep.backup.imap_login import SecretSource, close_link, open_link
from mailkeep.backup.imap_mailboxes import INT63_MAX, UINT32_MAX, RemoteMailbox, ask_ahead, list_mailboxes
from mailkeep.backup.pace import Pace, limits_of
from mailkeep.backup.quirks import Quirks
from mailkeep.backup.settings import Settings
from mailkeep.errors import ProtocolError, RemoteBusy, RemoteError, Unreachable
from mailkeep.mail.numset import NumSet
from mailkeep.store.staging import Staging
from mailkeep.wire import imap_answer as answer
from mailkeep.wire import imap_command as command

__all__ = ["Appended", "Body", "Facts", "ImapConnection", "Listing", "Pool", "RemoteMailbox", "Selected", "open_imap"]

SLICE: Final = 5000  # answers of one slice of a listing
SLICE_BYTES: Final = 16 << 20  # of answers; a slice ends there too
SLICES_MAX: Final = 4  # not yet taken; above, nothing is read
IDLE_S: Final = 28 * 60.0  # RFC 2177: a server may hang up after 30 minutes
POLL_S: Final = 60.0  # where there is no IDLE
HANG_UP_FROM: Final = 4  # commands under way: fewer are no reason to cut a line
LANE_MIN: Final = 400  # messages that make another connection worth its log-in


@dataclass(frozen=True, slots=True)
class Selected:
    """What SELECT or EXAMINE said."""

    name: str
    uidvalidity: int
    uidnext: int  # 0: not said
    exists: int
    highestmodseq: int | None
    permanentflags: frozenset[str]
    changed: list[tuple[int, frozenset[str], int]]  # QRESYNC: uid, flags, modseq
    vanished: NumSet | None  # None: the server did not resynchronise (no QRESYNC, or it was not asked)
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a message without its bytes. None: the server did not say."""

    uid: int
    flags: frozenset[str]
    modseq: int | None = None
    size: int | None = None
    internaldate: int | None = None  # Unix seconds
    values: Mapping[str, Any] = field(default_factory=dict)  # X-GM-…, EMAILID, ENVELOPE


@dataclass(frozen=True, slots=True)
class Listing:
    """A slice of a long listing: arrays side by side, since a million objects would not fit."""

    uids: "array[int]"  # "I", in the server's order, which is rising with all that we know
    flags: "array[int]"  # "I", indexes into `flagsets`
    modseqs: "array[int]"  # "Q"; 0: not said
    flagsets: Sequence[frozenset[str]]  # shared by all slices of a listing, only grows


Helper = Callable[[], "Awaitable[ImapConnection | None]"]
Helpers = Callable[["ImapConnection", int], "contextlib.AbstractAsyncContextManager[list[Helper]]"]


@contextlib.asynccontextmanager
async def _alone(_first: "ImapConnection", _messages: int) -> "AsyncGenerator[list[Helper], None]":
    yield []


def _lane_of(helper: Helper) -> Joining:
    async def join() -> Lane | None:
        one = await helper()
        return one._lane() if one is not None else None

    return join


class ImapConnection:
    """One logged-in connection. Methods raise RemoteError, RemoteBusy, Unreachable, ProtocolError.

    Commands not named here go through `start` and `run`. A connection that was cut is dead, but for `bodies`, which
    opens another one behind the same object and goes on.
    """

    def __init__(
        self, link: ImapLink, reopen: Callable[[], "Awaitable[ImapConnection]"], *, pace: Pace, clock: Clock
    ) -> None:
        self._link = link
        self._reopen = reopen
        self.helpers: Helpers = _alone  # a pool lends more connections to `bodies`
        self._appender = Appender(link)
        self._notified = False
        self._searched: asyncio.Future[Reply] | None = None  # of `uids`, asked with SELECT
        self.pace = pace
        self.clock = clock
        self.prefix = ""  # of the personal namespace
        self.separator: str | None = None
        self.selected: Selected | None = None

    @property
    def capabilities(self) -> frozenset[str]:
        return self._link.capabilities

    @property
    def quirks(self) -> Quirks:
        """As found by settings, host, greeting and ID."""
        return self._link.quirks

    @property
    def rtt_s(self) -> float:
        """The round-trip time, at its best so far."""
        return self._link.rtt_s

    @property
    def alive(self) -> bool:
        return self._link.alive

    @property
    def compressed(self) -> bool:
        return self._link.stream.compressed

    @property
    def bytes_in(self) -> int:
        """On the wire, of the present line."""
        return self._link.stream.bytes_in

    def has(self, name: str) -> bool:
        """Whether the server can do it, and may be trusted to."""
        if name == "QRESYNC":
            return "QRESYNC" in self._link.enabled
        if name == "CONDSTORE":
            return bool({"QRESYNC", "CONDSTORE"} & self._link.enabled) or (
                "CONDSTORE" in self.capabilities and self.quirks.trust_condstore
            )
        return name in self.capabilities

    # --- any command ---

    def start(self, asked: command.ClientCommand, *, sink: Sink | None = None) -> "asyncio.Future[Reply]":
        """Send a command at once. The future gives its Reply, NO and BAD too, or the error that cut the line."""
        return self._link.start(asked, sink=sink)

    async def run(self, asked: command.ClientCommand, *, sink: Sink | None = None) -> Reply:
        """As `start`, waited for. Raises RemoteError or RemoteBusy for NO and BAD."""
        return await self._link.run(asked, sink=sink)

    # --- mailboxes ---

    async def list_mailboxes(self, *, status: bool = False) -> list[RemoteMailbox]:
        """All mailboxes, in the server's order, each once; with STATUS of those that can be selected."""
        try:
            return await list_mailboxes(self._link, status=status)
        except Unreachable:
            if self._link.cut_with < HANG_UP_FROM or self._link.depth == 1:
                raise
        # It may bear no more than a few commands at once: once more, one after the other.
        self.pace.hung_up(self.clock.now())
        return await list_mailboxes(await self._renew(), status=status)

    async def select(
        self,
        name: str,
        *,
        writable: bool = False,
        since: tuple[int, int, NumSet | None] | None = None,
        uids: bool = False,
    ) -> Selected:
        """`since`: (uidvalidity, modseq, known UIDs) for QRESYNC; without it, or where not trusted, a plain SELECT.

        `uids`: `uids()` will be called next, so that question goes out in the same breath.
        """
        resync = None
        if since is not None and self.has("QRESYNC") and since[1] > 0:
            resync = command.QResync(since[0], since[1], since[2] or None)
        condstore = resync is None and self.has("CONDSTORE")
        self.selected = None
        self._link.exists = 0
        asked = command.Select(name, not writable, condstore=condstore, qresync=resync)
        running = self._link.start(asked)
        self._searched = self._link.start(self._search()) if uids and self.quirks.trust_search else None
        reply = self._link.checked(await running, "Select")
        selected = _selected(name, reply, resync is not None, writable)
        if selected.uidnext == 0:
            selected = await self._ask_uidnext(selected)
        self.selected = selected
        return selected

    async def _ask_uidnext(self, selected: Selected) -> Selected:
        """Old servers do not say it when they select; some not then either."""
        reply = await self._link.start(command.Status(selected.name, ("UIDNEXT", "UIDVALIDITY")))
        items: Mapping[str, int | str] = {}
        for each in reply.answers:
            if isinstance(each, answer.MailboxStatus):
                items = each.items
        return Selected(
            selected.name,
            selected.uidvalidity or _number(items.get("UIDVALIDITY"), UINT32_MAX),
            _number(items.get("UIDNEXT"), UINT32_MAX + 1),
            selected.exists,
            selected.highestmodseq,
            selected.permanentflags,
            selected.changed,
            selected.vanished,
            selected.read_only,
        )

    async def unselect(self) -> None:
        """Leave the mailbox without expunging."""
        self.selected = None
        if "UNSELECT" in self.capabilities or "IMAP4REV2" in self.capabilities:
            await self._link.run(command.Unselect())

    # --- what is in the selected mailbox ---

    async def uids(self) -> "array[int]":
        """All UIDs of the selected mailbox, rising ("I")."""
        if self._link.exists <= 0:
            return array("I")
        if self.quirks.trust_search:
            found = await self._search_all()
            # A SEARCH that finds less than there is is not believed (Yahoo caps it, Domino forgets).
            if found is not None and len(found) >= self._link.exists:
                return found
        listed: set[int] = set()
        async for each in self._answers([NumSet(((1, max(1, self._link.exists)),))], ("UID",), uid=False):
            listed.update(fetched.uid for fetched in each if fetched.uid)
            if len(listed) > self._link.exists + SLICE:
                raise ProtocolError(f"{self._link.host} lists more messages than there are")
        return array("I", sorted(listed))

    def _search(self) -> command.Search:
        extended = "ESEARCH" in self.capabilities or "IMAP4REV2" in self.capabilities
        return command.Search(True, command.SearchKey("ALL"), frozenset(("ALL",)) if extended else None)

    async def _search_all(self) -> "array[int] | None":
        searched, self._searched = self._searched, None
        reply = await (searched or self._link.start(self._search()))
        if not reply.ok:
            return None
        found: set[int] = set()
        for each in reply.answers:
            if not isinstance(each, answer.Found) or each.numbers is None:
                continue
            # A set of a few octets may name four thousand million numbers.
            if len(each.numbers) > self._link.exists + SLICE:
                raise ProtocolError(f"{self._link.host} finds more messages than there are")
            found.update(each.numbers)
        return array("I", sorted(uid for uid in found if 0 < uid < 1 << 32))

    async def facts(
        self,
        uids: NumSet,
        *,
        changed_since: int | None = None,
        envelope: bool = False,
        items: Iterable[str] = (),
        sink: Sink | None = None,
    ) -> AsyncGenerator[list[Facts], None]:
        """In slices. UIDs that are gone are not among them; `items`: more of them, such as X-GM-MSGID.

        `sink` gets what else is said meanwhile (VANISHED, EXISTS).
        """
        wanted = ["UID", "FLAGS", "INTERNALDATE", "RFC822.SIZE"]
        wanted += ["MODSEQ"] if self.has("CONDSTORE") else []
        wanted += ["ENVELOPE"] if envelope else []
        wanted += items
        answers = self._answers(_sets(uids, self._line_max()), wanted, changed_since=changed_since, sink=sink)
        async with contextlib.aclosing(answers):
            async for each in answers:
                yield [
                    Facts(one.uid, lasting(one.flags), one.modseq, one.size, one.internaldate, one.values)
                    for one in each
                    if one.uid is not None and one.flags is not None
                ]

    async def listing(
        self, uids: NumSet, *, changed_since: int | None = None, sink: Sink | None = None
    ) -> AsyncGenerator[Listing, None]:
        """UIDs, flags and modseqs only, for mailboxes of any size."""
        wanted = ["UID", "FLAGS"] + (["MODSEQ"] if self.has("CONDSTORE") else [])
        flagsets: list[frozenset[str]] = []
        known: dict[frozenset[str], int] = {}
        answers = self._answers(_sets(uids, self._line_max()), wanted, changed_since=changed_since, sink=sink)
        async with contextlib.aclosing(answers):
            async for each in answers:
                slice_ = Listing(array("I"), array("I"), array("Q"), flagsets)
                for one in each:
                    if one.uid is None or one.flags is None:
                        continue
                    flags = lasting(one.flags)
                    index = known.get(flags)
                    if index is None:
                        index = known[flags] = len(flagsets)
                        flagsets.append(flags)
                    slice_.uids.append(one.uid)
                    slice_.flags.append(index)
                    slice_.modseqs.append(one.modseq or 0)
                yield slice_

    def _line_max(self) -> int:
        return min(LINE_MAX, (self.quirks.line_max or 8192) - 500)

    async def _answers(
        self,
        sets: Iterable[NumSet],
        items: Iterable[str],
        *,
        uid: bool = True,
        changed_since: int | None = None,
        sink: Sink | None = None,
    ) -> AsyncGenerator[list[answer.Fetched], None]:
        """FETCH answers in slices, commands pipelined, reading held back while the caller is behind."""
        link, wanted = self._link, tuple(items)
        ready: deque[list[answer.Fetched]] = deque()
        news = asyncio.Event()
        current: list[answer.Fetched] = []
        began = link.received

        def take(each: answer.Answer) -> None:
            nonlocal current, began
            if isinstance(each, answer.Fetched):
                each.sections = {}  # nobody asked for bodies
                current.append(each)
                if len(current) >= SLICE or link.received - began > SLICE_BYTES:
                    began = link.received
                    ready.append(current)
                    current = []
                    news.set()
                    if len(ready) > SLICES_MAX:
                        link.hold()
            elif sink is not None:
                sink(each)

        flying: deque[asyncio.Future[Reply]] = deque()
        waiting = iter(sets)
        more = True
        try:
            while True:
                while more and len(flying) < self.pace.depth:
                    numbers = next(waiting, None)
                    more = numbers is not None
                    if numbers is not None:
                        future = link.start(command.Fetch(uid, numbers, wanted, changed_since), sink=take)
                        future.add_done_callback(lambda _: news.set())
                        flying.append(future)
                while ready:
                    yield ready.popleft()
                    link.release()
                if not flying:
                    break
                if flying[0].done():
                    reply = flying.popleft().result()
                    link.checked(reply, "FETCH")
                    continue
                news.clear()
                await news.wait()
            if current:
                yield current
        finally:
            link.release()
            if flying and link.alive and not all(future.done() for future in flying):
                link.abort()  # its answers are on their way, and nobody would take them

    async def bodies(
        self,
        uids: Sequence[int],
        *,
        staging: Callable[[], Staging],
        items: Iterable[str] = (),
        size_max: int = SIZE_MAX,
    ) -> AsyncGenerator[Body, None]:
        """Every UID of `uids` exactly once, window by window as given, within a window in the server's order.

        Connections of the same pool help where that makes it faster. A line that is cut is opened again, a bounded
        number of times, and the mailbox selected again. Raises what ends the run; what came before is good. Close the
        iterator (`aclosing`) when you stop early.
        """
        run = BodyRun(uids, self._wish(staging, items, size_max), pace=self.pace, clock=self.clock)
        async with (
            self.helpers(self, len(uids)) as others,
            contextlib.aclosing(run.bodies(self._lane(), [_lane_of(each) for each in others])) as bodies,
        ):
            async for body in bodies:
                yield body

    def _wish(self, staging: Callable[[], Staging], items: Iterable[str], size_max: int) -> Wish:
        assert self.selected is not None, "no mailbox is selected"
        wanted = ["UID", "FLAGS", "INTERNALDATE", "RFC822.SIZE"]
        wanted += ["MODSEQ"] if self.has("CONDSTORE") else []
        return Wish(
            (*wanted, *items),
            forms_for(self.quirks.fetch_item, read_only=self.selected.read_only),
            staging,
            size_max,
            self.quirks.reject_body_regex,
            self._line_max(),
        )

    def _lane(self) -> Lane:
        return Lane(self._link, self._renew, self._link.stream.bytes_in)

    async def _renew(self) -> ImapLink:
        """Another line with the same mailbox selected. Raises RemoteError when it is not the same any more."""
        before = self.selected
        fresh = await self._reopen()
        self._link, self._appender = fresh._link, fresh._appender  # one and the same class
        if before is not None:
            now = await self.select(before.name, writable=not before.read_only)
            if now.uidvalidity != before.uidvalidity:
                raise RemoteError(f"{self._link.host} has made {before.name} anew while it was read; pull again")
        return self._link

    # --- changing ---

    async def append(
        self,
        mailbox: str,
        data: bytes | Sequence[bytes],
        *,
        flags: Iterable[str] = (),
        internaldate: int | None = None,
    ) -> "asyncio.Future[Appended]":
        """Returns when the message is on its way, so awaiting the call keeps its pace; the future says how it ended.

        `data` may be an mmap or memoryview, or pieces. The future raises RemoteError (`code`: TOOBIG, TRYCREATE, …),
        RemoteBusy, Unreachable.
        """
        return await self._appender.append(mailbox, data, flags=flags, internaldate=internaldate)

    # --- waiting for news ---

    async def notify(self) -> bool:
        """Ask for news of all mailboxes at once (RFC 5465); `idle` then waits for them. False: it cannot."""
        if "NOTIFY" not in self.capabilities:
            return False
        events = ("MessageNew", "MessageExpunge", "FlagChange")
        groups = (
            command.NotifyGroup("SELECTED", events),
            command.NotifyGroup("PERSONAL", (*events, "MailboxName")),
        )
        reply = await self._link.start(command.Notify(groups))
        self._notified = reply.ok
        return self._notified

    async def idle(self, timeout_s: float) -> bool:
        """Wait for news of the selected mailbox (after `notify`: of any); False when the time is over."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        can_idle = "IDLE" in self.capabilities and self.quirks.idle
        while (left := end - loop.time()) > 0:
            if not (can_idle or self._notified):
                if await self._poll(min(left, POLL_S)):
                    return True
            elif await self._listen(min(left, IDLE_S), can_idle):
                return True
        return False

    async def _listen(self, seconds: float, can_idle: bool) -> bool:
        over, going = asyncio.Event(), asyncio.Event()
        heard = False

        def hear(each: answer.Answer) -> None:
            nonlocal heard
            if isinstance(each, _NEWS):
                heard = True
                over.set()

        self._link.on_news = hear
        link = self._link
        idling = None
        if can_idle:
            asked = command.Idle()
            idling = link.start(asked, sink=hear, on_continue=lambda _: going.set(), patient=True)
            idling.add_done_callback(lambda _: over.set())
            idling.add_done_callback(lambda _: going.set())
        try:
            async with asyncio.timeout(seconds):
                await over.wait()
        except TimeoutError:
            pass
        finally:
            link.on_news = None
        if idling is not None:
            if not idling.done():
                async with asyncio.timeout(link.timeout_s):
                    await going.wait()
                link.stream.write(b"DONE\r\n")
            link.checked(await idling, "IDLE")
        elif not heard:
            await link.run(command.Noop())  # keeps the line, and shows whether it is there
        return heard

    async def _poll(self, seconds: float) -> bool:
        heard = False

        def hear(each: answer.Answer) -> None:
            nonlocal heard
            heard = heard or isinstance(each, _NEWS)

        await self.clock.sleep(seconds)
        await self._link.run(command.Noop(), sink=hear)
        return heard

    # --- ending ---

    async def logout(self) -> None:
        """Say good-bye; never raises."""
        await close_link(self._link)

    def abort(self) -> None:
        """Cut the line."""
        self._link.abort()


_NEWS = (answer.Exists, answer.Expunged, answer.Vanished, answer.Fetched, answer.MailboxStatus, answer.Listed)


def _selected(name: str, reply: Reply, resynced: bool, writable: bool) -> Selected:
    codes: dict[str, Any] = {}
    exists = 0
    changed: list[tuple[int, frozenset[str], int]] = []
    gone: list[NumSet] = []
    for each in reply.answers:
        if isinstance(each, answer.Exists):
            exists = each.count
        elif isinstance(each, answer.Status) and each.code is not None:
            codes[each.code.name] = each.code.value
        elif isinstance(each, answer.Vanished):
            gone.append(each.uids)
        elif isinstance(each, answer.Fetched) and each.uid is not None and each.flags is not None:
            changed.append((each.uid, lasting(each.flags), each.modseq or 0))

    permanent = codes.get("PERMANENTFLAGS")
    return Selected(
        name,
        _number(codes.get("UIDVALIDITY"), UINT32_MAX),
        _number(codes.get("UIDNEXT"), UINT32_MAX + 1),
        exists,
        _number(codes.get("HIGHESTMODSEQ"), INT63_MAX) or None,
        permanent if isinstance(permanent, frozenset) else frozenset(),
        changed,
        _union(gone) if resynced else None,
        not writable or reply.code == "READ-ONLY",
    )


def _number(value: object, most: int) -> int:
    """What a server said, if it can be that; else 0, as if it had said nothing."""
    return value if isinstance(value, int) and 0 < value <= most else 0


def _union(sets: list[NumSet]) -> NumSet:
    if len(sets) < 2:
        return sets[0] if sets else NumSet()
    return NumSet.parse(b",".join(map(bytes, sets)), ranges_max=1 << 24)


def _sets(uids: NumSet, line_max: int) -> Iterator[NumSet]:
    """The set in pieces whose text fits into a line."""
    ranges: list[tuple[int, int]] = []
    octets = 0
    for low, high in uids.ranges:
        size = len(f"{low}:{high},")
        if octets + size > line_max and ranges:
            yield NumSet(tuple(ranges))
            ranges, octets = [], 0
        ranges.append((low, high))
        octets += size
    if ranges or uids.star_ranges:
        yield NumSet(tuple(ranges), uids.star_ranges)


class Pool:
    """Connections to one account on one server, opened when they are needed, up to what pace allows."""

    def __init__(self, open_one: Callable[[], Awaitable[ImapConnection]], pace: Pace) -> None:
        """`open_one` gives a connection that uses this `pace`, which the caller reads and keeps."""
        self._open_one = open_one
        self.pace = pace
        self._rtt_s = 0.0
        self._idle: list[ImapConnection] = []
        self._count = 0  # in use, idle and being opened
        self._freed = asyncio.Condition()

    @property
    def size(self) -> int:
        """How many connections make sense now: 1 until the first has shown how far away the server is."""
        return self.pace.lanes(self._rtt_s)

    @contextlib.asynccontextmanager
    async def connection(self) -> "AsyncGenerator[ImapConnection, None]":
        """One connection for the time of the block; waits while all are in use. Raises as `open_imap` does."""
        connection = await self._get()
        try:
            yield connection
        finally:
            await self._put(connection)

    @contextlib.asynccontextmanager
    async def _others(self, first: ImapConnection, messages: int) -> "AsyncGenerator[list[Helper], None]":
        """More connections with the mailbox of `first`, where the line is long and there is much to fetch.

        They are opened all at once, and whoever takes them need not wait for them.
        """
        room = len(self._idle) + self.pace.connections - self._count
        wanted = min(self.size, max(1, messages // LANE_MIN)) - 1
        lent: list[ImapConnection] = []
        try:
            yield [functools.partial(self._join, first, lent)] * max(0, min(wanted, room))
        finally:
            for one in lent:
                await self._put(one)

    async def _join(self, first: ImapConnection, lent: list[ImapConnection]) -> ImapConnection | None:
        """One that helps `first`. None: it cannot be had; a server that refuses one is not asked for more."""
        before = first.selected
        if before is None or (self._count >= self.pace.connections and not self._idle):
            return None
        try:
            one = await self._get()
        except (RemoteBusy, Unreachable):
            self.pace.crowded()
            return None
        lent.append(one)
        try:
            now = await one.select(before.name, writable=not before.read_only)
        except (RemoteError, Unreachable, ProtocolError):
            one.abort()
            return None
        except BaseException:  # given up meanwhile: an answer is under way that nobody takes
            one.abort()
            raise
        return one if now.uidvalidity == before.uidvalidity else None

    async def _get(self) -> ImapConnection:
        async with self._freed:
            while not self._idle and self._count >= self.pace.connections:
                await self._freed.wait()
            while self._idle:
                one = self._idle.pop()
                if one.alive:
                    return one
                self._count -= 1
            self._count += 1
        try:
            one = await self._open_one()
        except BaseException:
            await self._gone()
            raise
        self._rtt_s = one.rtt_s
        one.helpers = self._others
        return one

    async def _put(self, one: ImapConnection) -> None:
        if not one.alive:
            await self._gone()
            return
        async with self._freed:
            self._idle.append(one)
            self._freed.notify()

    async def _gone(self) -> None:
        async with self._freed:
            self._count -= 1
            self._freed.notify()

    async def close(self) -> None:
        """Log out of all that are idle. Never raises."""
        idle, self._idle = self._idle, []
        self._count -= len(idle)
        await asyncio.gather(*(one.logout() for one in idle))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: object) -> None:
        await self.close()


async def open_imap(
    settings: Settings,
    secret: SecretSource,
    quirks: Quirks,
    *,
    timeout_s: float = 60,
    pace: Pace | None = None,
    clock: Clock | None = None,
    compress: bool | None = None,
    lists: bool = False,
) -> ImapConnection:
    """Connect, TLS, log in (one try), ID, ENABLE, NAMESPACE, COMPRESS. `pace`: what is known of the host.

    `lists`: `list_mailboxes(status=True)` will be called next, so that question goes out as early as may be.

    Raises Unreachable, Untrusted, BadCredentials, TlsRequired, RemoteError, RemoteBusy, ProtocolError, ConfigError.
    """
    known = pace or Pace(limits_of(quirks, settings))
    ticking = clock or Clock()

    def hung_up() -> None:
        known.hung_up(ticking.now())

    while True:
        most = known.pipeline(ticking.now())
        try:
            link, space = await open_link(
                settings,
                secret,
                quirks,
                timeout_s=timeout_s,
                compress=compress,
                pipeline_max=most,
                on_hang_up=hung_up,
                ahead=ask_ahead if lists else None,
            )
            break
        except Unreachable:
            if known.pipeline(ticking.now()) == most:
                raise

    async def reopen() -> ImapConnection:
        return await open_imap(
            settings, secret, quirks, timeout_s=timeout_s, pace=known, clock=ticking, compress=compress
        )

    connection = ImapConnection(link, reopen, pace=known, clock=ticking)
    if space is not None:
        connection.prefix, connection.separator = space.prefix, space.separator
    return connection
