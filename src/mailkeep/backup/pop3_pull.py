"""Pulling a POP3 account: what is new comes into one mailbox, and what is due is deleted at the server.

One run is one session, or several where the line is cut: each lists the maildrop anew and goes on with what is missing.
Knows the store, the line (`pop3_remote`) and the rules of identity (`pop3_identity`); knows no terminal.

The one hard idea is the order in which things become true. A message, its row and its origin are committed together,
in batches; DELE is said only for rows that a commit has made durable and whose message the store finds again; the rows
are marked as gone only after QUIT was answered. So a cut or a kill at any point leaves either a message that is on both
sides, and is recognised the next time, or one that is here: nothing is deleted that is not on disk, nothing comes
twice.

`leave` says when mail is deleted at the server: "keep" never; "delete" once it is on disk; "days" when it was first
seen so many days ago; "verified" once it was read back from the disk and its hash was right. What came shorter than
announced is kept here and never deleted there.
"""

import asyncio
import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

from mailkeep import log
from mailkeep.backup.context import Context
from mailkeep.backup.ledger import REASONS, REMOVED_HERE, RETRIES_MAX, FolderLedger, RemoteReport
from mailkeep.backup.login import secret_of
from mailkeep.backup.pace import Pace, limits_of
from mailkeep.backup.plan import newest_first
from mailkeep.backup.pop3_identity import (
    Matched,
    Row,
    content_digest,
    content_key,
    header_of,
    header_print,
    is_short,
    match,
    origin,
    read_row,
    trusted,
    uidl_key,
)
from mailkeep.backup.pop3_remote import Drop, Message, Pop3Connection, open_pop3
from mailkeep.backup.quirks import Quirks, quirks_for
from mailkeep.backup.settings import Password, Remote, Token, load_remotes
from mailkeep.errors import (
    ConfigError,
    LimitReached,
    LoginError,
    MailboxMissing,
    MessageMissing,
    NotAllowed,
    OverQuota,
    ProtocolError,
    RemoteError,
    StoreCorrupt,
    StoreError,
    Unreachable,
)
from mailkeep.mail.dates import header_date
from mailkeep.mail.ids import MailboxId
from mailkeep.mail.selection import Known, Selection
from mailkeep.store.account import Account
from mailkeep.store.arrivals import Arrival
from mailkeep.store.locks import locked
from mailkeep.store.placing import Appended
from mailkeep.store.remote_rows import RemoteBox, State
from mailkeep.store.staging import Staged, Staging
from mailkeep.store.transaction import Transaction

_log = log.get("pull")

INBOX: Final = "INBOX"  # the only folder that POP3 knows
BATCH_MESSAGES: Final = 200
BATCH_BYTES: Final = 32 << 20
CUTS_MAX: Final = 5  # sessions in a row that were cut without bringing anything
CUTS_OF_ONE: Final = 2  # … in the middle of the same message: then it is booked and left
TIMEOUT_S: Final = 60.0  # for an answer
PAUSE_S: Final = 1.0  # before the next session, after one that brought nothing
UNSETTLED: Final = b'{"selection": null}'
DAY_S: Final = 86_400
BUDGET_WAIT_S: Final = 60.0  # a longer wait for the provider's daily allowance ends the run

# RFC 1939 section 7: 1 to 70 characters in the range 0x21 to 0x7E.
_UIDL: Final = re.compile(rb"[\x21-\x7e]{1,70}")


async def pull(context: Context, remote: Remote) -> RemoteReport:
    """Bring what is new. Never raises for what the server does, nor for a store that fails: the report says it."""
    account = context.store.account(remote.account)
    report = RemoteReport(remote.name, account.info.name, remote.settings.host, context.now())
    run = _Run(context, remote, account, report, report.folder(INBOX))
    begun = time.monotonic()
    busy = f"another run of {remote.name} is under way; wait for its end"
    try:
        with locked(account.path / f"remote-{remote.id}.lock", alone=True, busy=busy):
            await run.run()
    except (LoginError, RemoteError, Unreachable, ProtocolError, ConfigError, StoreError) as error:
        report.error, report.failure = error.text, error
    if context.stop.is_set() and report.stopped is None:
        report.stopped = "stopped; give the same command again to go on where it was"
    run.folder.close()
    report.seconds = time.monotonic() - begun
    return report


