"""Gmail's labels: each message is fetched once, from All Mail, and stands in a mailbox for each of its labels.

To IMAP, Gmail shows every label as a folder and every message in each of them (X-GM-EXT-1). Here the message lies in
the mailbox of All Mail, with its origin, and copies of it, which cost a row each, in those of its labels. Spam and
Trash are apart from All Mail and are pulled like any folder.

The hard idea is to keep no list of labels: which copies a message has is asked of the store, by its content. Where two
messages of All Mail have the same bytes nobody can say whose a copy is, so of these no copy is taken away.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mailkeep.backup.imap_mailboxes import RemoteMailbox
from mailkeep.mail.flags import Flags
from mailkeep.store.account import Account
from mailkeep.store.transaction import Transaction

EXTENSION: Final = "X-GM-EXT-1"
APART: Final = ("\\All", "\\Junk", "\\Trash")  # folders that are pulled
VIEWS: Final = ("\\Flagged",)  # only shows what a flag says
# System labels, in any case, and the special use of the folder that shows them.
_SYSTEM: Final = {
    "\\inbox": "\\Inbox",
    "\\sent": "\\Sent",
    "\\draft": "\\Drafts",
    "\\drafts": "\\Drafts",
    "\\important": "\\Important",
}


def has_labels(capabilities: Iterable[str], uses: Mapping[str, str]) -> bool:
    """Whether this is a Gmail account whose All Mail can be seen: who hides it in the settings has folders only."""
    return EXTENSION in capabilities and "\\All" in uses.values()


def split(folders: Sequence[RemoteMailbox], uses: Mapping[str, str]) -> tuple[list[RemoteMailbox], list[RemoteMailbox]]:
    """(folders to pull, folders that are labels); what is only a view is in neither."""
    pulled = [folder for folder in folders if uses.get(folder.name) in APART]
    labels = [folder for folder in folders if uses.get(folder.name) not in (*APART, *VIEWS)]
    return pulled, labels


def label_name(label: str, uses: Mapping[str, str]) -> str | None:
    """The server's name of the folder that shows a label; None for one that none shows."""
    if not label.startswith("\\"):
        return label
    use = _SYSTEM.get(label.lower())
    if use == "\\Inbox":
        return "INBOX"
    return next((name for name, each in uses.items() if each == use), None)


@dataclass(slots=True)
class Labels:
    """The mailboxes of labels of one account. `home`: that of All Mail. Synchronous."""

    account: Account
    home: int
    targets: Mapping[str, int]  # the server's folder name → our mailbox
    uses: Mapping[str, str]
    careful: bool = False  # label folders were pulled as folders before: look before a copy is made

    def wanted(self, labels: Iterable[Any]) -> set[int]:
        """Our mailboxes for a message's labels."""
        names = (label_name(str(label), self.uses) for label in labels)
        return {self.targets[name] for name in names if name is not None and name in self.targets} - {self.home}

    def place(self, transaction: Transaction, placed: Sequence[tuple[int, Sequence[str]]]) -> None:
        """Copies of messages (our UID in `home`, labels) that this transaction appended."""
        by_target: dict[int, list[int]] = {}
        for uid, labels in placed:
            for target in self.wanted(labels):
                by_target.setdefault(target, []).append(uid)
        for target, uids in by_target.items():
            transaction.copy(self.home, uids, target)

    def follow(self, messages: Sequence[tuple[int, Sequence[str], Flags]]) -> int:
        """(our UID in `home`, labels, flags) as they are now. Returns how many copies came or went."""
        given = {uid: (labels, flags) for uid, labels, flags in messages}
        rows = self.account.fetch(self.home, sorted(given), ("uid", "email"))
        emails: dict[int, int] = {row[0]: row[1] for row in rows}
        standing = self._standing(emails.values())
        add: dict[int, list[int]] = {}
        take: dict[int, list[int]] = {}
        flag: dict[tuple[int, Flags], list[int]] = {}
        for uid, email in emails.items():
            labels, flags = given[uid]
            there, wanted = standing.get(email, {}), self.wanted(labels)
            alone = len(there.get(self.home, ())) < 2
            for target in wanted - there.keys():
                add.setdefault(target, []).append(uid)
            for target, copies in there.items():
                ours = [copy for copy, has_origin in copies if not has_origin]
                if target == self.home or target not in self.targets.values() or not ours or not alone:
                    continue
                if target in wanted:
                    flag.setdefault((target, flags), []).extend(ours)
                else:
                    take.setdefault(target, []).extend(ours)
        if not (add or take or flag):
            return 0
        with self.account.transaction() as transaction:
            for target, uids in add.items():
                transaction.copy(self.home, uids, target)
            for target, uids in take.items():
                transaction.expunge(target, uids, only_deleted=False)
            for (target, flags), uids in flag.items():
                transaction.store_flags(target, uids, "=", flags)
        return sum(map(len, add.values())) + sum(map(len, take.values()))

    def copies(self, uids: Sequence[int]) -> dict[int, list[int]]:
        """Our mailbox → UIDs of the copies of messages of `home`, where it is sure that they are theirs."""
        emails = [email for _, email in self.account.fetch(self.home, sorted(uids), ("uid", "email"))]
        found: dict[int, list[int]] = {}
        for there in self._standing(emails).values():
            if len(there.get(self.home, ())) > 1:
                continue
            for target, copies in there.items():
                if target != self.home and target in self.targets.values():
                    found.setdefault(target, []).extend(copy for copy, has_origin in copies if not has_origin)
        return found

    def _standing(self, emails: Iterable[int]) -> dict[int, dict[int, list[tuple[int, bool]]]]:
        """Email → our mailbox → (uid, whether it has an origin) of its live messages."""
        found: dict[int, dict[int, list[tuple[int, bool]]]] = {}
        for email, mailbox, uid, has_origin in self.account.places_of(list(set(emails))):
            found.setdefault(email, {}).setdefault(mailbox, []).append((uid, has_origin))
        return found
