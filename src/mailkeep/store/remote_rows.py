"""What an account has of other people's servers: which mailboxes and messages were seen, and what became of them.

Functions over a connection (reads) or a `Ledger` (writes). Knows the remote_* tables and origins; knows no protocol,
and nothing of how a remote is reached.

A remote's message and ours are linked by `message.origin`, which says where the message was taken from: it is unique,
it moves along with the message, and it stays on its tombstone. `remote_message` tells more, for every UID that the
server was seen to have: whether the message was kept, and if not, why. It has no link to ours, and needs none.

The hard idea is who remembers what for how long. A message that was expunged here must not be pulled again: its
tombstone's origin says so while retention lasts, and its `remote_message` row (state KEPT) says so for as long as the
server has it. So a pull asks `remote_uids` first, and `find_origins` only for UIDs that are not there. These rows are
not journalled: a repair that finds no readable database leaves them empty, and the next pull recognises all that is
here by origin and fetches nothing of it twice; what was expunged so long ago that its tombstone is gone comes again.
"""

import functools
import hashlib
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final, NamedTuple

import apsw
import msgspec

from mailkeep.errors import LimitReached, MailboxMissing
from mailkeep.mail.flags import Flags
from mailkeep.mail.ids import MailboxId
from mailkeep.store.ledger import Ledger
from mailkeep.store.schema import UID_BITS, UID_MASK, Fate, select, select_row, select_value

ORIGINS_STEP: Final = 500  # of SQLite's variables
RECOGNISE_STEP: Final = 2000


class State(IntEnum):
    """What became of a message of a remote."""

    KEPT = 0
    FILTERED = 1  # the selection does not take it
    TOO_LARGE = 2
    REFUSED = 3  # the server says no
    EMPTY = 4  # answered with nothing
    CAPPED = 5  # beyond what the provider shows
    REPLACED = 6  # the server gives a text of its own instead
    FAILED = 7


@dataclass(frozen=True, slots=True)
class RemoteBox:
    """A mailbox of a remote. `id` 0: not stored yet. `mailbox` is ours; numbers that are not known are 0."""

    id: int
    remote: int
    name: str
    mailbox: MailboxId | None = None
    uidvalidity: int = 0
    uidnext: int = 0
    modseq: int = 0
    cursor: bytes | None = None


@dataclass(frozen=True, slots=True)
class RemoteUids:
    """All messages ever seen in a remote's mailbox, as parallel arrays, rising by UID.

    `flags` are FlagSetIds, `states` States, `gone` Unix seconds (0: the server has it).
    """

    uids: "array[int]"
    flags: "array[int]"
    states: "array[int]"
    gone: "array[int]"


class Origin(NamedTuple):
    """Where the message of an origin is here; `live` False: it was expunged, and this is its tombstone."""

    mailbox: MailboxId
    uid: int
    live: bool


class Recognisable(NamedTuple):
    """A message of ours, by what it can be told again. `envelope`: as IMAP has it, finished bytes."""

    uid: int
    internaldate: int
    size: int
    sha256: bytes
    message_id: str | None
    origin: bytes | None
    envelope: bytes
    live: int  # 0: expunged, this is its tombstone


def origin_of(remote: int, name: str, uidvalidity: int, uid: int) -> bytes:
    """What a message of an IMAP remote is known by: 16 bytes. `name`: the mailbox, as the server names it, decoded."""
    return _origin_head(remote, name, uidvalidity) + uid.to_bytes(4, "big")


