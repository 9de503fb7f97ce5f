"""What a caller may do in one write transaction. Each method is atomic by itself: it raises and nothing of it stays.

A thin face: the works are in `placing` (messages) and `tree` (mailboxes), the mechanism in `ledger`.
"""

from collections.abc import Sequence
from contextlib import suppress

from mailkeep.errors import MailboxMissing, NotAllowed
from mailkeep.mail.flags import Flags
from mailkeep.mail.ids import MailboxId
from mailkeep.mail.mailbox_name import check_name
from mailkeep.store import placing, tree
from mailkeep.store.ledger import Ledger
from mailkeep.store.mailboxes import Mailbox, find_mailbox, list_mailboxes
from mailkeep.store.placing import Appended, Mode, StoreResult
from mailkeep.store.staging import Staged


class Transaction:
    """Lives inside `Account.transaction()` or the work given to `Offload.write`, never longer.

    All methods raise StoreError subclasses. UIDs are given in any order; those that are gone are passed over.
    """

    __slots__ = ("_ledger",)

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    # ---- mailboxes

    def mailbox(self, name: str) -> Mailbox:
        """As of now, this transaction's own changes included. Raises MailboxMissing."""
        try:
            name = check_name(name)
        except NotAllowed:
            raise MailboxMissing("No such mailbox") from None
        self._ledger.flush_boxes()
        return find_mailbox(self._ledger.db, name)

    def find(self, name: str) -> MailboxId:
        """Where to put a message: as `mailbox`, most often without reading anything. Raises MailboxMissing."""
        found = self._ledger.find_box_id(name)
        if found is None:
            with suppress(NotAllowed):
                found = self._ledger.find_box_id(check_name(name))
        if found is None:
            raise MailboxMissing("No such mailbox")
        return found

    def mailboxes(self) -> list[Mailbox]:
        self._ledger.flush_boxes()
        return list_mailboxes(self._ledger.db)

    def create_mailbox(self, name: str, *, special_use: Sequence[str] = (), subscribe: bool = False) -> Mailbox:
        """With its missing parents. Raises MailboxExists, NotAllowed, LimitReached."""
        with self._ledger.part():
            box = tree.create(self._ledger, name, special_use=special_use, subscribe=subscribe)
        return self.mailbox(box.name)

    def delete_mailbox(self, name: str) -> None:
        """The mailbox and its messages; its children stay. Raises MailboxMissing, NotAllowed for INBOX."""
        with self._ledger.part():
            tree.delete(self._ledger, name)

    def rename_mailbox(self, old: str, new: str) -> None:
        """With its children; INBOX gives its messages and stays. Raises MailboxMissing, MailboxExists, NotAllowed."""
        with self._ledger.part():
            tree.rename(self._ledger, old, new)

    def subscribe(self, name: str, on: bool) -> None:
        """Any good name, whether it exists or not. Raises NotAllowed."""
        with self._ledger.part():
            tree.set_subscribed(self._ledger, name, on=on)

    # ---- messages

    def append(
        self,
        mailbox_id: int,
        staged: Staged,
        *,
        flags: Flags = frozenset(),
        internaldate: int | None = None,
        origin: bytes | None = None,
        enforce_quota: bool = True,
    ) -> Appended:
        """Put a message into a mailbox. `internaldate` in Unix seconds (None: now).

        A known `origin` adds nothing and answers where that message is. Keep `staged` open until the commit. Raises
        MailboxMissing, OverQuota, LimitReached, StoreFull, StoreReadOnly.
        """
        with self._ledger.part():
            return placing.append(
                self._ledger,
                mailbox_id,
                staged,
                flags=flags,
                internaldate=internaldate,
                origin=origin,
                enforce_quota=enforce_quota,
            )

    def copy(self, source: int, uids: Sequence[int], target: int) -> list[tuple[int, int]]:
        """(source uid, target uid) of each, rising. Raises MailboxMissing, OverQuota, LimitReached."""
        with self._ledger.part():
            return placing.copy(self._ledger, source, uids, target)

    def move(self, source: int, uids: Sequence[int], target: int) -> list[tuple[int, int]]:
        """(source uid, target uid) of each, rising. Raises MailboxMissing, LimitReached."""
        with self._ledger.part():
            return placing.move(self._ledger, source, uids, target)

    def store_flags(
        self,
        mailbox_id: int,
        uids: Sequence[int],
        mode: Mode,
        flags: Flags,
        *,
        unchanged_since: int | None = None,
    ) -> StoreResult:
        """Set (=), add (+) or remove (-) flags. Raises MailboxMissing, LimitReached (keywords)."""
        with self._ledger.part():
            return placing.store_flags(
                self._ledger, mailbox_id, uids, mode=mode, flags=flags, unchanged_since=unchanged_since
            )

    def expunge(self, mailbox_id: int, uids: Sequence[int] | None = None, *, only_deleted: bool = True) -> list[int]:
        """Remove messages, of `uids` or of all, with \\Deleted or (only_deleted=False) without asking.

        Returns the UIDs removed, rising. Raises MailboxMissing.
        """
        with self._ledger.part():
            return placing.expunge(self._ledger, mailbox_id, uids, only_deleted=only_deleted)

    def claim_recent(self, mailbox_id: int) -> tuple[int, int]:
        """(first, uidnext): UIDs in [first, uidnext) are \\Recent to the caller, and to nobody after."""
        box = self._ledger.live_box(mailbox_id)
        first = box.recent_from
        if first != box.uidnext:
            box.recent_from = box.uidnext
            box.dirty = True
        return first, box.uidnext

    def undelete(self, mailbox_id: int, *, since: int | None = None) -> int:
        """Bring back what was expunged at or after `since` (Unix seconds), or with its mailbox. Returns how many."""
        with self._ledger.part():
            return placing.undelete(self._ledger, mailbox_id, since=since)
