"""What is on our books of one folder of a server, and every write that a pull makes for it. Synchronous: in threads.

Knows the store and nothing of connections. A batch is one transaction: the messages, their origins, the rows that say
what became of each UID. So whenever the process dies, what is in the mailbox and what is on the books agree, and the
next run goes on from there: a UID with a row is done, one without is not. The cursor moves to what SELECT said only
when every UID has its row; until then the old one stays, which at worst asks once more for what is known.

The hard idea is that nothing here believes it is the first to see a message: an append carries its origin and adds
nothing when that is known, and after a changed UIDVALIDITY content decides before anything is added (see `recognise`).
"""

import functools
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from mailkeep.backup.gmail import Labels
from mailkeep.backup.ledger import REASONS, REMOVED_HERE, RETRIES_MAX, FolderLedger
from mailkeep.backup.plan import Difference, Kept, is_mass
from mailkeep.backup.recognise import Ours, Shelf, read_identity, retired_name
from mailkeep.errors import LimitReached, MailboxMissing, ProtocolError
from mailkeep.mail.flags import SYSTEM_FLAGS, Flags, canonical
from mailkeep.mail.ids import MailboxId
from mailkeep.store.account import Account
from mailkeep.store.arrivals import Arrival
from mailkeep.store.placing import Appended
from mailkeep.store.remotes import RemoteBox, State, origin_of
from mailkeep.store.staging import Staged
from mailkeep.store.transaction import Transaction

GONE: Final = "$Gone"
KEYWORDS_MAX: Final = 100  # of one message, of those that a server sends
STEP: Final = 2000  # messages of one transaction that changes flags or origins
RETRIED: Final = frozenset((State.REFUSED, State.EMPTY, State.REPLACED, State.FAILED))
UNSETTLED: Final = "?"  # filters of a run that did not come to its end
MIRRORED: Final = "removed by the mirror"  # the detail of a row; else who removed it here is its owner
FILTERED_AGAIN: Final = frozenset((State.FILTERED, State.TOO_LARGE))


def clean_flags(names: Iterable[str]) -> Flags:
    """A server's flags as ours: \\Recent, and what cannot be kept as a flag here, left out; so many, not more.

    GONE is ours to say: a server may have it of mail that was copied there from an archive.
    """
    if isinstance(names, frozenset) and sum(map(len, names)) <= 256:
        return _remembered(names)
    return _cleaned(names)


@functools.lru_cache(maxsize=1024)
def _remembered(names: frozenset[str]) -> Flags:
    return _cleaned(names)


def _cleaned(names: Iterable[str]) -> Flags:
    found = set()
    for name in names:
        with suppress(ProtocolError):
            found.add(canonical(name))
    found.discard(GONE)
    if len(found) > KEYWORDS_MAX:
        system = found.intersection(SYSTEM_FLAGS)
        found = system | set(sorted(found - system)[:KEYWORDS_MAX])
    return frozenset(found)


class Cursor(msgspec.Struct, omit_defaults=True):
    """What a row of `remote_mailbox` holds beside its columns, as JSON. Counts are those of the last full run."""

    complete: bool = False
    messages: int = 0  # that the server said it has
    kept: int = 0
    gone: int = 0
    missing: dict[str, int] = {}
    due: bool = False  # some that failed are to be tried again
    hidden: int = 0
    capped: int = 0
    sweep: int = 0  # where the next turn of flags begins; see plan.turn
    identity: str | None = None  # MAILBOXID
    filters: str = ""  # those of the last full run
    subscribed: bool | None = None  # as the server last said
    removed: int | None = None  # Unix seconds since when the server has no such folder
    modseq_seen: bool = False
    agreed: str | None = None  # our mailbox's name when `sync` last found both sides the same
    here: int = 0  # … and its HIGHESTMODSEQ
    counted: int = 0  # HIGHESTMODSEQ of our mailbox when it was counted what is kept


def read_cursor(data: bytes | None) -> Cursor:
    """What cannot be read is as good as none: the next run looks at everything once."""
    with suppress(msgspec.MsgspecError):
        return msgspec.json.decode(data or b"{}", type=Cursor)
    return Cursor()


