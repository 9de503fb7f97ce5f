"""What can be done to messages in a write transaction: append, copy, move, flag, expunge, undelete.

Functions over a `Ledger`. Each checks what it needs before it writes, takes one modseq of its own, keeps the counters,
notes what it did for the journal and for the indexes. UIDs given may be in any order and may be gone: what is not
there is passed over (RFC 9051 section 6.4.7: COPY of a UID that is gone is OK).
"""

import hashlib
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import apsw
import msgspec

from mailkeep.errors import LimitReached, NotAllowed, OverQuota
from mailkeep.mail.flags import DELETED, Flags
from mailkeep.mail.ids import UID_MAX
from mailkeep.mail.structure import Rendered
from mailkeep.store.blobs import RAW, Flagged, Known, Place, Placed, Rekeyed, Removed, Restored, Revived
from mailkeep.store.flagsets import FlagSet
from mailkeep.store.index import Effect
from mailkeep.store.ledger import Ledger, uid_sets
from mailkeep.store.mailboxes import Box
from mailkeep.store.messages import log_flag_change
from mailkeep.store.schema import UID_BITS, UID_MASK, Fate, select, select_row, select_value
from mailkeep.store.staging import Staged

Mode = Literal["=", "+", "-"]
_UIDL: Final = re.compile(r"[!-~]{1,70}", re.ASCII)  # RFC 1939 section 7
KNOWN_MAX: Final = 10_000  # messages that one op in the journal renames
THREAD_REFS_MAX: Final = 20  # of the latest references; the first, the thread's root, always counts


@dataclass(frozen=True, slots=True)
class Appended:
    """Where a message is now. `fresh` False: its origin had brought it before, and nothing was added."""

    uid: int
    uidvalidity: int
    modseq: int
    fresh: bool
    mailbox: int


@dataclass(frozen=True, slots=True)
class StoreResult:
    """`changed`: flags are different now. `modified`: not touched, since changed after `unchanged_since`."""

    changed: list[int]
    modified: list[int]


# ---- arrivals


def append(
    ledger: Ledger,
    mailbox_id: int,
    staged: Staged,
    *,
    flags: Flags,
    internaldate: int | None,
    origin: bytes | None,
    uid: int | None,
    enforce_quota: bool,
) -> Appended:
    box = ledger.live_box(mailbox_id)
    if origin is not None:
        found = select_row(ledger.db, "SELECT key, modseq, fate FROM message WHERE origin = ?", (origin,))
        if found is not None and found[2] == Fate.MAILBOX:
            rekey(ledger, {found[0]: None})  # it went away with its mailbox, and comes again
        elif found is not None:
            there = ledger.box(found[0] >> UID_BITS)
            return Appended(found[0] & UID_MASK, there.uidvalidity, found[1], fresh=False, mailbox=there.id)
    if uid is None:
        uid = box.uidnext
    elif uid < box.uidnext:
        raise NotAllowed("A UID below the next one was given already, or never will be")
    check_uid(uid)
    if enforce_quota and not ledger.has_room(staged.size):
        raise OverQuota("The account has no room for this message")
    flagset = ledger.intern(flags)
    email = _find_or_insert_email(ledger, staged)
    modseq = ledger.next_modseq()
    date = ledger.now if internaldate is None else internaldate
    ledger.db.execute(
        MESSAGE_SQL,
        (box.id << UID_BITS | uid, email, staged.size, flagset.id, modseq, date, ledger.now, modseq, origin),
    )
    box.uidnext = uid + 1
    ledger.spend(staged.size)
    box.count(uid, staged.sha256, size=staged.size, flags=flagset, sign=1)
    box.touch(modseq)
    ledger.needs_sync = True
    ledger.note(Placed(modseq, box.id, uid, staged.sha256, date, ledger.now, list(flagset.names), origin))
    ledger.effect(Effect(box.id, modseq, ledger.by, uids=(uid,), flags=(flagset.id,), modseqs=(modseq,)))
    return Appended(uid, box.uidvalidity, modseq, fresh=True, mailbox=box.id)


