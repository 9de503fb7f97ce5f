"""What the packs say: every record gathered, then the journals replayed into the account as they tell it.

Knows packs and journals (blobs.py) and a scratch database; knows nothing of mail.db. `check` compares the outcome with
mail.db, `repair` makes a new mail.db of it.

The hard idea is which journals to believe. A transaction killed between its sync and its commit leaves a journal
behind, and its modseqs are given again to another. A power cut may do as much to several in a row that only changed
flags: their commits are not synced. So where the modseqs of two journals overlap only one happened: in one pack the
later one; else, or where clock and place disagree, the one that a later journal names as its parent, or else the later
by the clock (a killed writer's journal is older than its successor's). All others happened in the order of their
modseqs.

The scratch database lies in a temporary file that SQLite makes and unlinks (it is attached under the name ''), so a
million messages cost disk, not memory.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, assert_never

import apsw

from mailkeep.errors import StoreCorrupt
from mailkeep.mail.numset import NumSet
from mailkeep.store.blobs import (
    BLOB,
    JOURNAL,
    Created,
    Damage,
    Deleted,
    Flagged,
    Known,
    Op,
    Placed,
    Record,
    Rekeyed,
    Removed,
    Renamed,
    Reserved,
    Restored,
    Revived,
    Subscribed,
    decode_journal,
    pack_numbers,
    pack_path,
    read_record,
    walk,
)
from mailkeep.store.schema import UID_BITS, UID_MASK, Fate

Progress = Callable[[str, int, int], None]  # what, done, of how much (bytes)
Cancelled = Callable[[], bool]

_CACHE_KIB: Final = 16_384
_TELL_BYTES: Final = 4 << 20  # progress is told this often

_SCRIPT = """
CREATE TABLE replay.blob (
    pack INTEGER, offset INTEGER, length INTEGER, codec INTEGER, size INTEGER, sha256 BLOB, sound INTEGER,
    PRIMARY KEY (pack, offset)) WITHOUT ROWID;
CREATE TABLE replay.journal (
    first INTEGER, last INTEGER, txn INTEGER, parent INTEGER, at REAL, pack INTEGER, offset INTEGER, believed INTEGER,
    payload BLOB);
CREATE TABLE replay.mailbox (
    id INTEGER PRIMARY KEY, name TEXT, uidvalidity INTEGER, special_use TEXT, modseq INTEGER, uidnext INTEGER DEFAULT 1,
    removed INTEGER, removed_at INTEGER);
CREATE TABLE replay.place (
    key INTEGER PRIMARY KEY, sha256 BLOB, internaldate INTEGER, savedate INTEGER, flags TEXT, modseq INTEGER,
    added INTEGER, removed INTEGER, removed_at INTEGER, fate INTEGER, origin BLOB);
CREATE TABLE replay.uidl (key INTEGER PRIMARY KEY, uidl TEXT);
CREATE TABLE replay.subscription (name TEXT PRIMARY KEY) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class PackDamage:
    """Bytes of a pack that are no sound record."""

    pack: int
    offset: int
    end: int
    tail: bool  # nothing sound follows: most likely a writer at work, or killed
    what: str


@dataclass(slots=True)
class Gathered:
    records: int = 0
    blobs: int = 0
    journals: int = 0
    bytes: int = 0
    contested: int = 0  # journals that were not believed
    damages: list[PackDamage] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)  # packs that went away meanwhile


def attach(db: apsw.Connection) -> None:
    """Give the connection an empty scratch database `replay`."""
    db.execute("ATTACH '' AS replay")
    db.execute(f"PRAGMA replay.cache_size=-{_CACHE_KIB}")
    db.execute("PRAGMA replay.journal_mode=OFF")
    db.execute(_SCRIPT)