@dataclass(slots=True)
class _Fetched:
    """A message that is here and not yet in the store."""

    number: int
    staging: Staging
    size: int
    detail: str | None
    undecided: bool  # the filters must see its bytes


@dataclass(slots=True)
class _Session:
    """What one listing brought."""

    connection: Pop3Connection
    drop: Drop
    matched: Matched
    uidls: dict[int, bytes]  # those that are believed
    left_out: dict[int, tuple[State, str]] = field(default_factory=dict)
    undecided: set[int] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)  # of rows that were met

    def __post_init__(self) -> None:
        self.keys = {row.key for row in self.matched.known.values()}

    def key_of(self, number: int) -> str:
        """For counting what happens to a message within a run."""
        uidl = self.uidls.get(number)
        return f"#{number} {self.drop.sizes.get(number, 0)}" if uidl is None else uidl_key(uidl)


@dataclass(slots=True)
class _Run:
    context: Context
    remote: Remote
    account: Account
    report: RemoteReport
    folder: FolderLedger
    quirks: Quirks = field(default_factory=Quirks)
    selection: Selection = field(default_factory=Selection)
    pace: Pace = field(default_factory=Pace)
    rows: dict[int, Row] = field(default_factory=dict)
    by_key: dict[str, Row] = field(default_factory=dict)
    box: RemoteBox = field(default_factory=lambda: RemoteBox(0, 0, INBOX))
    target: MailboxId = field(default=MailboxId(0))
    last: int = 0  # number given to a row
    same_selection: bool = True  # as in the run before: what it left out stays out without being asked for
    keeps_uidls: bool = False
    cuts: Counter[str] = field(default_factory=Counter)
    brought: int = 0  # messages that this session has committed
    full: bool = False
    next_size: int | None = None  # of the first message that the day's allowance has no room for

    # ---- the run

    async def run(self) -> None:
        context, remote = self.context, self.remote
        self.selection = context.selection or remote.settings.selection or Selection()
        if not self.selection.takes_mailbox(INBOX):
            self.report.left_out.append(INBOX)
            self.report.folders.remove(self.folder)
            return
        self.quirks = quirks_for(remote.settings)
        limits = limits_of(self.quirks, remote.settings, direction="pop_down")
        self.pace = Pace(limits, context.store.remotes.host_state(self._host))
        await asyncio.to_thread(self._load)
        given = await secret_of(context.store, remote)
        in_vain = 0
        while not context.stop.is_set():
            self.brought = 0
            try:
                await self._session(given)
                break
            except (Unreachable, ProtocolError) as error:
                in_vain = 0 if self.brought else in_vain + 1
                if in_vain > CUTS_MAX or not self.cuts:
                    raise
                _log.info("cut, trying again", remote=remote.name, reason=error.text)
                await self._pause(PAUSE_S * (in_vain - 1))
            finally:
                context.store.remotes.save_host_state(self._host, self.pace.dump())
            if isinstance(given, Token):
                given = await secret_of(context.store, remote)

    @property
    def _asked(self) -> bytes:
        return json.dumps({"selection": self.selection.describe()}).encode()

    @property
    def _host(self) -> str:
        return f"pop3 {self.remote.settings.host}"

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self.context.stop.wait()
            except TimeoutError:
                pass

    def _load(self) -> None:
        """In a thread: what is known of the maildrop, and the mailbox that it goes into."""
        remote, account = self.remote, self.account
        name = self.context.into or remote.settings.into or INBOX
        self.folder.mailbox = name
        try:
            self.target = account.mailbox(name).id
        except MailboxMissing:
            with account.transaction() as transaction:
                self.target = transaction.create_mailbox(name, subscribe=True).id
        found = [box for box in account.remote_boxes(remote.id) if box.name == INBOX]
        if found:
            self.box = found[0]
            self.same_selection = self.box.cursor == self._asked
            rows = (read_row(*row) for row in account.remote_rows(self.box.id))
            self.rows = {row.number: row for row in rows if row is not None}
            self.by_key = {row.key: row for row in self.rows.values()}
            self.last = max(self.rows, default=0)
        # Until a run comes to its end nobody knows by which filters its rows were left out.
        cursor = self._asked if found and self.same_selection else UNSETTLED
        self.box = replace(self.box, remote=remote.id, name=INBOX, mailbox=self.target, cursor=cursor)
        with account.transaction() as transaction:
            self.box = transaction.put_remote_box(self.box)
        # Clients that read the maildrop before find their messages again here, if nobody else's can be among them.
        others = [each for each in load_remotes(self.context.store) if each.account == remote.account]
        self.keeps_uidls = name.upper() == INBOX and len(others) <= 1

    async def _session(self, given: Password | Token) -> None:
        settings = self.remote.settings
        connection = await open_pop3(settings, given, self.quirks, timeout_s=TIMEOUT_S)
        try:
            self.quirks = connection.quirks = quirks_for(settings, greeting=connection.greeting)
            if self.cuts:  # one after the other, so that it is seen which one does it
                connection.quirks = replace(self.quirks, pipeline_depth=1)
            drop = await connection.drop()
            session = _Session(connection, drop, match(drop, self.rows.values()), trusted(drop))
            self._open_ledger(session)
            await asyncio.to_thread(self._meet_origins, session)
            await self._meet_headers(session)
            wanted = await self._choose(session)
            finished = await self._fetch(session, wanted)
            await asyncio.to_thread(self._settle, session)
            if finished:
                await asyncio.to_thread(self._settle_filters)
                await self._delete(session)
            else:
                connection.abort()
        except BaseException:
            connection.abort()
            raise

    def _open_ledger(self, session: _Session) -> None:
        """The listing is what the server says that it has; what an earlier session of this run said is over."""
        folder, drop = self.folder, session.drop
        folder.server = len(drop.numbers)
        folder.kept = 0
        folder.missing.clear()
        folder.listed.clear()
        folder.notes = list(drop.notes)
        if drop.uidls is None:
            folder.way = "by content: the server has no UIDL"
        elif session.matched.unsure:
            folder.way = f"by UIDL; {len(session.matched.unsure)} by content, whose UIDL cannot be believed"
        else:
            folder.way = "by UIDL"

    # ---- what is here already

    def _meet_origins(self, session: _Session) -> None:
        """In a thread: messages that the store has though no row says so, as after a repair."""
        matched, remote = session.matched, self.remote.id
        origins = {origin(remote, uidl_key(session.uidls[number])): number for number in matched.fresh}
        found = self.account.find_origins(list(origins))
        if not found:
            return
        met = sorted(origins[each] for each in found)
        for number in met:
            size = session.drop.sizes.get(number, 0)
            row = Row(self._next_number(), uidl_key(session.uidls[number]), size, self.context.now())
            self._take(row)
            matched.meet(number, row)
        known = set(met)
        matched.fresh = [number for number in matched.fresh if number not in known]
        self.folder.recognised += len(met)
        with self.account.transaction() as transaction:
            self._put(transaction, [matched.known[number] for number in met])

    async def _meet_headers(self, session: _Session) -> None:
        """Messages that only changed their UIDL, or never had one: told by TOP, and not fetched again."""
        matched, drop = session.matched, session.drop
        asked = matched.candidates(drop.sizes)
        if not asked:
            return
        headers = await session.connection.headers(asked)
        met = []
        for number, header in headers.items():
            if matched.meet_header(number, header_print(header, drop.sizes.get(number, 0))) is not None:
                met.append(number)
        if met:
            await asyncio.to_thread(self._remember, session, met)

    def _remember(self, session: _Session, met: Sequence[int]) -> None:
        """In a thread: rows that were met by content, under the key that the server gives them now."""
        with self.account.transaction() as transaction:
            self._rename(transaction, session, met)
            self._put(transaction, [session.matched.known[number] for number in met])
        self._forget_lists(session, met)
        self.folder.recognised += len(met)

    def _rename(self, transaction: Transaction, session: _Session, met: Sequence[int]) -> None:
        """Rows and messages get the new UIDL for their key and origin, where there is one."""
        moves: dict[bytes, bytes] = {}
        for number in met:
            uidl, row = session.uidls.get(number), session.matched.known[number]
            if uidl is None or row.key == uidl_key(uidl) or uidl_key(uidl) in self.by_key:
                continue
            before = origin(self.remote.id, row.key)
            self.by_key.pop(row.key, None)
            row.key = uidl_key(uidl)
            self.by_key[row.key] = row
            moves[before] = origin(self.remote.id, row.key)
        for before, place in self.account.find_origins(list(moves)).items():
            transaction.set_origin(place.mailbox, place.uid, moves[before])

    def _forget_lists(self, session: _Session, met: Sequence[int]) -> None:
        done = set(met)
        matched = session.matched
        matched.fresh = [number for number in matched.fresh if number not in done]
        matched.unsure = [number for number in matched.unsure if number not in done]

    # ---- what is wanted

    async def _choose(self, session: _Session) -> list[int]:
        """Numbers to fetch, the newest window first. What is left out is noted with its reason."""
        matched, drop = session.matched, session.drop
        again = [number for number, row in matched.known.items() if self._is_asked_again(session, number, row)]
        size_max = self.context.size_max or self.remote.settings.size_max
        wanted, undecided = [], []
        for number in sorted({*matched.fresh, *matched.unsure, *again}):
            size = drop.sizes.get(number) if self.quirks.trust_size else None
            if size_max and size is not None and size > size_max:
                session.left_out[number] = (State.TOO_LARGE, f"{size:,} bytes")
            elif self.cuts[session.key_of(number)] >= CUTS_OF_ONE:
                session.left_out[number] = (State.FAILED, "the connection broke in the middle of it each time")
            else:
                takes = self.selection.takes_facts(frozenset(), None, size)
                if takes is None:
                    undecided.append(number)
                elif takes:
                    wanted.append(number)
                else:
                    session.left_out[number] = (State.FILTERED, "")
        if undecided:
            wanted = sorted(wanted + await self._choose_by_header(session, undecided))
        sizes = drop.sizes
        progress = self.context.progress
        progress.total += sum(sizes.get(number, 0) for number in wanted)
        progress.items_total += len(wanted)
        progress.report(what=self.remote.name)
        return [*newest_first(wanted)]

    def _is_asked_again(self, session: _Session, number: int, row: Row) -> bool:
        """Whether a message that was not kept before is worth another try; if not, it is booked as before."""
        if row.state == State.KEPT:
            return False
        if row.state == State.TOO_LARGE:
            return True
        if row.state == State.FILTERED:
            again = not self.same_selection
        else:
            again = self.context.retry or row.tries < RETRIES_MAX
        if not again:
            session.left_out[number] = (row.state, row.reason)
        return again

    async def _choose_by_header(self, session: _Session, numbers: Sequence[int]) -> list[int]:
        headers = await session.connection.headers(numbers)
        wanted = []
        for number in numbers:
            header = headers.get(number)
            date = header_date(header) if header is not None else None
            known = Known(frozenset(), date, session.drop.sizes.get(number), header)
            takes = self.selection.decide(known)
            if takes is False:
                session.left_out[number] = (State.FILTERED, "")
            else:
                wanted.append(number)
                if takes is None:
                    session.undecided.add(number)
        return wanted

    # ---- fetching

    async def _fetch(self, session: _Session, wanted: Sequence[int]) -> bool:
        """All of `wanted`; those that broke the line before, one by one at the end. False: stopped before the end."""
        odd = [number for number in wanted if self.cuts[session.key_of(number)]]
        plain = [number for number in wanted if not self.cuts[session.key_of(number)]]
        for numbers, lenient in ((plain, False), *(([number], True) for number in odd)):
            if numbers and not await self._fetch_these(session, numbers, lenient=lenient):
                return False
        return True

    async def _fetch_these(self, session: _Session, numbers: Sequence[int], *, lenient: bool) -> bool:
        """One run through RETR. What came before the line broke is committed. False: stopped before the end."""
        allowed = self._within_budget(session, numbers)
        intake = _Intake(self, session)
        done = 0
        source = session.connection.messages(
            allowed, sizes=session.drop.sizes, staging=self.context.store.stage, lenient=lenient
        )
        try:
            async with contextlib.aclosing(source):
                async for message in source:
                    done += 1
                    self.pace.moved(self.context.now(), message.size)
                    await intake.add(message)
                    if self.context.stop.is_set() or self.full:
                        break
                else:
                    await intake.check()
        except ProtocolError:
            guilty = intake.drop_held()
            if guilty is None and done < len(allowed):
                guilty = allowed[done]
            if guilty is not None:
                self.cuts[session.key_of(guilty)] += 1
            raise
        except Unreachable:
            if done < len(allowed):
                self.cuts[session.key_of(allowed[done])] += 1
            raise
        finally:
            await intake.close()
        if self.next_size is not None:
            now = self.context.now()
            self.report.resume_at = int(max(self.pace.free_at(now, self.next_size), now + BUDGET_WAIT_S))
        return done == len(numbers) and not self.full and not self.context.stop.is_set()

    def _within_budget(self, session: _Session, numbers: Sequence[int]) -> Sequence[int]:
        """As many as the provider's daily allowance has room for."""
        now = self.context.now()
        left = self.pace.left(now)
        if left is None:
            return numbers
        if not self.pace.used(now):  # one message may be larger than the allowance of any day
            left = max(left, *(session.drop.sizes.get(number, 0) for number in numbers[:1]), 0)
        for position, number in enumerate(numbers):
            size = session.drop.sizes.get(number, 0)
            left -= size
            if left < 0:
                self.report.stopped = "the bytes of a day are used up"
                self.next_size = size
                return numbers[:position]
        return numbers

    # ---- committing, in a thread

    def commit(self, session: _Session, batch: Sequence[_Fetched]) -> None:
        staged: list[tuple[_Fetched, Staged]] = []
        try:
            for fetched in batch:
                staged.append((fetched, fetched.staging.finish()))
            with self.account.transaction() as transaction:
                rows, met = self._append(transaction, session, staged)
                self._rename(transaction, session, met)
                self._put(transaction, rows)
        finally:
            for fetched in batch[len(staged) :]:
                fetched.staging.discard()
            for _, ready in staged:
                ready.close()
        for row in rows:
            self._take(row)
        self.brought += len(rows)
        self.context.progress.report(
            done=sum(session.drop.sizes.get(each.number, each.size) for each in batch), items=len(batch)
        )

    def _append(
        self, transaction: Transaction, session: _Session, staged: Sequence[tuple[_Fetched, Staged]]
    ) -> tuple[list[Row], list[int]]:
        """Put the messages into the mailbox. Returns the rows to store, and numbers whose row was met by content."""
        rows: list[Row] = []
        met: list[int] = []
        coming: list[tuple[_Fetched, Row, Arrival]] = []
        for fetched, ready in staged:
            number = fetched.number
            if fetched.undecided and self._is_filtered(ready):
                session.left_out[number] = (State.FILTERED, "")
                continue
            data = ready.data()
            content, header = content_digest(data, ready.sha256), header_of(data)
            row = session.matched.meet_content(number, content) or self._row_of(session, number, content)
            announced = session.drop.sizes.get(number, 0)
            row.size, row.header, row.content = announced, header_print(header, announced), content
            row.short = self.quirks.trust_size and is_short(fetched.size, announced)
            session.keys.add(row.key)
            session.matched.meet(number, row)
            if row.state == State.KEPT and row.number in self.rows:
                self.folder.recognised += 1
                row.gone = None
                met.append(number)
                rows.append(row)
            else:
                key = origin(self.remote.id, row.key)
                coming.append((fetched, row, Arrival(ready, internaldate=header_date(header), origin=key)))
        rows += self._place(transaction, session, coming)
        return rows, met

    def _place(
        self, transaction: Transaction, session: _Session, coming: Sequence[tuple[_Fetched, Row, Arrival]]
    ) -> list[Row]:
        """All at once; where not all can be placed, one by one."""
        placed: Sequence[Appended | None]
        try:
            placed = transaction.append_all(self.target, [arrival for _, _, arrival in coming])
        except (OverQuota, LimitReached, NotAllowed):
            placed = [self._place_one(transaction, session, fetched, arrival) for fetched, _, arrival in coming]
        rows, uidls = [], []
        for (fetched, row, _), appended in zip(coming, placed, strict=True):
            if appended is None:
                session.matched.known.pop(fetched.number, None)
                continue
            row.state, row.reason, row.gone = State.KEPT, "", None
            rows.append(row)
            self._count(session, fetched, appended.fresh)
            uidl = session.uidls.get(fetched.number)
            if appended.fresh and self.keeps_uidls and uidl is not None and _UIDL.fullmatch(uidl):
                uidls.append((appended.uid, uidl.decode()))
        if uidls:
            transaction.set_uidls(self.target, uidls)
        return rows

    def _place_one(
        self, transaction: Transaction, session: _Session, fetched: _Fetched, arrival: Arrival
    ) -> Appended | None:
        try:
            return transaction.append(
                self.target, arrival.staged, internaldate=arrival.internaldate, origin=arrival.origin
            )
        except (OverQuota, LimitReached, NotAllowed) as error:
            session.left_out[fetched.number] = (State.FAILED, error.text)
            if isinstance(error, OverQuota):
                self.full = True
                self.report.stopped = "the quota of the account is used up; raise it with `mailkeep user quota`"
            return None

    def _row_of(self, session: _Session, number: int, content: str) -> Row:
        """The row that a fetched message belongs to: its own from before, or a new one."""
        row = session.matched.known.get(number)
        if row is not None:
            return row
        uidl = session.uidls.get(number)
        if uidl is not None and uidl_key(uidl) not in self.by_key:
            return Row(self._next_number(), uidl_key(uidl), since=self.context.now())
        nth = 0
        while (key := content_key(content, nth)) in session.keys:
            nth += 1
        return self.by_key.get(key) or Row(self._next_number(), key, since=self.context.now())

    def _next_number(self) -> int:
        self.last += 1
        return self.last

    def _count(self, session: _Session, fetched: _Fetched, fresh: bool) -> None:
        folder, number = self.folder, fetched.number
        if fresh:
            folder.fetched += 1
            folder.bytes += fetched.size
        else:
            folder.recognised += 1
        if fetched.detail is not None:
            folder.notes.append(f"message {number}: {fetched.detail}")
        announced = session.drop.sizes.get(number, 0)
        if self.quirks.trust_size and is_short(fetched.size, announced):
            folder.notes.append(
                f"message {number}: {fetched.size:,} of {announced:,} bytes announced came; it stays on the server"
            )

    def _is_filtered(self, ready: Staged) -> bool:
        data = bytes(ready.data())
        known = Known(frozenset(), header_date(header_of(data)), len(data), None, data)
        return self.selection.decide(known) is False

    def _take(self, row: Row) -> None:
        self.rows[row.number] = row
        self.by_key[row.key] = row

    def _put(self, transaction: Transaction, rows: Sequence[Row]) -> None:
        transaction.put_remote_messages(
            self.box.id, [(row.number, frozenset(), row.state, row.detail()) for row in rows]
        )

    # ---- the end of a session

    def _settle(self, session: _Session) -> None:
        """In a thread: rows for what was left out; what nobody met is gone; the ledger's sums."""
        folder, matched = self.folder, session.matched
        rows = []
        for number, (state, reason) in session.left_out.items():
            folder.book(number, REASONS[state], reason or None)
            row = self._row_left_out(session, number, state, reason)
            if row is not None:
                rows.append(row)
        kept = {
            number: origin(self.remote.id, row.key)
            for number, row in matched.known.items()
            if row.state == State.KEPT and number not in session.left_out
        }
        here = self.account.find_origins(list(kept.values()))
        for number, each in kept.items():
            if each in here and here[each].live:
                folder.kept += 1
            else:
                folder.book(number, REMOVED_HERE)
        reached = len(session.left_out) + len(kept) == folder.server
        back = [row for row in matched.known.values() if row.gone is not None]
        for row in back:
            row.gone = None
        vanished = [row for row in matched.open.values() if row.state == State.KEPT]
        # A row that nobody met may still be that of a message that could not be had.
        sure = reached and not any(number in session.left_out for number in (*matched.fresh, *matched.unsure))
        forgotten = [row.number for row in matched.open.values() if row.state != State.KEPT]
        with self.account.transaction() as transaction:
            self._put(transaction, rows + back)
            if forgotten:
                transaction.drop_remote_messages(self.box.id, forgotten)
            if sure and vanished:
                transaction.set_gone(self.box.id, [row.number for row in vanished], self.context.now())
        for row in rows:
            self._take(row)
        if sure:
            for row in vanished:
                row.gone = self.context.now()
            folder.vanished += len(vanished)
        folder.gone = sum(row.gone is not None for row in self.rows.values())

    def _settle_filters(self) -> None:
        if self.box.cursor != self._asked:
            self.box = replace(self.box, cursor=self._asked)
            with self.account.transaction() as transaction:
                self.box = transaction.put_remote_box(self.box)

    def _row_left_out(self, session: _Session, number: int, state: State, reason: str) -> Row | None:
        """What to remember of a message that is not kept: only by a UIDL can it be told the next time."""
        uidl = session.uidls.get(number)
        row = session.matched.known.get(number)
        if row is None:
            if uidl is None or uidl_key(uidl) in self.by_key:
                return None
            size = session.drop.sizes.get(number, 0)
            row = Row(self._next_number(), uidl_key(uidl), size, self.context.now())
            self._take(row)
        elif (row.state, row.reason) == (state, reason) and state in (State.FILTERED, State.TOO_LARGE):
            return None
        row.state, row.reason = state, reason
        row.tries += state in (State.REFUSED, State.EMPTY, State.FAILED)
        return row

    async def _delete(self, session: _Session) -> None:
        """DELE what is due, then QUIT; without a policy only QUIT."""
        connection, notes = session.connection, self.folder.notes
        due = {number: row for number, row in session.matched.known.items() if self._is_due(row)}
        for number in session.left_out:
            due.pop(number, None)
        if due:
            sure = await asyncio.to_thread(self._found_again, list(due.values()))
            unsure = len(due) - len(sure)
            due = {number: row for number, row in due.items() if row.number in sure}
            if unsure:
                notes.append(f"{unsure} messages stay on the server: they could not be read back here")
        if not due:
            await connection.leave()
            return
        refused = await connection.delete(sorted(due))
        for number, words in list(refused.items())[:10]:
            notes.append(f"message {number} could not be deleted: {words}")
        gone = [row for number, row in due.items() if number not in refused]
        try:
            await connection.quit()
        except (RemoteError, Unreachable, ProtocolError) as error:
            # Whether they are gone nobody knows; the next listing tells.
            notes.append(f"the server did not confirm that it deleted {len(gone)} messages: {error.text}")
            connection.abort()
            return
        await asyncio.to_thread(self._mark_gone, gone)
        notes.append(f"{len(gone)} messages deleted from the server")

    def _is_due(self, row: Row) -> bool:
        settings = self.remote.settings
        if row.state != State.KEPT or row.short:
            return False
        match settings.leave:
            case "keep":
                return False
            case "days":
                return self.context.now() - row.since >= (settings.leave_days or 0) * DAY_S
            case "delete" | "verified":
                return True

    def _found_again(self, rows: Sequence[Row]) -> set[int]:
        """In a thread: the rows (by number) whose message the store has, read back and compared if so wished.

        What was expunged here has its tombstone still: who removed it does not miss it on the server.
        """
        verify = self.remote.settings.leave == "verified"
        by_origin = {origin(self.remote.id, row.key): row.number for row in rows}
        found: set[int] = set()
        for each, place in self.account.find_origins(list(by_origin)).items():
            if not verify or self._reads_back(place.mailbox, place.uid):
                found.add(by_origin[each])
        return found

    def _reads_back(self, mailbox: int, uid: int) -> bool:
        for _, email, digest in self.account.fetch(mailbox, [uid], ("uid", "email", "sha256")):
            try:
                return bool(sha256(self.account.read(email)).digest() == digest)
            except (MessageMissing, StoreCorrupt):
                return False
        return False

    def _mark_gone(self, rows: Sequence[Row]) -> None:
        now = self.context.now()
        with self.account.transaction() as transaction:
            transaction.set_gone(self.box.id, [row.number for row in rows], now)
        for row in rows:
            row.gone = now
        self.folder.gone = sum(row.gone is not None for row in self.rows.values())


