"""One account in this process: reading its mail, its indexes in memory, and the way into a write transaction.

Reads run on one connection, writes on another, so a reader never waits for a commit. Every method may be called from
any thread, but those about indexes (`index`, `attach`, `release`, `apply`, `refresh`), which belong to the event
loop's, or, without a loop, to the one thread there is.

Handles (databases, packs) are opened when needed and closed when idle: a server has many accounts and few in use.
"""

import os
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import apsw

from mailkeep.errors import MailboxMissing, MessageMissing, NotAllowed, StoreBusy, StoreCorrupt, StoreError
from mailkeep.mail.ids import AccountId, MailboxId
from mailkeep.mail.mailbox_name import check_name
from mailkeep.mail.query import Query
from mailkeep.store import messages, remote_rows, search
from mailkeep.store.blobs import PACK_HEAD_SIZE, RAW, PackReader, PackWriter, decode
from mailkeep.store.failure import translated
from mailkeep.store.flagsets import FlagSet, FlagSets
from mailkeep.store.index import Effect, MailboxIndex, Snapshot
from mailkeep.store.ledger import Carried, Ledger, Outcome, known_end
from mailkeep.store.locks import locked, using
from mailkeep.store.mailboxes import GONE, Mailbox, find_mailbox, list_mailboxes, list_removed
from mailkeep.store.messages import Changes
from mailkeep.store.remote_rows import Origin, Recognisable, RemoteBox, RemoteUids, State
from mailkeep.store.schema import (
    HEADER_SET_BITS,
    UID_BITS,
    UID_MASK,
    Fate,
    connect,
    select,
    select_row,
    select_value,
    set_patience,
)
from mailkeep.store.transaction import Transaction

CHECKPOINT_PAGES: Final = 4000  # of 4 KiB in the write-ahead log
HEADER_SETS_MAX: Final = 64
HEADER_ROWS_MAX: Final = 20_000  # waiting to be written
UNUSED_INDEXES_MAX: Final = 8
GONE_STEP: Final = 1000  # messages moved in one transaction


Access = Literal["full", "read"]
Gone = Literal["show", "hide"]


@dataclass(frozen=True, slots=True)
class AccountInfo:
    """An account as the directory knows it. `quota` in bytes (None: none), `created` in Unix seconds.

    `access`: whether clients may change it, or only read. `gone`: whether what vanished at its source stays in sight.
    """

    id: AccountId
    name: str
    quota: int | None
    created: int
    access: Access = "full"
    gone: Gone = "show"

    @property
    def read_only(self) -> bool:
        return self.access == "read"


