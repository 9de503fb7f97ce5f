"""One write transaction from the inside: what it has changed so far, how to take part of it back, how to commit it.

A transaction may carry the works of many callers (group commit). Each is a part that fails alone, by a savepoint in
SQL and by marks in everything that is kept in memory beside it: mailbox counters, interned flag sets, the journal, the
effects for the indexes, the pack. Knows nothing of what the works mean; `placing` and `tree` do.

The order that makes *acknowledged* mean *on disk*: blobs and the journal go to the pack, the pack is synced, then
SQLite commits. A kill in between leaves records nobody refers to, never a row without its bytes.
"""

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

import apsw

from mailkeep.errors import LimitReached, MailboxMissing, StoreError, StoreFull
from mailkeep.mail.flags import Flags
from mailkeep.mail.ids import FlagSetId, MailboxId
from mailkeep.mail.numset import encode
from mailkeep.store.blobs import BLOB, JOURNAL, Journal, Op, PackWriter, Place, encode_journal
from mailkeep.store.failure import translate, translated
from mailkeep.store.flagsets import FlagSet, FlagSets
from mailkeep.store.index import Effect
from mailkeep.store.mailboxes import Box, find_box_id, insert_box, load_box, save_box
from mailkeep.store.schema import select, select_row, select_value
from mailkeep.store.staging import Staged

JOURNAL_UIDS_MAX: Final = 50_000  # UIDs in one op: a sequence set of them stays readable by `NumSet.parse`
CARRIED_BOXES_MAX: Final = 64
UIDVALIDITY_TOP: Final = 0xFFF0_0000  # ours do not follow one above: some must be left
BOOT_GAP: Final = 1 << 20  # more modseqs than a second can use