def check_uid(uid: int) -> None:
    if uid >= UID_MAX:
        raise LimitReached("The mailbox has used up its UIDs")


def _check_uids(box: Box, count: int) -> None:
    check_uid(box.uidnext + count - 1)


def _find_or_insert_email(ledger: Ledger, staged: Staged) -> int:
    # Asked inside the transaction: another process may have stored it a moment ago, or collected it as garbage.
    found: int | None = select_value(ledger.db, "SELECT id FROM email WHERE sha256 = ?", (staged.sha256,))
    if found is not None:
        return found
    place = ledger.add_blob(staged)
    return insert_email(ledger.db, staged.rendered, place, sha256=staged.sha256, id=ledger.next_email())


def insert_email(
    db: apsw.Connection, rendered: Rendered, place: Place, *, sha256: bytes, codec: int = RAW, id: int | None = None
) -> int:
    """A row for content that is in a pack. Returns its id, which is the next one if none is given."""
    thread = _thread(db, ref_numbers(rendered), sha256)
    db.execute(EMAIL_SQL, email_row(rendered, place, sha256=sha256, codec=codec, id=id, thread=thread))
    return db.last_insert_rowid() if id is None else id


EMAIL_SQL: Final = (
    "INSERT INTO email (id, sha256, size, header_size, pack, offset, length, codec, thread, sent_day, envelope, "
    "envelope_utf8, sections, bodystructure, body, message_id, subject, preview) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
MESSAGE_SQL: Final = (
    "INSERT INTO message (key, email, size, flags, modseq, internaldate, savedate, added, origin) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def email_row(
    rendered: Rendered, place: Place, *, sha256: bytes, codec: int, id: int | None, thread: int
) -> tuple[Any, ...]:
    """For EMAIL_SQL."""
    return (
        id,
        sha256,
        rendered.size,
        rendered.header_size,
        place.pack,
        place.offset,
        place.length,
        codec,
        thread,
        rendered.sent_day,
        rendered.envelope,
        rendered.envelope_utf8,
        rendered.sections,
        rendered.bodystructure,
        rendered.body,
        rendered.message_id,
        rendered.subject,
        rendered.preview,
    )


def ref_numbers(rendered: Rendered) -> "array[int]":
    """The messages that it refers to, and itself, as thread_ref knows them."""
    refs = rendered.thread_refs
    refs = refs if len(refs) <= THREAD_REFS_MAX else (refs[0], *refs[-THREAD_REFS_MAX:])
    return array(
        "q", [_number(hashlib.blake2b(ref.encode("utf-8", "replace"), digest_size=8).digest()) for ref in refs]
    )


def lone_thread(sha256: bytes) -> int:
    """Of a message without any references, not even a Message-ID of its own."""
    return _number(sha256[:8])


def _thread(db: apsw.Connection, numbers: "array[int]", sha256: bytes) -> int:
    """The thread of a message with these references. The root's hash names it, so siblings meet without a look-up."""
    if not numbers:
        return lone_thread(sha256)
    if len(numbers) == 1:  # as it is for what is no answer
        db.execute("INSERT OR IGNORE INTO thread_ref VALUES (?, ?)", (numbers[0], numbers[0]))
        if db.changes():
            return numbers[0]
        return int(select_value(db, "SELECT thread FROM thread_ref WHERE ref = ?", (numbers[0],)))
    known = dict(
        select(
            db, "SELECT ref, thread FROM carray(?) c CROSS JOIN thread_ref ON ref = c.value", (apsw.carray(numbers),)
        )
    )
    thread = min(known.values()) if known else numbers[0]
    for number in set(numbers).difference(known):
        db.execute("INSERT INTO thread_ref VALUES (?, ?)", (number, thread))
    return thread


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "big") >> 1  # 63 bits: SQLite's integers have a sign


