"""Repair: make an account's mail.db true again from what its packs say.

Wrong counters in a database that is otherwise sound are set right in place. Anything else, and a database that is lost
or cannot be read, is made anew from the packs: the journals replayed, each message rendered again. The new file is
finished and synced under another name, the old one set aside (never deleted), then renamed into place; killed at any
moment, running it again does it all again.

Where the old database can still be read, it fills what the packs no longer tell (a damaged journal, bytes behind a
damaged record header): a repair never loses what could be read before it.

What cannot be done is said: bytes that are damaged, packs that are gone. Bytes that no journal places (a journal was
damaged, or a delivery was killed before its commit) come back in the mailbox "Recovered". UIDs and UIDVALIDITY stay
what clients know, and modseqs go on well above the last one seen: the last flag changes before a power cut may have
been told to a client and not be in the packs.

Needs the account for itself: the server must not have it open.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import apsw

from mailkeep.errors import StoreCorrupt, StoreError
from mailkeep.mail.flags import DELETED, SEEN
from mailkeep.mail.structure import render
from mailkeep.store import remote_rows, replay, search_index
from mailkeep.store.account import AccountInfo
from mailkeep.store.blobs import (
    BLOB,
    JOURNAL,
    Created,
    Journal,
    Known,
    Op,
    PackReader,
    PackWriter,
    Place,
    Placed,
    Rekeyed,
    Removed,
    Renamed,
    Subscribed,
    decode,
    encode_journal,
    pack_numbers,
    pack_path,
    read_header,
    read_record,
)
from mailkeep.store.check import Problem, account_path, verify
from mailkeep.store.failure import translated
from mailkeep.store.flagsets import FlagSets
from mailkeep.store.ledger import UIDVALIDITY_TOP
from mailkeep.store.locks import IN_COLLECTION, IN_USE, locked
from mailkeep.store.pack_head import mend_head
from mailkeep.store.placing import insert_email
from mailkeep.store.remote_rows import RemoteBox
from mailkeep.store.schema import (
    EMPTY_FLAGSET,
    UID_BITS,
    UID_MASK,
    Fate,
    checksum_term,
    connect,
    select,
    select_row,
    select_value,
)
from mailkeep.store.store import Store

Progress = Callable[[str, int, int], None]  # step, done, of how much

RECOVERED: Final = "Recovered"
LOST_MAX: Final = 1000  # named in the report; more are only counted
_MODSEQ_GAP: Final = 1_000_000  # far above what a client can have been told and the packs do not know
_OPS_MAX: Final = 5000  # in one journal
_IN_PLACE: Final = frozenset({"counter", "remote"})
_NOT_OURS: Final = frozenset({"blob", "pack"})  # damage on the disk: a new database would not help


@dataclass(slots=True)
class RepairReport:
    """What was done. `lost`: what could not be brought back, a line each. `aside`: where the old database is now."""

    account: str
    action: str = "nothing"  # nothing counters rebuilt
    problems: list[Problem] = field(default_factory=list)  # as found before
    mailboxes: int = 0
    messages: int = 0
    recovered: int = 0  # messages in the mailbox "Recovered"
    adopted: int = 0  # messages that only the old database knew
    heads_mended: int = 0  # packs whose damaged head could be told from their records
    lost_count: int = 0
    lost: list[str] = field(default_factory=list)
    aside: Path | None = None

    def lose(self, text: str) -> None:
        self.lost_count += 1
        if len(self.lost) < LOST_MAX:
            self.lost.append(text)


def repair(store: Store, info: AccountInfo, progress: Progress | None = None, *, rebuild: bool = False) -> RepairReport:
    """Check the account and mend what is wrong; with `rebuild` make its database anew in any case.

    Raises StoreBusy when another process has the account open.
    """
    directory = account_path(store, info)
    report = RepairReport(info.name)
    with locked(directory / "lock", alone=True, busy=IN_USE), translated():  # `verify` below takes it shared
        report.heads_mended = sum(
            mend_head(pack_path(directory / "packs", n)) for n in pack_numbers(directory / "packs")
        )
    report.problems = verify(store, [info], progress).problems
    kinds = {problem.kind for problem in report.problems}
    for problem in report.problems:
        if problem.kind in _NOT_OURS:
            report.lose(f"{problem.where}: {problem.text}")
    with (
        locked(directory / "lock", alone=True, busy=IN_USE),
        locked(directory / "gc.lock", alone=True, busy=IN_COLLECTION),
        translated(),
    ):
        if rebuild or kinds - _IN_PLACE - _NOT_OURS:
            report.lost, report.lost_count = [], 0
            _rebuild(directory, report, progress or _silent)
        elif kinds & _IN_PLACE:
            _recount_in_place(directory, report)
    return report


def _silent(step: str, done: int, total: int) -> None:
    pass


def _recount_in_place(directory: Path, report: RepairReport) -> None:
    with closing(connect(directory / "mail.db", "mail")) as db:
        db.execute("BEGIN IMMEDIATE")
        _recount(db)
        remote_rows.mend(db)
        db.execute("COMMIT")
    report.action = "counters"


def _recount(db: apsw.Connection) -> None:
    """Every mailbox's counters, from its rows."""
    flags = {number: frozenset(names.split()) for number, names in db.execute("SELECT id, names FROM flagset")}
    for mailbox, uidnext_kept, highest_kept in select(db, "SELECT id, uidnext, highestmodseq FROM mailbox"):
        uidnext, highest = uidnext_kept, highest_kept
        messages = unseen = deleted = size = checksum = 0
        rows = db.execute(
            "SELECT m.key, m.flags, m.modseq, m.removed, m.size, e.sha256 FROM message m "
            "LEFT JOIN email e ON e.id = m.email WHERE m.key BETWEEN ? AND ?",
            (mailbox << UID_BITS, mailbox << UID_BITS | UID_MASK),
        )
        for key, flagset, modseq, removed, row_size, sha256 in rows:
            uid = key & UID_MASK
            uidnext = max(uidnext, uid + 1)
            highest = max(highest, modseq, removed or 0)
            if removed is None:
                names = flags.get(flagset, frozenset())
                messages += 1
                unseen += SEEN not in names
                deleted += DELETED in names
                size += row_size
                checksum ^= checksum_term(uid, sha256 or b"")
        db.execute(
            "UPDATE mailbox SET uidnext = ?, highestmodseq = ?, messages = ?, unseen = ?, deleted = ?, size = ?, "
            "checksum = ? WHERE id = ?",
            (uidnext, highest, messages, unseen, deleted, size, checksum, mailbox),
        )


