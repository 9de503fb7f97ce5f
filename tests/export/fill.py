"""Puts messages into an account of a test."""

from collections.abc import Iterable

from mailkeep.errors import MailboxMissing
from mailkeep.store.account import Account
from mailkeep.store.staging import Staged

Mail = tuple[str, bytes, int, frozenset[str]]  # mailbox, bytes, internal date, flags


def fill(account: Account, mail: Iterable[Mail]) -> None:
    """Append them in this order; mailboxes are made as they are named."""
    with account.transaction() as tx:
        boxes: dict[str, int] = {}
        for name, data, internaldate, flags in mail:
            if name not in boxes:
                try:
                    boxes[name] = account.mailbox(name).id
                except MailboxMissing:
                    boxes[name] = tx.create_mailbox(name, subscribe=True).id
            tx.append(boxes[name], Staged.of(data), flags=flags, internaldate=internaldate)