def _boot() -> str:
    """What this start of the machine is called; constant where the system has no name for it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return "unknown"


BOOT: Final = _boot()


@dataclass(frozen=True, slots=True)
class Outcome:
    """A committed transaction: account-wide modseqs (base, last] and what they did."""

    base: int
    last: int
    effects: list[Effect]

    @property
    def moved(self) -> bool:
        """Whether anybody else needs to know."""
        return self.last != self.base


@dataclass(frozen=True, slots=True)
class Carried:
    """What one transaction knows of the database and leaves to the connection's next: no need to read it again.

    Good while the connection's `version` is this, that is, nobody else has committed since.
    """

    version: int
    state: tuple[int, int, int, int, int, int]
    boxes: dict[int, Box]


@dataclass(slots=True)
class _Mark:
    """Where things stood when a part began, and the mailboxes it changed, as they were.

    The lowest mark is where the transaction began.
    """

    changes: int  # rows that the connection had changed by then
    modseq: int
    uidvalidity: int
    ops: int
    effects: int
    flagsets: int
    pack_end: int | None  # None: no pack was open
    needs_sync: bool
    boxes: dict[int, Box | None]


_STATE: Final = (
    "SELECT modseq, uidvalidity, txn, max(email, (SELECT ifnull(max(id), 0) FROM email)), pack, pack_end, "
    "boot FROM state"
)


class _Part:
    """See `Ledger.part`."""

    __slots__ = ("_ledger", "_own")

    def __init__(self, ledger: "Ledger") -> None:
        self._ledger = ledger

    def __enter__(self) -> None:
        self._own = self._ledger.enter_part()

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None) -> None:
        if error is None:
            try:
                self._ledger.leave_part(own=self._own)
            except BaseException:
                self._ledger.drop_part(own=self._own)
                raise
            return
        self._ledger.drop_part(own=self._own)
        if isinstance(error, apsw.Error | OSError):
            raise translate(error) from error


class Ledger:
    """The state of one write transaction on one account. Used by the thread that holds the account's write lock."""

    def __init__(
        self,
        db: apsw.Connection,
        flagsets: FlagSets,
        *,
        writer: Callable[[], PackWriter],
        quota: Callable[[], int | None],
        carried: Carried | None = None,
    ) -> None:
        self.db = db
        self.flagsets = flagsets
        self.now = int(time.time())
        self.by: object | None = None
        self._open_writer = writer
        self._read_quota = quota
        self._writer: PackWriter | None = None
        self._writer_start = 0
        self._boxes: dict[int, Box] = {}
        self._ops: list[Op] = []
        self._effects: list[Effect] = []
        self._fresh_flagsets: list[FlagSetId] = []
        self._usage: int | None = None
        self._doomed: StoreError | None = None
        self._marks: list[_Mark] = []
        self.needs_sync = False
        self._carried = carried
        self.base = self.modseq = self._uidvalidity = self._parent = self._email = self._pack = self._pack_end = 0

    # ---- the life of the transaction

    def begin(self, seen_modseq: int) -> None:
        """Take the write lock. `seen_modseq`: the account's as of this process's last transaction. Raises StoreBusy."""
        with translated():
            self.db.execute("BEGIN IMMEDIATE")
            try:
                carried, self._carried = self._carried, None
                if carried is not None and carried.version == self.db.data_version():
                    state, self._boxes = carried.state, carried.boxes
                    self.modseq = state[0]
                else:
                    *state, boot = select_row(self.db, _STATE)
                    self._boxes = {}
                    self.modseq = state[0] if boot == BOOT else self._after_boot(state[0], boot)
                self.base, self._uidvalidity, self._parent, self._email, self._pack, self._pack_end = state
                if self.base != seen_modseq:
                    self.flagsets.refresh(self.db)
                self._marks = [self._mark()]
            except BaseException:
                self.db.execute("ROLLBACK")
                raise

    def _after_boot(self, modseq: int, boot: str) -> int:
        """The modseq to go on from, at the first write after a start of the machine.

        A power cut may have taken the last second's flag changes, whose modseqs clients were told already. They must
        not mean something else now.
        """
        modseq += BOOT_GAP if boot else 0
        self.db.execute("UPDATE state SET boot = ?, modseq = ?", (BOOT, modseq))
        return modseq

    def _mark(self) -> _Mark:
        return _Mark(
            self.db.total_changes(),
            self.modseq,
            self._uidvalidity,
            len(self._ops),
            len(self._effects),
            len(self._fresh_flagsets),
            None if self._writer is None else self._writer.end,
            self.needs_sync,
            {},
        )

    def part(self) -> "_Part":
        """A block that is done as a whole or, when it raises, not at all. Parts may hold parts.

        Where the beginning cannot be restored, the transaction is doomed.
        """
        return _Part(self)

    def enter_part(self) -> bool:
        """For `_Part`. False: nothing was done since the part around this one began, whose beginning serves as well."""
        self.check()
        if self._untouched(self._marks[-1]):
            return False
        with translated():
            self.db.execute("SAVEPOINT part")
        self._marks.append(self._mark())
        return True

    def _untouched(self, mark: _Mark) -> bool:
        return (
            not mark.boxes
            and mark.changes == self.db.total_changes()
            and mark.ops == len(self._ops)
            and mark.effects == len(self._effects)
            and mark.pack_end == (None if self._writer is None else self._writer.end)
        )

    def leave_part(self, *, own: bool) -> None:
        """For `_Part`, at its good end."""
        self.check()
        if not own:
            return
        with translated():
            self.db.execute("RELEASE part")
        mark = self._marks.pop()
        outer = self._marks[-1].boxes
        for id, box in mark.boxes.items():
            outer.setdefault(id, box)

    def drop_part(self, *, own: bool) -> None:
        """For `_Part`, when something was raised in it."""
        mark = self._marks[-1]
        if self.db.get_autocommit():
            # SQLite rolls all back by itself when the disk is full.
            self._doom(StoreFull("No space left in the mail store"))
        elif len(self._marks) == 1:
            self._begin_again(mark)
        else:
            self._back_to(mark, release=own)
        if own:
            self._marks.pop()

    def _take_back(self, mark: _Mark) -> None:
        self.needs_sync = mark.needs_sync
        del self._ops[mark.ops :]
        del self._effects[mark.effects :]
        self._forget_flagsets(mark.flagsets)
        self._usage = None
        if self._writer is not None:
            self._writer.rollback(self._writer_start if mark.pack_end is None else mark.pack_end)

    def _back_to(self, mark: _Mark, *, release: bool) -> None:
        try:
            self.db.execute("ROLLBACK TO part")
            if release:
                self.db.execute("RELEASE part")
        except apsw.Error as error:
            self._doom(translate(error))
            return
        self._take_back(mark)
        self.modseq, self._uidvalidity = mark.modseq, mark.uidvalidity
        for id, box in mark.boxes.items():
            if box is None:
                self._boxes.pop(id, None)
            else:
                self._boxes[id] = box
        mark.boxes = {}
        for kept in self._boxes.values():
            kept.dirty, kept.written = True, None  # what this part wrote of others' changes was rolled back with it

    def _begin_again(self, mark: _Mark) -> None:
        # Nothing was done before: a new transaction is as good as a savepoint, which others would have paid for.
        self._take_back(mark)
        try:
            self.db.execute("ROLLBACK")
            self.begin(-1)
        except (apsw.Error, StoreError) as error:
            self._doom(error if isinstance(error, StoreError) else translate(error))

    def _doom(self, error: StoreError) -> None:
        if self._doomed is None:
            self._doomed = error

    def check(self) -> None:
        """Raise what dooms the whole transaction, if something does."""
        if self._doomed is None and self._writer is not None and self._writer.lost:
            self._doom(StoreFull("No space left in the mail store"))
        if self._doomed is not None:
            raise self._doomed

    def commit(self) -> Outcome:
        """Make it durable (flag changes: written). On any error nothing has happened, and the error is raised."""
        try:
            self.check()
            with translated():
                self.flush_boxes()
                if self._ops:
                    self._write_journal()
                self.db.execute("COMMIT")
        except BaseException:
            self.abort()
            raise
        return Outcome(self.base, self.modseq, self._effects)

    def _write_journal(self) -> None:
        txn = int.from_bytes(os.urandom(7), "big")
        journal = encode_journal(Journal(txn, self._parent, time.time(), self._ops))
        writer = self.writer()
        writer.add(JOURNAL, journal, hashlib.sha256(journal).digest())
        self.check()
        if self.needs_sync:
            # Only a synced end: a next owner looks for a torn tail from here on.
            if self._pack not in (0, writer.number):
                self.db.execute("INSERT OR REPLACE INTO pack VALUES (?, ?)", (self._pack, self._pack_end))
            self._pack, self._pack_end = writer.number, writer.end
        self._parent = txn
        self.db.execute(
            "UPDATE state SET modseq = ?, uidvalidity = ?, txn = ?, email = ?, pack = ?, pack_end = ?",
            (self.modseq, self._uidvalidity, txn, self._email, self._pack, self._pack_end),
        )
        writer.flush(sync=self.needs_sync)

    def abort(self) -> None:
        """Undo everything. Never raises: the connection is usable again, or its next use says why not."""
        if not self.db.get_autocommit():
            try:
                self.db.execute("ROLLBACK")
            except apsw.Error as error:
                self._doom(translate(error))
        self._forget_flagsets(0)
        if self._writer is not None:
            # What was flushed stays: a commit that reports an error may yet be found in the log after a crash.
            self._writer.rollback(max(self._writer_start, self._writer.flushed))

    def carry(self) -> Carried:
        """For the connection's next transaction, once this one has committed."""
        state = (self.modseq, self._uidvalidity, self._parent, self._email, self._pack, self._pack_end)
        boxes = self._boxes if len(self._boxes) <= CARRIED_BOXES_MAX else {}
        return Carried(self.db.data_version(), state, boxes)

    # ---- what the works use

    def next_modseq(self) -> int:
        """A modseq of one's own for one call. Of a member that failed it is given again: nobody was told."""
        self.modseq += 1
        return self.modseq

    def next_email(self) -> int:
        """An id for an email row. None is given again, whatever becomes of the row."""
        self._email += 1
        return self._email

    def next_uidvalidity(self) -> int:
        # Never one that was given before, and by time, so that a store made anew does not repeat one either.
        self._uidvalidity = max(self._uidvalidity + 1, self.now & 0xFFFF_FFFF)
        return self._uidvalidity

    def given_uidvalidity(self, uidvalidity: int) -> None:
        """This one was chosen by the caller: none up to it is given any more."""
        if uidvalidity < UIDVALIDITY_TOP:
            self._uidvalidity = max(self._uidvalidity, uidvalidity)

    def box(self, mailbox_id: int) -> Box:
        """The mailbox, to be changed in place. Raises MailboxMissing."""
        box = self._boxes.get(mailbox_id)
        if box is None:
            box = load_box(self.db, mailbox_id)
            if box is None:
                raise MailboxMissing("No such mailbox")
            self._boxes[mailbox_id] = box
        touched = self._marks[-1].boxes
        if mailbox_id not in touched:
            # Back to where the transaction began is by reading again: no copy is needed there.
            touched[mailbox_id] = box.copy() if len(self._marks) > 1 else None
        return box

    def live_box(self, mailbox_id: int) -> Box:
        """As `box`, for one that was not deleted."""
        box = self.box(mailbox_id)
        if box.removed is not None:
            raise MailboxMissing("No such mailbox")
        return box

    def find_box(self, name: str) -> Box | None:
        found = self.find_box_id(name)
        return None if found is None else self.box(found)

    def find_box_id(self, name: str) -> MailboxId | None:
        """As `find_box`, without taking it in hand."""
        for known in self._boxes.values():
            if known.name == name and known.removed is None:
                return known.id
        self.flush_boxes()
        return find_box_id(self.db, name)

    def new_box(self, name: str, *, modseq: int, special_use: str, uidvalidity: int | None = None) -> Box:
        if uidvalidity is None:
            uidvalidity = self.next_uidvalidity()
        else:
            self.given_uidvalidity(uidvalidity)
        box = insert_box(self.db, name, uidvalidity=uidvalidity, modseq=modseq, special_use=special_use)
        if box.id >= 1 << 31:
            raise LimitReached("Too many mailboxes were made in this account")
        self._boxes[box.id] = box
        self._marks[-1].boxes[box.id] = None
        return box

    def flush_boxes(self) -> None:
        """Write what changed in mailboxes, so that SQL sees it."""
        for box in self._boxes.values():
            if box.dirty:
                save_box(self.db, box)

    def intern(self, flags: Flags) -> FlagSet:
        found, fresh = self.flagsets.intern(self.db, flags)
        if fresh:
            self._fresh_flagsets.append(found.id)
        return found

    def flagset(self, id: int) -> FlagSet:
        return self.flagsets.get(id) or self.flagsets.load(self.db, id)

    def _forget_flagsets(self, keep: int) -> None:
        self.flagsets.forget(self._fresh_flagsets[keep:])
        del self._fresh_flagsets[keep:]

    def note(self, op: Op) -> None:
        """Into the journal."""
        self._ops.append(op)

    def effect(self, effect: Effect) -> None:
        """For the indexes, after the commit."""
        self._effects.append(effect)

    def writer(self) -> PackWriter:
        if self._writer is None:
            self._writer = self._open_writer()
            self._writer.lost = False
            self._writer_start = self._writer.end
        return self._writer

    def add_blob(self, staged: Staged) -> Place:
        place = self.writer().add(BLOB, staged.data(), staged.sha256, crc=staged.crc)
        self.check()
        return place

    def has_room(self, size: int) -> bool:
        """Whether the quota allows so many bytes more."""
        quota = self._read_quota()
        if quota is None:
            return True
        if self._usage is None:
            self.flush_boxes()
            self._usage = int(select_value(self.db, "SELECT total(size) FROM mailbox WHERE removed IS NULL"))
        return self._usage + size <= quota

    def spend(self, size: int) -> None:
        """Bytes were added (or, below 0, removed)."""
        if self._usage is not None:
            self._usage += size


def uid_sets(uids: Sequence[int]) -> list[bytes]:
    """Rising UIDs as sequence sets, each of bounded length."""
    if uids and uids[-1] - uids[0] + 1 == len(uids):
        return [b"%d" % uids[0] if len(uids) == 1 else b"%d:%d" % (uids[0], uids[-1])]
    return [encode(uids[start : start + JOURNAL_UIDS_MAX]) for start in range(0, len(uids), JOURNAL_UIDS_MAX)]


def known_end(db: apsw.Connection, number: int) -> int | None:
    """How far the database knows a pack to be whole; -1: nothing more may go into it."""
    if select_value(db, "SELECT 1 FROM retired WHERE pack = ?", (number,)):
        return -1
    return known_ends(db).get(number)


def known_ends(db: apsw.Connection) -> dict[int, int]:
    """How far the database knows each pack to be whole."""
    ends: dict[int, int] = dict(select(db, "SELECT id, end FROM pack"))
    number, end = select_row(db, "SELECT pack, pack_end FROM state")
    if number:
        ends[number] = max(end, ends.get(number, 0))
    return ends