# --- a new database


def _rebuild(directory: Path, report: RepairReport, progress: Progress) -> None:
    fresh = directory / "mail.db.new"
    for leftover in _files(fresh):
        leftover.unlink()
    with closing(connect(fresh, "mail", create=True)) as db:
        _Rebuild(db, directory, report, progress).run()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with closing(apsw.Connection(str(fresh))) as db:
        db.execute("PRAGMA journal_mode=DELETE")  # one file, no log beside it; `connect` turns it back
    _sync(fresh)
    progress("built", 0, 0)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for old in _files(directory / "mail.db"):
        target = old.with_name(old.name.replace("mail.db", f"mail.db.broken-{stamp}", 1))
        os.rename(old, target)
        if old.name == "mail.db":
            report.aside = target
    progress("set aside", 0, 0)
    os.rename(fresh, directory / "mail.db")
    _sync(directory)
    search_index.distrust(directory)
    search_index.discard(directory)
    report.action = "rebuilt"


def _files(database: Path) -> list[Path]:
    """A database and what SQLite keeps beside it. The main file last: without it the others mean nothing."""
    names = [database.with_name(database.name + suffix) for suffix in ("-wal", "-shm", "-journal", "")]
    return [path for path in names if path.exists()]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(slots=True)
class _Rebuild:
    """Fills an empty mail.db from the packs."""

    db: apsw.Connection
    directory: Path
    report: RepairReport
    progress: Progress
    flagsets: FlagSets = field(default_factory=FlagSets)
    ops: list[Op] = field(default_factory=list)  # what repair itself decides, see _note
    modseq: int = 0  # of what repair itself decides
    txn: int = 0  # the last transaction that happened: the journal goes on from it
    writer: PackWriter | None = None
    old: "_OldDatabase | None" = None
    lost_origins: list[bytes] = field(default_factory=list)
    now: int = field(default_factory=lambda: int(time.time()))

    def run(self) -> None:
        db = self.db
        replay.attach(db)
        try:
            self._fill(db)
        finally:
            if self.old is not None:
                self.old.close()
            if self.writer is not None:
                self.writer.close()
        db.execute("DETACH replay")

    def _fill(self, db: apsw.Connection) -> None:
        gathered = replay.gather(db, self.directory / "packs", progress=self.progress)
        for damage in gathered.damages:
            if not damage.tail or damage.offset == 0:
                self.report.lose(
                    f"packs/{damage.pack}.pack: {damage.end - damage.offset} bytes at {damage.offset}: {damage.what}"
                )
        replay.judge(db)
        replay.apply(db)
        self.modseq = select_value(db, "SELECT ifnull(max(last), 0) FROM replay.journal") + _MODSEQ_GAP
        self.txn = select_value(db, "SELECT txn FROM replay.journal WHERE believed ORDER BY last DESC LIMIT 1") or 0
        self.old = _OldDatabase.open(self.directory)
        if self.old is not None:
            self._adopt(self.old)
        db.execute("CREATE INDEX replay.blob_sha256 ON blob (sha256)")
        db.execute("CREATE INDEX replay.place_sha256 ON place (sha256)")
        db.execute("BEGIN IMMEDIATE")
        self.flagsets.load_all(db)
        self.flagsets.refresh(db)
        self._mailboxes()
        self._emails()
        self._messages()
        db.execute(
            "INSERT INTO main.uidl SELECT key, uidl FROM replay.uidl WHERE uidl IS NOT NULL "
            "AND key IN (SELECT key FROM main.message)"
        )
        self._recovered()
        self._remotes()
        self._state()
        _recount(db)
        self.report.mailboxes = select_value(db, "SELECT count(*) FROM mailbox WHERE removed IS NULL")
        self.report.messages = select_value(db, "SELECT count(*) FROM message WHERE removed IS NULL")
        db.execute("COMMIT")

    def _note(self, op: Op) -> None:
        """Journal what was decided here, so that the next repair need not decide it again."""
        self.ops.append(op)
        if len(self.ops) >= _OPS_MAX:
            self._write_ops()

    def _write_ops(self) -> None:
        if self.ops:
            txn = int.from_bytes(os.urandom(7), "big")
            data = encode_journal(Journal(txn, self.txn, time.time(), self.ops))
            self._pack().add(JOURNAL, data, hashlib.sha256(data).digest())
            self.ops, self.txn = [], txn
            self.modseq += 1  # each journal has modseqs of its own

    def _pack(self) -> PackWriter:
        if self.writer is None:
            self.writer = PackWriter.create(self.directory / "packs")
        return self.writer

    def _adopt(self, old: "_OldDatabase") -> None:
        """What the old database, where it can be read, knows and no journal does: a journal may be damaged as well."""
        self.modseq = max(self.modseq, old.modseq() + _MODSEQ_GAP)
        journaled = {number for (number,) in select(self.db, "SELECT id FROM replay.mailbox")}
        adopted = False
        for row in old.mailboxes():
            self.db.execute(
                "INSERT INTO replay.mailbox VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET uidnext = max(uidnext, excluded.uidnext)",
                row,
            )
            if row[0] not in journaled and row[6] is None:
                self._note(Created(self.modseq, row[0], row[1], row[2], row[3].split(), self.now))
                adopted = True
        for name in old.subscriptions() if adopted else ():
            self.db.execute("INSERT OR IGNORE INTO replay.subscription VALUES (?)", (name,))
            if self.db.changes():
                self._note(Subscribed(self.modseq, name, True))
        for key, sha256, internaldate, savedate, flags, *rest, origin in old.messages():
            self.db.execute(
                "INSERT OR IGNORE INTO replay.place VALUES (?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL, ?)",
                (key, sha256, internaldate, savedate, flags, *rest, origin),
            )
            if self.db.changes():
                mailbox, uid = key >> UID_BITS, key & UID_MASK
                self._note(Placed(self.modseq, mailbox, uid, sha256, internaldate, savedate, flags.split(), origin))
                self.report.adopted += 1
        for key, uidl in old.uidls():
            self.db.execute("INSERT OR IGNORE INTO replay.uidl VALUES (?, ?)", (key, uidl))
            if self.db.changes():
                self._note(Known(self.modseq, key >> UID_BITS, [key & UID_MASK], [uidl]))

    def _mailboxes(self) -> None:
        db = self.db
        taken: set[str] = set()
        rows = select(
            db,
            "SELECT id, name, uidvalidity, uidnext, special_use, modseq, removed, removed_at "
            "FROM replay.mailbox ORDER BY id",
        )
        for number, name, uidvalidity, uidnext, special_use, modseq, removed, removed_at in rows:
            free = name if removed is not None else _free_name(name, taken)
            if free != name:
                self._note(Renamed(self.modseq, number, free))
            self._insert_mailbox(number, free, uidvalidity, uidnext, modseq, special_use, removed, removed_at)
        db.execute("INSERT INTO subscription SELECT name FROM replay.subscription")
        # Places in a mailbox whose making is not in any journal: that pack is gone or damaged.
        orphans = select(
            db,
            f"SELECT key >> {UID_BITS}, max(key) & {UID_MASK} FROM replay.place "
            f"WHERE key >> {UID_BITS} NOT IN (SELECT id FROM replay.mailbox) GROUP BY 1",
        )
        for number, uid_max in orphans:
            self.report.lose(f"mailbox {number}: its name is not known")
            self._make_mailbox(number, _free_name(f"{RECOVERED} {number}", taken), uidnext=uid_max + 1)
        if "INBOX" not in taken:
            self._make_mailbox(select_value(db, "SELECT ifnull(max(id), 0) + 1 FROM mailbox"), "INBOX")

    def _make_mailbox(self, number: int, name: str, *, uidnext: int = 1) -> None:
        uidvalidity = max(self._uidvalidity() + 1, self.now & 0xFFFF_FFFF)
        self._insert_mailbox(number, name, uidvalidity, uidnext, self.modseq, "", None, None)
        self._note(Created(self.modseq, number, name, uidvalidity, [], self.now))
        self.db.execute("INSERT OR IGNORE INTO subscription VALUES (?)", (name,))
        self._note(Subscribed(self.modseq, name, True))

    def _insert_mailbox(self, number: int, name: str, *columns: Any) -> None:
        uidvalidity, uidnext, modseq, special_use, removed, removed_at = columns
        self.db.execute(
            "INSERT INTO mailbox (id, name, uidvalidity, uidnext, highestmodseq, recent_from, special_use, removed, "
            "removed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (number, name, uidvalidity, uidnext, modseq, uidnext, special_use, removed, removed_at),
        )

    def _uidvalidity(self) -> int:
        known = "SELECT ifnull(max(uidvalidity), 0) FROM {} WHERE uidvalidity < ?"
        return max(
            int(select_value(self.db, known.format(t), (UIDVALIDITY_TOP,))) for t in ("mailbox", "replay.mailbox")
        )

    def _emails(self) -> None:
        """Render every content once, in the order of the packs, from its first sound record."""
        db = self.db
        total = select_value(db, "SELECT count(DISTINCT sha256) FROM replay.blob WHERE sound")
        rows = db.execute(
            "SELECT pack, offset, length, codec, sha256 FROM replay.blob WHERE sound ORDER BY pack, offset"
        )
        with closing(_Bytes(self.directory / "packs")) as packs:
            for done, (pack, offset, length, codec, sha256) in enumerate(rows):
                if db.execute("SELECT 1 FROM main.email WHERE sha256 = ?", (sha256,)).get is not None:
                    continue
                data = packs.read(pack, offset)
                insert_email(db, render(data), Place(pack, offset, length), sha256=sha256, codec=codec)
                if done % 100 == 0:
                    self.progress("messages", done, total)

    def _messages(self) -> None:
        db = self.db
        rows = db.execute(
            "SELECT p.key, e.id, e.size, p.flags, p.modseq, p.internaldate, p.savedate, p.added, p.removed, "
            "p.removed_at, p.fate, p.origin, p.sha256 "
            "FROM replay.place p LEFT JOIN main.email e ON e.sha256 = p.sha256 ORDER BY p.key"
        )
        for key, found, found_size, flags, *columns, origin, sha256 in rows:
            removed, where = columns[4], f"mailbox {key >> UID_BITS} UID {key & UID_MASK}"
            email, size = (found, found_size) if found is not None else self._salvage(sha256)
            if email is None:
                if removed is None:
                    self.report.lose(f"{where}: its bytes (SHA-256 {sha256.hex()[:16]}…) are in no pack")
                    uid = key & UID_MASK
                    self._note(Removed(self.modseq, key >> UID_BITS, b"%d" % uid, Fate.EXPUNGED, self.now))
                    if origin is not None:
                        self._note(Rekeyed(self.modseq, [key], [None]))
                        self.lost_origins.append(origin)
                continue  # a tombstone whose bytes were collected
            flagset, _ = self.flagsets.intern(db, frozenset(flags.split()))
            # Origins are unique; two can only meet where a journal is missing.
            unique = origin if origin is None or not self._has_origin(origin) else None
            if unique is not origin:
                self._note(Rekeyed(self.modseq, [key], [None]))
            db.execute(
                "INSERT INTO main.message (key, email, size, flags, modseq, internaldate, savedate, added, removed, "
                "removed_at, fate, origin) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (key, email, size, flagset.id, *columns, unique),
            )

    def _salvage(self, sha256: bytes) -> tuple[int | None, int]:
        """Bytes that a walk of the packs does not find, but that the old database knows where to read."""
        known = select_row(self.db, "SELECT id, size FROM main.email WHERE sha256 = ?", (sha256,))
        if known is not None:  # salvaged for another message
            return known[0], known[1]
        data = None if self.old is None else self.old.read(sha256)
        if data is None:
            return None, 0
        place = self._pack().add(BLOB, data, sha256)
        return insert_email(self.db, render(data), place, sha256=sha256), len(data)

    def _has_origin(self, origin: bytes) -> bool:
        return self.db.execute("SELECT 1 FROM main.message WHERE origin = ?", (origin,)).get is not None

    def _recovered(self) -> None:
        """What lies in the packs and no journal places goes to a mailbox of its own."""
        db = self.db
        rows = select(
            db,
            "SELECT e.id, e.size, e.sha256 FROM main.email e WHERE NOT EXISTS "
            "(SELECT 1 FROM replay.place p WHERE p.sha256 = e.sha256) ORDER BY e.id",
        )
        if not rows:
            return
        found = db.execute(
            "SELECT id, uidnext FROM mailbox WHERE name = ? AND removed IS NULL", (RECOVERED,)
        ).fetchone()
        if found is None:
            found = select_value(db, "SELECT max(id) + 1 FROM mailbox"), 1
            self._make_mailbox(found[0], RECOVERED)
        number, first = found
        for uid, (email, size, sha256) in enumerate(rows, first):
            db.execute(
                "INSERT INTO main.message (key, email, size, flags, modseq, internaldate, savedate, added) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (number << UID_BITS | uid, email, size, EMPTY_FLAGSET, self.modseq, self.now, self.now, self.modseq),
            )
            self._note(Placed(self.modseq, number, uid, sha256, self.now, self.now, [], None))
        self.report.recovered = len(rows)

    def _remotes(self) -> None:
        """What the old database, where it can be read, has seen of other servers: to be looked at again from the start.

        Not what is lost here: the next pull brings it.
        """
        if self.old is None:
            return
        db = self.db
        boxes = self.old.remote_boxes()
        db.executemany(
            "INSERT INTO remote_mailbox VALUES (?, ?, ?, (SELECT id FROM main.mailbox WHERE id = ?), ?, 0, 0, NULL)",
            ((box.id, box.remote, box.name, box.mailbox, box.uidvalidity) for box in boxes),
        )
        for key, flags, *rest in self.old.remote_messages():
            flagset, _ = self.flagsets.intern(db, frozenset(flags.split()))
            db.execute("INSERT INTO remote_message VALUES (?, ?, ?, ?, ?)", (key, flagset.id, *rest))
        remote_rows.forget(db, boxes, self.lost_origins)

    def _state(self) -> None:
        db = self.db
        self._write_ops()
        if self.writer is not None:
            # Synced before the new database is. Killed in between, its journals are read again, and hold.
            self.writer.flush(sync=True)
            db.execute("INSERT INTO pack(id, end) VALUES (?, ?)", (self.writer.number, self.writer.end))
        trimmed = select_value(
            db,
            "SELECT ifnull(max(p.removed), 0) FROM replay.place p WHERE p.removed IS NOT NULL "
            "AND NOT EXISTS (SELECT 1 FROM main.message m WHERE m.key = p.key)",
        )
        db.execute(
            "UPDATE state SET modseq = ?, trimmed = ?, logged = ?, uidvalidity = ?, txn = ?, "
            "email = (SELECT ifnull(max(id), 0) FROM main.email)",
            (self.modseq, trimmed, self.modseq, self._uidvalidity(), self.txn),
        )