class _Row(msgspec.Struct, frozen=True, gc=False):
    """A message to be placed again elsewhere. A Struct since there may be many: see the journal's, in `blobs`."""

    uid: int
    email: int
    size: int
    flags: FlagSet
    internaldate: int
    sha256: bytes
    origin: bytes | None


_ROW_SQL: Final = (
    f"SELECT m.key & {UID_MASK}, m.email, m.size, m.flags, m.internaldate, e.sha256, m.origin "
    "FROM {source} CROSS JOIN email e ON e.id = m.email WHERE {condition} ORDER BY m.key"
)
_LISTED: Final = "carray(?) c CROSS JOIN message m ON m.key = c.value"


def _live_rows(ledger: Ledger, mailbox_id: int, uids: Sequence[int]) -> list[_Row]:
    sql = _ROW_SQL.format(source=_LISTED, condition="m.removed IS NULL")
    return _rows(ledger, select(ledger.db, sql, (_keys(mailbox_id, uids),)))


def _rows(ledger: Ledger, rows: list[Any]) -> list[_Row]:
    return [_Row(uid, email, size, ledger.flagset(flags), *rest) for uid, email, size, flags, *rest in rows]


def _keys(mailbox_id: int, uids: Iterable[int]) -> Any:
    base = mailbox_id << UID_BITS
    # An empty array has no aligned address, which carray asks for; no key is below 0.
    return apsw.carray(array("q", [base | uid for uid in sorted(set(uids))] or [-1]))


def _place_rows(ledger: Ledger, box: Box, rows: list[_Row], modseq: int) -> list[tuple[int, int]]:
    """Give each row a new UID in `box`. Returns (old uid, new uid)."""
    first, now = box.uidnext, ledger.now
    base = box.id << UID_BITS | first
    ledger.db.executemany(
        MESSAGE_SQL,
        (
            (base + index, row.email, row.size, row.flags.id, modseq, row.internaldate, now, modseq, row.origin)
            for index, row in enumerate(rows)
        ),
    )
    for uid, row in enumerate(rows, first):
        box.count(uid, row.sha256, size=row.size, flags=row.flags, sign=1)
        ledger.note(Placed(modseq, box.id, uid, row.sha256, row.internaldate, now, list(row.flags.names), row.origin))
    box.uidnext += len(rows)
    ledger.spend(sum(row.size for row in rows))
    box.touch(modseq)
    ledger.needs_sync = True
    uids = range(first, box.uidnext)
    flags = array("I", [row.flags.id for row in rows])
    ledger.effect(Effect(box.id, modseq, ledger.by, uids=uids, flags=flags, modseqs=array("Q", [modseq]) * len(rows)))
    return [(row.uid, uid) for row, uid in zip(rows, uids, strict=True)]


def copy(ledger: Ledger, source: int, uids: Sequence[int], target: int) -> list[tuple[int, int]]:
    """(source uid, target uid) of each message, by source UID."""
    ledger.live_box(source)
    box = ledger.live_box(target)
    rows = [_without_origin(row) for row in _live_rows(ledger, source, uids)]
    if not rows:
        return []
    _check_uids(box, len(rows))
    if not ledger.has_room(sum(row.size for row in rows)):
        raise OverQuota("The account has no room for these messages")
    return _place_rows(ledger, box, rows, ledger.next_modseq())


def _without_origin(row: _Row) -> _Row:
    # The origin stays with the message that was pulled: one place a origin.
    return _Row(row.uid, row.email, row.size, row.flags, row.internaldate, row.sha256, None)


def move(ledger: Ledger, source: int, uids: Sequence[int], target: int) -> list[tuple[int, int]]:
    """As `copy`; the sources are removed, and their origins go along.

    The target may be the source: the messages get new UIDs (RFC 6851 section 3.1).
    """
    here, there = ledger.live_box(source), ledger.live_box(target)
    rows = _live_rows(ledger, source, uids)
    if not rows:
        return []
    return move_rows(ledger, here, there, rows)


