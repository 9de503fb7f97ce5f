"""A move into Mailkeep after which no client downloads anything again: UIDVALIDITY, UIDs and POP3's UIDLs stay.

Knows the source's connection and the account that takes its place. It may run again and again until the day of the
change: what is new is brought, flags follow, what was expunged there is expunged here (and can be had back with
`mailkeep undelete`).

The hard idea is that UIDs only rise. A message can take its own UID only while none above it is taken; so messages are
appended by rising UID, and one that the source would not give has lost its place: it is booked, and stays missing. A
mailbox that had mail before cannot take over another's numbers, and is left alone.
"""

import asyncio
import re
import time
from array import array
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final

import msgspec

from mailkeep.backup import names
from mailkeep.backup.books import GONE, clean_flags
from mailkeep.backup.context import Context, until_stopped
from mailkeep.backup.imap_remote import Body, ImapConnection, RemoteMailbox, Selected
from mailkeep.backup.ledger import REMOVED_HERE, FolderLedger, RemoteReport
from mailkeep.backup.login import secret_of
from mailkeep.backup.plan import compare, is_mass
from mailkeep.backup.pop3_remote import open_pop3
from mailkeep.backup.pull import pool_of
from mailkeep.backup.quirks import quirks_for
from mailkeep.backup.settings import Remote, Tls
from mailkeep.errors import (
    LoginError,
    MailboxMissing,
    NotAllowed,
    ProtocolError,
    RemoteBusy,
    RemoteError,
    StoreError,
    Unreachable,
)
from mailkeep.mail.flags import Flags
from mailkeep.mail.mailbox_name import INBOX
from mailkeep.mail.numset import NumSet
from mailkeep.mail.selection import Known, Selection
from mailkeep.store.account import Account
from mailkeep.store.locks import locked
from mailkeep.store.mailboxes import DEFAULT_MAILBOXES, Mailbox
from mailkeep.store.remotes import origin_of
from mailkeep.store.staging import Staged, Staging
from mailkeep.store.transaction import Transaction

BATCH: Final = 200  # messages of a commit, or
BATCH_BYTES: Final = 16 << 20
STEP: Final = 2000  # messages whose flags change in a transaction
ATTEMPTS_MAX: Final = 5
WAIT_FIRST_S: Final = 1.0
LOST_PLACE: Final = "came too late to keep its number"
_DEFAULTS: Final = frozenset(name for name, _ in DEFAULT_MAILBOXES) - {"INBOX"}
# UIDLs that have the UID in them: Dovecot's %08Xu%08Xv and %v-%u, Courier's UIDuid-validity, Cyrus' validity.uid.
_UIDL_FORMS: Final = (
    (re.compile(rb"([0-9A-Fa-f]{8})([0-9A-Fa-f]{8})"), 16, "uid first"),
    (re.compile(rb"UID(\d{1,10})-(\d{1,10})"), 10, "uid first"),
    (re.compile(rb"(\d{1,10})[.-](\d{1,10})"), 10, "uid last"),
)


@dataclass(frozen=True, slots=True)
class Pop3Door:
    """Where the source offers POP3: its UIDLs are what POP3 clients know their mail by."""

    host: str
    port: int
    tls: Tls


@dataclass(slots=True)
class Arrival:
    """One message that has come. `body` None: it was not had, or is not wanted."""

    uid: int
    flags: Flags
    internaldate: int | None
    body: bytes | Staging


@dataclass(slots=True)
class _Folder:
    """A folder on its way. `name` is the server's, `mailbox` ours."""

    source: RemoteMailbox
    mailbox: str
    special_use: str | None
    ledger: FolderLedger


