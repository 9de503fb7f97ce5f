"""Message rows, read: listings for FETCH, whole mailboxes for the index, what changed since a modseq.

Functions over a connection. Knows the message and email tables. The key `mailbox << 32 | uid` makes a mailbox one
range, and neighbouring UIDs one scan.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, cast

import apsw
import msgspec

from mailkeep.errors import MailboxMissing, StoreError
from mailkeep.store.blobs import RAW, Place
from mailkeep.store.index import Catchup, Snapshot
from mailkeep.store.schema import HEADER_SET_BITS, UID_BITS, UID_MASK, select, select_row, select_value

_MESSAGE_COLUMNS: Final = {
    "uid": f"m.key & {UID_MASK}",
    "flags": "m.flags",
    "modseq": "m.modseq",
    "internaldate": "m.internaldate",
    "savedate": "m.savedate",
    "email": "m.email",
    "size": "m.size",
}
_EMAIL_COLUMNS: Final = frozenset(
    (
        "header_size",
        "pack",
        "offset",
        "length",
        "codec",
        "envelope",
        "envelope_utf8",
        "body",
        "bodystructure",
        "sections",
        "preview",
        "thread",
        "sent_day",
        "sha256",
        "message_id",
        "subject",
    )
)
# A scan may pass over this many rows that were not asked for, for each that was, before look-ups one by one win.
_WASTE_MAX: Final = 3
FLAG_CHANGES_MAX: Final = 10_000
FLAG_CHANGE_UIDS_MAX: Final = 10_000  # in one change: of more, a scan of the mailbox tells as fast
TRIM_EVERY: Final = 2500  # modseqs


@lru_cache(maxsize=512)
def _fetch_sql(columns: tuple[str, ...]) -> tuple[str, str]:
    terms, joins, email = [], [], False
    for column in columns:
        if column in _MESSAGE_COLUMNS:
            terms.append(_MESSAGE_COLUMNS[column])
        elif column in _EMAIL_COLUMNS:
            terms.append(f"e.{column}")
            email = True
        elif column.startswith("headers:"):
            number = int(column[8:])
            terms.append(f"h{number}.value")
            joins.append(f"LEFT JOIN header_cache h{number} ON h{number}.key = m.email + {number << HEADER_SET_BITS}")
        else:
            raise StoreError(f"No such column: {column}")
    if email:
        joins.insert(0, "CROSS JOIN email e ON e.id = m.email")
    head, tail = ", ".join(terms), " ".join(joins)
    return (
        f"SELECT {head} FROM message m {tail} WHERE m.key BETWEEN ? AND ? ORDER BY m.key",
        f"SELECT {head} FROM carray(?) c CROSS JOIN message m ON m.key = c.value {tail}",
    )


def fetch(db: apsw.Connection, mailbox_id: int, uids: Sequence[int], columns: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """One row a message, by UID, `uid` first; expunged ones that are kept included, missing ones left out.

    `uids` rise.
    """
    if not uids:
        return []
    if not columns or columns[0] != "uid":
        columns = ("uid", *columns)
    scan, look_up = _fetch_sql(columns)
    base = mailbox_id << UID_BITS
    low, high = uids[0], uids[-1]
    span = high - low + 1
    if span <= len(uids) * _WASTE_MAX:
        rows: list[tuple[Any, ...]] = select(db, scan, (base | low, base | high))
        if span > len(uids):
            wanted = frozenset(uids)
            rows = [row for row in rows if row[0] in wanted]
        return rows
    keys = array("q", [base | uid for uid in uids])
    found: list[tuple[Any, ...]] = select(db, look_up, (apsw.carray(keys),))
    return found


def read_modseq(db: apsw.Connection) -> int:
    """The account's last modseq."""
    return int(select_value(db, "SELECT modseq FROM state"))


def _mailbox_range(mailbox_id: int) -> tuple[int, int]:
    return mailbox_id << UID_BITS, mailbox_id << UID_BITS | UID_MASK