def move_all(ledger: Ledger, source: Box, target: Box) -> None:
    """Every message, for the RENAME of INBOX."""
    rows = _range_rows(ledger, source.id, "m.removed IS NULL")
    if rows:
        move_rows(ledger, source, target, rows)


def _range_rows(ledger: Ledger, mailbox_id: int, condition: str, *bindings: int) -> list[_Row]:
    base = mailbox_id << UID_BITS
    sql = _ROW_SQL.format(source="message m", condition=f"m.key BETWEEN ? AND ? AND {condition}")
    return _rows(ledger, select(ledger.db, sql, (base, base | UID_MASK, *bindings)))


def move_rows(ledger: Ledger, source: Box, target: Box, rows: list[_Row]) -> list[tuple[int, int]]:
    _check_uids(target, len(rows))
    modseq = ledger.next_modseq()
    _remove_rows(ledger, source, rows, modseq=modseq, fate=Fate.MOVED)
    pairs = _place_rows(ledger, target, rows, modseq)
    _carry_uidls(ledger, source, target, pairs)
    return pairs


# ---- departures


def _remove_rows(ledger: Ledger, box: Box, rows: list[_Row], *, modseq: int, fate: Fate) -> None:
    uids = [row.uid for row in rows]
    # Origins are unique, and a message that moves takes its along; one that is expunged keeps it, so that the next
    # pull does not bring it back.
    origin = ", origin = NULL" if fate == Fate.MOVED else ""
    ledger.db.execute(
        f"UPDATE message SET removed = ?, removed_at = ?, fate = ?{origin} WHERE key IN (SELECT value FROM carray(?))",
        (modseq, ledger.now, fate, _keys(box.id, uids)),
    )
    for row in rows:
        box.count(row.uid, row.sha256, size=row.size, flags=row.flags, sign=-1)
    ledger.spend(-sum(row.size for row in rows))
    box.touch(modseq)
    ledger.needs_sync = True
    for packed in uid_sets(uids):
        ledger.note(Removed(modseq, box.id, packed, fate, ledger.now))
    ledger.effect(Effect(box.id, modseq, ledger.by, removed=array("I", uids)))


def expunge(ledger: Ledger, mailbox_id: int, uids: Sequence[int] | None, *, only_deleted: bool) -> list[int]:
    """Remove messages, by default those with \\Deleted. Returns their UIDs, rising."""
    box = ledger.live_box(mailbox_id)
    if only_deleted and box.deleted == 0:
        return []
    rows = (
        _range_rows(ledger, mailbox_id, "m.removed IS NULL") if uids is None else _live_rows(ledger, mailbox_id, uids)
    )
    if only_deleted:
        rows = [row for row in rows if row.flags.deleted]
    if rows:
        _remove_rows(ledger, box, rows, modseq=ledger.next_modseq(), fate=Fate.EXPUNGED)
    return [row.uid for row in rows]


def drop_moved(ledger: Ledger, mailbox_id: int, twins: Mapping[int, tuple[int, int]]) -> list[int]:
    """Remove what lives on elsewhere, and let tombstones of such rest. By UID: (mailbox, uid) of the one that stays."""
    box = ledger.live_box(mailbox_id)
    keys = apsw.carray(array("q", sorted({there << UID_BITS | uid for there, uid in twins.values()}) or [-1]))
    alive = dict(select(ledger.db, f"SELECT m.key, m.email FROM {_LISTED} WHERE m.removed IS NULL", (keys,)))
    sql = _ROW_SQL.format(source=_LISTED, condition=f"(m.removed IS NULL OR m.fate = {Fate.EXPUNGED})")
    rows = _rows(ledger, select(ledger.db, sql, (_keys(box.id, twins),)))
    rows = [row for row in rows if alive.get(twins[row.uid][0] << UID_BITS | twins[row.uid][1]) == row.email]
    live = {row.uid for row in _live_rows(ledger, box.id, [row.uid for row in rows])}
    going = [row for row in rows if row.uid in live]
    if going:
        _remove_rows(ledger, box, going, modseq=ledger.next_modseq(), fate=Fate.MOVED)
    if len(going) < len(rows):
        _settle_tombstones(ledger, box, [row.uid for row in rows if row.uid not in live])
    return [row.uid for row in rows]


