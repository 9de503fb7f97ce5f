"""The folders of a server beside our mailboxes: placed once, followed when renamed, kept when deleted.

Which name a folder gets is said by `names`; here it is done. Synchronous, in threads; knows the store, no connection.
The hard idea is that a folder, once placed, stays where it is: its row holds the id of our mailbox, so the owner may
rename that, and a server's other name for it moves it only when both sides still called it the same.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from mailkeep.backup.books import STEP, Policy, read_cursor
from mailkeep.backup.imap_remote import RemoteMailbox
from mailkeep.backup.plan import Renamed
from mailkeep.backup.recognise import retired_name, unretired
from mailkeep.errors import LimitReached, MailboxExists, MailboxMissing, NotAllowed
from mailkeep.mail.mailbox_name import INBOX
from mailkeep.store.account import Account
from mailkeep.store.mailboxes import DEFAULT_MAILBOXES, Mailbox
from mailkeep.store.remotes import RemoteBox, State, origin_of
from mailkeep.store.transaction import Transaction

_DEFAULTS: Final = frozenset(name for name, _ in DEFAULT_MAILBOXES) - {INBOX}


@dataclass(slots=True)
class Tree:
    """One server's folders, by the server's names, and what we have of them."""

    listed: dict[str, RemoteMailbox]
    names: dict[str, str]  # ours, as they would be given today
    uses: dict[str, str]
    boxes: dict[str, RemoteBox] = field(default_factory=dict)
    retired: dict[str, list[RemoteBox]] = field(default_factory=dict)  # … that wait to be recognised
    past: dict[str, list[RemoteBox]] = field(default_factory=dict)  # … of which only what is gone is left

    def load(self, account: Account, remote: int) -> None:
        """Read the rows."""
        self.boxes, self.retired, self.past = {}, {}, {}
        for box in account.remote_boxes(remote):
            earlier = unretired(box.name)
            if earlier is None:
                self.boxes[box.name] = box
            else:
                kind = self.past if read_cursor(box.cursor).complete else self.retired
                kind.setdefault(earlier[0], []).append(box)

    def fresh(self) -> list[RemoteMailbox]:
        """Listed ones that have no row."""
        return [folder for name, folder in self.listed.items() if name not in self.boxes]

    def missing(self) -> list[RemoteBox]:
        """Rows of folders that are not listed any more."""
        return [box for name, box in self.boxes.items() if name not in self.listed]


def place(account: Account, tree: Tree, policy: Policy, wanted: Iterable[RemoteMailbox]) -> dict[str, str]:
    """A mailbox and a row for each folder that has none; subscriptions as the server has them now.

    Returns what could not be placed, with the reason.
    """
    ours = {box.id: box for box in account.mailboxes()}
    due = []
    for folder in wanted:
        box = tree.boxes.get(folder.name)
        known = box is not None and box.mailbox in ours
        if not known or read_cursor(box.cursor if box else None).subscribed != folder.subscribed:
            due.append(folder)
    refused: dict[str, str] = {}
    if due:
        full = ""  # why there is no room for one more; a server may name a hundred thousand
        with account.transaction() as transaction:
            for folder in due:
                if full and folder.name not in tree.boxes:
                    refused[folder.name] = full
                    continue
                try:
                    _place(transaction, tree, policy, folder)
                except LimitReached as error:
                    full = refused[folder.name] = error.text
                except NotAllowed as error:
                    refused[folder.name] = error.text
    return refused


def _place(transaction: Transaction, tree: Tree, policy: Policy, folder: RemoteMailbox) -> None:
    box = tree.boxes.get(folder.name) or RemoteBox(0, policy.remote, str(folder.name))
    cursor = read_cursor(box.cursor)
    mailbox = next((each for each in transaction.mailboxes() if each.id == box.mailbox), None)
    if mailbox is None:
        mailbox = _made(transaction, tree, folder)
    transaction.subscribe(mailbox.name, folder.subscribed)
    cursor.subscribed = folder.subscribed
    made = replace(box, mailbox=mailbox.id, cursor=msgspec.json.encode(cursor))
    tree.boxes[folder.name] = transaction.put_remote_box(made)


def _made(transaction: Transaction, tree: Tree, folder: RemoteMailbox) -> Mailbox:
    """Find or make our mailbox for a folder.

    One of that name that is there already is used, unless it is another folder's: several remotes may come together
    in one account. One of those that every account begins with, still empty, gives way to the server's folder of the
    same special use.
    """
    there = {box.name: box for box in transaction.mailboxes()}
    used = {box.mailbox for name, box in tree.boxes.items() if name != folder.name}
    name, number = tree.names[folder.name], 2
    while name in there and there[name].id in used:
        name, number = f"{tree.names[folder.name]} ({number})", number + 1
    if name in there:
        return there[name]
    use = tree.uses.get(folder.name)
    for box in there.values():
        if use in box.special_use and box.name in _DEFAULTS and box.uidnext == 1 and box.id not in used:
            transaction.subscribe(box.name, False)
            transaction.rename_mailbox(box.name, name)
            return transaction.mailbox(name)
    taken = {each for box in there.values() for each in box.special_use}
    return transaction.create_mailbox(name, special_use=[use] if use and use not in taken else [])


def follow_rename(account: Account, tree: Tree, policy: Policy, renamed: Renamed) -> bool:
    """The server calls a folder by another name now: so do we, and its messages are known by the new one.

    Killed in between it begins again: what was done is not found under the old name a second time. False: our mailbox
    keeps its name, for it cannot have the new one.
    """
    old, new = renamed.old, renamed.new
    box = tree.boxes[old]
    for earlier in (*tree.retired.get(old, ()), *tree.past.get(old, ())):
        _rename_origins(account, policy, renamed, earlier)
        with account.transaction() as transaction:
            transaction.put_remote_box(replace(earlier, name=retired_name(new, earlier.uidvalidity)))
    _rename_origins(account, policy, renamed, box)
    with account.transaction() as transaction:
        ours = next((each for each in transaction.mailboxes() if each.id == box.mailbox), None)
        renamed_here = ours is not None and (
            ours.name == tree.names[new] or _renamed(transaction, ours, tree.names[new])
        )
        transaction.put_remote_box(replace(box, name=str(new)))
    tree.load(account, policy.remote)
    return renamed_here


def _rename_origins(account: Account, policy: Policy, renamed: Renamed, box: RemoteBox) -> None:
    """Of one numbering of the folder, the present one or one of before."""
    old, new = renamed.old, renamed.new
    rows = account.remote_uids(box.id)
    kept = [uid for uid, state in zip(rows.uids, rows.states, strict=True) if state == State.KEPT]
    for start in range(0, len(kept), STEP):
        by_origin = {origin_of(policy.remote, old, box.uidvalidity, uid): uid for uid in kept[start : start + STEP]}
        moved: dict[int, list[tuple[int, bytes | None]]] = {}
        for origin, place in account.find_origins(list(by_origin)).items():
            renewed = origin_of(policy.remote, new, box.uidvalidity, by_origin[origin])
            moved.setdefault(place.mailbox, []).append((place.uid, renewed))
        with account.transaction() as transaction:
            for mailbox, origins in moved.items():
                transaction.set_origins(mailbox, origins)


def _renamed(transaction: Transaction, ours: Mailbox, name: str) -> bool:
    """Give our mailbox another name, if it may have it. Renaming a parent takes the children along, here as there."""
    aside = f"{name.split('/', maxsplit=1)[0]} {ours.id}"
    try:
        if name.startswith(ours.name + "/"):  # below itself, which goes by way of a name beside it
            transaction.rename_mailbox(ours.name, aside)
            transaction.rename_mailbox(aside, name)
        elif ours.name != INBOX:
            transaction.rename_mailbox(ours.name, name)
    except (MailboxExists, MailboxMissing, NotAllowed):
        return False
    return ours.name != INBOX


def note_removed(account: Account, tree: Tree, policy: Policy, box: RemoteBox) -> bool:
    """The server has the folder no more. True: that is news. Its messages are marked by the caller."""
    cursor = read_cursor(box.cursor)
    if cursor.removed is not None:
        return False
    cursor.removed = policy.now
    cursor.complete = False
    with account.transaction() as transaction:
        tree.boxes[box.name] = transaction.put_remote_box(replace(box, cursor=msgspec.json.encode(cursor)))
    return True


def drop_empty(account: Account, box: RemoteBox) -> None:
    """In a mirror: our mailbox of a folder that is gone, once there is nothing in it."""
    ours = next((each for each in account.mailboxes() if each.id == box.mailbox), None)
    if ours is None or ours.messages or ours.name == INBOX:
        return
    with account.transaction() as transaction, suppress(MailboxMissing, NotAllowed):
        transaction.delete_mailbox(ours.name)


def in_order(folders: Sequence[RemoteMailbox], uses: dict[str, str]) -> list[RemoteMailbox]:
    """INBOX first, then what people ask for first; junk and trash last."""
    last = {"\\Junk": 2, "\\Trash": 2, "\\All": 1}
    return sorted(
        folders, key=lambda each: (each.name.upper() != INBOX, last.get(uses.get(each.name, ""), 0), each.name)
    )