class _OldDatabase:
    """The database that is being replaced, as far as it can be read. Nothing is written to it."""

    def __init__(self, db: apsw.Connection, packs: PackReader) -> None:
        self._db = db
        self._packs = packs

    @classmethod
    def open(cls, directory: Path) -> "_OldDatabase | None":
        """None when it is not there, or is not sound as SQLite sees it."""
        try:
            db = connect(directory / "mail.db", "mail")
        except StoreError:
            return None
        try:
            if select_value(db, "PRAGMA integrity_check(1)") == "ok":
                return cls(db, PackReader(directory / "packs"))
        except apsw.Error:
            pass
        db.close()
        return None

    def modseq(self) -> int:
        return int(select_value(self._db, "SELECT modseq FROM state"))

    def subscriptions(self) -> list[str]:
        return [name for (name,) in select(self._db, "SELECT name FROM subscription")]

    def mailboxes(self) -> list[Any]:
        """Rows as in replay.mailbox."""
        return select(
            self._db,
            "SELECT id, name, uidvalidity, special_use, highestmodseq, uidnext, removed, removed_at FROM mailbox",
        )

    def messages(self) -> Iterator[Any]:
        """Live ones: key, sha256, internaldate, savedate, flags, modseq, added, origin."""
        yield from self._db.execute(
            "SELECT m.key, e.sha256, m.internaldate, m.savedate, ifnull(f.names, ''), m.modseq, m.added, m.origin "
            "FROM message m JOIN email e ON e.id = m.email LEFT JOIN flagset f ON f.id = m.flags "
            "WHERE m.removed IS NULL ORDER BY m.key"
        )

    def uidls(self) -> list[Any]:
        """Key and UIDL."""
        return select(self._db, "SELECT key, uidl FROM uidl")

    def remote_boxes(self) -> list[RemoteBox]:
        return remote_rows.all_boxes(self._db)

    def remote_messages(self) -> Iterator[Any]:
        """Rows as in remote_message, but flags by their names."""
        yield from self._db.execute(
            "SELECT r.key, ifnull(f.names, ''), r.state, r.gone, r.detail FROM remote_message r "
            "LEFT JOIN flagset f ON f.id = r.flags"
        )

    def read(self, sha256: bytes) -> bytes | None:
        """A message's bytes, if they are what they should be."""
        row = select_row(self._db, "SELECT pack, offset, length, codec, size FROM email WHERE sha256 = ?", (sha256,))
        if row is None:
            return None
        pack, offset, length, codec, size = row
        try:
            stored = self._packs.read(Place(pack, offset, length), 0, length)
            data = decode(codec, stored, size)
        except StoreError:
            return None
        return data if hashlib.sha256(data).digest() == sha256 else None

    def close(self) -> None:
        self._packs.close()
        self._db.close()


class _Bytes:
    """Reads records for rendering; one pack open at a time."""

    def __init__(self, packs: Path) -> None:
        self._packs = packs
        self._number = 0
        self._fd = -1

    def read(self, number: int, offset: int) -> bytes:
        if number != self._number:
            self.close()
            self._fd = os.open(pack_path(self._packs, number), os.O_RDONLY | os.O_CLOEXEC)
            self._number = number
        record = read_header(self._fd, offset)
        if record is None:
            raise StoreCorrupt("A pack changed while it was read")
        return read_record(self._fd, record)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd, self._number = -1, 0


def _free_name(name: str, taken: set[str]) -> str:
    free, count = name, 2
    while free in taken:
        free, count = f"{name} ({count})", count + 1
    taken.add(free)
    return free
