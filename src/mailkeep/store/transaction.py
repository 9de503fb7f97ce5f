"""What a caller may do in one write transaction. Each method is atomic by itself: it raises and nothing of it stays.

A thin face: the works are in `placing` (messages) and `tree` (mailboxes), the mechanism in `ledger`.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from mailkeep.errors import LimitReached, MailboxMissing, NotAllowed
from mailkeep.mail.flags import Flags
from mailkeep.mail.ids import MailboxId
from mailkeep.mail.mailbox_name import check_name
from mailkeep.store import arrivals as arriving
from mailkeep.store import gone, placing, remote_rows, tree
from mailkeep.store.arrivals import Arrival
from mailkeep.store.ledger import Ledger
from mailkeep.store.mailboxes import GONE_ROOT, Mailbox, find_mailbox, list_mailboxes
from mailkeep.store.placing import Appended, Mode, StoreResult
from mailkeep.store.remote_rows import RemoteBox, State
from mailkeep.store.staging import Staged


class Transaction:
    """Lives inside `Account.transaction()` or the work given to `Offload.write`, never longer.

    All methods raise StoreError subclasses. UIDs are given in any order; those that are gone are passed over.
    """

    __slots__ = ("_ledger",)

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    # ---- mailboxes

    def mailbox(self, name: str, *, hidden: bool = False) -> Mailbox:
        """As of now, this transaction's own changes included. Raises MailboxMissing, for a hidden one too."""
        try:
            name = check_name(name)
        except NotAllowed:
            raise MailboxMissing("No such mailbox") from None
        self._ledger.flush_boxes()
        return find_mailbox(self._ledger.db, name, hidden=hidden)

    def find(self, name: str) -> MailboxId:
        """Where to put a message: as `mailbox`, most often without reading anything. Raises MailboxMissing."""
        found = self._ledger.find_box_id(name)
        if found is None:
            with suppress(NotAllowed):
                found = self._ledger.find_box_id(check_name(name))
        # Hidden ones lie below one name, or are it: others need not be looked at.
        if found is None or (name.startswith(GONE_ROOT) and self._ledger.box(found).hidden):
            raise MailboxMissing("No such mailbox")
        return found

    def highestmodseq(self, mailbox_id: int) -> int:
        """Of one mailbox, as of now. Raises MailboxMissing."""
        return self._ledger.live_box(mailbox_id).highestmodseq

    def mailboxes(self, *, hidden: bool = False) -> list[Mailbox]:
        self._ledger.flush_boxes()
        return list_mailboxes(self._ledger.db, hidden=hidden)

    def create_mailbox(
        self,
        name: str,
        *,
        special_use: Sequence[str] = (),
        subscribe: bool = False,
        uidvalidity: int | None = None,
    ) -> Mailbox:
        """With its missing parents. Raises MailboxExists, NotAllowed, LimitReached.

        `uidvalidity`: exactly this one, for a mailbox that comes from another server and whose clients know it. One of
        that name that never had a message (every account has an INBOX) is replaced then, unless it has it already.
        """
        with self._ledger.part():
            box = tree.create(self._ledger, name, special_use=special_use, subscribe=subscribe, uidvalidity=uidvalidity)
        return self.mailbox(box.name, hidden=True)

    def set_uidnext(self, mailbox_id: int, uidnext: int) -> None:
        """No message gets a UID below this one from now on. Never lowers it. Raises MailboxMissing, LimitReached."""
        with self._ledger.part():
            tree.raise_uidnext(self._ledger, mailbox_id, uidnext)

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
        uid: int | None = None,
        enforce_quota: bool = True,
    ) -> Appended:
        """Put a message into a mailbox. `internaldate` in Unix seconds (None: now).

        A known `origin` adds nothing and answers where that message is. `uid`: exactly this one, the next or a higher
        one. Keep `staged` open until the commit. Raises MailboxMissing, OverQuota, LimitReached, NotAllowed for a UID
        below the next, StoreFull, StoreReadOnly.
        """
        with self._ledger.part():
            return placing.append(
                self._ledger,
                mailbox_id,
                staged,
                flags=flags,
                internaldate=internaldate,
                origin=origin,
                uid=uid,
                enforce_quota=enforce_quota,
            )

    def append_all(self, mailbox_id: int, arrivals: Sequence[Arrival], *, enforce_quota: bool = True) -> list[Appended]:
        """As `append` of each, at half the cost: answers in order. All or nothing, with one modseq for all.

        Of two with one origin the first counts. OverQuota says that there is no room for all of them.
        """
        with self._ledger.part():
            return arriving.append_all(self._ledger, mailbox_id, arrivals, enforce_quota=enforce_quota)

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

    def fitting(self, flags: Flags) -> Flags:
        """The flags, or, where the account can have no more keywords, those of them that it has."""
        with suppress(LimitReached), self._ledger.part():
            self._ledger.intern(flags)
            return flags
        return self._ledger.flagsets.known(flags)

    def expunge(self, mailbox_id: int, uids: Sequence[int] | None = None, *, only_deleted: bool = True) -> list[int]:
        """Remove messages, of `uids` or of all, with \\Deleted or (only_deleted=False) without asking.

        Returns the UIDs removed, rising. Raises MailboxMissing.
        """
        with self._ledger.part():
            return placing.expunge(self._ledger, mailbox_id, uids, only_deleted=only_deleted)

    def drop_moved(self, mailbox_id: int, twins: Mapping[int, tuple[int, int]]) -> list[int]:
        """Messages, or what is left of expunged ones, that were found to lie elsewhere now: by UID, (mailbox, UID).

        They go for good: `undelete` does not bring them, and what they came from may come again. One whose twin is not
        there, or is another content, stays. Returns the UIDs of those that went, rising. Raises MailboxMissing.
        """
        with self._ledger.part():
            return placing.drop_moved(self._ledger, mailbox_id, twins)

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

    def hide_gone(self, mailbox_id: int, uids: Sequence[int]) -> list[tuple[int, int]]:
        """Move messages to the mailbox's hidden twin: (uid, uid there) of each, rising. In a twin: nothing.

        Raises MailboxMissing, LimitReached, NotAllowed where the twin's name would be too long.
        """
        with self._ledger.part():
            return gone.hide(self._ledger, mailbox_id, uids)

    def show_gone(self, mailbox_id: int, uids: Sequence[int]) -> list[tuple[int, int]]:
        """Move messages from a hidden twin back to its mailbox, made again if need be. As `hide_gone`."""
        with self._ledger.part():
            return gone.show(self._ledger, mailbox_id, uids)

    # ---- what is known of them elsewhere

    def set_origin(self, mailbox_id: int, uid: int, origin: bytes | None) -> None:
        """As `set_origins`, of one message."""
        self.set_origins(mailbox_id, [(uid, origin)])

    def set_origins(self, mailbox_id: int, rows: Iterable[tuple[int, bytes | None]]) -> None:
        """(uid, origin) of messages or tombstones that are known by another origin now: the server numbered anew.

        A message that has one of the origins loses it. UIDs that are not there are passed over. Raises MailboxMissing.
        """
        with self._ledger.part():
            placing.set_origins(self._ledger, mailbox_id, list(rows))

    def set_uidls(self, mailbox_id: int, rows: Iterable[tuple[int, str | None]]) -> None:
        """(uid, UIDL) of messages that POP3 clients know by it (RFC 1939 section 7: 1 to 70 of "!" to "~").

        None: by ours again. It goes along when the message moves. Raises MailboxMissing, NotAllowed for a bad UIDL.
        """
        with self._ledger.part():
            placing.set_uidls(self._ledger, mailbox_id, list(rows))

    # ---- other people's servers: see `remote_rows`

    def put_remote_box(self, box: RemoteBox) -> RemoteBox:
        """Store a cursor: that of `box.id`, or, where it is 0, of its remote and name. Given back with its id.

        With the id it may get another name: renamed at the server. Raises LimitReached.
        """
        with self._ledger.part():
            return remote_rows.put_box(self._ledger, box)

    def drop_remote_box(self, box_id: int) -> None:
        """Forget a remote's mailbox and what was seen in it. Our messages stay, with their origins."""
        with self._ledger.part():
            remote_rows.drop_box(self._ledger, box_id)

    def put_remote_messages(self, box_id: int, rows: Iterable[tuple[int, Flags, State, str | None]]) -> None:
        """(uid, flags that both sides agree on, state, detail) of messages that the server has now.

        In place of what was known of them; what was gone is back. Without a detail, one that is kept as before has the
        detail that it had. Raises LimitReached (keywords), MailboxMissing when
        the remote was removed meanwhile.
        """
        with self._ledger.part():
            remote_rows.put_messages(self._ledger, box_id, rows)

    def set_gone(self, box_id: int, uids: Sequence[int], when: int | None, *, detail: str | None = None) -> None:
        """The server lacks these since `when` (Unix seconds; an earlier time is kept), or, None, has them again.

        `detail` is put in place of what was noted of them, if given.
        """
        with self._ledger.part():
            remote_rows.set_gone(self._ledger, box_id, uids, when, detail=detail)

    def drop_remote_messages(self, box_id: int, uids: Sequence[int] | None = None) -> None:
        """Forget what was seen in a remote's mailbox, of these UIDs or all."""
        with self._ledger.part():
            remote_rows.drop_messages(self._ledger, box_id, uids)