@dataclass(slots=True)
class MigrationHere:
    """One run."""

    context: Context
    remote: Remote
    account: Account
    report: RemoteReport
    selection: Selection
    pop3: Pop3Door | None = None
    waiting: list[_Folder] = field(default_factory=list)

    async def run(self) -> None:
        async with pool_of(self.context, self.remote) as pool:
            async with pool.connection() as connection:
                listed = await connection.list_mailboxes(status=True)
                self._choose(connection, listed)
            for folder in self.waiting:
                await self._persist(folder, pool.connection)
        if self.pop3 is not None:
            await self._take_uidls(self.pop3)

    def _choose(self, connection: ImapConnection, listed: Sequence[RemoteMailbox]) -> None:
        ours = names.local_names(listed, prefix=connection.prefix, into=self.context.into)
        plain = names.local_names(listed, prefix=connection.prefix)
        uses = names.special_uses(listed, connection.prefix)
        skipped = {name.casefold() for name in connection.quirks.skip_folders}
        for box in listed:
            use = uses.get(box.name)
            name = plain[box.name]
            if not box.selectable:
                continue
            if name.casefold() in skipped or not self.selection.takes_mailbox(name, [use] if use else []):
                self.report.left_out.append(name)
                continue
            ledger = self.report.folder(box.name)
            ledger.mailbox = ours[box.name]
            ledger.server = int((box.status or {}).get("MESSAGES", 0))
            self.waiting.append(_Folder(box, ours[box.name], use if not self.context.into else None, ledger))
        # INBOX first, then parents before children.
        self.waiting.sort(key=lambda each: (each.mailbox != INBOX, each.mailbox))

    async def _persist(
        self, folder: _Folder, connection: Callable[[], AbstractAsyncContextManager[ImapConnection]]
    ) -> None:
        attempt = 0
        while True:
            fetched = folder.ledger.fetched
            try:
                async with connection() as opened:
                    await self._folder(opened, folder)
                return
            except (RemoteBusy, Unreachable) as error:
                attempt = 1 if folder.ledger.fetched > fetched else attempt + 1
                hint = error.retry_after_s if isinstance(error, RemoteBusy) else None
                if attempt >= ATTEMPTS_MAX or (hint or 0) > 300:
                    folder.ledger.error = error.text
                    return
                await asyncio.sleep(hint or WAIT_FIRST_S * 2 ** (attempt - 1))
            except (RemoteError, ProtocolError, NotAllowed) as error:
                folder.ledger.error = error.text
                return

    # ---- one folder

    async def _folder(self, connection: ImapConnection, folder: _Folder) -> None:
        ledger = folder.ledger
        ledger.missing.clear()
        ledger.listed.clear()
        selected = await connection.select(folder.source.name)
        box = await asyncio.to_thread(self._open, folder, selected)
        theirs = await connection.uids()
        snapshot = await asyncio.to_thread(self.account.snapshot, box.id)
        own = await asyncio.to_thread(self._from_there, folder, box)
        ours = array("I", [uid for uid in snapshot.uids if uid in own])
        difference = compare(theirs, ours, [0] * len(ours))
        ledger.server = len(theirs)
        fresh = array("I", [uid for uid in difference.fresh if uid >= box.uidnext])
        late = [uid for uid in difference.fresh if uid < box.uidnext]
        if is_mass(len(difference.vanished), len(ours)):
            ledger.notes.append(
                f"{len(difference.vanished):,} messages vanished there at once; nothing is removed here"
            )
        elif difference.vanished:
            ledger.vanished += await asyncio.to_thread(self._expunge, folder, box, difference.vanished)
        vanished = set(difference.vanished)
        common = [uid for uid in ours if uid not in vanished]
        if common:
            flags = dict(zip(snapshot.uids, snapshot.flags, strict=True))
            await self._follow_flags(connection, folder, box, {uid: flags[uid] for uid in common})
        late = await asyncio.to_thread(self._explain_removed, folder, box, late)
        await self._explain_late(connection, folder, late)
        self.context.progress.items_total += len(fresh)
        await self._bring(connection, folder, box, fresh)
        await asyncio.to_thread(self._finish, box, selected)
        own = await asyncio.to_thread(self._from_there, folder, box)
        ledger.kept = len(own.intersection(theirs))

    def _open(self, folder: _Folder, selected: Selected) -> Mailbox:
        """Our mailbox with the numbers of theirs. Raises NotAllowed where it has mail of its own."""
        name, use = folder.mailbox, folder.special_use
        if not selected.uidvalidity:
            raise NotAllowed("the server gives no UIDVALIDITY, so there are no numbers to keep; use `mailkeep pull`")
        with self.account.transaction() as transaction:
            try:
                box = transaction.mailbox(name)
            except MailboxMissing:
                box = None
            if box is not None and box.uidvalidity != selected.uidvalidity and box.uidnext > 1:
                raise NotAllowed(
                    f"{name} has mail of its own here, so it cannot take the numbers of the source; "
                    "give an account without mail, or --into PREFIX"
                )
            if box is None or box.uidvalidity != selected.uidvalidity:
                self._give_way(transaction, name, use)
                uses = [use] if use is not None and use != "\\Inbox" else []
                box = transaction.create_mailbox(name, special_use=uses, uidvalidity=selected.uidvalidity)
            if folder.source.subscribed or name == INBOX:
                transaction.subscribe(name, True)
            return transaction.mailbox(name)

    def _give_way(self, transaction: Transaction, name: str, use: str | None) -> None:
        """The empty mailbox that every account has for this use goes, when the source's has another name."""
        for each in transaction.mailboxes():
            if use in each.special_use and each.name != name and each.name in _DEFAULTS and each.uidnext == 1:
                transaction.delete_mailbox(each.name)
                transaction.subscribe(each.name, False)

    def _expunge(self, folder: _Folder, box: Mailbox, uids: Sequence[int]) -> int:
        """What the source has no more, of what came from it."""
        ours = self._from_there(folder, box).intersection(uids)
        with self.account.transaction() as transaction:
            return len(transaction.expunge(box.id, sorted(ours), only_deleted=False))

    def _from_there(self, folder: _Folder, box: Mailbox) -> set[int]:
        """UIDs of what came from the source. Others may have been delivered or put here meanwhile, by equal UIDs."""
        links = self.account.links(box.id)
        return {uid for uid, _, _, origin in links if origin == self._origin(folder, box, uid)}

    def _origin(self, folder: _Folder, box: Mailbox, uid: int) -> bytes:
        return origin_of(self.remote.id, folder.source.name, box.uidvalidity, uid)

    async def _follow_flags(
        self, connection: ImapConnection, folder: _Folder, box: Mailbox, ours: Mapping[int, int]
    ) -> None:
        changes: dict[Flags, list[int]] = {}
        async for part in connection.listing(NumSet.of(ours)):
            cleaned = [_flags(flags) for flags in part.flagsets]
            for uid, index in zip(part.uids, part.flags, strict=True):
                if uid in ours and self.account.flagset(ours[uid]).flags != cleaned[index]:
                    changes.setdefault(cleaned[index], []).append(uid)
        for flags, uids in changes.items():
            folder.ledger.flags += len(uids)
            await asyncio.to_thread(self._store_flags, box, uids, flags)

    def _store_flags(self, box: Mailbox, uids: Sequence[int], flags: Flags) -> None:
        for start in range(0, len(uids), STEP):
            with self.account.transaction() as transaction:
                transaction.store_flags(box.id, uids[start : start + STEP], "=", flags)

    def _explain_removed(self, folder: _Folder, box: Mailbox, uids: Sequence[int]) -> list[int]:
        """Book what came before and was moved or removed here since; the others."""
        origins = {self._origin(folder, box, uid): uid for uid in uids}
        came = {origins[origin] for origin in self.account.find_origins(list(origins))}
        for uid in sorted(came):
            folder.ledger.book(uid, REMOVED_HERE)
        return [uid for uid in uids if uid not in came]

    async def _explain_late(self, connection: ImapConnection, folder: _Folder, uids: Sequence[int]) -> None:
        """Messages whose place has passed: filtered before, or not had before."""
        if uids and not self.selection.takes_all_messages and self.selection.decides_on_facts():
            async for part in connection.facts(NumSet.of(uids)):
                for each in part:
                    if self.selection.takes_facts(each.flags, each.internaldate, each.size) is False:
                        folder.ledger.book(each.uid, "filtered")
                        uids = [uid for uid in uids if uid != each.uid]
        for uid in uids:
            folder.ledger.book(uid, LOST_PLACE)

    # ---- messages

    async def _bring(self, connection: ImapConnection, folder: _Folder, box: Mailbox, uids: "array[int]") -> None:
        """Fetch and append by rising UID, the next window on its way while one is written."""
        batch: list[Arrival] = []
        size = 0
        writing: asyncio.Task[None] | None = None
        try:
            async for body in in_order(connection.bodies(uids, staging=self.context.store.stage), uids):
                arrival = self._taken(folder.ledger, body)
                if arrival is None:
                    continue
                batch.append(arrival)
                size += len(arrival.body) if isinstance(arrival.body, bytes) else arrival.body.size
                if len(batch) >= BATCH or size >= BATCH_BYTES:
                    if writing is not None:
                        await writing
                    writing = asyncio.create_task(asyncio.to_thread(self._write, folder, box, batch))
                    batch, size = [], 0
                if self.context.stop.is_set():
                    break
        finally:
            if writing is not None:
                await asyncio.shield(writing)
            await asyncio.shield(asyncio.to_thread(self._write, folder, box, batch))

    def _taken(self, ledger: FolderLedger, body: Body) -> Arrival | None:
        if body.data is None:
            if body.problem != "vanished":
                ledger.book(body.uid, body.problem or "failed", body.detail)
            return None
        flags = _flags(body.flags)
        if not self.selection.takes_all_messages:
            data = body.data if isinstance(body.data, bytes) else None
            if self.selection.decide(Known(flags, body.internaldate, body.size, data=data)) is False:
                if isinstance(body.data, Staging):
                    body.data.discard()
                ledger.book(body.uid, "filtered")
                return None
        return Arrival(body.uid, flags, body.internaldate, body.data)

    def _write(self, folder: _Folder, box: Mailbox, batch: Sequence[Arrival]) -> None:
        """One transaction. In a thread."""
        if not batch:
            return
        staged: list[Staged] = []
        try:
            for each in batch:
                staged.append(Staged.of(each.body) if isinstance(each.body, bytes) else each.body.finish())
            with self.account.transaction() as transaction:
                for each, ready in zip(batch, staged, strict=True):
                    transaction.append(
                        box.id,
                        ready,
                        flags=each.flags,
                        internaldate=each.internaldate,
                        origin=self._origin(folder, box, each.uid),
                        uid=each.uid,
                    )
            for ready in staged:
                folder.ledger.fetched += 1
                folder.ledger.bytes += ready.size
                self.context.progress.report(done=ready.size, items=1, what=folder.mailbox)
        finally:
            for ready in staged:
                ready.close()

    def _finish(self, box: Mailbox, selected: Selected) -> None:
        if selected.uidnext and not self.context.stop.is_set():
            with self.account.transaction() as transaction:
                transaction.set_uidnext(box.id, selected.uidnext)

    # ---- POP3

    async def _take_uidls(self, door: Pop3Door) -> None:
        settings = msgspec.structs.replace(
            self.remote.settings, protocol="pop3", host=door.host, port=door.port, tls=door.tls
        )
        try:
            connection = await open_pop3(
                settings, lambda: secret_of(self.context.store, self.remote), quirks_for(settings)
            )
            try:
                drop = await connection.drop()
            finally:
                await connection.quit()
        except (LoginError, RemoteError, Unreachable, ProtocolError) as error:
            self.report.notes.append(f"UIDLs of POP3 could not be had: {error.text}")
            return
        box = self.account.mailbox(INBOX)
        rows = await asyncio.to_thread(self.account.fetch, box.id, self.account.snapshot(box.id).uids, ("uid", "size"))
        uidls = [(drop.uidls or {}).get(number) for number in drop.numbers]
        sizes = [drop.sizes.get(number) for number in drop.numbers]
        found = match_uidls(uidls, sizes, [(uid, size) for uid, size in rows], box.uidvalidity)
        if found:
            await asyncio.to_thread(self._set_uidls, box, found)
        if len(found) < len(rows):
            self.report.notes.append(f"UIDLs of POP3 are known for {len(found):,} of {len(rows):,} messages of INBOX")

    def _set_uidls(self, box: Mailbox, found: Mapping[int, str]) -> None:
        rows = sorted(found.items())
        for start in range(0, len(rows), STEP):
            with self.account.transaction() as transaction:
                transaction.set_uidls(box.id, rows[start : start + STEP])


