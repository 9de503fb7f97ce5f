"""What went from one folder of a server and came into another one has moved, and so it does here.

Looks at what the folders of one run lost and gained, after all of them. Where everything that a content lost has its
partner among what was added, the copy in the old place is no message that is gone: it is taken away, and the one in
the new place, which came with the server's flags, is the message.

The hard idea is to be late and to prove it. Folders are pulled side by side, in any order, and a run may end at any
moment; so nothing is decided before the end, and each copy goes in a transaction that sees its partner alive. A run
that does not come this far leaves a copy marked as gone: too much, never too little. What was copied has lost nothing,
so there is nothing to take away; and what vanished in one run and came in another stays marked.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from mailkeep.backup.books import STEP, Books
from mailkeep.errors import MailboxMissing
from mailkeep.store.account import Account

Place = tuple[int, int]  # our mailbox, our UID
FOUND_STEP: Final = 2000


@dataclass(frozen=True, slots=True)
class _Lost:
    books: Books
    uid: int  # on the server
    place: Place


def follow(account: Account, folders: Sequence[Books]) -> int:
    """Take away what moved from where it was. Returns how many. Raises StoreError."""
    losers = [books for books in folders if books.lost]
    if not losers or not any(books.added for books in folders):
        return 0
    at_home = {books.name: _homes(account, books) for books in losers}
    lost: dict[int, list[_Lost]] = {}
    for books in losers:
        for uid, email, place in _contents(account, books):
            if place[0] in at_home[books.name]:
                lost.setdefault(email, []).append(_Lost(books, uid, place))
    partners = _partners(account, folders, lost)
    moved: dict[str, list[tuple[_Lost, Place]]] = {}
    for email, gone in lost.items():
        homes = {each.books.name for each in gone}
        found = [place for name, place in partners.get(email, ()) if name not in homes]
        if len(gone) <= len(found):
            for each, place in zip(gone, found, strict=False):
                moved.setdefault(each.books.name, []).append((each, place))
    return sum(_take_away(account, pairs) for pairs in moved.values())


def _homes(account: Account, books: Books) -> set[int]:
    """Where a folder's messages lie, if nobody here put them elsewhere: its mailbox, and what is out of sight."""
    hidden = {int(box.id) for box in account.mailboxes(hidden=True) if box.hidden}
    return hidden if books.box.mailbox is None else {int(books.box.mailbox), *hidden}


def _contents(account: Account, books: Books) -> Iterable[tuple[int, int, Place]]:
    """(the server's UID, email, our place) of what a folder lost."""
    uids = sorted(set(books.lost))
    for start in range(0, len(uids), FOUND_STEP):
        origins = [books.origin(uid) for uid in uids[start : start + FOUND_STEP]]
        for origin, email, mailbox, our_uid in account.contents_of(origins):
            yield int.from_bytes(origin[12:], "big"), email, (mailbox, our_uid)


def _partners(account: Account, folders: Sequence[Books], emails: Iterable[int]) -> dict[int, list[tuple[str, Place]]]:
    """By email: (folder, our place) of what this run added and the server still has."""
    added = {books.origin(0)[:12]: (books.name, set(books.added) - set(books.lost)) for books in folders if books.added}
    wanted = sorted(emails)
    found: dict[int, list[tuple[str, Place]]] = {}
    for start in range(0, len(wanted), FOUND_STEP):
        for email, mailbox, our_uid, origin in account.origins_of(wanted[start : start + FOUND_STEP]):
            name, uids = added.get(origin[:12], ("", set()))
            if int.from_bytes(origin[12:], "big") in uids:
                found.setdefault(email, []).append((name, (mailbox, our_uid)))
    return found


def _take_away(account: Account, pairs: Sequence[tuple[_Lost, Place]]) -> int:
    """Those of one folder."""
    books, count = pairs[0][0].books, 0
    by_mailbox: dict[int, list[tuple[_Lost, Place]]] = {}
    for pair in pairs:
        by_mailbox.setdefault(pair[0].place[0], []).append(pair)
    for mailbox, some in by_mailbox.items():
        for start in range(0, len(some), STEP):
            part = some[start : start + STEP]
            twins = {lost.place[1]: place for lost, place in part}
            with suppress(MailboxMissing), account.transaction() as transaction:
                gone = set(transaction.drop_moved(mailbox, twins))
                dropped = [lost.uid for lost, _ in part if lost.place[1] in gone]
                transaction.drop_remote_messages(books.box.id, dropped)
                books.note_moved(transaction, len(dropped))
                count += len(dropped)
    return count