def load_snapshot(db: apsw.Connection, mailbox_id: int) -> Snapshot:
    """All live messages of a mailbox. Raises MailboxMissing."""
    db.execute("BEGIN")
    try:
        synced = read_modseq(db)
        box = select_row(
            db,
            "SELECT uidvalidity, uidnext, highestmodseq FROM mailbox WHERE id = ? AND removed IS NULL",
            (mailbox_id,),
        )
        if box is None:
            raise MailboxMissing("No such mailbox")
        columns = select_row(db, _SNAPSHOT_SQL, _mailbox_range(mailbox_id))
    finally:
        db.execute("COMMIT")
    uids, flags, modseqs = (_decode_numbers(column) for column in columns)
    uidvalidity, uidnext, highest = box
    return Snapshot(synced, uidvalidity, uidnext, highest, array("I", uids), array("I", flags), array("Q", modseqs))


# Three arrays in one row: no Python per message, and the GIL is free while SQLite gathers them.
_SNAPSHOT_SQL: Final = (
    "SELECT json_group_array(uid), json_group_array(flags), json_group_array(modseq) FROM "
    f"(SELECT key & {UID_MASK} AS uid, flags, modseq FROM message "
    "WHERE key BETWEEN ? AND ? AND removed IS NULL ORDER BY key)"
)
_decode_numbers = msgspec.json.Decoder(list[int]).decode


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened to a mailbox after a modseq (RFC 7162). `vanished` may name UIDs that the asker never saw.

    `complete` False: tombstones of that time are gone, so `vanished` may lack some.
    """

    complete: bool
    highestmodseq: int
    changed: list[tuple[int, int, int]]  # uid, flags (FlagSetId), modseq: live messages, by UID
    vanished: list[int]  # rising


def read_changes(db: apsw.Connection, mailbox_id: int, since: int) -> Changes:
    """Raises MailboxMissing."""
    db.execute("BEGIN")
    try:
        box = select_row(
            db,
            "SELECT highestmodseq, trimmed FROM mailbox, state WHERE mailbox.id = ? AND removed IS NULL",
            (mailbox_id,),
        )
        if box is None:
            raise MailboxMissing("No such mailbox")
        highest, trimmed = box
        if highest <= since:
            return Changes(True, highest, [], [])
        added = _added_since(db, mailbox_id, since)
        known = _flagged_since(db, mailbox_id, since, added[0][0] if added else UID_MASK + 1)
        return Changes(since >= trimmed, highest, [*known, *added], _removed_since(db, mailbox_id, since))
    finally:
        db.execute("COMMIT")


def _added_since(db: apsw.Connection, mailbox_id: int, since: int) -> list[tuple[int, int, int]]:
    # UIDs and arrivals rise together, so the new ones are the last ones.
    found = []
    cursor = db.execute(
        f"SELECT key & {UID_MASK}, flags, modseq, added, removed FROM message WHERE key BETWEEN ? AND ? "
        "ORDER BY key DESC",
        _mailbox_range(mailbox_id),
    )
    for uid, flags, modseq, added, removed in cast(Iterator[tuple[int, int, int, int, int | None]], cursor):
        if added <= since:
            break
        if removed is None:
            found.append((uid, flags, modseq))
    cursor.close(True)
    found.reverse()
    return found


def _removed_since(db: apsw.Connection, mailbox_id: int, since: int) -> list[int]:
    low, high = _mailbox_range(mailbox_id)
    rows = select(
        db,
        f"SELECT key & {UID_MASK} FROM message INDEXED BY message_removed WHERE removed > ? AND key BETWEEN ? AND ?",
        (since, low, high),
    )
    return sorted([uid for (uid,) in rows])


def read_catchup(db: apsw.Connection, mailbox_id: int, *, synced: int, uidnext: int, uids: Sequence[int]) -> Catchup:
    """What an index of these (rising) UIDs that is exact as of `synced` missed. Cheap when only few changed."""
    db.execute("BEGIN")
    try:
        now = read_modseq(db)
        box = select_row(
            db,
            "SELECT uidnext, highestmodseq, removed, trimmed FROM mailbox, state WHERE mailbox.id = ?",
            (mailbox_id,),
        )
        if box is None or box[2] is not None:
            return Catchup(now, uidnext, synced if box is None else box[1], [], [], list(uids), gone=True)
        next_uid, highest, _, trimmed = box
        if highest <= synced:
            return Catchup(now, next_uid, highest, [], [], [], gone=False)
        low, high = _mailbox_range(mailbox_id)
        added = select(
            db,
            f"SELECT key & {UID_MASK}, flags, modseq FROM message WHERE key BETWEEN ? AND ? AND removed IS NULL "
            "ORDER BY key",
            (low | uidnext, high),
        )
        if synced < trimmed:  # slept for longer than tombstones are kept, or they are kept for no time
            removed = _missing(db, mailbox_id, uids)
        else:
            removed = [uid for uid in _removed_since(db, mailbox_id, synced) if uid < uidnext]
        changed = _flagged_since(db, mailbox_id, synced, uidnext)
        return Catchup(now, next_uid, highest, added, changed, removed, gone=False)
    finally:
        db.execute("COMMIT")


def _missing(db: apsw.Connection, mailbox_id: int, uids: Sequence[int]) -> list[int]:
    """Those of the UIDs that are no live message any more, rising."""
    sql = f"SELECT key & {UID_MASK} FROM message WHERE key BETWEEN ? AND ? AND removed IS NULL"
    return sorted(set(uids).difference(uid for (uid,) in select(db, sql, _mailbox_range(mailbox_id))))


def _flagged_since(db: apsw.Connection, mailbox_id: int, since: int, uidnext: int) -> list[tuple[int, int, int]]:
    low, _ = _mailbox_range(mailbox_id)
    logged = select_value(db, "SELECT logged FROM state")
    if since < logged:
        return select(
            db,
            f"SELECT key & {UID_MASK}, flags, modseq FROM message WHERE key BETWEEN ? AND ? AND removed IS NULL "
            "AND modseq > ? ORDER BY key",
            (low, low | (uidnext - 1), since),
        )
    rows = select(db, "SELECT uids FROM flag_change WHERE modseq > ? AND mailbox = ?", (since, mailbox_id))
    uids = sorted({uid for (packed,) in rows for uid in memoryview(packed).cast("I")})
    uids = uids[: bisect_left(uids, uidnext)]
    if not uids:
        return []
    keys = array("q", [low | uid for uid in uids])
    return select(
        db,
        f"SELECT key & {UID_MASK}, flags, modseq FROM carray(?) c CROSS JOIN message ON key = c.value "
        "WHERE removed IS NULL",
        (apsw.carray(keys),),
    )


def log_flag_change(db: apsw.Connection, mailbox_id: int, modseq: int, uids: "array[int]") -> None:
    """Note which messages a flag change touched, and keep the log short."""
    if len(uids) > FLAG_CHANGE_UIDS_MAX:
        db.execute("DELETE FROM flag_change")
        db.execute("UPDATE state SET logged = ?", (modseq,))
        return
    db.execute("INSERT INTO flag_change VALUES (?, ?, ?)", (modseq, mailbox_id, uids.tobytes()))
    if modseq % TRIM_EVERY < 8:  # not 0 alone: who appends and flags in turn may never come to it
        oldest = select_value(
            db, "SELECT modseq FROM flag_change ORDER BY modseq DESC LIMIT 1 OFFSET ?", (FLAG_CHANGES_MAX,)
        )
        if oldest is not None:
            db.execute("DELETE FROM flag_change WHERE modseq <= ?", (oldest,))
            db.execute("UPDATE state SET logged = ?", (oldest,))


@dataclass(frozen=True, slots=True)
class Location:
    """Where an email's bytes are, and how they are stored."""

    place: Place
    codec: int
    size: int


def read_location(db: apsw.Connection, email: int) -> Location | None:
    row = select_row(db, "SELECT pack, offset, length, codec, size FROM email WHERE id = ?", (email,))
    return None if row is None else Location(Place(row[0], row[1], row[2]), row[3], row[4])


def read_places(db: apsw.Connection, emails: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """(pack, offset, length, email) of those that are stored as they are, in the order of the packs."""
    return select(
        db,
        f"SELECT pack, offset, length, e.id FROM carray(?) c CROSS JOIN email e ON e.id = c.value WHERE codec = {RAW} "
        "ORDER BY pack, offset",
        (apsw.carray(array("q", emails)),),
    )