def _flags(names: Iterable[str]) -> Flags:
    """An archive that moves takes along what it says of its own source."""
    given = frozenset(names)
    return clean_flags(given) | given.intersection((GONE,))


def match_uidls(
    uidls: Sequence[bytes | None],
    sizes: Sequence[int | None],
    rows: Sequence[tuple[int, int]],
    uidvalidity: int,
) -> dict[int, str]:
    """Which UIDL is which message's. `uidls` and `sizes` as POP3 lists them, `rows` (uid, size) by UID. Pure.

    Where all UIDLs have the UID in them, in a form of a known server, that says it; else a maildrop is listed as INBOX
    is, and each size must agree.
    """
    texts = [(uidl or b"").decode("ascii", "replace") for uidl in uidls]
    if any(not re.fullmatch(r"[!-~]{1,70}", text) for text in texts) or len(set(texts)) != len(texts):
        return {}
    known = {uid for uid, _ in rows}
    for form, radix, order in _UIDL_FORMS:
        found: dict[int, str] = {}
        for text in texts:
            match = form.fullmatch(text.encode())
            if match is None:
                break
            first, second = int(match[1], radix), int(match[2], radix)
            uid, validity = (first, second) if order == "uid first" else (second, first)
            if validity != uidvalidity:
                break
            found[uid] = text
        else:
            return {uid: text for uid, text in found.items() if uid in known}
    if len(texts) == len(rows) and all(size == row[1] for size, row in zip(sizes, rows, strict=True)):
        return {row[0]: text for row, text in zip(rows, texts, strict=True)}
    return {}


