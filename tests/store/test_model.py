"""The store against a model of plain dictionaries, under random works, through two stores on one directory.

The two stand for two processes: each has its own connections, packs and indexes, and learns of the other's commits only
by `refresh`, as after a wake-up. After every step each must show what the model holds, and at times what happened since
any earlier modseq must lead from what was then to what is now.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mailkeep.errors import MailboxExists, MailboxMissing, NotAllowed
from mailkeep.mail.flags import DELETED, FLAGGED, SEEN
from mailkeep.store import Account, Staged, Store
from mailkeep.store.schema import checksum_term, select
from tests.messages import numbered

CONTENTS = [Staged.of(numbered(number)) for number in range(4)]
FLAGS = st.frozensets(st.sampled_from([SEEN, DELETED, FLAGGED, "$Junk", "$junk", "Later"]), max_size=3)
NAMES = st.sampled_from(["INBOX", "Archive", "Trash", "a", "a/b", "a/b/c", "ab", "b", "inbox/x"])
UIDS = st.lists(st.integers(1, 12), max_size=6)
SIDES = st.integers(0, 1)


@dataclass
class Message:
    content: int
    flags: frozenset[str]  # keywords in lower case, since which spelling came first is not the point
    date: int


@dataclass
class Box:
    uidvalidity: int
    uidnext: int = 1
    messages: dict[int, Message] = field(default_factory=dict)
    removed: list[Message] = field(default_factory=list)  # what undelete would bring back, by UID


def fold(flags: frozenset[str]) -> frozenset[str]:
    return frozenset(flag if flag.startswith("\\") else flag.lower() for flag in flags)


class Keeping(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.stores = [Store.open(self.root), Store.open(self.root)]
        self.stores[0].directory.add("ann")
        self.accounts = [store.account("ann") for store in self.stores]
        boxes = self.accounts[0].mailboxes()
        self.model = {box.name: Box(box.uidvalidity) for box in boxes}
        self.ids = {box.name: box.id for box in boxes}
        self.validities = {box.uidvalidity for box in boxes}
        self.past: list[tuple[int, str, int, dict[int, frozenset[str]]]] = []
        for account in self.accounts:
            for box in boxes[:3]:
                account.index(box.id)

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        shutil.rmtree(self.root)

    def id(self, name: str) -> int:
        return self.ids.get(name, 999)

    # ---- messages

    @rule(side=SIDES, name=NAMES, content=st.integers(0, 3), jump=st.integers(-1, 3))
    def append_with_a_uid(self, side: int, name: str, *, content: int, jump: int) -> None:
        """As a migration does; a UID that was given already is refused."""
        if name not in self.model:
            return
        box = self.model[name]
        uid = box.uidnext + jump
        with self.accounts[side].transaction() as tx:
            if jump < 0:
                with pytest.raises(NotAllowed):
                    tx.append(self.id(name), CONTENTS[content], uid=uid)
                return
            assert tx.append(self.id(name), CONTENTS[content], uid=uid, internaldate=5).uid == uid
        box.uidnext = uid
        self.place(name, Message(content, frozenset(), 5))

    @rule(side=SIDES, name=NAMES, uidnext=st.integers(1, 12))
    def raise_uidnext(self, side: int, name: str, uidnext: int) -> None:
        if name not in self.model:
            return
        with self.accounts[side].transaction() as tx:
            tx.set_uidnext(self.id(name), uidnext)
        self.model[name].uidnext = max(self.model[name].uidnext, uidnext)

    @rule(
        side=SIDES, name=NAMES, content=st.integers(0, 3), flags=FLAGS, date=st.integers(0, 2**31), fail=st.booleans()
    )
    def append(self, side: int, name: str, *, content: int, flags: frozenset[str], date: int, fail: bool) -> None:
        account = self.accounts[side]
        if name not in self.model:
            with pytest.raises(MailboxMissing), account.transaction() as tx:
                tx.append(self.id(name), CONTENTS[content])
            return
        if fail:
            with pytest.raises(ZeroDivisionError), account.transaction() as tx:
                tx.append(self.id(name), CONTENTS[content], flags=flags | {f"K{content}"}, internaldate=date)
                raise ZeroDivisionError
            return
        with account.transaction() as tx:
            appended = tx.append(self.id(name), CONTENTS[content], flags=flags, internaldate=date)
        box = self.model[name]
        assert (appended.uid, appended.uidvalidity, appended.fresh) == (box.uidnext, box.uidvalidity, True)
        self.place(name, Message(content, fold(flags), date))

    def place(self, name: str, message: Message) -> int:
        box = self.model[name]
        box.messages[box.uidnext] = replace(message)
        box.uidnext += 1
        return box.uidnext - 1

    @rule(side=SIDES, source=NAMES, goal=NAMES, uids=UIDS, moving=st.booleans())
    def copy_or_move(self, side: int, source: str, goal: str, uids: list[int], moving: bool) -> None:
        known = source in self.model and goal in self.model
        with self.accounts[side].transaction() as tx:
            work = tx.move if moving else tx.copy
            if not known:
                with pytest.raises(MailboxMissing):
                    work(self.id(source), uids, self.id(goal))
                return
            pairs = work(self.id(source), uids, self.id(goal))
        here = self.model[source]
        expected = []
        for uid in sorted(set(uids) & set(here.messages)):
            expected.append((uid, self.place(goal, here.messages[uid])))
            if moving:
                del here.messages[uid]
        assert pairs == expected

    @rule(side=SIDES, name=NAMES, uids=UIDS, mode=st.sampled_from("=+-"), flags=FLAGS)
    def store_flags(self, side: int, name: str, uids: list[int], mode: str, flags: frozenset[str]) -> None:
        if name not in self.model:
            return
        with self.accounts[side].transaction(durable=False) as tx:
            result = tx.store_flags(self.id(name), uids, mode, flags)  # type: ignore[arg-type]
        changed = []
        for uid in sorted(set(uids) & set(self.model[name].messages)):
            message, given = self.model[name].messages[uid], fold(flags)
            new = {"=": given, "+": message.flags | given, "-": message.flags - given}[mode]
            if new != message.flags:
                changed.append(uid)
            message.flags = new
        assert (result.changed, result.modified) == (changed, [])

    @rule(side=SIDES, name=NAMES, uids=st.none() | UIDS, only_deleted=st.booleans())
    def expunge(self, side: int, name: str, uids: list[int] | None, only_deleted: bool) -> None:
        if name not in self.model:
            return
        with self.accounts[side].transaction() as tx:
            gone = tx.expunge(self.id(name), uids, only_deleted=only_deleted)
        box = self.model[name]
        expected = [
            uid
            for uid, message in box.messages.items()
            if (uids is None or uid in uids) and (not only_deleted or DELETED in message.flags)
        ]
        assert gone == expected
        self.remove(box, expected)

    def remove(self, box: Box, uids: list[int]) -> None:
        for uid in uids:
            message = box.messages.pop(uid)
            box.removed.append(replace(message, flags=message.flags - {DELETED}))

    @rule(side=SIDES, name=NAMES)
    def undelete(self, side: int, name: str) -> None:
        if name not in self.model:
            return
        box = self.model[name]
        with self.accounts[side].transaction() as tx:
            assert tx.undelete(self.id(name), since=None) == len(box.removed)
        contents = [message.content for message in box.removed]
        uids = range(box.uidnext, box.uidnext + len(contents))
        box.removed, removed = [], box.removed
        # Which UID each gets follows the old UIDs; the model keeps the order of removal, so it asks.
        rows = self.accounts[side].fetch(self.id(name), list(uids), ("uid", "internaldate", "sha256"))
        assert len(rows) == len(contents)
        for uid, date, sha256 in rows:
            at = next(
                number
                for number, message in enumerate(removed)
                if message.date == date
                and CONTENTS[message.content].sha256 == sha256
                and message.flags == self.flags(self.accounts[side], self.id(name), uid)
            )
            assert self.place(name, removed.pop(at)) == uid

    @staticmethod
    def flags(account: Account, mailbox: int, uid: int) -> frozenset[str]:
        [(_, flags)] = account.fetch(mailbox, [uid], ("uid", "flags"))
        return fold(account.flagset(flags).flags)

    # ---- mailboxes

    def learn(self, name: str) -> None:
        """A mailbox was made."""
        made = self.accounts[0].mailbox(name)
        assert made.uidvalidity not in self.validities, "a UIDVALIDITY came twice"
        assert made.id not in self.ids.values()
        self.validities.add(made.uidvalidity)
        self.model[name], self.ids[name] = Box(made.uidvalidity), made.id

    @rule(side=SIDES, name=NAMES)
    def create(self, side: int, name: str) -> None:
        name = name.replace("inbox", "INBOX")
        with self.accounts[side].transaction() as tx:
            if name in self.model:
                with pytest.raises(MailboxExists):
                    tx.create_mailbox(name)
                return
            tx.create_mailbox(name)
        for made in self.missing(name):
            self.learn(made)

    def missing(self, name: str) -> list[str]:
        levels = name.split("/")
        return [path for depth in range(len(levels)) if (path := "/".join(levels[: depth + 1])) not in self.model]

    @rule(side=SIDES, name=NAMES, uidvalidity=st.integers(1, 9))
    def create_with_a_uidvalidity(self, side: int, name: str, uidvalidity: int) -> None:
        """As a migration does: one that never had a message is replaced."""
        name = name.replace("inbox", "INBOX")
        there = self.model.get(name)
        with self.accounts[side].transaction() as tx:
            if there is not None and (there.uidnext > 1 or there.uidvalidity == uidvalidity):
                with pytest.raises(MailboxExists):
                    tx.create_mailbox(name, uidvalidity=uidvalidity)
                return
            assert tx.create_mailbox(name, uidvalidity=uidvalidity).uidvalidity == uidvalidity
        for made in self.missing(name)[:-1] if there is None else ():
            self.learn(made)
        self.model[name], self.ids[name] = Box(uidvalidity), self.accounts[side].mailbox(name).id

    @rule(side=SIDES, name=NAMES)
    def delete(self, side: int, name: str) -> None:
        name = name.replace("inbox", "INBOX")
        with self.accounts[side].transaction() as tx:
            if name == "INBOX" or name not in self.model:
                with pytest.raises((NotAllowed, MailboxMissing)):
                    tx.delete_mailbox(name)
                return
            tx.delete_mailbox(name)
        del self.model[name], self.ids[name]

    @rule(side=SIDES, old=NAMES, new=NAMES)
    def rename(self, side: int, old: str, new: str) -> None:
        old, new = old.replace("inbox", "INBOX"), new.replace("inbox", "INBOX")
        moving = [name for name in self.model if name == old or name.startswith(old + "/")]
        targets = {new + name[len(old) :] for name in moving}
        with self.accounts[side].transaction() as tx:
            if new in self.model or (
                old != "INBOX" and (not moving or targets & set(self.model) or new.startswith(old + "/"))
            ):
                with pytest.raises((MailboxExists, MailboxMissing, NotAllowed)):
                    tx.rename_mailbox(old, new)
                return
            tx.rename_mailbox(old, new)
        if old == "INBOX":
            for made in self.missing(new):
                self.learn(made)
            for uid in list(self.model["INBOX"].messages):
                self.place(new, self.model["INBOX"].messages.pop(uid))
            return
        for made in self.missing(new)[:-1]:
            self.learn(made)
        for name in sorted(moving):
            renamed = new + name[len(old) :]
            self.model[renamed], self.ids[renamed] = self.model.pop(name), self.ids.pop(name)

    # ---- what must hold

    @rule(side=SIDES)
    def reopen(self, side: int) -> None:
        self.stores[side].close()
        self.stores[side] = Store.open(self.root)
        self.accounts[side] = self.stores[side].account("ann")
        for id in self.ids.values():
            self.accounts[side].index(id)

    @rule()
    def remember(self) -> None:
        for name, box in self.model.items():
            flags = {uid: message.flags for uid, message in box.messages.items()}
            self.past.append((self.accounts[0].mailbox(name).highestmodseq, name, self.ids[name], flags))

    @precondition(lambda self: self.past)
    @rule(data=st.data())
    def changes_lead_from_then_to_now(self, data: st.DataObject) -> None:
        modseq, name, id, flags = data.draw(st.sampled_from(self.past))
        if self.ids.get(name) != id:
            return
        account = self.accounts[0]
        changes = account.changes(id, modseq)
        assert changes.complete
        then = {uid: held for uid, held in flags.items() if uid not in changes.vanished}
        then.update((uid, fold(account.flagset(flagset).flags)) for uid, flagset, _ in changes.changed)
        assert then == {uid: message.flags for uid, message in self.model[name].messages.items()}
        assert not set(changes.vanished) & set(self.model[name].messages)

    @invariant()
    def both_show_what_the_model_holds(self) -> None:
        for account in self.accounts:
            account.refresh()
            boxes = account.mailboxes()
            assert {box.name for box in boxes} == set(self.model)
            for box in boxes:
                self.check_box(account, box.name)

    def check_box(self, account: Account, name: str) -> None:
        held = self.model[name]
        box = account.mailbox(name)
        messages = held.messages
        assert (box.id, box.uidvalidity, box.uidnext) == (self.ids[name], held.uidvalidity, held.uidnext)
        assert box.messages == len(messages)
        assert box.unseen == sum(SEEN not in message.flags for message in messages.values())
        assert box.deleted == sum(DELETED in message.flags for message in messages.values())
        assert box.size == sum(CONTENTS[message.content].size for message in messages.values())
        index = account.index(box.id)
        assert index.uids.tolist() == list(messages)
        assert [fold(account.flagset(id).flags) for id in index.flags] == [m.flags for m in messages.values()]
        assert (index.uidnext, index.uidvalidity) == (box.uidnext, box.uidvalidity)
        assert len(index.flags) == len(index.modseqs) == len(index.uids)
        account.release(index)
        columns = ("uid", "internaldate", "sha256", "email", "modseq")
        rows = account.fetch(box.id, list(messages), columns)
        checksum = 0
        for (uid, date, sha256, email, modseq), message, known in zip(
            rows, messages.values(), index.modseqs, strict=True
        ):
            assert (date, sha256, modseq) == (message.date, CONTENTS[message.content].sha256, known)
            assert account.read(email) == CONTENTS[message.content].data()
            checksum ^= checksum_term(uid, sha256)
        db = account.connect()
        try:
            assert select(db, "SELECT checksum FROM mailbox WHERE id = ?", (box.id,)) == [(checksum,)]
        finally:
            db.close()


TestKeeping = Keeping.TestCase
TestKeeping.settings = settings(
    max_examples=1000 if os.environ.get("MAILKEEP_TORTURE") == "full" else 25, stateful_step_count=30, deadline=None
)
