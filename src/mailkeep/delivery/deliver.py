"""A staged message into the mailboxes of its recipients: one append each, one result each.

Knows how a detail becomes a mailbox and that one recipient's trouble is not another's. The writes of all recipients
wait together, so that those of one account share a commit.
"""

import asyncio
from collections.abc import Sequence

from mailkeep.delivery.route import Recipient
from mailkeep.errors import AccountReadOnly, MailboxMissing, MailkeepError, OverQuota
from mailkeep.mail.ids import MailboxId
from mailkeep.store.mailboxes import INBOX
from mailkeep.store.offload import Offload
from mailkeep.store.staging import Staged
from mailkeep.store.store import Store
from mailkeep.store.transaction import Transaction


def check_room(store: Store, recipient: Recipient, size: int | None) -> None:
    """Before the message comes: is there room for it? Raises OverQuota.

    `temporary` is set on the error when the message would fit into an emptier account.
    """
    quota = recipient.account.quota
    if quota is None:
        return
    if size is not None and size > quota:
        raise never_fits()
    usage = store.account(recipient.account.id).usage()
    if usage.bytes + (size or 1) > quota:
        raise full_now()


def never_fits() -> OverQuota:
    return OverQuota("The message is larger than the mailbox may ever be")


def full_now() -> OverQuota:
    error = OverQuota("The mailbox is full")
    error.temporary = True
    return error


async def deliver(
    staged: Staged, recipients: Sequence[Recipient], *, store: Store, offload: Offload, internaldate: int
) -> list[MailkeepError | None]:
    """One result per recipient, in order; None: it is on disk. Never raises a MailkeepError.

    A recipient named twice gets the message once (RFC 5321 section 4.1.1.3 leaves it to us), and two answers.
    """
    if len(recipients) == 1:
        return [await _place(staged, recipients[0], store=store, offload=offload, internaldate=internaldate)]
    places = {(recipient.account.id, recipient.detail): recipient for recipient in recipients}
    results = await asyncio.gather(
        *(
            _place(staged, recipient, store=store, offload=offload, internaldate=internaldate)
            for recipient in places.values()
        )
    )
    by_place = dict(zip(places, results, strict=True))
    return [by_place[recipient.account.id, recipient.detail] for recipient in recipients]


async def _place(
    staged: Staged, recipient: Recipient, *, store: Store, offload: Offload, internaldate: int
) -> MailkeepError | None:
    def work(transaction: Transaction) -> None:
        mailbox = _find_mailbox(transaction, recipient.detail)
        transaction.append(mailbox, staged, internaldate=internaldate)

    try:
        account = store.account(recipient.account.id)
        if account.info.read_only:  # since a moment ago
            return AccountReadOnly("This mailbox takes no mail")
        await offload.write(account, work)
    except OverQuota:
        quota = recipient.account.quota
        return never_fits() if quota is not None and staged.size > quota else full_now()
    except MailkeepError as error:
        return error
    return None


def _find_mailbox(transaction: Transaction, detail: str | None) -> MailboxId:
    """The mailbox that `detail` names, as spelled or without regard to case; else INBOX."""
    if detail is not None:
        try:
            return transaction.find(detail)
        except MailboxMissing:  # or no possible name
            folded = detail.casefold()
            alike = [mailbox for mailbox in transaction.mailboxes() if mailbox.name.casefold() == folded]
            if len(alike) == 1:
                return alike[0].id
    return transaction.find(INBOX)
