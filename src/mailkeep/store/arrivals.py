"""Many messages at once into one mailbox, as pulls and imports bring them: `placing.append` for a batch.

The outcome is that of one append after the other, but for two things: all have one modseq, and all come or none does.
The hard idea is to ask SQL once for all: which origins, which contents and which threads are known; what the batch
itself adds to these is kept in dictionaries meanwhile, and written by one statement each.
"""

from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import apsw

from mailkeep.errors import NotAllowed, OverQuota
from mailkeep.mail.flags import Flags
from mailkeep.mail.ids import UID_MAX
from mailkeep.store.blobs import RAW, Placed
from mailkeep.store.flagsets import FlagSet
from mailkeep.store.index import Effect
from mailkeep.store.ledger import Ledger
from mailkeep.store.mailboxes import Box
from mailkeep.store.placing import (
    EMAIL_SQL,
    MESSAGE_SQL,
    Appended,
    check_uid,
    email_row,
    lone_thread,
    ref_numbers,
    rekey,
)
from mailkeep.store.schema import UID_BITS, UID_MASK, Fate, select
from mailkeep.store.staging import Staged

STEP = 500  # of SQLite's variables


class Arrival(NamedTuple):
    """A message to be appended; see `Transaction.append`."""

    staged: Staged
    flags: Flags = frozenset()
    internaldate: int | None = None
    origin: bytes | None = None
    uid: int | None = None


def append_all(ledger: Ledger, mailbox_id: int, arrivals: Sequence[Arrival], *, enforce_quota: bool) -> list[Appended]:
    """One answer each, in order."""
    box = ledger.live_box(mailbox_id)
    known = _known_origins(ledger, [arrival.origin for arrival in arrivals if arrival.origin is not None])
    fresh: list[Arrival] = []
    for arrival in arrivals:
        if arrival.origin is None or arrival.origin not in known:
            fresh.append(arrival)
            if arrival.origin is not None:
                known[arrival.origin] = None  # twice in one batch: the first one counts
    placed = _place(ledger, box, fresh, enforce_quota=enforce_quota) if fresh else []
    by_origin = {arrival.origin: done for arrival, done in zip(fresh, placed, strict=True)}
    answers: list[Appended] = []
    coming = iter(zip(fresh, placed, strict=True))
    following = next(coming, None)
    for arrival in arrivals:
        if following is not None and following[0] is arrival:
            answers.append(following[1])
            following = next(coming, None)
        else:
            there = known[arrival.origin or b""] or by_origin[arrival.origin]
            answers.append(Appended(there.uid, there.uidvalidity, there.modseq, fresh=False, mailbox=there.mailbox))
    return answers


def _known_origins(ledger: Ledger, origins: list[bytes]) -> dict[bytes, Appended | None]:
    known: dict[bytes, Appended | None] = {}
    again: dict[int, bytes | None] = {}
    for start in range(0, len(origins), STEP):
        asked = tuple(origins[start : start + STEP])
        marks = ",".join("?" * len(asked))
        rows = select(ledger.db, f"SELECT origin, key, modseq, fate FROM message WHERE origin IN ({marks})", asked)
        for origin, key, modseq, fate in rows:
            if fate == Fate.MAILBOX:
                again[key] = None  # it went away with its mailbox, and comes again
                continue
            there = ledger.box(key >> UID_BITS)
            known[origin] = Appended(key & UID_MASK, there.uidvalidity, modseq, fresh=False, mailbox=there.id)
    if again:
        rekey(ledger, again)
    return known