@functools.lru_cache(maxsize=256)
def _origin_head(remote: int, name: str, uidvalidity: int) -> bytes:
    place = hashlib.blake2b(f"{remote}\0{name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return place + uidvalidity.to_bytes(4, "big")


def pop_origin_of(remote: int, uidl: bytes) -> bytes:
    """What a message of a POP3 remote is known by: 25 bytes."""
    place = hashlib.blake2b(b"%d" % remote, digest_size=8).digest()
    return place + b"P" + hashlib.blake2b(uidl, digest_size=16).digest()


# ---- reads

_BOX: Final = "id, remote, name, mailbox, uidvalidity, uidnext, modseq, cursor"


def boxes(db: apsw.Connection, remote: int) -> list[RemoteBox]:
    """The mailboxes of a remote that were seen, by name."""
    rows = select(db, f"SELECT {_BOX} FROM remote_mailbox WHERE remote = ? ORDER BY name", (remote,))
    return [RemoteBox(*row) for row in rows]


def all_boxes(db: apsw.Connection) -> list[RemoteBox]:
    """Of all remotes."""
    return [RemoteBox(*row) for row in select(db, f"SELECT {_BOX} FROM remote_mailbox")]


# Four arrays in one row, as in `messages`: no Python per message.
_UIDS_SQL: Final = (
    "SELECT json_group_array(uid), json_group_array(flags), json_group_array(state), json_group_array(gone) FROM "
    f"(SELECT key & {UID_MASK} AS uid, flags, state, ifnull(gone, 0) AS gone FROM remote_message NOT INDEXED "
    "WHERE key BETWEEN ? AND ? ORDER BY key)"
)
_decode_numbers = msgspec.json.Decoder(list[int]).decode


def uids(db: apsw.Connection, box_id: int) -> RemoteUids:
    columns = select_row(db, _UIDS_SQL, _range(box_id))
    found, flags, states, gone = (_decode_numbers(column) for column in columns)
    return RemoteUids(array("I", found), array("I", flags), array("B", states), array("q", gone))


def missing(db: apsw.Connection, box_id: int) -> list[tuple[int, State, str | None]]:
    """(uid, state, detail) of what was not kept, by UID."""
    sql = "SELECT key, state, detail FROM remote_message WHERE state != 0 AND key BETWEEN ? AND ? ORDER BY key"
    return [(key & UID_MASK, State(state), detail) for key, state, detail in select(db, sql, _range(box_id))]


def rows(db: apsw.Connection, box_id: int) -> list[tuple[int, State, int | None, str | None]]:
    """(uid, state, gone, detail) of all that was ever seen, by UID."""
    sql = "SELECT key, state, gone, detail FROM remote_message NOT INDEXED WHERE key BETWEEN ? AND ? ORDER BY key"
    return [
        (key & UID_MASK, State(state), gone, detail) for key, state, gone, detail in select(db, sql, _range(box_id))
    ]


def has_origins(db: apsw.Connection, head: bytes) -> bool:
    """Whether there is any message with an origin that begins so."""
    sql = "SELECT EXISTS (SELECT 1 FROM message WHERE origin > ? AND origin < ?)"
    return bool(select_value(db, sql, (head, head + b"\xff" * 16)))


def live_origins(db: apsw.Connection, head: bytes) -> "array[int]":
    """The UIDs in origins that begin so (see `origin_of`), of messages that are not expunged, rising."""
    sql = (
        "SELECT group_concat(hex(substr(origin, 13)), '') FROM message WHERE origin BETWEEN ? AND ? "
        "AND removed IS NULL AND length(origin) = 16"
    )
    found = array("I", bytes.fromhex(select_value(db, sql, (head, head + b"\xff" * 4)) or ""))
    if sys.byteorder == "little":
        found.byteswap()
    return array("I", sorted(found))


def find_origins(db: apsw.Connection, origins: Sequence[bytes]) -> dict[bytes, Origin]:
    """Where those of the origins are that the account has, or had and still has a tombstone of.

    What went away with its mailbox is not among them: it may come again.
    """
    found: dict[bytes, Origin] = {}
    for start in range(0, len(origins), ORIGINS_STEP):
        asked = tuple(origins[start : start + ORIGINS_STEP])
        sql = (
            f"SELECT origin, key, removed IS NULL FROM message WHERE origin IN ({','.join('?' * len(asked))}) "
            f"AND fate IS NOT {Fate.MAILBOX}"
        )
        for origin, key, live in select(db, sql, asked):
            found[origin] = Origin(MailboxId(key >> UID_BITS), key & UID_MASK, bool(live))
    return found


def places_of(db: apsw.Connection, emails: Sequence[int]) -> list[tuple[int, MailboxId, int, bool]]:
    """(email, mailbox, uid, whether it has an origin) of all live messages of this content."""
    sql = (
        "SELECT m.email, m.key, m.origin IS NOT NULL FROM carray(?) c CROSS JOIN message m ON m.email = c.value "
        "WHERE m.removed IS NULL"
    )
    rows = select(db, sql, (apsw.carray(array("q", list(emails) or [-1])),))
    return [(email, MailboxId(key >> UID_BITS), key & UID_MASK, bool(known)) for email, key, known in rows]


def contents_of(db: apsw.Connection, origins: Sequence[bytes]) -> list[tuple[bytes, int, MailboxId, int]]:
    """(origin, email, mailbox, uid) of those of the origins that are here, or were and can be undeleted."""
    found: list[tuple[bytes, int, MailboxId, int]] = []
    for start in range(0, len(origins), ORIGINS_STEP):
        asked = tuple(origins[start : start + ORIGINS_STEP])
        sql = (
            f"SELECT origin, email, key FROM message WHERE origin IN ({','.join('?' * len(asked))}) "
            f"AND (removed IS NULL OR fate = {Fate.EXPUNGED}) ORDER BY key"
        )
        rows = select(db, sql, asked)
        found += [(origin, email, MailboxId(key >> UID_BITS), key & UID_MASK) for origin, email, key in rows]
    return found


def origins_of(db: apsw.Connection, emails: Sequence[int]) -> list[tuple[int, MailboxId, int, bytes]]:
    """(email, mailbox, uid, origin) of the live messages of this content that came from a server, by place."""
    sql = (
        "SELECT m.email, m.key, m.origin FROM carray(?) c CROSS JOIN message m ON m.email = c.value "
        "WHERE m.removed IS NULL AND length(m.origin) = 16 ORDER BY m.key"
    )
    rows = select(db, sql, (apsw.carray(array("q", list(emails) or [-1])),))
    return [(email, MailboxId(key >> UID_BITS), key & UID_MASK, origin) for email, key, origin in rows]


def links(db: apsw.Connection, mailbox_id: int) -> list[tuple[int, int, int, bytes | None]]:
    """(uid, FlagSetId, modseq, origin) of the live messages of a mailbox, by UID."""
    return select(
        db,
        f"SELECT key & {UID_MASK}, flags, modseq, origin FROM message WHERE key BETWEEN ? AND ? AND removed IS NULL "
        "ORDER BY key",
        _range(mailbox_id),
    )


def recognise(db: apsw.Connection, mailbox_id: int, above: int) -> list[Recognisable]:
    """The next some thousand messages of ours above a UID; expunged ones that are kept included."""
    low, high = _range(mailbox_id)
    rows = select(
        db,
        f"SELECT m.key & {UID_MASK}, m.internaldate, m.size, e.sha256, e.message_id, m.origin, e.envelope, "
        "m.removed IS NULL FROM message m CROSS JOIN email e ON e.id = m.email WHERE m.key > ? AND m.key <= ? "
        f"AND (m.removed IS NULL OR m.fate = {Fate.EXPUNGED}) ORDER BY m.key LIMIT ?",
        (low | above, high, RECOGNISE_STEP),
    )
    return [Recognisable(*row) for row in rows]


def _range(box_id: int) -> tuple[int, int]:
    return box_id << UID_BITS, box_id << UID_BITS | UID_MASK


def _keys(box_id: int, numbers: Iterable[int]) -> "apsw.CArrayBinding":
    base = box_id << UID_BITS
    return apsw.carray(array("q", [base | uid for uid in sorted(set(numbers))] or [-1]))  # as in `placing`


# ---- writes


def put_box(ledger: Ledger, box: RemoteBox) -> RemoteBox:
    """Store what is known of a remote's mailbox: that of its `id`, else that of its remote and name."""
    values = (box.remote, box.name, box.mailbox, box.uidvalidity, box.uidnext, box.modseq, box.cursor)
    if box.id:
        ledger.db.execute(
            "UPDATE remote_mailbox SET remote = ?, name = ?, mailbox = ?, uidvalidity = ?, uidnext = ?, modseq = ?, "
            "cursor = ? WHERE id = ?",
            (*values, box.id),
        )
        if ledger.db.changes():
            return box
    row = select_row(
        ledger.db,
        "INSERT INTO remote_mailbox (remote, name, mailbox, uidvalidity, uidnext, modseq, cursor) "
        "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (remote, name) DO UPDATE SET mailbox = excluded.mailbox, "
        "uidvalidity = excluded.uidvalidity, uidnext = excluded.uidnext, modseq = excluded.modseq, "
        "cursor = excluded.cursor RETURNING id",
        values,
    )
    if row[0] >= 1 << 31:
        raise LimitReached("Too many mailboxes of other servers were seen in this account")
    return replace(box, id=row[0])


def drop_box(ledger: Ledger, box_id: int) -> None:
    """Forget a remote's mailbox and all that was seen in it. Our messages stay, and so do their origins."""
    drop_messages(ledger, box_id, None)
    ledger.db.execute("DELETE FROM remote_mailbox WHERE id = ?", (box_id,))


def put_messages(ledger: Ledger, box_id: int, rows: Iterable[tuple[int, Flags, State, str | None]]) -> None:
    """(uid, flags agreed on, state, detail) of messages that the server has now, in place of what was known of them.

    But what was noted of one that is kept, and stays so, remains where there is no other detail.
    """
    base = box_id << UID_BITS
    if select_row(ledger.db, "SELECT 1 FROM remote_mailbox WHERE id = ?", (box_id,)) is None:
        raise MailboxMissing("The remote was removed meanwhile")
    ledger.db.executemany(
        "INSERT INTO remote_message (key, flags, state, detail) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
        "flags = excluded.flags, state = excluded.state, gone = NULL, detail = CASE WHEN excluded.detail IS NULL "
        "AND excluded.state = 0 AND state = 0 AND gone IS NULL THEN detail ELSE excluded.detail END",
        [(base | uid, ledger.intern(flags).id, int(state), detail) for uid, flags, state, detail in rows],
    )


def set_gone(ledger: Ledger, box_id: int, gone: Sequence[int], when: int | None, *, detail: str | None = None) -> None:
    """Since when (Unix seconds) the server lacks these; None: it has them again. Known ones keep their time."""
    ledger.db.execute(
        "UPDATE remote_message SET gone = ? WHERE key IN (SELECT value FROM carray(?)) AND (gone IS NULL OR ? IS NULL)",
        (when, _keys(box_id, gone), when),
    )
    if detail is not None:
        ledger.db.execute(
            "UPDATE remote_message SET detail = ? WHERE key IN (SELECT value FROM carray(?))",
            (detail, _keys(box_id, gone)),
        )


def drop_messages(ledger: Ledger, box_id: int, dropped: Sequence[int] | None) -> None:
    """Forget what was seen, of these UIDs or all."""
    if dropped is None:
        ledger.db.execute("DELETE FROM remote_message WHERE key BETWEEN ? AND ?", _range(box_id))
    else:
        keys = _keys(box_id, dropped)
        ledger.db.execute("DELETE FROM remote_message WHERE key IN (SELECT value FROM carray(?))", (keys,))


# ---- care

# What must hold: (where, what is wrong, which rows). `mend` deletes them: a pull finds out again what they said.
_ORPHANS: Final = (
    ("remote_message", "lies in no mailbox", f"key >> {UID_BITS} NOT IN (SELECT id FROM remote_mailbox)"),
    ("remote_message", "has flags that are not known", "flags NOT IN (SELECT id FROM flagset)"),
    ("remote_message", "has a state that is not known", f"state NOT BETWEEN 0 AND {max(State)}"),
    ("uidl", "is of a message that is not there", "key NOT IN (SELECT key FROM message)"),
)
_NOWHERE: Final = "mailbox IS NOT NULL AND mailbox NOT IN (SELECT id FROM main.mailbox)"


def problems(db: apsw.Connection) -> Iterator[tuple[str, str]]:
    """(where, what): rows that refer to what is not there."""
    for table, text, condition in _ORPHANS:
        for (key,) in db.execute(f"SELECT key FROM main.{table} WHERE {condition}"):
            yield f"{table} {key >> UID_BITS} UID {key & UID_MASK}", text
    for (name,) in db.execute(f"SELECT name FROM main.remote_mailbox WHERE {_NOWHERE}"):
        yield f"remote mailbox {name}", "goes with a mailbox that is not there"


def mend(db: apsw.Connection) -> None:
    """Drop what `problems` tells of."""
    for table, _, condition in _ORPHANS:
        db.execute(f"DELETE FROM {table} WHERE {condition}")
    detach(db)


def detach(db: apsw.Connection) -> None:
    """Forget which mailbox of ours a remote's goes with, where that one is gone for good."""
    db.execute(f"UPDATE remote_mailbox SET mailbox = NULL WHERE {_NOWHERE}")


def trim(db: apsw.Connection, box_id: int, limit: int) -> bool:
    """One step of forgetting a remote's mailbox: up to so many of its messages, itself with the last. True: done."""
    sql = "DELETE FROM remote_message WHERE key IN (SELECT key FROM remote_message WHERE key BETWEEN ? AND ? LIMIT ?)"
    db.execute(sql, (*_range(box_id), limit))
    if db.changes() == limit:
        return False
    db.execute("DELETE FROM remote_mailbox WHERE id = ?", (box_id,))
    return True


def forget(db: apsw.Connection, known: Sequence[RemoteBox], lost: Iterable[bytes]) -> None:
    """Forget that messages of these origins were kept: they are lost, and may come again."""
    places = {origin_of(box.remote, box.name, box.uidvalidity, 0)[:12]: box for box in known}
    remotes = {pop_origin_of(box.remote, b"")[:9]: box.remote for box in known}
    for origin in lost:
        box, remote = places.get(origin[:12]), remotes.get(origin[:9])
        if box is not None and len(origin) == 16:
            db.execute(
                f"DELETE FROM remote_message WHERE state = {State.KEPT} AND key = ?",
                (box.id << UID_BITS | int.from_bytes(origin[12:], "big"),),
            )
        elif remote is not None:
            # By POP3 the origin does not say which it was. All are recognised at the next pull.
            db.execute(
                f"DELETE FROM remote_message WHERE state = {State.KEPT} AND key >> {UID_BITS} IN "
                "(SELECT id FROM remote_mailbox WHERE remote = ?)",
                (remote,),
            )
