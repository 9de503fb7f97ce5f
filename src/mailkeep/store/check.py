"""Verify: prove that what an account's files say of each other is true. Changes nothing, and may run beside the server.

Proved are: every pack record's checksums; that each email row names a sound record with its digest; that each message
row names an email, a mailbox and a flag set that are there; each mailbox's counters and checksum, recomputed; that
modseqs and UIDs stay in their bounds; SQLite's own integrity; and that the journals, replayed, place exactly the
messages that the rows place, under the same origins and UIDLs.

It sees one snapshot: mail.db in one read transaction, then the packs, which only grow. A pack's unfinished tail, and
journals newer than the snapshot, are a writer at work, not problems. Memory is bounded: rows stream by, and the replay
lies in a scratch file.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import apsw

from mailkeep.errors import StoreError
from mailkeep.mail.flags import DELETED, SEEN
from mailkeep.store import remote_rows, replay
from mailkeep.store.account import AccountInfo
from mailkeep.store.accounts import REMOVED
from mailkeep.store.failure import translate
from mailkeep.store.ledger import known_ends
from mailkeep.store.locks import IN_COLLECTION, locked, using
from mailkeep.store.replay import Gathered
from mailkeep.store.schema import UID_BITS, UID_MASK, checksum_term, connect, select_value
from mailkeep.store.store import Store

Progress = Callable[[str, int, int], None]  # what, done, of how much
Cancelled = Callable[[], bool]

PROBLEMS_MAX: Final = 1000  # kept of each kind and account; more are only counted
_REPAIR: Final = "run `mailkeep repair`"
_BACKUP: Final = "the bytes are damaged on the disk: restore them from a backup, then run `mailkeep repair`"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that does not hold. `kind` is a stable word, `where` says what it is about."""

    kind: str  # database pack blob email message mailbox counter modseq journal remote account
    account: str
    where: str
    text: str
    remedy: str


@dataclass(slots=True)
class Report:
    """What verify found. `counts`: how much was looked at, by noun; `unlisted`: directories without an account."""

    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0  # with those over PROBLEMS_MAX
    counts: dict[str, int] = field(default_factory=dict)
    unlisted: list[str] = field(default_factory=list)

    def count(self, noun: str, number: int = 1) -> None:
        self.counts[noun] = self.counts.get(noun, 0) + number