def _settle_tombstones(ledger: Ledger, box: Box, uids: list[int]) -> int:
    """They live on under other keys: not to be undeleted (again). Returns the modseq of this."""
    modseq = ledger.next_modseq()
    ledger.db.execute(
        "UPDATE message SET fate = ?, origin = NULL WHERE key IN (SELECT value FROM carray(?))",
        (Fate.RESTORED, _keys(box.id, uids)),
    )
    ledger.needs_sync = True
    for packed in uid_sets(uids):
        ledger.note(Restored(modseq, box.id, packed))
    return modseq


def remove_all(ledger: Ledger, box: Box, modseq: int) -> None:
    """Every message of a mailbox that goes away itself. What it came from may come again, to another mailbox."""
    rows = _range_rows(ledger, box.id, "m.removed IS NULL")
    if rows:
        _remove_rows(ledger, box, rows, modseq=modseq, fate=Fate.MAILBOX)
    # Those keep their origins for `undelete`, until somebody else comes with one of them (see `append`).
    base = box.id << UID_BITS
    ledger.db.execute(
        "UPDATE message SET origin = NULL WHERE key BETWEEN ? AND ? AND origin IS NOT NULL AND fate IS NOT ?",
        (base, base | UID_MASK, Fate.MAILBOX),
    )


def undelete(ledger: Ledger, mailbox_id: int, *, since: int | None) -> int:
    """Bring removed messages back, under new UIDs (RFC 9051 2.3.1.1: an old one may never mean a message again).

    `since`: only those removed at or after this time (Unix seconds). A mailbox that was deleted comes back with them,
    or, if another has its name now, they go into that. Returns how many came back.
    """
    source = ledger.box(mailbox_id)
    condition = f"m.removed IS NOT NULL AND m.fate IN ({Fate.EXPUNGED}, {Fate.MAILBOX}) AND m.removed_at >= ?"
    rows = [_alive(ledger, row) for row in _range_rows(ledger, mailbox_id, condition, since or 0)]
    target = source
    if source.removed is not None:
        target = ledger.find_box(source.name) or source
        if target is source:
            _revive(ledger, source)
    if not rows:
        return 0
    _check_uids(target, len(rows))
    modseq = _settle_tombstones(ledger, source, [row.uid for row in rows])
    _carry_uidls(ledger, source, target, _place_rows(ledger, target, rows, modseq))
    return len(rows)


def _alive(ledger: Ledger, row: _Row) -> _Row:
    # With \Deleted kept, the next EXPUNGE would take them again.
    flags = ledger.intern(row.flags.flags - {DELETED})
    return _Row(row.uid, row.email, row.size, flags, row.internaldate, row.sha256, row.origin)


def _revive(ledger: Ledger, box: Box) -> None:
    modseq = ledger.next_modseq()
    box.removed = box.removed_at = None
    box.touch(modseq)
    ledger.needs_sync = True
    ledger.note(Revived(modseq, box.id, box.name))


# ---- what messages are known by elsewhere


def set_origins(ledger: Ledger, mailbox_id: int, rows: list[tuple[int, bytes | None]]) -> None:
    """Give messages, tombstones too, other origins. Whoever has one of them loses it, and the journal says that too."""
    box = ledger.box(mailbox_id)
    base = box.id << UID_BITS
    wanted = {base | uid: origin for uid, origin in rows}
    there = [key for (key,) in select(ledger.db, f"SELECT m.key FROM {_LISTED}", (_keys(box.id, dict(rows)),))]
    changes: dict[int, bytes | None] = {}
    for key in there:
        origin = wanted[key]
        if origin is not None:
            holder = select_value(ledger.db, "SELECT key FROM message WHERE origin = ?", (origin,))
            if holder == key:
                continue
            if holder is not None:
                changes.setdefault(holder, None)
        changes[key] = origin
    if changes:
        rekey(ledger, changes)