async def in_order(bodies: AsyncIterator[Body], uids: Sequence[int]) -> AsyncIterator[Body]:
    """The bodies exactly in the order of `uids`: within a window a server answers as it likes."""
    early: dict[int, Body] = {}
    due = iter(uids)
    wanted = next(due, None)
    async for body in bodies:
        early[body.uid] = body
        while wanted is not None and wanted in early:
            yield early.pop(wanted)
            wanted = next(due, None)


async def migrate_here(
    context: Context, remote: Remote, account: Account, *, pop3: Pop3Door | None = None
) -> RemoteReport:
    """Bring the remote into the account with its numbers. Never raises for what the server does: the report says it.

    Raises StoreError of a bad store.
    """
    report = RemoteReport(remote.name, account.info.name, remote.settings.host, context.now())
    run = MigrationHere(context, remote, account, report, context.selection or Selection(), pop3)
    begun = time.monotonic()
    try:
        with locked(
            account.path / f"remote-{remote.id}.lock", alone=True, busy=f"another run of {remote.name} is under way"
        ):
            await until_stopped(context, run.run)
    except StoreError as error:
        report.error, report.failure = error.text, error
    except (LoginError, RemoteError, Unreachable, ProtocolError) as error:
        report.error, report.failure = error.text, error
    if context.stop.is_set() and report.stopped is None:
        report.stopped = "stopped; give the same command again to go on where it was"
    for folder in report.folders:
        folder.close()
    report.seconds = time.monotonic() - begun
    return report