def gather(
    db: apsw.Connection, packs: Path, *, progress: Progress | None = None, cancelled: Cancelled | None = None
) -> Gathered:
    """Read every pack into replay.blob and replay.journal, proving each record's checksums."""
    result = Gathered()
    numbers = pack_numbers(packs)
    total = sum(_size(pack_path(packs, number)) for number in numbers)
    told = 0
    for number in numbers:
        try:
            fd = os.open(pack_path(packs, number), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            result.missing.append(number)
            continue
        try:
            before, last_end = result.bytes, 0
            for found in walk(fd, verify=False):
                last_end = found.end
                if isinstance(found, Damage):
                    result.damages.append(PackDamage(number, found.offset, found.end, found.tail, "no record"))
                else:
                    _take(db, fd, number, found, result)
                result.bytes = before + found.end
                if result.bytes - told >= _TELL_BYTES:
                    told = result.bytes
                    if progress is not None:
                        progress("packs", told, total)
                    if cancelled is not None and cancelled():
                        return result
            if result.damages and (result.damages[-1].pack, result.damages[-1].end) == (number, last_end):
                result.damages[-1] = replace(result.damages[-1], tail=True)
        finally:
            os.close(fd)
    if progress is not None:
        progress("packs", total, total)
    return result


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _take(db: apsw.Connection, fd: int, pack: int, record: Record, result: Gathered) -> None:
    result.records += 1
    try:
        data: bytes | None = read_record(fd, record)
    except StoreCorrupt as error:
        data = None
        result.damages.append(PackDamage(pack, record.offset, record.end, False, error.text))
    if record.kind == BLOB:
        result.blobs += 1
        db.execute(
            "INSERT INTO replay.blob VALUES (?, ?, ?, ?, ?, ?, ?)",
            (pack, record.offset, record.length, record.codec, record.size, record.digest, data is not None),
        )
    elif record.kind == JOURNAL and data is not None:
        try:
            journal = decode_journal(data)
        except StoreCorrupt as error:
            result.damages.append(PackDamage(pack, record.offset, record.end, False, error.text))
            return
        result.journals += 1
        modseqs = [op.modseq for op in journal.ops] or [0]
        db.execute(
            "INSERT INTO replay.journal VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?)",
            (min(modseqs), max(modseqs), journal.txn, journal.parent, journal.at, pack, record.offset, data),
        )


# --- which journals to believe


@dataclass(frozen=True, slots=True)
class _Claim:
    """A journal's claim on a range of modseqs."""

    row: int
    last: int
    named: bool  # as parent, by another journal
    at: float
    pack: int
    offset: int

    def outranks(self, other: "_Claim") -> bool:
        if self.pack == other.pack and (self.offset > other.offset) == (self.at > other.at):
            # Written later for certain (a pack's records can only be out of order where they are copies): it began
            # where the database stood, so the other was not in it.
            return self.offset > other.offset
        return (self.named, self.at, self.pack, self.offset) > (other.named, other.at, other.pack, other.offset)


def judge(db: apsw.Connection, *, modseq_max: int | None = None) -> int:
    """Mark the journals that did not happen, and those above `modseq_max`; returns how many were not believed."""
    db.execute("CREATE INDEX replay.journal_parent ON journal (parent)")
    db.execute("CREATE INDEX replay.journal_first ON journal (first)")
    # The same transaction twice is a copy: a pack rewritten, the old one not yet unlinked.
    db.execute(
        "UPDATE replay.journal SET believed = 0 WHERE rowid NOT IN (SELECT min(rowid) FROM replay.journal GROUP BY txn)"
    )
    if modseq_max is not None:
        db.execute("UPDATE replay.journal SET believed = 0 WHERE last > ?", (modseq_max,))
    rows = db.execute(
        "SELECT rowid, first, last, EXISTS (SELECT 1 FROM replay.journal c WHERE c.parent = j.txn), at, pack, "
        "offset FROM replay.journal j WHERE believed AND first > 0 ORDER BY first, last"
    )
    refused: set[int] = set()
    window: list[_Claim] = []  # claims that reach as far as the one looked at
    for row, first, last, named, at, pack, offset in rows:
        claim = _Claim(row, last, bool(named), at, pack, offset)
        window = [other for other in window if other.last >= first]
        refused.update((other if claim.outranks(other) else claim).row for other in window)
        window = [other for other in window if other.row not in refused]
        if row not in refused:
            window.append(claim)
    db.executemany("UPDATE replay.journal SET believed = 0 WHERE rowid = ?", ((row,) for row in refused))
    return len(refused)


# --- replay


def apply(db: apsw.Connection) -> None:
    """Replay the believed journals into replay.mailbox, .place and .subscription."""
    for op in _ops(db):
        _apply_op(db, op)
    _raise_uidnext(db)


def _ops(db: apsw.Connection) -> Iterator[Op]:
    """Ops of all believed journals by modseq. Transactions are serial, so journals sorted are ops sorted."""
    rows = db.execute("SELECT payload FROM replay.journal WHERE believed AND first > 0 ORDER BY first, last, at")
    for (payload,) in rows:
        yield from decode_journal(payload).ops


def _apply_op(db: apsw.Connection, op: Op) -> None:
    match op:
        case Placed() | Flagged() | Removed() | Restored() | Rekeyed() | Known():
            _apply_to_messages(db, op)
        case Created() | Renamed() | Deleted() | Revived() | Subscribed() | Reserved():
            _apply_to_mailboxes(db, op)
        case _:
            assert_never(op)


def _apply_to_messages(db: apsw.Connection, op: Placed | Flagged | Removed | Restored | Rekeyed | Known) -> None:
    match op:
        case Placed():
            db.execute(
                "INSERT OR REPLACE INTO replay.place VALUES (?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL, ?)",
                (
                    op.mailbox << UID_BITS | op.uid,
                    op.sha256,
                    op.internaldate,
                    op.savedate,
                    " ".join(op.flags),
                    op.modseq,
                    op.modseq,
                    op.origin,
                ),
            )
        case Flagged():
            for low, high in _keys(op.mailbox, op.uids):
                db.execute(
                    "UPDATE replay.place SET flags = ?, modseq = ? WHERE key BETWEEN ? AND ? AND removed IS NULL",
                    (" ".join(op.flags), op.modseq, low, high),
                )
        case Removed():
            for low, high in _keys(op.mailbox, op.uids):
                db.execute(
                    "UPDATE replay.place SET removed = ?, removed_at = ?, fate = ?, "
                    "origin = iif(? = ?, NULL, origin) WHERE key BETWEEN ? AND ? AND removed IS NULL",
                    (op.modseq, op.at, op.fate, op.fate, Fate.MOVED, low, high),
                )
        case Restored():
            for low, high in _keys(op.mailbox, op.uids):
                db.execute(
                    "UPDATE replay.place SET fate = ?, origin = NULL WHERE key BETWEEN ? AND ? AND removed IS NOT NULL",
                    (Fate.RESTORED, low, high),
                )
        case Rekeyed():
            db.executemany("UPDATE replay.place SET origin = ? WHERE key = ?", zip(op.origins, op.keys, strict=True))
        case Known():
            base = op.mailbox << UID_BITS
            db.executemany(
                "INSERT OR REPLACE INTO replay.uidl VALUES (?, ?)",
                ((base | uid, uidl) for uid, uidl in zip(op.uids, op.uidls, strict=True)),
            )


def _apply_to_mailboxes(db: apsw.Connection, op: Created | Renamed | Deleted | Revived | Subscribed | Reserved) -> None:
    match op:
        case Created():
            db.execute(
                "INSERT OR REPLACE INTO replay.mailbox(id, name, uidvalidity, special_use, modseq) "
                "VALUES (?, ?, ?, ?, ?)",
                (op.mailbox, op.name, op.uidvalidity, " ".join(op.special_use), op.modseq),
            )
        case Renamed():
            db.execute("UPDATE replay.mailbox SET name = ?, modseq = ? WHERE id = ?", (op.name, op.modseq, op.mailbox))
        case Deleted():
            db.execute(
                "UPDATE replay.mailbox SET removed = ?, removed_at = ?, modseq = ? WHERE id = ?",
                (op.modseq, op.at, op.modseq, op.mailbox),
            )
            db.execute(
                "UPDATE replay.place SET origin = NULL WHERE key BETWEEN ? AND ? AND (fate IS NOT ? OR NOT ?)",
                (op.mailbox << UID_BITS, op.mailbox << UID_BITS | UID_MASK, Fate.MAILBOX, op.kept),
            )
        case Revived():
            db.execute(
                "UPDATE replay.mailbox SET removed = NULL, removed_at = NULL, name = ?, modseq = ? WHERE id = ?",
                (op.name, op.modseq, op.mailbox),
            )
        case Subscribed():
            if op.on:
                db.execute("INSERT OR IGNORE INTO replay.subscription VALUES (?)", (op.name,))
            else:
                db.execute("DELETE FROM replay.subscription WHERE name = ?", (op.name,))
        case Reserved():
            db.execute(
                "UPDATE replay.mailbox SET uidnext = max(uidnext, ?), modseq = ? WHERE id = ?",
                (op.uidnext, op.modseq, op.mailbox),
            )


def _keys(mailbox: int, uids: bytes) -> Iterator[tuple[int, int]]:
    base = mailbox << UID_BITS
    for low, high in NumSet.parse(uids).ranges:
        yield base | low, base | high


def _raise_uidnext(db: apsw.Connection) -> None:
    """UIDNEXT past every UID that any journal names, believed or not (a client may have seen it in APPENDUID)."""
    highest: dict[int, int] = {}
    for (payload,) in db.execute("SELECT payload FROM replay.journal"):
        for op in decode_journal(payload).ops:
            if isinstance(op, Placed):
                uid = op.uid
            elif isinstance(op, Removed | Flagged):
                uid = NumSet.parse(op.uids).ranges[-1][1]
            elif isinstance(op, Reserved):
                uid = op.uidnext - 1
            else:
                continue
            if uid > highest.get(op.mailbox, 0):
                highest[op.mailbox] = uid
    db.executemany(
        "UPDATE replay.mailbox SET uidnext = max(uidnext, ? + 1) WHERE id = ?",
        ((uid, mailbox) for mailbox, uid in highest.items()),
    )