def verify(
    store: Store,
    accounts: Sequence[AccountInfo] | None = None,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> Report:
    """Prove the given accounts, or all. Raises StoreBusy when garbage is being collected in one of them."""
    report = Report()
    listed = store.directory.list()
    for info in listed if accounts is None else accounts:
        if cancelled is not None and cancelled():
            break
        report.count("accounts")
        _Check(report, info.name, account_path(store, info)).run(progress, cancelled)
    if accounts is None:
        report.unlisted = unlisted(store, listed)
    return report


def account_path(store: Store, info: AccountInfo) -> Path:
    return store.root / "accounts" / str(info.id)


def unlisted(store: Store, listed: Iterable[AccountInfo]) -> list[str]:
    """Names of account directories that directory.db does not know, those of removed accounts apart."""
    known = {str(info.id) for info in listed}
    with suppress(FileNotFoundError):
        names = sorted(entry.name for entry in os.scandir(store.root / "accounts"))
        return [name for name in names if name not in known and not name.startswith(REMOVED)]
    return []


@dataclass(slots=True)
class _Check:
    report: Report
    account: str
    directory: Path
    by_kind: dict[str, int] = field(default_factory=dict)

    def problem(self, kind: str, where: str, text: str, remedy: str = _REPAIR) -> None:
        self.by_kind[kind] = self.by_kind.get(kind, 0) + 1
        self.report.problem_count += 1
        if self.by_kind[kind] <= PROBLEMS_MAX:
            self.report.problems.append(Problem(kind, self.account, where, text, remedy))

    def run(self, progress: Progress | None, cancelled: Cancelled | None) -> None:
        if not (self.directory / "mail.db").exists():
            self.problem("database", "mail.db", "the account has no database")
            return
        with (
            using(self.directory),
            locked(self.directory / "gc.lock", alone=False, busy=IN_COLLECTION),
        ):
            try:
                db = connect(self.directory / "mail.db", "mail")
            except StoreError as error:
                if error.temporary:
                    raise
                self.problem("database", "mail.db", error.text)
                return
            try:
                self._snapshot(db, progress, cancelled)
            except apsw.Error as error:
                if translate(error).temporary:
                    raise translate(error) from error
                self.problem("database", "mail.db", f"the database cannot be read: {error}")
            finally:
                db.close()

    def _snapshot(self, db: apsw.Connection, progress: Progress | None, cancelled: Cancelled | None) -> None:
        replay.attach(db)
        db.execute("BEGIN")
        modseq = select_value(db, "SELECT modseq FROM state")
        for (line,) in db.execute("PRAGMA main.integrity_check(100)"):
            if line != "ok":
                self.problem("database", "mail.db", str(line))
        gathered = replay.gather(db, self.directory / "packs", progress=progress, cancelled=cancelled)
        if cancelled is not None and cancelled():
            return
        self.report.count("records", gathered.records)
        self.report.count("bytes", gathered.bytes)
        self._packs(db, gathered)
        self._emails(db)
        self._rows(db, modseq, progress)
        self.report.count("contested journals", replay.judge(db, modseq_max=modseq))
        replay.apply(db)
        self._journal(db)
        for where, text in remote_rows.problems(db):
            self.problem("remote", where, text)
        db.execute("COMMIT")

    # packs

    def _packs(self, db: apsw.Connection, gathered: Gathered) -> None:
        ends = known_ends(db)
        for damage in gathered.damages:
            if damage.tail and damage.offset >= ends.get(damage.pack, 0):
                self.report.count("unfinished tails")
                continue
            where = f"packs/{damage.pack}.pack at {damage.offset}"
            self.problem("pack", where, f"{damage.end - damage.offset} bytes are damaged: {damage.what}", _BACKUP)

    def _emails(self, db: apsw.Connection) -> None:
        rows = db.execute(
            "SELECT e.id, e.pack, e.offset, b.sound, e.sha256 = b.sha256, e.length = b.length, e.codec = b.codec, "
            "e.size = b.size FROM main.email e LEFT JOIN replay.blob b ON b.pack = e.pack AND b.offset = e.offset"
        )
        for email, pack, offset, sound, *equal in rows:
            self.report.count("emails")
            if sound is None:
                self.problem("email", f"email {email}", f"its bytes are not at {offset} in packs/{pack}.pack")
            elif not sound:
                self.problem(
                    "blob", f"email {email}", f"its bytes in packs/{pack}.pack at {offset} are damaged", _BACKUP
                )
            elif not all(equal):
                self.problem("email", f"email {email}", f"the record at {offset} in packs/{pack}.pack is another")

    # rows

    def _rows(self, db: apsw.Connection, modseq_max: int, progress: Progress | None) -> None:
        flagsets = {number: frozenset(names.split()) for number, names in db.execute("SELECT id, names FROM flagset")}
        boxes = {row[0]: row for row in db.execute(_BOXES)}
        total = select_value(db, "SELECT count(*) FROM message")
        counter, current = _Counter(), 0
        rows = db.execute(
            "SELECT m.key, m.flags, m.modseq, m.added, m.removed, m.size, e.size, e.sha256 "
            "FROM main.message m LEFT JOIN main.email e ON e.id = m.email ORDER BY m.key"
        )
        for done, (key, flags, *row) in enumerate(rows):
            mailbox, uid = key >> UID_BITS, key & UID_MASK
            if mailbox != current:
                self._counters(boxes.pop(current, None), counter)
                counter, current = _Counter(), mailbox
                if mailbox not in boxes:
                    self.problem("message", f"mailbox {mailbox}", "messages lie in a mailbox that is not there")
            self._row(counter, f"mailbox {mailbox} UID {uid}", uid, flagsets.get(flags), row)
            counter.bound(uid, row, modseq_max)
            if progress is not None and done % 20_000 == 0:
                progress("messages", done, total)
        self._counters(boxes.pop(current, None), counter)
        for box in boxes.values():
            self._counters(box, _Counter())

    def _row(self, counter: "_Counter", where: str, uid: int, flags: frozenset[str] | None, row: list[Any]) -> None:
        modseq, added, removed, size, email_size, sha256 = row
        self.report.count("messages" if removed is None else "tombstones")
        if flags is None:
            self.problem("message", where, "its flags are not known")
        if sha256 is None:
            if removed is None:  # a tombstone may outlive its bytes
                self.problem("message", where, "its email is not there")
            return
        if size != email_size:
            self.problem("message", where, f"its size is {size}, its email's {email_size}")
        if added > modseq or (removed is not None and removed < added):
            self.problem("modseq", where, f"modseq {modseq}, added {added}, removed {removed} are out of order")
        if removed is None:
            counter.count(uid, flags or frozenset(), size, sha256)

    def _counters(self, box: tuple[Any, ...] | None, counter: "_Counter") -> None:
        if box is None:
            return
        _, name, uidnext, highest, messages, unseen, deleted, size, checksum, removed = box
        self.report.count("mailboxes")
        where = f"mailbox {name}" if removed is None else f"deleted mailbox {name}"
        named = (
            ("messages", messages, counter.messages),
            ("unseen", unseen, counter.unseen),
            ("deleted", deleted, counter.deleted),
            ("size", size, counter.size),
            ("checksum", checksum, counter.checksum),
        )
        for noun, kept, counted in named:
            if kept != counted:
                self.problem("counter", where, f"{noun} is {kept}, its messages make it {counted}")
        if uidnext <= counter.uid_max:
            self.problem("counter", where, f"uidnext is {uidnext}, yet there is a UID {counter.uid_max}")
        if highest < counter.modseq_max:
            self.problem("modseq", where, f"highestmodseq is {highest}, a message has {counter.modseq_max}")
        if counter.disorder:
            self.problem("modseq", where, f"{counter.disorder} messages have modseqs beyond the account's")

    # journal

    def _journal(self, db: apsw.Connection) -> None:
        self._journaled_mailboxes(db)
        rows = db.execute(
            "SELECT p.key, m.key IS NULL, m.removed IS NOT NULL, p.sha256 IS NOT e.sha256 FROM replay.place p "
            "LEFT JOIN main.message m ON m.key = p.key LEFT JOIN main.email e ON e.id = m.email "
            "WHERE p.removed IS NULL AND (m.key IS NULL OR m.removed IS NOT NULL OR p.sha256 IS NOT e.sha256)"
        )
        for key, absent, removed, _ in rows:
            text = "lacks it" if absent else "says it was removed" if removed else "says it is another message"
            self.problem("journal", _named(key), f"the journal placed this message, the database {text}")
        rows = db.execute(
            "SELECT m.key, p.key IS NULL FROM main.message m LEFT JOIN replay.place p ON p.key = m.key "
            "WHERE m.removed IS NULL AND (p.key IS NULL OR p.removed IS NOT NULL)"
        )
        for key, absent in rows:
            text = "does not know this message" if absent else "says this message was removed"
            self.problem("journal", _named(key), f"the journal {text}, the database has it", "keep a copy of mail.db")

        for key, what in db.execute(_KNOWN_AS):
            self.problem("journal", _named(key), f"the journal says another {what} than the database")

    def _journaled_mailboxes(self, db: apsw.Connection) -> None:
        rows = db.execute(
            "SELECT ifnull(m.name, r.name), m.id IS NULL, r.id IS NULL FROM "
            "(SELECT * FROM main.mailbox WHERE removed IS NULL) m FULL JOIN "
            "(SELECT * FROM replay.mailbox WHERE removed IS NULL) r ON m.id = r.id "
            "WHERE m.name IS NOT r.name OR m.uidvalidity IS NOT r.uidvalidity"
        )
        for name, absent, unknown in rows:
            text = "lacks it" if absent else "has it, no journal does" if unknown else "says otherwise"
            self.problem("journal", f"mailbox {name}", f"the journal made this mailbox, the database {text}")
        rows = db.execute(
            "SELECT ifnull(m.name, r.name), m.name IS NULL FROM main.subscription m FULL JOIN replay.subscription r "
            "ON m.name = r.name WHERE m.name IS NULL OR r.name IS NULL"
        )
        for name, absent in rows:
            text = "in the journal only" if absent else "in the database only"
            self.problem("journal", f"subscription {name}", f"it is {text}")


_BOXES: Final = (
    "SELECT id, name, uidnext, highestmodseq, messages, unseen, deleted, size, checksum, removed "
    "FROM mailbox ORDER BY id"
)


# Origins and UIDLs of live messages.
_KNOWN_AS: Final = (
    "SELECT m.key, 'origin' FROM main.message m JOIN replay.place p ON p.key = m.key "
    "WHERE m.removed IS NULL AND p.removed IS NULL AND m.origin IS NOT p.origin UNION ALL "
    "SELECT m.key, 'UIDL' FROM (SELECT key FROM main.uidl UNION SELECT key FROM replay.uidl) k "
    "JOIN main.message m ON m.key = k.key AND m.removed IS NULL "
    "LEFT JOIN main.uidl u ON u.key = k.key LEFT JOIN replay.uidl r ON r.key = k.key WHERE u.uidl IS NOT r.uidl"
)


def _named(key: int) -> str:
    return f"mailbox {key >> UID_BITS} UID {key & UID_MASK}"


@dataclass(slots=True)
class _Counter:
    """A mailbox's counters, recomputed from its rows."""

    messages: int = 0
    unseen: int = 0
    deleted: int = 0
    size: int = 0
    checksum: int = 0
    uid_max: int = 0
    modseq_max: int = 0
    disorder: int = 0

    def count(self, uid: int, flags: frozenset[str], size: int, sha256: bytes) -> None:
        self.messages += 1
        self.unseen += SEEN not in flags
        self.deleted += DELETED in flags
        self.size += size
        self.checksum ^= checksum_term(uid, sha256)

    def bound(self, uid: int, row: list[Any], modseq_max: int) -> None:
        modseq, added, removed = row[:3]
        latest = max(modseq, removed or 0)
        self.uid_max = uid
        self.modseq_max = max(self.modseq_max, latest)
        self.disorder += max(latest, added) > modseq_max