def _place(ledger: Ledger, box: Box, fresh: list[Arrival], *, enforce_quota: bool) -> list[Appended]:
    uids = _uids(box, fresh)
    size = sum(arrival.staged.size for arrival in fresh)
    if enforce_quota and not ledger.has_room(size):
        raise OverQuota("The account has no room for these messages")
    interned: dict[Flags, FlagSet] = {}
    for arrival in fresh:
        if arrival.flags not in interned:
            interned[arrival.flags] = ledger.intern(arrival.flags)
    flagsets = [interned[arrival.flags] for arrival in fresh]
    emails = _emails(ledger, [arrival.staged for arrival in fresh])
    modseq, now, base = ledger.next_modseq(), ledger.now, box.id << UID_BITS
    dates = [now if arrival.internaldate is None else arrival.internaldate for arrival in fresh]
    rows = zip(fresh, uids, emails, flagsets, dates, strict=True)
    ledger.db.executemany(
        MESSAGE_SQL,
        [
            (base | uid, email, arrival.staged.size, flags.id, modseq, date, now, modseq, arrival.origin)
            for arrival, uid, email, flags, date in rows
        ],
    )
    for arrival, uid, flags, date in zip(fresh, uids, flagsets, dates, strict=True):
        staged = arrival.staged
        box.count(uid, staged.sha256, size=staged.size, flags=flags, sign=1)
        ledger.note(Placed(modseq, box.id, uid, staged.sha256, date, now, list(flags.names), arrival.origin))
    box.uidnext = uids[-1] + 1
    ledger.spend(size)
    box.touch(modseq)
    ledger.needs_sync = True
    ids = array("I", [flags.id for flags in flagsets])
    modseqs = array("Q", [modseq]) * len(uids)
    ledger.effect(Effect(box.id, modseq, ledger.by, uids=array("I", uids), flags=ids, modseqs=modseqs))
    return [Appended(uid, box.uidvalidity, modseq, fresh=True, mailbox=box.id) for uid in uids]


def _uids(box: Box, fresh: list[Arrival]) -> list[int]:
    uids: list[int] = []
    following = box.uidnext
    for arrival in fresh:
        if arrival.uid is not None:
            if arrival.uid < following:
                raise NotAllowed("A UID below the next one was given already, or never will be")
            following = min(arrival.uid, UID_MAX)
        uids.append(following)
        following += 1
    check_uid(uids[-1])
    return uids


def _emails(ledger: Ledger, contents: list[Staged]) -> list[int]:
    """The email row of each content, made where there is none yet."""
    ids: dict[bytes, int] = {}
    digests = list({staged.sha256 for staged in contents})
    for start in range(0, len(digests), STEP):
        asked = tuple(digests[start : start + STEP])
        marks = ",".join("?" * len(asked))
        ids.update(select(ledger.db, f"SELECT sha256, id FROM email WHERE sha256 IN ({marks})", asked))
    missing = [staged for staged in contents if staged.sha256 not in ids]
    if not missing:
        return [ids[staged.sha256] for staged in contents]
    references = [ref_numbers(staged.rendered) for staged in missing]
    threads = _threads(ledger.db, references)
    rows: list[tuple[Any, ...]] = []
    for staged, numbers in zip(missing, references, strict=True):
        if staged.sha256 in ids:  # the same content twice in the batch
            continue
        id = ids[staged.sha256] = ledger.next_email()
        place, thread = ledger.add_blob(staged), threads.of(numbers, staged.sha256)
        rows.append(email_row(staged.rendered, place, sha256=staged.sha256, codec=RAW, id=id, thread=thread))
    ledger.db.executemany("INSERT INTO thread_ref VALUES (?, ?)", threads.fresh.items())
    ledger.db.executemany(EMAIL_SQL, rows)
    return [ids[staged.sha256] for staged in contents]


class _Threads:
    """What is known of these references, and what the batch adds to it. See `placing` for the rule."""

    def __init__(self, known: dict[int, int]) -> None:
        self._known = known
        self.fresh: dict[int, int] = {}

    def of(self, numbers: "array[int]", sha256: bytes) -> int:
        if not numbers:
            return lone_thread(sha256)
        known = self._known
        found = [known[number] for number in numbers if number in known]
        thread = min(found) if found else numbers[0]
        for number in numbers:
            if number not in known:
                known[number] = self.fresh[number] = thread
        return thread


def _threads(db: apsw.Connection, references: "list[array[int]]") -> _Threads:
    asked = array("q", {number for numbers in references for number in numbers})
    if not asked:
        return _Threads({})
    sql = "SELECT ref, thread FROM carray(?) c CROSS JOIN thread_ref ON ref = c.value"
    return _Threads(dict(select(db, sql, (apsw.carray(asked),))))