def rekey(ledger: Ledger, changes: dict[int, bytes | None]) -> None:
    # First all without, so that two may swap.
    ledger.db.executemany("UPDATE message SET origin = NULL WHERE key = ?", ((key,) for key in changes))
    ledger.db.executemany(
        "UPDATE message SET origin = ? WHERE key = ?", ((origin, key) for key, origin in changes.items() if origin)
    )
    ledger.needs_sync = True
    keys, origins = list(changes), list(changes.values())
    for at in range(0, len(keys), KNOWN_MAX):
        ledger.note(Rekeyed(ledger.next_modseq(), keys[at : at + KNOWN_MAX], origins[at : at + KNOWN_MAX]))


def set_uidls(ledger: Ledger, mailbox_id: int, rows: list[tuple[int, str | None]]) -> None:
    """Messages that are there (live ones) get these UIDLs, or, None, lose theirs."""
    box = ledger.live_box(mailbox_id)
    for _, uidl in rows:
        if uidl is not None and not _UIDL.fullmatch(uidl):
            raise NotAllowed("This cannot be a UIDL")
    wanted = dict(rows)
    live = {row.uid for row in _live_rows(ledger, mailbox_id, list(wanted))}
    known = {uid: uidl for uid, uidl in wanted.items() if uid in live}
    if known:
        _put_uidls(ledger, box.id, known)


def _put_uidls(ledger: Ledger, mailbox_id: int, known: dict[int, str | None]) -> None:
    base = mailbox_id << UID_BITS
    db = ledger.db
    db.executemany("DELETE FROM uidl WHERE key = ?", ((base | uid,) for uid, uidl in known.items() if uidl is None))
    db.executemany(
        "INSERT OR REPLACE INTO uidl VALUES (?, ?)", ((base | uid, uidl) for uid, uidl in known.items() if uidl)
    )
    ledger.needs_sync = True
    uids, uidls = list(known), list(known.values())
    for at in range(0, len(uids), KNOWN_MAX):
        ledger.note(Known(ledger.next_modseq(), mailbox_id, uids[at : at + KNOWN_MAX], uidls[at : at + KNOWN_MAX]))


def _carry_uidls(ledger: Ledger, source: Box, target: Box, pairs: list[tuple[int, int]]) -> None:
    """What is known by a UIDL stays known by it where it is now."""
    if select_value(ledger.db, "SELECT 1 FROM uidl LIMIT 1") is None:  # as in most accounts
        return
    goals = dict(pairs)
    rows = select(
        ledger.db,
        f"SELECT key & {UID_MASK}, uidl FROM carray(?) c CROSS JOIN uidl u ON u.key = c.value",
        (_keys(source.id, goals),),
    )
    if rows:
        _put_uidls(ledger, source.id, {uid: None for uid, _ in rows})
        _put_uidls(ledger, target.id, {goals[uid]: uidl for uid, uidl in rows})


# ---- flags


