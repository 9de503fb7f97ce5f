"""Mailbox rows: what a caller sees of a mailbox, and what a transaction keeps of it while it writes.

Knows the mailbox table, nothing of messages. Counters are kept in memory during a transaction and written once before
its commit: a hundred appends to INBOX in one group are one UPDATE.
"""

from dataclasses import dataclass
from typing import Any, Final

import apsw

from mailkeep.errors import MailboxMissing
from mailkeep.mail.ids import MailboxId, ModSeq, UIDValidity
from mailkeep.store.flagsets import FlagSet
from mailkeep.store.schema import checksum_term, select, select_row, select_value

INBOX: Final = "INBOX"
SEPARATOR: Final = "/"
MAILBOXES_MAX: Final = 10_000
HIDDEN: Final = "\\Hidden"  # among the special uses: no door lists or opens it
GONE: Final = "$Gone"  # the keyword of what vanished at its source
GONE_ROOT: Final = "Gone"  # what an account that hides it has above its hidden mailboxes

# What every new account gets, all subscribed (RFC 6154).
DEFAULT_MAILBOXES: Final = (
    (INBOX, ()),
    ("Drafts", ("\\Drafts",)),
    ("Sent", ("\\Sent",)),
    ("Junk", ("\\Junk",)),
    ("Trash", ("\\Trash",)),
    ("Archive", ("\\Archive",)),
)


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A mailbox as of one moment. Counters speak of live messages; `size` is in bytes."""

    id: MailboxId
    name: str
    uidvalidity: UIDValidity
    uidnext: int
    highestmodseq: ModSeq
    messages: int
    unseen: int
    deleted: int
    size: int
    special_use: tuple[str, ...]
    subscribed: bool
    recent_from: int  # first UID that no session was told as \Recent

    @property
    def hidden(self) -> bool:
        """Not for clients: it holds what vanished at its source."""
        return HIDDEN in self.special_use


_COLUMNS = (
    "id, name, uidvalidity, uidnext, highestmodseq, messages, unseen, deleted, size, special_use, "
    "EXISTS (SELECT 1 FROM subscription s WHERE s.name = mailbox.name), recent_from"
)


def _mailbox(row: Any) -> Mailbox:
    *plain, special_use, subscribed, recent_from = row
    fields = (*plain, tuple(special_use.split()), bool(subscribed), recent_from)
    return Mailbox(*fields)


def twin_name(name: str) -> str:
    """Where a mailbox's messages lie that vanished at their source, if they are hidden."""
    return f"{GONE_ROOT}{SEPARATOR}{name}"


def list_mailboxes(db: apsw.Connection, *, hidden: bool) -> list[Mailbox]:
    """Live mailboxes by name, INBOX first; those that clients do not see only with `hidden`."""
    rows = select(db, f"SELECT {_COLUMNS} FROM mailbox WHERE removed IS NULL")
    boxes = [box for box in map(_mailbox, rows) if hidden or not box.hidden]
    return sorted(boxes, key=lambda box: (box.name != INBOX, box.name))


def find_mailbox(db: apsw.Connection, name: str, *, hidden: bool) -> Mailbox:
    """Raises MailboxMissing."""
    rows = select(db, f"SELECT {_COLUMNS} FROM mailbox WHERE name = ? AND removed IS NULL", (name,))
    box = _mailbox(rows[0]) if rows else None
    if box is None or (box.hidden and not hidden):
        raise MailboxMissing("No such mailbox")
    return box


def list_removed(db: apsw.Connection) -> list[Mailbox]:
    """Deleted mailboxes that undelete could bring back, the latest first."""
    rows = select(db, f"SELECT {_COLUMNS} FROM mailbox WHERE removed IS NOT NULL ORDER BY removed DESC")
    return list(map(_mailbox, rows))


@dataclass(slots=True)
class Box:
    """A mailbox row in a transaction's hands."""

    id: MailboxId
    name: str
    uidvalidity: UIDValidity
    uidnext: int
    highestmodseq: int
    recent_from: int
    messages: int
    unseen: int
    deleted: int
    size: int
    checksum: int
    special_use: str
    removed: int | None
    removed_at: int | None
    dirty: bool = False
    written: tuple[object, ...] | None = None  # `nature` as the row has it; None: not known

    def copy(self) -> "Box":
        return Box(
            self.id,
            self.name,
            self.uidvalidity,
            self.uidnext,
            self.highestmodseq,
            self.recent_from,
            self.messages,
            self.unseen,
            self.deleted,
            self.size,
            self.checksum,
            self.special_use,
            self.removed,
            self.removed_at,
            self.dirty,
            self.written,
        )

    @property
    def hidden(self) -> bool:
        return HIDDEN in self.special_use

    @property
    def nature(self) -> tuple[object, ...]:
        """What seldom changes. Some of it is in an index, which a statement that names it would write again."""
        return self.name, self.uidvalidity, self.special_use, self.removed, self.removed_at

    def count(self, uid: int, sha256: bytes, *, size: int, flags: FlagSet, sign: int) -> None:
        """Put a message into the counters (sign 1), or take it out (-1)."""
        self.messages += sign
        self.size += sign * size
        if not flags.seen:
            self.unseen += sign
        if flags.deleted:
            self.deleted += sign
        self.checksum ^= checksum_term(uid, sha256)

    def touch(self, modseq: int) -> None:
        self.highestmodseq = modseq
        self.dirty = True


_BOX_COLUMNS = (
    "id, name, uidvalidity, uidnext, highestmodseq, recent_from, messages, unseen, deleted, size, checksum, "
    "special_use, removed, removed_at"
)


def load_box(db: apsw.Connection, mailbox_id: int) -> Box | None:
    row = select_row(db, f"SELECT {_BOX_COLUMNS} FROM mailbox WHERE id = ?", (mailbox_id,))
    if row is None:
        return None
    box = Box(*row)
    box.written = box.nature
    return box


def find_box_id(db: apsw.Connection, name: str) -> MailboxId | None:
    found = select_value(db, "SELECT id FROM mailbox WHERE name = ? AND removed IS NULL", (name,))
    return None if found is None else MailboxId(found)


def insert_box(db: apsw.Connection, name: str, *, uidvalidity: int, modseq: int, special_use: str) -> Box:
    db.execute(
        "INSERT INTO mailbox (name, uidvalidity, highestmodseq, special_use) VALUES (?, ?, ?, ?)",
        (name, uidvalidity, modseq, special_use),
    )
    box = load_box(db, db.last_insert_rowid())
    assert box is not None
    return box


def save_box(db: apsw.Connection, box: Box) -> None:
    if box.written != box.nature:
        db.execute(
            "UPDATE mailbox SET name = ?, uidvalidity = ?, special_use = ?, removed = ?, removed_at = ? WHERE id = ?",
            (*box.nature, box.id),
        )
        box.written = box.nature
    db.execute(
        "UPDATE mailbox SET uidnext = ?, highestmodseq = ?, recent_from = ?, messages = ?, unseen = ?, deleted = ?, "
        "size = ?, checksum = ? WHERE id = ?",
        (
            box.uidnext,
            box.highestmodseq,
            box.recent_from,
            box.messages,
            box.unseen,
            box.deleted,
            box.size,
            box.checksum,
            box.id,
        ),
    )
    box.dirty = False