@dataclass(slots=True)
class _Intake:
    """Between the line and the commits: gathers a batch while the one before is being committed, in a thread."""

    run: _Run
    session: _Session
    batch: list[_Fetched] = field(default_factory=list)
    size: int = 0
    held: _Fetched | None = None  # not of the size announced: believed once what follows it is an answer
    commit: asyncio.Task[None] | None = None

    async def add(self, message: Message) -> None:
        self._release()
        announced = self.session.drop.sizes.get(message.number)
        if message.staging is None or not message.size:
            state = State.REFUSED if message.staging is None else State.EMPTY
            self.session.left_out[message.number] = (state, message.detail or "")
            self.run.context.progress.report(done=announced or 0, items=1)
            if message.staging is not None:
                message.staging.discard()
            return
        undecided = message.number in self.session.undecided
        fetched = _Fetched(message.number, message.staging, message.size, message.detail, undecided)
        if message.size == announced:
            self._keep(fetched)
        else:
            self.held = fetched
        if len(self.batch) >= BATCH_MESSAGES or self.size >= BATCH_BYTES:
            await self._hand_over()

    async def check(self) -> None:
        """All came: what follows the last one must be an answer too."""
        if self.held is not None:
            await self.session.connection.check()

    def drop_held(self) -> int | None:
        """What followed it was no answer, so its end was none: it is not whole. Its number, if there is one."""
        held, self.held = self.held, None
        if held is None:
            return None
        held.staging.discard()
        return held.number

    async def close(self) -> None:
        """Commit what is here."""
        self._release()
        await self._hand_over()
        if self.commit is not None:
            await self.commit

    def _release(self) -> None:
        held, self.held = self.held, None
        if held is not None:
            self._keep(held)

    def _keep(self, fetched: _Fetched) -> None:
        self.batch.append(fetched)
        self.size += fetched.size

    async def _hand_over(self) -> None:
        batch, self.batch, self.size = self.batch, [], 0
        try:
            if self.commit is not None:
                await self.commit
        except BaseException:
            for fetched in batch:
                fetched.staging.discard()
            raise
        self.commit = None
        if batch:
            self.commit = asyncio.create_task(asyncio.to_thread(self.run.commit, self.session, batch))