@dataclass(frozen=True, slots=True)
class Policy:
    """What a run does with what it finds. `now` in Unix seconds."""

    remote: int
    now: int
    mirror: bool = False  # what vanished at the source is expunged here
    allow_mass: bool = False  # … also when it is most of a folder, and what was only marked before
    hide: bool = False  # what is gone is moved out of sight
    retry: bool = False
    filters: str = ""  # the selection in words: another one makes filtered messages due again


@dataclass(slots=True)
class Row:
    """One message that is to be put on the books. `staged` None: not kept, for the reason that `state` gives.

    `detail` of one that is kept is the server's identity of it, see `recognise.identity_of`.
    """

    uid: int
    flags: Flags
    internaldate: int | None = None
    state: State = State.KEPT
    detail: str | None = None
    staged: Staged | None = None
    labels: tuple[str, ...] = ()


@dataclass(slots=True)
class Books:
    """See the module. One per folder and run; its methods are called one at a time."""

    account: Account
    policy: Policy
    name: str  # as the server names it
    box: RemoteBox
    ledger: FolderLedger
    cursor: Cursor = field(default_factory=Cursor)
    uids: "array[int]" = field(default_factory=lambda: array("I"))
    flags: "array[int]" = field(default_factory=lambda: array("I"))
    states: "array[int]" = field(default_factory=lambda: array("B"))
    gone: "array[int]" = field(default_factory=lambda: array("q"))
    tries: dict[int, int] = field(default_factory=dict)  # of what failed before, by UID
    shelf: Shelf = field(default_factory=Shelf)
    retired: list[RemoteBox] = field(default_factory=list)  # what is being recognised
    past: list[RemoteBox] = field(default_factory=list)  # earlier numberings, of which what is gone is left
    labels: Labels | None = None  # Gmail's, where this is All Mail
    due: bool = False  # as in the cursor, as counted last
    hidden: int = 0  # messages that are here and that the server just does not show
    capped: int = 0  # … that it has, does not show, and that are not here
    late: bool = False  # some that vanished wait on the shelf to be marked in the end
    bin: bool = False  # emptied often: whatever goes from it is believed
    added: "array[int]" = field(default_factory=lambda: array("I"))  # what this run brought, by the server's UIDs
    lost: "array[int]" = field(default_factory=lambda: array("I"))  # … and what it found vanished; see `moves`

    @property
    def mailbox(self) -> MailboxId:
        assert self.box.mailbox is not None, "the folder was placed before"
        return self.box.mailbox

    def origin(self, uid: int) -> bytes:
        return origin_of(self.policy.remote, self.name, self.box.uidvalidity, uid)

    # ---- reading

    def kept_before(self) -> Kept | None:
        """For `plan.choose`, without reading any row."""
        if not self.box.uidvalidity:
            return None
        cursor = self.cursor
        due = cursor.due or cursor.filters != self.policy.filters or (self.policy.retry and bool(cursor.missing))
        due = due or (self.policy.mirror and self.policy.allow_mass and bool(cursor.gone))
        return Kept(
            self.box.uidvalidity,
            self.box.uidnext,
            cursor.messages,
            self.box.modseq,
            complete=cursor.complete,
            due=due or cursor.removed is not None,
        )

    def load(self) -> None:
        """Read all rows."""
        rows = self.account.remote_uids(self.box.id)
        self.uids, self.flags, self.states, self.gone = rows.uids, rows.flags, rows.states, rows.gone

    def live_uids(self) -> "array[int]":
        """Those that the server has, as far as the books say."""
        if not any(self.gone):
            return self.uids
        return array("I", [uid for uid, gone in zip(self.uids, self.gone, strict=True) if not gone])

    def agreed(self) -> Iterator[tuple[int, int, int]]:
        """(uid, FlagSetId, state) of what the server had."""
        for uid, flags, state, gone in zip(self.uids, self.flags, self.states, self.gone, strict=True):
            if not gone:
                yield uid, flags, state

    def due_again(self) -> "array[int]":
        """What was booked as missing and is to be tried once more in this run."""
        refilter = self.cursor.filters != self.policy.filters
        if refilter and self.cursor.filters != UNSETTLED:
            # Before anything is booked as filtered: should this run not come to its end, the next one is to know.
            self.cursor.filters = UNSETTLED
            with self.account.transaction() as transaction:
                self.save(transaction)
        if not any(self.states):
            return array("I")
        due = array("I")
        gone = dict(zip(self.uids, self.gone, strict=True))
        for uid, state, detail in self.account.remote_missing(self.box.id):
            tries = tries_of(detail)
            if state in RETRIED:
                self.tries[uid] = tries
            wanted = (state in RETRIED and (self.policy.retry or tries < RETRIES_MAX)) or (
                state in FILTERED_AGAIN and (refilter or self.policy.retry)
            )
            if wanted and not gone.get(uid):
                due.append(uid)
        return due

    def known_by_origin(self, uids: Sequence[int]) -> "array[int]":
        """Of UIDs that have no row: what is here nevertheless (a repair loses rows, never origins)."""
        found = array("I")
        if not self.account.has_origins(self.origin(0)[:-4]):
            return found
        for start in range(0, len(uids), STEP):
            origins = {self.origin(uid): uid for uid in uids[start : start + STEP]}
            found.extend(sorted(origins[origin] for origin in self.account.find_origins(list(origins))))
        return found

    # ---- writing: the folder

    def save(self, transaction: Transaction) -> None:
        """The box with its cursor."""
        self.box = transaction.put_remote_box(replace(self.box, cursor=msgspec.json.encode(self.cursor)))

    def begin(self, uidvalidity: int) -> None:
        """A folder that is seen for the first time, or anew after another UIDVALIDITY."""
        self.box = replace(self.box, uidvalidity=uidvalidity, uidnext=0, modseq=0)
        self.cursor = Cursor(
            identity=self.cursor.identity, subscribed=self.cursor.subscribed, filters=self.cursor.filters
        )
        with self.account.transaction() as transaction:
            self.save(transaction)

    def finish(self, *, uidnext: int, modseq: int, messages: int, sweep: int) -> None:
        """Every UID has its row: the cursor moves on."""
        self.load()
        self.count()
        self.box = replace(self.box, uidnext=uidnext, modseq=modseq)
        self.cursor.complete = True
        self.cursor.messages = messages
        self.cursor.filters = self.policy.filters
        self.cursor.sweep = sweep
        self.cursor.removed = None
        self.cursor.kept, self.cursor.gone = self.ledger.kept, self.ledger.gone
        self.cursor.due, self.cursor.hidden, self.cursor.capped = self.due, self.hidden, self.capped
        self.cursor.missing = dict(self.ledger.missing)
        with self.account.transaction() as transaction:
            with suppress(MailboxMissing):
                self.cursor.counted = transaction.highestmodseq(self.mailbox)
            self.save(transaction)

    def unfinished(self) -> None:
        """The run ends before the folder is done: the next one looks at it whatever STATUS says."""
        if self.cursor.complete:
            self.cursor.complete = False
            with self.account.transaction() as transaction:
                self.save(transaction)

    def count(self) -> None:
        """From the rows into the ledger: what is kept, what is gone, and what is missing, why."""
        ledger = self.ledger
        ledger.kept = ledger.gone = 0
        ledger.missing.clear()
        ledger.listed.clear()
        self.due = False
        missing = False
        for state, gone in zip(self.states, self.gone, strict=True):
            ledger.gone += bool(gone) and not state
            ledger.kept += not gone and not state
            missing = missing or bool(state)
        for past in self.past:
            ledger.gone += sum(map(bool, self.account.remote_uids(past.id).gone))
        ledger.kept -= self.hidden + self._count_removed()
        if self.capped:
            ledger.missing[REASONS[State.CAPPED]] = self.capped
            ledger.server += self.capped
        if missing:
            self.book_missing({uid for uid, gone in zip(self.uids, self.gone, strict=True) if gone})

    def _count_removed(self) -> int:
        """Rows say what was kept; what its owner removed from here since is booked as that."""
        table = zip(self.uids, self.states, self.gone, strict=True)
        kept = array("I", [uid for uid, state, gone in table if not (state or gone)])
        here = self.account.live_origins(self.origin(0)[:12])
        removed = 0 if kept == here else len(set(kept).difference(here))
        if removed:
            self.ledger.missing[REMOVED_HERE] = removed
        return removed

    def book_missing(self, gone: "set[int] | frozenset[int]" = frozenset()) -> None:
        for uid, state, detail in self.account.remote_missing(self.box.id):
            if uid not in gone:
                self.due = self.due or (state in RETRIED and tries_of(detail) < RETRIES_MAX)
                self.ledger.book(uid, REASONS[state], text_of(detail))

    def count_skipped(self, modseq: int | None) -> None:
        """As `count`, for a folder that did not change, from the cursor alone. `modseq`: that of our mailbox."""
        ledger, cursor = self.ledger, self.cursor
        ledger.server, ledger.kept, ledger.gone = cursor.messages, cursor.kept, cursor.gone
        self.hidden, self.capped = cursor.hidden, cursor.capped
        if cursor.counted != modseq or cursor.missing.keys() - {REMOVED_HERE}:
            ledger.missing.clear()
            self.load()
            self.count()
            if cursor.counted != modseq:
                cursor.counted, cursor.kept, cursor.missing = modseq or 0, ledger.kept, dict(ledger.missing)
                with self.account.transaction(durable=False) as transaction:
                    self.save(transaction)
        else:
            ledger.missing.update(cursor.missing)

    # ---- writing: messages

    def keep(self, rows: Sequence[Row]) -> int:
        """One transaction: append what has bytes, book what has none. Returns the bytes that were added.

        Raises OverQuota, StoreFull and the like; nothing of the batch has happened then.
        """
        known = self._recognised(rows)
        added = fetched = 0
        fresh: list[tuple[int, Row]] = []
        careful = self.labels is not None and (self.labels.careful or bool(known))
        with self.account.transaction() as transaction:
            come = [row for row in rows if row.staged is not None and row.uid not in known]
            for row, appended in zip(come, self._append_all(transaction, come), strict=True):
                if appended.fresh and row.staged is not None:
                    fetched += 1
                    self.added.append(row.uid)
                    added += row.staged.size
                    fresh.append((appended.uid, row))
            for row in rows:
                if row.uid in known:
                    self._rekey(transaction, [(known[row.uid], row.uid, row.flags)])
            if not careful:
                if self.labels is not None:
                    self.labels.place(transaction, [(uid, row.labels) for uid, row in fresh])
                self._book(transaction, rows)
        if careful:
            self.follow_labels([(row.uid, row.labels, row.flags) for row in rows if row.state is State.KEPT])
            with self.account.transaction() as transaction:
                self._book(transaction, rows)  # last, so that a kill before it begins again at the labels
        self.ledger.fetched += fetched
        self.ledger.bytes += added
        self.ledger.recognised += len(known)
        return added

    def _book(self, transaction: Transaction, rows: Sequence[Row]) -> None:
        self._put_rows(transaction, [(row.uid, row.flags, row.state, row.detail) for row in rows])

    def _put_rows(self, transaction: Transaction, rows: Sequence[tuple[int, Flags, State, str | None]]) -> None:
        try:
            transaction.put_remote_messages(self.box.id, rows)
        except LimitReached:
            rows = [(uid, transaction.fitting(flags), state, detail) for uid, flags, state, detail in rows]
            transaction.put_remote_messages(self.box.id, rows)

    def _set_flags(self, transaction: Transaction, mailbox: int, uids: Sequence[int], flags: Flags) -> int:
        """Returns how many changed. Keywords beyond what the account can have are left out."""
        try:
            return len(transaction.store_flags(mailbox, uids, "=", flags).changed)
        except LimitReached:
            note = "keywords left out, the account has too many"
            if note not in self.ledger.notes:
                self.ledger.notes.append(note)
            return len(transaction.store_flags(mailbox, uids, "=", transaction.fitting(flags)).changed)

    def follow_labels(self, messages: Sequence[tuple[int, Sequence[str], Flags]]) -> None:
        """(UID on the server, labels, flags) of messages that are here: their copies in the mailboxes of labels."""
        labels = self.labels
        if labels is None:
            return
        for start in range(0, len(messages), STEP):
            part = messages[start : start + STEP]
            places = self.account.find_origins([self.origin(uid) for uid, _, _ in part])
            found = [(places.get(self.origin(uid)), names, flags) for uid, names, flags in part]
            self.ledger.labels += labels.follow(
                [(at.uid, names, flags) for at, names, flags in found if at and at.live and at.mailbox == labels.home]
            )

    def _recognised(self, rows: Sequence[Row]) -> dict[int, Ours]:
        """Of messages that were fetched because nobody was sure: those that turn out to be ours."""
        if not len(self.shelf):
            return {}
        found = {}
        for row in rows:
            ours = self.shelf.take_content(row.staged.sha256) if row.staged is not None else None
            if ours is not None:
                found[row.uid] = ours
        return found

    def _append_all(self, transaction: Transaction, rows: Sequence[Row]) -> list[Appended]:
        arrivals = [
            Arrival(row.staged, row.flags, row.internaldate, self.origin(row.uid))
            for row in rows
            if row.staged is not None
        ]
        try:
            return transaction.append_all(self.mailbox, arrivals) if arrivals else []
        except (MailboxMissing, LimitReached):
            return [self._append(transaction, row) for row in rows]  # which tells whose it is

    def _append(self, transaction: Transaction, row: Row) -> Appended:
        try:
            return self._put(transaction, row)
        except MailboxMissing:
            # The owner deleted the mailbox since: the folder gets another of that name.
            self._replace_mailbox(transaction)
            return self._put(transaction, row)
        except LimitReached:
            fitting = transaction.fitting(row.flags)
            if fitting == row.flags:
                raise
            note = "keywords left out, the account has too many"
            if note not in self.ledger.notes:
                self.ledger.notes.append(note)
            row.flags = fitting
            return self._put(transaction, row)

    def _put(self, transaction: Transaction, row: Row) -> Appended:
        assert row.staged is not None
        return transaction.append(
            self.mailbox, row.staged, flags=row.flags, internaldate=row.internaldate, origin=self.origin(row.uid)
        )

    def _replace_mailbox(self, transaction: Transaction) -> None:
        name = self.ledger.mailbox or "INBOX"
        try:
            found = transaction.mailbox(name)
        except MailboxMissing:
            found = transaction.create_mailbox(name)
        self.box = replace(self.box, mailbox=found.id)
        self.save(transaction)

    def change_flags(self, changes: Sequence[tuple[int, Flags]]) -> None:
        """The server's flags win over ours. Changes are of messages with a row; what is not kept changes its row."""
        states = dict(zip(self.uids, self.states, strict=True))
        for start in range(0, len(changes), STEP):
            part = changes[start : start + STEP]
            places = self.account.find_origins([self.origin(uid) for uid, _ in part])
            with self.account.transaction(durable=False) as transaction:
                wanted: dict[tuple[int, Flags], list[int]] = {}
                for uid, flags in part:
                    place = places.get(self.origin(uid))
                    if place is not None and place.live:
                        wanted.setdefault((place.mailbox, flags), []).append(place.uid)
                for (mailbox, flags), uids in wanted.items():
                    self.ledger.flags += self._set_flags(transaction, mailbox, uids, flags)
                booked = [(uid, flags, State(states.get(uid, 0)), None) for uid, flags in part]
                self._put_rows(transaction, [row for row in booked if row[2] not in RETRIED])

    def book_known(self, facts: Sequence[tuple[int, Flags, str | None]]) -> None:
        """Messages that are here by their origin and have no row: (UID, flags, identity) as the server has them."""
        self.ledger.recognised += len(facts)
        with self.account.transaction(durable=False) as transaction:
            self._put_rows(transaction, [(uid, flags, State.KEPT, identity) for uid, flags, identity in facts])
        self.change_flags([(uid, flags) for uid, flags, _ in facts])

    def apply(self, difference: Difference) -> None:
        """What vanished is marked (or, in a mirror, removed); what came back is unmarked.

        Most of a folder at once is never removed: a server that is ill shows too little before it shows nothing.
        """
        remove = self.policy.mirror
        sure = self.bin or self.policy.allow_mass
        if remove and not sure and is_mass(len(difference.vanished), len(self.live_uids())):
            remove = False
            self.ledger.notes.append(
                f"{len(difference.vanished):,} messages vanished there at once; here they are only marked. "
                "If that is meant, pull with --allow-mass-delete"
            )
        for uids, when in ((difference.vanished, self.policy.now), (difference.returned, None)):
            for start in range(0, len(uids), STEP):
                self._set_gone(uids[start : start + STEP], when, self.box, remove=remove)
        self.ledger.vanished += len(difference.vanished)
        self.lost.extend(difference.vanished)

    def note_moved(self, transaction: Transaction, count: int) -> None:
        """So many that were counted as gone have moved to other folders."""
        self.ledger.moved += count
        self.ledger.vanished -= count
        self.ledger.gone = max(self.ledger.gone - count, 0)
        if self.cursor.complete:
            self.cursor.gone = self.ledger.gone
            self.save(transaction)

    def come_again(self, returned: "array[int]") -> "array[int]":
        """Of what is there again that which a mirror had removed here: it has no row any more, and is to be fetched."""
        if not returned:
            return returned
        back = set(returned)
        removed = [row[0] for row in self.account.remote_rows(self.box.id) if row[3] == MIRRORED and row[0] in back]
        for start in range(0, len(removed), STEP):
            part = removed[start : start + STEP]
            places = self.account.find_origins([self.origin(uid) for uid in part]).values()
            with self.account.transaction() as transaction:
                for place in places:
                    if not place.live:  # its tombstone is not to keep it away
                        transaction.set_origin(place.mailbox, place.uid, None)
                transaction.drop_remote_messages(self.box.id, part)
        if removed:
            self.load()
        return array("I", removed)

    def remove_gone(self) -> None:
        """In a mirror that may remove many at once: what was only marked before."""
        for box in (self.box, *self.past):
            rows = self.account.remote_uids(box.id)
            gone = [uid for uid, since in zip(rows.uids, rows.gone, strict=True) if since]
            for start in range(0, len(gone), STEP):
                self._set_gone(gone[start : start + STEP], self.policy.now, box, remove=True)

    def _set_gone(self, uids: Sequence[int], when: int | None, box: RemoteBox, *, remove: bool = False) -> None:
        origins = [origin_of(self.policy.remote, self.name, box.uidvalidity, uid) for uid in uids]
        places: dict[int, list[int]] = {}
        present: list[int] = []  # the server's UIDs of what is here
        for origin, place in self.account.find_origins(origins).items():
            if place.live:
                places.setdefault(place.mailbox, []).append(place.uid)
                present.append(int.from_bytes(origin[12:], "big"))
        if self.labels is not None and self.labels.home in places:
            for mailbox, copies in self.labels.copies(places[self.labels.home]).items():
                places.setdefault(mailbox, []).extend(copies)
        with self.account.transaction() as transaction:
            for mailbox, ours in places.items():
                if when is None:
                    transaction.store_flags(mailbox, ours, "-", frozenset((GONE,)))
                    transaction.show_gone(mailbox, ours)
                elif remove:
                    transaction.expunge(mailbox, ours, only_deleted=False)
                else:
                    with suppress(LimitReached):  # no room for one more keyword: the row says it all the same
                        transaction.store_flags(mailbox, ours, "+", frozenset((GONE,)))
                    if self.policy.hide:
                        transaction.hide_gone(mailbox, ours)
            transaction.set_gone(box.id, uids, when)
            if remove and when is not None:
                transaction.set_gone(box.id, present, when, detail=MIRRORED)

    # ---- a UID that was given twice

    def others_than(self, said: Sequence[tuple[int, int | None, int | None]]) -> list[int]:
        """(UID, internal date, size; None: not told) of the server: those that are surely not what is here."""
        places = self.account.find_origins([self.origin(uid) for uid, _, _ in said])
        found = []
        for uid, internaldate, size in said:
            place = places.get(self.origin(uid))
            if place is None or not place.live:
                continue
            for _, our_date, our_size in self.account.fetch(
                place.mailbox, [place.uid], ("uid", "internaldate", "size")
            ):
                if internaldate not in (None, our_date) or size not in (None, our_size):
                    found.append(uid)
        return found

    def set_apart(self, uids: Sequence[int], vanished: Sequence[int]) -> None:
        """What is here under these UIDs is another message: it is gone there, and may be met under another UID.

        So may what vanished: it is marked in the end, if it was not met, and not removed.
        """
        apart: list[Ours] = []
        columns = ("uid", "internaldate", "size", "sha256")
        for start in range(0, len(vanished), STEP):
            by_origin = {self.origin(uid): uid for uid in vanished[start : start + STEP]}
            for origin, at in self.account.find_origins(list(by_origin)).items():
                for our_uid, date, size, sha256 in self.account.fetch(at.mailbox, [at.uid], columns):
                    where, old_uid = (int(at.mailbox), our_uid), by_origin[origin]
                    apart.append(Ours(where, old_uid, date, size, None, sha256, box=self.box.id))
        self.late = True
        for start in range(0, len(uids), STEP):
            part = uids[start : start + STEP]
            self._set_gone(part, self.policy.now, self.box)
            places = self.account.find_origins([self.origin(uid) for uid in part])  # now: it may be out of sight
            with self.account.transaction() as transaction:
                for uid in part:
                    place = places.get(self.origin(uid))
                    if place is None:
                        continue
                    # No server can have this name, and no message of now has this moment and UID.
                    name = f"{self.name}\0{self.policy.now}"
                    moved = origin_of(self.policy.remote, name, self.box.uidvalidity, uid)
                    transaction.set_origin(place.mailbox, place.uid, moved)
                    for our_uid, date, size, sha256 in self.account.fetch(place.mailbox, [place.uid], columns):
                        apart.append(Ours((int(place.mailbox), our_uid), uid, date, size, None, sha256))
                transaction.drop_remote_messages(self.box.id, part)
        self.shelf = Shelf.of([*self.shelf.left(), *apart])
        self.load()

    # ---- another UIDVALIDITY

    def retire(self, uidvalidity: int) -> None:
        """Put what is known aside under another name and begin anew, in one transaction: see `recognise`.

        A server may go back to a numbering of before, as one with two machines does: then what is left of that is
        taken up again.
        """
        aside = msgspec.json.encode(Cursor())  # not complete: it waits to be recognised
        old = replace(self.box, name=retired_name(self.name, self.box.uidvalidity), cursor=aside)
        again = retired_name(self.name, uidvalidity)
        with self.account.transaction() as transaction:
            transaction.put_remote_box(old)
            self.cursor = Cursor(
                identity=self.cursor.identity, subscribed=self.cursor.subscribed, filters=self.cursor.filters
            )
            before = next((box for box in self.account.remote_boxes(old.remote) if box.name == again), None)
            self.box = RemoteBox(before.id if before else 0, old.remote, self.name, old.mailbox, uidvalidity)
            self.save(transaction)
        self.past = [box for box in self.past if box.uidvalidity != uidvalidity]
        self.retired = [old]

    def fill_shelf(self, retired: Sequence[RemoteBox]) -> None:
        """Take what was put aside to be recognised: in this run, or in earlier ones that did not come to their end."""
        self.retired = list(retired)
        self.shelf = Shelf.of(ours for box in self.retired for ours in self._put_aside(box))

    def shelve_copies(self) -> None:
        """Gmail without its All Mail, all of a sudden: labels are folders now, of which we have copies already."""
        copies = [
            Ours((int(self.mailbox), each.uid), each.uid, each.internaldate, each.size, each.message_id, each.sha256)
            for each in self.account.recognise(self.mailbox)
            if each.live and each.origin is None
        ]
        self.shelf = Shelf.of([*self.shelf.left(), *copies])

    def _put_aside(self, retired: RemoteBox) -> Iterator[Ours]:
        rows = self.account.remote_uids(retired.id)
        waiting = [uid for uid, state in zip(rows.uids, rows.states, strict=True) if not state]
        noted = {uid: read_identity(detail) for uid, _, _, detail in self.account.remote_rows(retired.id) if detail}
        mirrored = {uid for uid, gone in zip(rows.uids, rows.gone, strict=True) if gone}
        origins = [origin_of(self.policy.remote, self.name, retired.uidvalidity, uid) for uid in waiting]
        mailboxes = {place.mailbox for place in self.account.find_origins(origins).values()}
        if retired.mailbox is not None:
            mailboxes.add(retired.mailbox)
        prefix = origin_of(self.policy.remote, self.name, retired.uidvalidity, 0)[:12]
        for mailbox in sorted(mailboxes):
            with suppress(MailboxMissing):
                for message in self.account.recognise(mailbox):
                    if message.origin is None or not message.origin.startswith(prefix):
                        continue
                    old_uid = int.from_bytes(message.origin[12:], "big")
                    if not message.live and old_uid in mirrored:
                        continue  # removed here because the server had; if it has it again, it is to come again
                    place = (int(mailbox), message.uid)
                    facts = (message.internaldate, message.size, message.message_id, message.sha256)
                    live = bool(message.live)
                    yield Ours(place, old_uid, *facts, identity=noted.get(old_uid), live=live, box=retired.id)

    def adopt(self, pairs: Sequence[tuple[Ours, int, Flags]], identities: Mapping[int, str | None]) -> None:
        """(ours, new UID, the server's flags): what was recognised without fetching it. `identities` by new UID."""
        for start in range(0, len(pairs), STEP):
            part = pairs[start : start + STEP]
            with self.account.transaction() as transaction:
                self._rekey(transaction, part)
                self._put_rows(transaction, [(uid, flags, State.KEPT, identities.get(uid)) for _, uid, flags in part])
        self.ledger.recognised += len(pairs)

    def _rekey(self, transaction: Transaction, pairs: Sequence[tuple[Ours, int, Flags]]) -> None:
        origins: dict[int, list[tuple[int, bytes | None]]] = {}
        flagged: dict[tuple[int, Flags], list[int]] = {}
        for ours, uid, flags in pairs:
            mailbox, our_uid = ours.place
            origins.setdefault(mailbox, []).append((our_uid, self.origin(uid)))
            if ours.live:
                flagged.setdefault((mailbox, flags), []).append(our_uid)
        for mailbox, rows in origins.items():
            transaction.set_origins(mailbox, rows)
        for (mailbox, flags), uids in flagged.items():
            self._set_flags(transaction, mailbox, uids, flags)
            transaction.show_gone(mailbox, uids)  # nothing, but for what had been hidden
        met: dict[int, list[int]] = {}
        for ours, _, _ in pairs:
            met.setdefault(ours.box, []).append(ours.old_uid)
        for box, old_uids in met.items():
            transaction.drop_remote_messages(box, old_uids)

    def clear_shelf(self) -> None:
        """Everything of the server was met: what is left here has vanished from it.

        It is marked, also in a mirror: nothing is removed because of another UIDVALIDITY.
        """
        unmet: dict[int, set[int]] = {}
        if self.late:
            self.load()
            here = {*self.live_uids()}
            late = sorted(
                ours.old_uid for ours in self.shelf.left() if ours.box == self.box.id and ours.old_uid in here
            )
            for start in range(0, len(late), STEP):
                self._set_gone(late[start : start + STEP], self.policy.now, self.box)
            self.ledger.vanished += len(late)
        for ours in self.shelf.left():
            unmet.setdefault(ours.box, set()).add(ours.old_uid)
        for retired in self.retired:
            rows = self.account.remote_uids(retired.id)
            table = zip(rows.uids, rows.states, rows.gone, strict=True)
            live = {uid for uid, state, gone in table if not (gone or state)}
            gone = {uid for uid, since in zip(rows.uids, rows.gone, strict=True) if since}
            left = sorted((unmet.get(retired.id, set()) - gone) | live)
            for start in range(0, len(left), STEP):
                self._set_gone(left[start : start + STEP], self.policy.now, retired)
            self.ledger.vanished += len(left)
            with self.account.transaction() as transaction:
                missing = [uid for uid, state in zip(rows.uids, rows.states, strict=True) if state]
                transaction.drop_remote_messages(retired.id, missing)
                if len(missing) == len(rows.uids):
                    transaction.drop_remote_box(retired.id)
                else:
                    done = replace(retired, cursor=msgspec.json.encode(Cursor(complete=True)))
                    self.past = [*self.past, transaction.put_remote_box(done)]
        self.retired = []
        self.shelf = Shelf()


# ---- one message


def tries_of(detail: str | None) -> int:
    """How often it was tried; see `tried`."""
    head = (detail or "").partition(" ")[0]
    return int(head) if head.isdecimal() else 0


def text_of(detail: str | None) -> str | None:
    head, _, text = (detail or "").partition(" ")
    return (text or None) if head.isdecimal() else detail


def tried(tries: int, text: str | None) -> str:
    """The detail of a failure: how often it was tried, and the server's words, which are no shorter for being long."""
    return f"{tries} {(text or '')[:500]}".rstrip()