@dataclass(frozen=True, slots=True)
class Usage:
    """What counts against the quota: live messages, each copy for itself."""

    bytes: int
    messages: int
    quota: int | None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an account needs from the store: its current quota, where to tell a commit, a thread for small writes."""

    quota: Callable[[AccountId], int | None]
    committed: Callable[["Account", Outcome], None]
    in_background: Callable[[Callable[[], None]], None]


class Account:
    """See the module. Made by `Store.account`."""

    def __init__(self, info: AccountInfo, path: Path, surroundings: Surroundings) -> None:
        self.info = info
        self.path = path
        self.write_lock = threading.Lock()
        self._around = surroundings
        self._flagsets = FlagSets()
        self._indexes: dict[int, MailboxIndex] = {}
        self._seen_modseq = -1
        self._used = True
        self._closed = False

        self._reading = threading.RLock()  # around `_reader`, `_packs` and `_inflated`
        self._held: ExitStack | None = None  # the account's lock, shared
        self._file = (0, 0)  # device and inode of the mail.db that is cached here
        self._reader: apsw.Connection | None = None
        self._packs = PackReader(self.packs)
        self._inflated: tuple[int, bytes] = (0, b"")  # the last compressed email read

        self._writer: apsw.Connection | None = None  # this and the rest: under `write_lock`
        self._pack: PackWriter | None = None
        self._broken_packs: set[int] = (
            set()
        )  # where a write or a sync failed: what the kernel holds of them may not last
        self._carried: Carried | None = None
        self._synchronous = ""
        self._wal_pages = 0
        self._checkpointed = 0
        self.unsynced = False  # flag changes are in the log, not yet on the disk: `sync_log` within a second

        self._header_sets: dict[tuple[bytes, ...], int] = {}
        self._wanted_sets: set[tuple[bytes, ...]] = set()
        self._header_rows: list[tuple[int, bytes]] = []
        self._headers_queued = False

    @property
    def packs(self) -> Path:
        return self.path / "packs"

    # ---- handles

    def connect(self) -> apsw.Connection:
        """A connection of the caller's own, for long reads in a thread. The caller closes it."""
        self._hold()
        return connect(self.path / "mail.db", "mail")

    def _hold(self) -> None:
        """Share the account's lock: `repair` takes it alone, and so never while somebody has the account open."""
        with self._reading:
            if self._closed:
                raise StoreError("The mail store is closed")
            if self._held is not None:
                return
            with ExitStack() as stack, translated():
                stack.enter_context(using(self.path))
                stat = os.stat(self.path / "mail.db")
                if (stat.st_dev, stat.st_ino) != self._file:
                    # Repaired while nobody had it open: rebuilt, with other numbers for flag sets and emails.
                    self._file = (stat.st_dev, stat.st_ino)
                    self._flagsets = FlagSets()
                    self._header_sets = {}
                    self._header_rows = []
                    self._inflated = (0, b"")
                    self._seen_modseq = -1
                self._held = stack.pop_all()

    @contextmanager
    def _read(self) -> Iterator[apsw.Connection]:
        self._used = True
        with self._reading:
            if self._reader is None:
                self._hold()
                self._reader = connect(self.path / "mail.db", "mail", busy_s=1.0)
            with translated():
                yield self._reader

    def close(self) -> None:
        """Close all handles, for good."""
        self._closed = True
        self.rest()

    def rest(self) -> None:
        """Close all handles. They open again when needed; indexes stay."""
        with self.write_lock, self._reading:
            self._close()

    def _close(self) -> None:
        if self._pack is not None:
            self._pack.close()
            self._pack = None
        self._packs.close()
        for db in (self._reader, self._writer):
            if db is not None:
                db.close()
        self._reader = self._writer = None
        self._inflated = (0, b"")  # may be a message of many megabytes
        self._carried = None
        self._synchronous = ""
        self._wal_pages = self._checkpointed = 0
        if self._held is not None:
            self._held.close()
            self._held = None

    def close_idle(self) -> None:
        """Close the handles if nobody used the account since the last call of this, and no session has it open.

        On the loop's thread; the closing itself may sync a log of flag changes, and goes to a thread.
        """
        if self._used or any(index.users for index in self._indexes.values()):
            self._used = False
            return
        self._indexes.clear()
        if self._reader is not None or self._writer is not None:
            self._around.in_background(self.rest)

    # ---- mailboxes

    def mailboxes(self, *, hidden: bool = False) -> list[Mailbox]:
        """Live ones by name, INBOX first; those that clients do not see (`gone`) only with `hidden`."""
        with self._read() as db:
            return list_mailboxes(db, hidden=hidden)

    def mailbox(self, name: str, *, hidden: bool = False) -> Mailbox:
        """Raises MailboxMissing, for a hidden one too."""
        try:
            name = check_name(name)
        except NotAllowed:
            raise MailboxMissing("No such mailbox") from None
        with self._read() as db:
            return find_mailbox(db, name, hidden=hidden)

    def removed_mailboxes(self) -> list[Mailbox]:
        """Deleted ones that `undelete` can still bring back, the latest first."""
        with self._read() as db:
            return list_removed(db)

    def subscriptions(self) -> set[str]:
        """Subscribed names, also of what does not exist."""
        with self._read() as db:
            return {name for (name,) in select(db, "SELECT name FROM subscription")}

    def usage(self) -> Usage:
        with self._read() as db:
            size, count = select_row(db, "SELECT total(size), total(messages) FROM mailbox WHERE removed IS NULL")
        return Usage(int(size), int(count), self.quota())

    def quota(self) -> int | None:
        """In bytes, as the directory has it now."""
        return self._around.quota(self.info.id)

    # ---- messages

    def flagset(self, id: int) -> FlagSet:
        """What a FlagSetId stands for. Raises StoreCorrupt."""
        found = self._flagsets.get(id)
        if found is None:
            with self._read() as db:
                found = self._flagsets.load(db, id)
        return found

    def flagsets(self) -> list[FlagSet]:
        """All sets of flags that were ever used in the account."""
        with self._read() as db:
            return self._flagsets.load_all(db)

    def keywords(self) -> list[str]:
        """Keywords that the account knows, by name."""
        self.flagsets()
        return self._flagsets.keywords()

    def fetch(self, mailbox_id: int, uids: Sequence[int], columns: tuple[str, ...]) -> list[tuple[Any, ...]]:
        """One row a message, by UID, `uid` first. `uids` rise; those that are unknown are left out.

        Columns: uid, flags (FlagSetId), modseq, internaldate, savedate, email, size, header_size, envelope,
        envelope_utf8, body, bodystructure, sections, preview, thread, sent_day, sha256, message_id, subject, pack,
        offset, length and codec (for `read_placed`), and headers:N (of `header_set`; None where not remembered).
        Expunged messages are answered while they are kept.
        """
        with self._read() as db:
            return messages.fetch(db, mailbox_id, uids, columns)

    def read(self, email: int, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of a message as received. What lies past its end is not there. Raises MessageMissing, StoreCorrupt."""
        with self._read() as db:
            for attempt in (1, 2):
                location = messages.read_location(db, email)
                if location is None:
                    break
                end = location.size if length is None else min(start + length, location.size)
                try:
                    if location.codec == RAW:
                        return self._packs.read(location.place, start, max(end - start, 0))
                    return self._inflate(email, location)[start:end]
                except MessageMissing:
                    # Garbage collection moved it to another pack since the look-up.
                    if attempt == 2:
                        raise
        raise MessageMissing("The message is gone")

    def read_many(self, wanted: Sequence[tuple[int, int, int | None]]) -> list[bytes | MessageMissing | StoreCorrupt]:
        """As `read` for each (email, start, length), in that order; what fails is answered as its error.

        Whole messages that lie near each other in a pack, as those of a mailbox tend to, are read at once.
        """
        if not wanted:
            return []
        whole: dict[int, bytes] = {}
        try:
            with self._read() as db:
                emails = [email for email, start, length in wanted if not start and length is None]
                places = messages.read_places(db, emails) if emails else []
                read = self._packs.read_near([place[:3] for place in places])
                whole.update((place[3], data) for place, data in zip(places, read, strict=True) if data is not None)
        except (MessageMissing, StoreCorrupt):
            pass  # one by one below, which tells whose it is
        answers: list[bytes | MessageMissing | StoreCorrupt] = []
        for email, start, length in wanted:
            known = whole.get(email) if not start and length is None else None
            try:
                answers.append(self.read(email, start, length) if known is None else known)
            except (MessageMissing, StoreCorrupt) as error:
                answers.append(error)
        return answers

    def read_placed(self, places: Sequence[tuple[int, int, int, int]]) -> list[bytes] | None:
        """Whole messages by the columns (pack, offset, length, codec) of a `fetch` just made: no second look-up.

        None when one is compressed or cannot be read there: `read_many` tells whose it is, and what is wrong.
        """
        if {place[3] for place in places} - {RAW}:
            return None
        try:
            with self._read():
                found = self._packs.read_near([place[:3] for place in places])
        except (MessageMissing, StoreCorrupt):
            return None
        return [data for data in found if data is not None] if None not in found else None

    def _inflate(self, email: int, location: messages.Location) -> bytes:
        if self._inflated[0] != email:
            stored = self._packs.read(location.place, 0, location.place.length)
            self._inflated = (email, decode(location.codec, stored, location.size))
        return self._inflated[1]

    def changes(self, mailbox_id: int, since: int) -> Changes:
        """What happened after a modseq (QRESYNC). Raises MailboxMissing."""
        with self._read() as db:
            return messages.read_changes(db, mailbox_id, since)

    def known_origins(self, origins: Sequence[bytes]) -> set[bytes]:
        """Which of these were appended before, wherever they are now, unless they went away with their mailbox."""
        known: set[bytes] = set()
        with self._read() as db:
            for start in range(0, len(origins), 500):
                asked = origins[start : start + 500]
                marks = ",".join("?" * len(asked))
                sql = f"SELECT origin FROM message WHERE origin IN ({marks}) AND fate IS NOT {Fate.MAILBOX}"
                rows = select(db, sql, tuple(asked))
                known.update(origin for (origin,) in rows)
        return known

    def has_origins(self, head: bytes) -> bool:
        """Whether any message, or tombstone of one, has an origin that begins so. Much faster than `find_origins`."""
        with self._read() as db:
            return remote_rows.has_origins(db, head)

    def live_origins(self, head: bytes) -> "array[int]":
        """UIDs at a remote of the messages that are here, of one mailbox there and UIDVALIDITY (`origin_of`[:12])."""
        with self._read() as db:
            return remote_rows.live_origins(db, head)

    def find_origins(self, origins: Sequence[bytes]) -> dict[bytes, Origin]:
        """Where those are that were appended before: (mailbox id, uid, live). Not live: expunged here meanwhile."""
        with self._read() as db:
            return remote_rows.find_origins(db, origins)

    def uidls(self, mailbox_id: int, first: int = 1, last: int = UID_MASK) -> dict[int, str]:
        """UIDLs of messages (UIDs first to last) that POP3 clients know by another than ours, by UID."""
        base = mailbox_id << UID_BITS
        with self._read() as db:
            sql = f"SELECT key & {UID_MASK}, uidl FROM uidl WHERE key BETWEEN ? AND ?"
            return dict(select(db, sql, (base | first, base | last)))

    # ---- other people's servers: see `remote_rows`

    def remote_boxes(self, remote: int) -> list[RemoteBox]:
        """The mailboxes of a remote that were seen, by name, with their cursors."""
        with self._read() as db:
            return remote_rows.boxes(db, remote)

    def remote_uids(self, box_id: int) -> RemoteUids:
        """All that was ever seen in a remote's mailbox, rising by UID. A million takes a second: then in a thread."""
        with self._read() as db:
            return remote_rows.uids(db, box_id)

    def remote_missing(self, box_id: int) -> Iterator[tuple[int, State, str | None]]:
        """(uid, state, detail) of what was seen in a remote's mailbox and not kept, by UID."""
        with self._read() as db:
            found = remote_rows.missing(db, box_id)
        yield from found

    def contents_of(self, origins: Sequence[bytes]) -> list[tuple[bytes, int, MailboxId, int]]:
        """(origin, email, mailbox, uid) of those of the origins that are here, or were and can be undeleted."""
        with self._read() as db:
            return remote_rows.contents_of(db, origins)

    def origins_of(self, emails: Sequence[int]) -> list[tuple[int, MailboxId, int, bytes]]:
        """(email, mailbox, uid, origin) of the live messages of this content that came from a server, by place."""
        with self._read() as db:
            return remote_rows.origins_of(db, emails)

    def links(self, mailbox_id: int) -> list[tuple[int, int, int, bytes | None]]:
        """(uid, FlagSetId, modseq, origin) of the live messages of a mailbox, by UID. A million take a second."""
        with self._read() as db:
            return remote_rows.links(db, mailbox_id)

    def remote_rows(self, box_id: int) -> list[tuple[int, State, int | None, str | None]]:
        """(uid, state, gone since, detail) of all that was ever seen in a remote's mailbox, by UID. In a thread."""
        with self._read() as db:
            return remote_rows.rows(db, box_id)

    def places_of(self, emails: Sequence[int]) -> list[tuple[int, MailboxId, int, bool]]:
        """(email, mailbox, uid, whether it has an origin) of all live messages of this content, wherever they are."""
        with self._read() as db:
            return remote_rows.places_of(db, emails)

    def recognise(self, mailbox_id: int) -> Iterator[Recognisable]:
        """What the messages of a mailbox can be told by, by UID; expunged ones that are kept included.

        In portions: what arrives meanwhile may be among them.
        """
        above = 0
        while True:
            with self._read() as db:
                found = remote_rows.recognise(db, mailbox_id, above)
            if not found:
                return
            yield from found
            above = found[-1].uid

    def search(self, mailbox_id: int, query: Query, *, cancelled: Callable[[], bool] | None = None) -> "array[int]":
        """UIDs of live messages that match, rising. In a thread: it reads messages. Cancelled: what it has so far."""
        self._used = True
        return search.search(self.path, MailboxId(mailbox_id), query, cancelled=cancelled)

    def index_pending(self, limit: int, *, cancelled: Callable[[], bool] | None = None) -> int:
        """Put up to `limit` emails into the search index; returns how many are left. In a thread."""
        return search.index_pending(self.path, limit, cancelled=cancelled)

    # ---- header sets

    def header_set(self, names: tuple[bytes, ...]) -> int | None:
        """The number of a remembered header set (`names` lower case, sorted).

        None: not remembered yet (asking makes it so, soon), or there are too many already.
        """
        found = self._header_sets.get(names)
        if found is None and len(self._header_sets) < HEADER_SETS_MAX:
            with self._read() as db:
                found = select_value(db, "SELECT id FROM header_set WHERE names = ?", (b"\n".join(names),))
            if found is not None:
                self._header_sets[names] = found
            else:
                self._wanted_sets.add(names)
                self._write_headers_soon()
        return found

    def remember_headers(self, set_id: int, rows: list[tuple[int, bytes]]) -> None:
        """Keep (email id, header lines) for the next FETCH of the set. Written in a thread, soon, perhaps."""
        if len(self._header_rows) < HEADER_ROWS_MAX:
            self._header_rows += [(set_id << HEADER_SET_BITS | email, value) for email, value in rows]
            self._write_headers_soon()

    def _write_headers_soon(self) -> None:
        if not self._headers_queued:
            self._headers_queued = True
            self._around.in_background(self._write_headers)

    def _write_headers(self) -> None:
        self._headers_queued = False
        rows, self._header_rows = self._header_rows, []
        wanted, self._wanted_sets = self._wanted_sets, set()
        try:
            with self.write_lock, translated():
                db = self._writer_db("NORMAL")
                with db:
                    count = select_value(db, "SELECT count(*) FROM header_set")
                    for names in sorted(wanted)[: max(HEADER_SETS_MAX - count, 0)]:
                        db.execute("INSERT OR IGNORE INTO header_set (names) VALUES (?)", (b"\n".join(names),))
                    db.executemany("INSERT OR IGNORE INTO header_cache VALUES (?, ?)", rows)
        except StoreError:
            pass  # only a cache: what is not kept is cut again

    # ---- what the other server no longer has

    def place_gone(self, gone: Gone) -> int:
        """Put what vanished at its source out of sight ("hide") or back in its place ("show"); how many were moved.

        In portions, each a transaction: killed, or together with a pull, it is simply done again. What lies in a
        mailbox whose twin could have no name stays in sight.
        """
        moved = 0
        with self._read() as db:
            found = self._gone(db, gone)
        for mailbox, uids in found.items():
            for start in range(0, len(uids), GONE_STEP):
                some = uids[start : start + GONE_STEP]
                with suppress(MailboxMissing, NotAllowed), self.transaction() as tx:
                    moved += len(tx.hide_gone(mailbox, some) if gone == "hide" else tx.show_gone(mailbox, some))
        return moved

    def _gone(self, db: apsw.Connection, gone: Gone) -> dict[int, list[int]]:
        """UIDs of what is to be moved, by mailbox."""
        marked = [found.id for found in self._flagsets.load_all(db) if GONE.lower() in map(str.lower, found.names)]
        # What lies in a twin came there by being gone, whatever became of its keywords.
        condition = "" if gone == "show" else f"AND flags IN ({','.join(map(str, marked))})"
        sql = f"SELECT key & {UID_MASK} FROM message WHERE key BETWEEN ? AND ? AND removed IS NULL {condition}"
        found: dict[int, list[int]] = {}
        for box in list_mailboxes(db, hidden=True):
            if box.messages and box.hidden == (gone == "show"):
                rows = select(db, sql, (box.id << UID_BITS, box.id << UID_BITS | UID_MASK))
                found[box.id] = [uid for (uid,) in rows]
        return found

    # ---- indexes

    def index(self, mailbox_id: int) -> MailboxIndex:
        """The mailbox in memory, shared by all sessions. `release` it after. Raises MailboxMissing.

        Loads on first use: 50,000 messages take some 30 ms. On a loop use `Offload.index`, which loads in a thread.
        """
        found = self._indexes.get(mailbox_id)
        if found is not None and not found.deleted:
            found.users += 1
            return found
        with self._read() as db:
            return self.attach(mailbox_id, messages.load_snapshot(db, mailbox_id))

    def loaded(self, mailbox_id: int) -> bool:
        return mailbox_id in self._indexes

    def snapshot(self, mailbox_id: int) -> Snapshot:
        """A mailbox as it is now, read on a connection of its own: in a thread, for `attach`."""
        db = self.connect()
        try:
            with translated():
                return messages.load_snapshot(db, mailbox_id)
        finally:
            db.close()

    def attach(self, mailbox_id: int, snapshot: Snapshot) -> MailboxIndex:
        """The index of a mailbox, from a snapshot if it is not loaded yet. `release` it after."""
        index = self._indexes.get(mailbox_id)
        if index is None or index.deleted:
            index = self._indexes[mailbox_id] = MailboxIndex(mailbox_id, snapshot)
            # What was committed since the snapshot was told to the indexes that there were, not to this one.
            self._catch_up(index)
        index.users += 1
        return index

    def release(self, index: MailboxIndex) -> None:
        """A session is done with it."""
        index.users -= 1
        if self._indexes.get(index.mailbox_id) is not index:
            return
        unused = [found for found in self._indexes.values() if not found.users]
        for found in unused[: max(len(unused) - UNUSED_INDEXES_MAX, 0)]:
            del self._indexes[found.mailbox_id]
        if index.deleted and not index.users:
            self._indexes.pop(index.mailbox_id, None)

    def applying(self, outcome: Outcome) -> Iterator[None]:
        """Bring the indexes up to date with a commit of this process, and call their watchers. In steps: few or one."""
        by_mailbox: dict[int, list[Effect]] = {}
        for effect in outcome.effects:
            by_mailbox.setdefault(effect.mailbox, []).append(effect)
        before = [(index, index.version) for index in self._indexes.values()]
        for index, _ in before:
            if index.synced >= outcome.last:
                continue
            if index.synced < outcome.base:
                # Another process committed in between. Where that cannot be read now, the next look will.
                with suppress(StoreError):
                    self._catch_up(index)
            else:
                yield from index.applying(by_mailbox.get(index.mailbox_id, ()), last=outcome.last)
        for index, version in before:
            if index.version != version:
                index.tell()

    def apply(self, outcome: Outcome) -> None:
        """As `applying`, at once."""
        for _ in self.applying(outcome):
            pass

    def refresh(self) -> bool:
        """Take in what other processes committed. True: there was something."""
        if not self._indexes:
            return False
        with self._read() as db:
            modseq = messages.read_modseq(db)
        behind = [index for index in self._indexes.values() if index.synced < modseq]
        for index in [index for index in behind if self._catch_up(index)]:
            index.tell()
        return bool(behind)

    def _catch_up(self, index: MailboxIndex) -> bool:
        with self._read() as db:
            news = messages.read_catchup(
                db, index.mailbox_id, synced=index.synced, uidnext=index.uidnext, uids=index.uids
            )
        return index.catch_up(news)

    # ---- writing

    @contextmanager
    def transaction(self, *, durable: bool = True, by: object | None = None) -> Iterator[Transaction]:
        """One write transaction in the calling thread: committed at the end, or, on an error, nothing.

        The caller waits for the write lock and the disk, so on an event loop use `Offload.write`. Raises StoreBusy,
        StoreFull, StoreReadOnly.
        """
        with self.write_lock:
            ledger = self.begin(durable=durable)
            try:
                ledger.by = by
                yield Transaction(ledger)
            except BaseException:
                ledger.abort()
                raise
            outcome = self.commit(ledger)
        self._around.committed(self, outcome)
        self.checkpoint()

    def try_begin(self) -> Ledger | None:
        """As `begin(durable=False)`, without waiting for anything: None where it would be to wait, or to open files.

        The caller holds `write_lock`.
        """
        if self._writer is None or self._pack is None or self._pack.broken or self._pack.full:
            return None
        self._writer.set_busy_handler(None)
        try:
            return self.begin(durable=False)
        except StoreBusy:
            return None
        finally:
            set_patience(self._writer)

    def begin(self, *, durable: bool) -> Ledger:
        """Start a transaction. The caller holds `write_lock` until it has called `commit` or the ledger's `abort`."""
        self._used = True
        if self._pack is not None and (self._pack.broken or self._pack.full):
            if self._pack.broken and self._pack.end > PACK_HEAD_SIZE:  # an empty one serves as well as another
                self._broken_packs.add(self._pack.number)
            self._pack.close()
            self._pack = None
        db = self._writer_db("FULL" if durable else "NORMAL")
        quota: list[int | None] = []

        def read_quota() -> int | None:
            if not quota:
                quota.append(self.quota())
            return quota[0]

        carried, self._carried = self._carried, None
        ledger = Ledger(db, self._flagsets, writer=self._pack_writer, quota=read_quota, carried=carried)
        ledger.begin(self._seen_modseq)
        return ledger

    def commit(self, ledger: Ledger) -> Outcome:
        """Commit durably, as what was done demands. Raises StoreError subclasses; nothing has happened then."""
        try:
            outcome = ledger.commit()
        except StoreError:
            self._seen_modseq = -1
            raise
        self._seen_modseq = outcome.last
        self._carried = ledger.carry()
        if self._synchronous == "FULL":
            self.unsynced = False
        elif ledger.needs_sync:  # more was done than the caller announced: make up for the sync
            self.sync_log()
        else:
            self.unsynced = True
        return outcome

    def sync_log(self) -> None:
        """Bring flag changes to the disk that were committed without a sync. In a thread. Raises StoreError."""
        self.unsynced = False  # before: what is committed meanwhile is for the next time
        with translated(), suppress(FileNotFoundError):  # no log: all of it is in the database, synced
            fd = os.open(self.path / "mail.db-wal", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)

    def _writer_db(self, synchronous: str) -> apsw.Connection:
        if self._writer is None:
            self._hold()
            self._writer = connect(self.path / "mail.db", "mail")
            self._writer.set_wal_hook(self._note_wal)
            self._synchronous = "FULL"
        if self._synchronous != synchronous:
            self._writer.execute(f"PRAGMA synchronous={synchronous}")
            self._synchronous = synchronous
        return self._writer

    def _note_wal(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        if pages < self._wal_pages:  # it started over
            self._checkpointed = 0
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _pack_writer(self) -> PackWriter:
        if self._pack is None:
            db = self._writer
            assert db is not None
            broken = self._broken_packs
            self._pack = PackWriter.open(self.packs, lambda number: -1 if number in broken else known_end(db, number))
        return self._pack

    def checkpoint_soon(self) -> None:
        """As `checkpoint`, in the background."""
        if self._wal_pages - self._checkpointed >= CHECKPOINT_PAGES:
            self._around.in_background(self.checkpoint)

    def checkpoint(self) -> None:
        """Copy a long log into the database. After the answer is out: it syncs, and may take some milliseconds."""
        if self._wal_pages - self._checkpointed < CHECKPOINT_PAGES:
            return
        with self.write_lock:
            if self._writer is None:
                return
            # A long reader (a search) keeps the log from starting over: go on only when it has grown by as much again.
            self._checkpointed = self._wal_pages
            # No space, or another one is at it: the log is as good, and a later commit tries again.
            with suppress(apsw.Error):
                self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    @contextmanager
    def pop_lock(self) -> Iterator[None]:
        """The one session that may delete by POP3, over all processes. Raises StoreBusy while another has it."""
        with locked(self.path / "pop.lock", alone=True, busy="Another session has the mailbox locked"):
            yield
