"""What can be done to mailboxes in a write transaction: create, delete, rename, subscribe.

Functions over a `Ledger`. Knows the hierarchy: making a/b/c makes a and a/b, renaming takes children along, deleting
leaves them. A UIDVALIDITY is never given twice in an account, so a name made again is a new mailbox to every client.
"""

from collections.abc import Sequence
from typing import Final

from mailkeep.errors import LimitReached, MailboxExists, MailboxMissing, NotAllowed
from mailkeep.mail.ids import UID_MAX
from mailkeep.mail.mailbox_name import check_name
from mailkeep.store.blobs import Created, Deleted, Renamed, Reserved, Subscribed
from mailkeep.store.index import Effect
from mailkeep.store.ledger import Ledger
from mailkeep.store.mailboxes import HIDDEN, INBOX, MAILBOXES_MAX, SEPARATOR, Box, twin_name
from mailkeep.store.placing import move_all, remove_all
from mailkeep.store.schema import select, select_value

UIDVALIDITY_MAX: Final = 0xFFFF_FFFF


def create(
    ledger: Ledger, name: str, *, special_use: Sequence[str], subscribe: bool, uidvalidity: int | None = None
) -> Box:
    """Raises MailboxExists, NotAllowed, LimitReached.

    With a UIDVALIDITY (a mailbox that moves here as its clients know it) one of that name that never had a message is
    replaced, and its special uses are kept if none are given: every account has an INBOX.
    """
    name = check_name(name)
    if uidvalidity is not None and not 0 < uidvalidity <= UIDVALIDITY_MAX:
        raise NotAllowed("This cannot be a UIDVALIDITY")
    there = ledger.find_box(name)
    if there is not None:
        if uidvalidity is None or there.uidnext > 1 or there.uidvalidity == uidvalidity:
            raise MailboxExists("A mailbox of that name is there already")
        special_use = special_use or there.special_use.split()
        _delete_one(ledger, there)
    _create_parents(ledger, name, subscribe=subscribe)
    return create_alone(ledger, name, special_use=special_use, subscribe=subscribe, uidvalidity=uidvalidity)


def _create_parents(ledger: Ledger, name: str, *, subscribe: bool) -> None:
    levels = name.split(SEPARATOR)
    for depth in range(1, len(levels)):
        parent = SEPARATOR.join(levels[:depth])
        if ledger.find_box(parent) is None:
            create_alone(ledger, parent, special_use=(), subscribe=subscribe)


def create_alone(
    ledger: Ledger,
    name: str,
    *,
    special_use: Sequence[str],
    subscribe: bool = False,
    uidvalidity: int | None = None,
) -> Box:
    """One mailbox of a checked name that is free; what is above it is not made."""
    if select_value(ledger.db, "SELECT count(*) FROM mailbox WHERE removed IS NULL") >= MAILBOXES_MAX:
        raise LimitReached("Too many mailboxes in the account")
    modseq = ledger.next_modseq()
    box = ledger.new_box(name, modseq=modseq, special_use=" ".join(special_use), uidvalidity=uidvalidity)
    ledger.needs_sync = True
    ledger.note(Created(modseq, box.id, name, box.uidvalidity, list(special_use), ledger.now))
    if subscribe:
        set_subscribed(ledger, name, on=True)
    return box


def delete(ledger: Ledger, name: str) -> None:
    """The mailbox and its messages; its children stay, and so does its subscription (RFC 9051 section 6.3.5)."""
    name = check_name(name)
    if name == INBOX:
        raise NotAllowed("INBOX cannot be deleted")
    box = ledger.find_box(name)
    if box is None:
        raise MailboxMissing("No such mailbox")
    _delete_one(ledger, box)


def _delete_one(ledger: Ledger, box: Box) -> None:
    modseq = ledger.next_modseq()
    remove_all(ledger, box, modseq)
    box.removed, box.removed_at = modseq, ledger.now
    box.touch(modseq)
    ledger.needs_sync = True
    ledger.note(Deleted(modseq, box.id, ledger.now, kept=True))
    ledger.effect(Effect(box.id, modseq, ledger.by, gone=True))
    ledger.flush_boxes()  # its name is free: another may be made in the same transaction


def raise_uidnext(ledger: Ledger, mailbox_id: int, uidnext: int) -> None:
    """From now on no message gets a UID below this one. Lower than it is: nothing. Raises LimitReached."""
    box = ledger.live_box(mailbox_id)
    if uidnext <= box.uidnext:
        return
    if uidnext > UID_MAX:
        raise LimitReached("The mailbox has used up its UIDs")
    box.uidnext = uidnext
    modseq = ledger.next_modseq()
    box.touch(modseq)
    ledger.needs_sync = True
    ledger.note(Reserved(modseq, box.id, uidnext))
    ledger.effect(Effect(box.id, modseq, ledger.by, uidnext=uidnext))


def rename(ledger: Ledger, old: str, new: str) -> None:
    """With children and subscriptions; UIDVALIDITY and UIDs are kept. INBOX gives its messages and stays."""
    old, new = check_name(old), check_name(new)
    ledger.flush_boxes()
    rows = select(ledger.db, "SELECT name, special_use FROM mailbox WHERE removed IS NULL")
    names = {name for name, _ in rows}
    hidden = {name for name, special_use in rows if HIDDEN in special_use}
    if new in names or new == INBOX:
        raise MailboxExists("A mailbox of that name is there already")
    if old == INBOX:
        if INBOX not in names:
            raise MailboxMissing("No such mailbox")
        target = create(ledger, new, special_use=(), subscribe=False)
        move_all(ledger, _found(ledger, INBOX), target)
        return
    below = old + SEPARATOR
    moving = sorted(name for name in names - hidden if name == old or name.startswith(below))
    if not moving:
        raise MailboxMissing("No such mailbox")
    if new.startswith(below):
        raise NotAllowed("A mailbox cannot be put below itself")
    renamed = {name: check_name(new + name[len(old) :]) for name in moving}
    if not names.isdisjoint(renamed.values()):
        raise MailboxExists("A mailbox of that name is there already")
    _create_parents(ledger, new, subscribe=False)
    for name, fresh in renamed.items():
        _rename_one(ledger, _found(ledger, name), fresh)
        twin, goal = twin_name(name), twin_name(fresh)
        if twin in hidden and goal not in names and _may_be(goal):
            _rename_one(ledger, _found(ledger, twin), goal)


def _may_be(name: str) -> bool:
    try:
        return check_name(name) == name
    except NotAllowed:  # too long
        return False


def _found(ledger: Ledger, name: str) -> Box:
    box = ledger.find_box(name)
    assert box is not None
    return box


def _rename_one(ledger: Ledger, box: Box, name: str) -> None:
    modseq = ledger.next_modseq()
    was, box.name = box.name, name
    box.touch(modseq)
    ledger.needs_sync = True
    ledger.note(Renamed(modseq, box.id, name))
    if select_value(ledger.db, "SELECT 1 FROM subscription WHERE name = ?", (was,)):
        set_subscribed(ledger, was, on=False)
        set_subscribed(ledger, name, on=True)


def set_subscribed(ledger: Ledger, name: str, *, on: bool) -> None:
    """A name may be subscribed that does not exist."""
    name = check_name(name)
    sql = "INSERT OR IGNORE INTO subscription VALUES (?)" if on else "DELETE FROM subscription WHERE name = ?"
    ledger.db.execute(sql, (name,))
    if ledger.db.changes():
        ledger.needs_sync = True
        ledger.note(Subscribed(ledger.next_modseq(), name, on))
