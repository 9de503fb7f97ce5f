"""Mailboxes in memory, as a scripted server has them: messages, UIDs, flags, modseqs, what is gone.

Knows what IMAP promises about numbers, and nothing of sessions or faults. Tests change it from their own thread while
the server runs in another: whatever changes takes the account's lock and wakes those who watch.

The hard idea is `Mail`: with labels (Gmail) one mail lies in many mailboxes under different UIDs and has its flags in
common; on any other server each copy is a mail of its own.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from mailkeep.mail.flags import canonical
from mailkeep.mail.structure import Rendered, render
from mailkeep.testing.faults import Ill

_IDS = itertools.count(1278455344230334865)  # as Gmail's look


class Mail:
    """The content of a message, and what goes with it wherever it lies."""

    def __init__(self, data: bytes, *, date: int, flags: Iterable[str] = (), ill: Ill | None = None) -> None:
        self.data = data
        self.date = date  # INTERNALDATE, seconds since 1970
        self.flags = set(flags)
        self.ill = ill
        self.ill_count = 0  # how often it struck
        self.id = next(_IDS)
        self.places: dict[Mailbox, int] = {}  # its UID in each

    @cached_property
    def rendered(self) -> Rendered:
        return render(self.data)

    @property
    def email_id(self) -> str:
        return f"M{self.id:x}"


@dataclass(slots=True)
class Message:
    """A mail in a mailbox."""

    uid: int
    mail: Mail
    modseq: int

    @property
    def data(self) -> bytes:
        return self.mail.data

    @property
    def flags(self) -> set[str]:
        return self.mail.flags


@dataclass(eq=False)
class Mailbox:
    """`messages` by UID, rising. `name` as text, with the server's own separator."""

    account: "Account"
    name: str
    uidvalidity: int
    special_use: str | None = None
    selectable: bool = True
    uidnext: int = 1
    messages: dict[int, Message] = field(default_factory=dict)
    gone: dict[int, int] = field(default_factory=dict)  # UID → modseq
    label: str | None = None  # as X-GM-LABELS names it, when it is not the name
    selects: int = 0

    def add(
        self,
        data: bytes,
        *,
        flags: Iterable[str] = (),
        date: int | None = None,
        ill: Ill | None = None,
        uid: int | None = None,
    ) -> Message:
        """Put a message in. `date` in seconds since 1970, now if None; `uid` at or above `uidnext`."""
        mail = Mail(data, date=int(time.time()) if date is None else date, flags=map(canonical, flags), ill=ill)
        return self.place(mail, uid=uid)

    def place(self, mail: Mail, *, uid: int | None = None) -> Message:
        """Put a mail in; with labels it lies in All Mail as well."""
        with self.account.lock:
            if uid is not None:
                assert uid >= self.uidnext, "UIDs rise"
                self.uidnext = uid
            if self in mail.places:
                return self.messages[mail.places[self]]
            message = Message(self.uidnext, mail, self.account.next_modseq())
            self.messages[message.uid] = message
            self.uidnext += 1
            mail.places[self] = message.uid
            every = self.account.all_mail
            if every is not None and every is not self and self not in self.account.apart:
                every.place(mail)
        self.account.wake()
        return message

    def remove(self, uid: int) -> None:
        """Expunge one; with labels the mail stays elsewhere."""
        with self.account.lock:
            message = self.messages.pop(uid)
            self.gone[uid] = self.account.next_modseq()
            del message.mail.places[self]
        self.account.wake()

    def set_flags(self, uid: int, flags: Iterable[str]) -> None:
        """Replace the flags of one; every copy under a label changes with it."""
        with self.account.lock:
            mail = self.messages[uid].mail
            mail.flags = set(flags)
            for box, place in mail.places.items():
                box.messages[place].modseq = self.account.next_modseq()
        self.account.wake()

    def renumber(self) -> None:
        """Another UIDVALIDITY, and other UIDs for all messages, as after a move to another machine."""
        with self.account.lock:
            self.uidvalidity = self.account.next_uidvalidity()
            old = list(self.messages.values())
            self.messages, self.gone, self.uidnext = {}, {}, 1 + self.uidvalidity % 7
            for message in old:
                self.messages[self.uidnext] = Message(self.uidnext, message.mail, self.account.next_modseq())
                message.mail.places[self] = self.uidnext
                self.uidnext += 1
        self.account.wake()

    def visible(self, cap: int | None) -> list[Message]:
        """The messages that a client may see, rising by UID: the newest `cap`."""
        with self.account.lock:
            found = list(self.messages.values())
        return found if cap is None else found[-cap:]

    @property
    def modseq(self) -> int:
        with self.account.lock:
            live = max((message.modseq for message in self.messages.values()), default=1)
            return max(live, max(self.gone.values(), default=1))

    def __len__(self) -> int:
        return len(self.messages)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Message]:
        return iter(list(self.messages.values()))


class Account:
    """The mailboxes of the one user that a scripted server has."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.mailboxes: dict[str, Mailbox] = {}
        self.subscribed: set[str] = set()
        self.all_mail: Mailbox | None = None  # with labels
        self.apart: tuple[Mailbox, ...] = ()  # with labels: those that are not in All Mail (Spam, Trash)
        self.contents: dict[bytes, Mail] = {}  # with labels: by hash, since the same mail is stored once
        self.watchers: set[Callable[[], None]] = set()  # called from any thread
        self.modseq = 1  # the last one given
        self._uidvalidities = itertools.count(1_600_000_001)
        self.create("INBOX")

    def next_modseq(self) -> int:
        self.modseq += 1
        return self.modseq

    def next_uidvalidity(self) -> int:
        return next(self._uidvalidities)

    def create(self, name: str, *, special_use: str | None = None, selectable: bool = True) -> Mailbox:
        """Make a mailbox and subscribe it."""
        with self.lock:
            assert name not in self.mailboxes, name
            box = Mailbox(self, name, self.next_uidvalidity(), special_use, selectable)
            self.mailboxes[name] = box
            self.subscribed.add(name)
        return box

    def delete(self, name: str) -> None:
        with self.lock:
            box = self.mailboxes.pop(name)
            for message in box.messages.values():
                del message.mail.places[box]

    def rename(self, old: str, new: str, separator: str) -> None:
        """With all that lies below. INBOX stays, and only its messages move (RFC 9051 section 6.3.6)."""
        with self.lock:
            if old == "INBOX":
                target = self.create(new)
                inbox = self.mailboxes["INBOX"]
                for uid, message in list(inbox.messages.items()):
                    target.place(message.mail)
                    inbox.remove(uid)
                return
            for name in [n for n in self.mailboxes if n == old or n.startswith(old + separator)]:
                box = self.mailboxes.pop(name)
                box.name = new + name[len(old) :]
                self.mailboxes[box.name] = box

    def wake(self) -> None:
        for watcher in list(self.watchers):
            watcher()