def store_flags(
    ledger: Ledger,
    mailbox_id: int,
    uids: Sequence[int],
    *,
    mode: Mode,
    flags: Flags,
    unchanged_since: int | None,
) -> StoreResult:
    """Set, add or remove flags. Messages that have them so already keep their modseq."""
    box = ledger.live_box(mailbox_id)
    wanted = sorted(set(uids))
    if not wanted:
        return StoreResult([], [])
    span = _span(mailbox_id, wanted)
    given = ledger.flagsets.spell(flags)
    if span is not None and unchanged_since is None:
        # One message, or neighbours that all have the same flags: no need to see each.
        low, high, count = select_row(
            ledger.db,
            "SELECT min(flags), max(flags), count(*) FROM message WHERE key BETWEEN ? AND ? AND removed IS NULL",
            span,
        )
        if low == high and count == len(wanted):
            old = ledger.flagset(low)
            new = ledger.intern(_changed(old, mode, given))
            if old is new:
                return StoreResult([], [])
            _change_flags(ledger, box, [(old, new, wanted)], span)
            return StoreResult(wanted, [])
    if span is None:
        rows = select(
            ledger.db,
            f"SELECT m.key & {UID_MASK}, m.flags, m.modseq FROM {_LISTED} WHERE m.removed IS NULL",
            (_keys(mailbox_id, wanted),),
        )
    else:
        rows = select(
            ledger.db,
            f"SELECT key & {UID_MASK}, flags, modseq FROM message WHERE key BETWEEN ? AND ? AND removed IS NULL",
            span,
        )
    modified: list[int] = []
    if unchanged_since is not None:
        modified = [uid for uid, _, modseq in rows if modseq > unchanged_since]
        if modified:
            rows = [row for row in rows if row[2] <= unchanged_since]
            span = None
    moves: dict[int, tuple[FlagSet, FlagSet, list[int]]] = {}  # by old id: old, new, UIDs
    for uid, old_id, _ in rows:
        move = moves.get(old_id)
        if move is None:
            old = ledger.flagset(old_id)
            move = moves[old_id] = (old, ledger.intern(_changed(old, mode, given)), [])
        move[2].append(uid)
    real = [move for move in moves.values() if move[0] is not move[1]]
    if real:
        _change_flags(ledger, box, real, span)
    return StoreResult(sorted(uid for _, _, changed in real for uid in changed), modified)


def _changed(old: FlagSet, mode: Mode, given: Flags) -> Flags:
    return given if mode == "=" else old.flags | given if mode == "+" else old.flags - given


def _span(mailbox_id: int, uids: list[int]) -> tuple[int, int] | None:
    """First and last key, if these (rising) UIDs are all that lie between: one range scan then, not look-ups."""
    if uids[-1] - uids[0] + 1 != len(uids):
        return None
    return mailbox_id << UID_BITS | uids[0], mailbox_id << UID_BITS | uids[-1]


def _change_flags(
    ledger: Ledger,
    box: Box,
    moves: list[tuple[FlagSet, FlagSet, list[int]]],
    span: tuple[int, int] | None,
) -> None:
    """Each move: old flags, new flags, and who. With `span` they are all the live messages there that have the old."""
    modseq = ledger.next_modseq()
    for old, new, uids in moves:
        # No new set is another move's old one: what has the flags (or lacks them) already does not move.
        if span is not None:
            ledger.db.execute(
                "UPDATE message SET flags = ?, modseq = ? WHERE key BETWEEN ? AND ? AND flags = ? AND removed IS NULL",
                (new.id, modseq, *span, old.id),
            )
        else:
            ledger.db.execute(
                "UPDATE message SET flags = ?, modseq = ? WHERE key IN (SELECT value FROM carray(?))",
                (new.id, modseq, _keys(box.id, uids)),
            )
        box.unseen += len(uids) * (old.seen - new.seen)
        box.deleted += len(uids) * (new.deleted - old.deleted)
        for packed in uid_sets(uids):
            ledger.note(Flagged(modseq, box.id, packed, list(new.names)))
    box.touch(modseq)
    if len(moves) == 1:
        uids_changed = array("I", moves[0][2])
        flags = array("I", [moves[0][1].id]) * len(uids_changed)
    else:
        changed = sorted((uid, new.id) for _, new, uids in moves for uid in uids)
        uids_changed = array("I", [uid for uid, _ in changed])
        flags = array("I", [id for _, id in changed])
    log_flag_change(ledger.db, box.id, modseq, uids_changed)
    ledger.effect(Effect(box.id, modseq, ledger.by, changed=uids_changed, changed_flags=flags))
