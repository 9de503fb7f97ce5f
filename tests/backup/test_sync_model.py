"""Two sides that change at will, and lines that are cut: in the end both are the same, nothing twice, nothing lost.

Ours changes through the store, theirs is a scripted server. A message is known by its content, and each that is made is
another one, so the model can say of every one where it may be: on both sides, once; or nowhere, and then somebody must
have removed it.
"""

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mailkeep.mail.flags import Flags
from mailkeep.testing import Break, Faulty
from mailkeep.testing.faults import FULL
from tests.backup.two_sides import DEFAULTS, Here

FOLDERS = ("INBOX", "Work", "Work/2026", "Lists")
FLAGS = ("\\Seen", "\\Flagged", "\\Answered", "$Later", "Work")
KINDS = {
    "all": FULL,
    "no CONDSTORE": tuple(name for name in FULL if name not in ("CONDSTORE", "QRESYNC")),
    "no MOVE": tuple(name for name in FULL if name != "MOVE"),
    "no UIDPLUS": tuple(name for name in FULL if name not in ("UIDPLUS", "MOVE", "CONDSTORE", "QRESYNC")),
}
COMMANDS = (
    *(rb"APPEND", rb"STORE", rb"EXPUNGE", rb"MOVE|COPY", rb"FETCH", rb"SELECT"),
    *(rb"CREATE|RENAME|DELETE", rb"LIST", rb"."),
)


def body(number: int, *, named: bool) -> bytes:
    """Each another one; some without a Message-ID, which only their bytes tell."""
    head = f"Message-ID: <{number}@example.org>\r\n" if named else ""
    return f"From: a@example.org\r\nSubject: {number}\r\n{head}\r\nText {number}\r\n".encode()


def number_of(data: bytes) -> int:
    return int(data.split(b"Subject: ")[1].split(b"\r\n")[0])


class TwoSides(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="sync-"))
        self.server: Faulty | None = None
        self.count = 0
        self.removed: set[int] = set()  # somebody, on whatever side, removed it or its folder

    @initialize(kind=st.sampled_from(sorted(KINDS)))
    def begin(self, kind: str) -> None:
        self.server = Faulty(capabilities=KINDS[kind])
        self.server.__enter__()
        self.here = Here(self.root / "store", self.server.port, user=self.server.user, password=self.server.password)

    def teardown(self) -> None:
        if self.server is not None:
            self.here.close()
            self.server.__exit__(None, None, None)
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def there(self) -> Faulty:
        assert self.server is not None
        return self.server

    # ---- what somebody does here

    def _mailboxes(self) -> list[str]:
        return [name for name in sorted(self.here.names()) if name not in DEFAULTS]

    def _pick(self, data: st.DataObject) -> tuple[str, int] | None:
        """A message here: (mailbox, UID)."""
        found = [(name, uid) for name in self._mailboxes() for uid in self.here.uids(name)]
        return data.draw(st.sampled_from(found)) if found else None

    @rule(data=st.data(), flags=st.frozensets(st.sampled_from(FLAGS)), named=st.booleans())
    def add_here(self, data: st.DataObject, flags: Flags, named: bool) -> None:
        self.count += 1
        name = data.draw(st.sampled_from(self._mailboxes()))
        self.here.add(name, body(self.count, named=named), flags=flags, date=1_600_000_000 + self.count % 3)

    @rule(data=st.data(), flag=st.sampled_from(FLAGS), mode=st.sampled_from("+-"))
    def flag_here(self, data: st.DataObject, flag: str, mode: str) -> None:
        picked = self._pick(data)
        if picked:
            self.here.flag(*picked, mode, flag)

    @rule(data=st.data())
    def remove_here(self, data: st.DataObject) -> None:
        picked = self._pick(data)
        if picked:
            name, uid = picked
            self.removed.add(self._number_here(name, uid))
            self.here.expunge(name, uid)

    def _number_here(self, name: str, uid: int) -> int:
        ((_, email),) = self.here.account.fetch(self.here.id(name), [uid], ("uid", "email"))
        return number_of(self.here.account.read(email))

    @rule(data=st.data())
    def move_here(self, data: st.DataObject) -> None:
        picked = self._pick(data)
        if picked:
            self.here.move(*picked, data.draw(st.sampled_from(self._mailboxes())))

    @rule(name=st.sampled_from(FOLDERS[1:]))
    def create_here(self, name: str) -> None:
        if name not in self.here.names():
            self.here.create(name)

    @rule(name=st.sampled_from(FOLDERS[1:]), new=st.sampled_from(("Old", "Work/Old", "Lists")))
    def rename_here(self, name: str, new: str) -> None:
        names = self.here.names()
        if name in names and new not in names and not new.startswith(f"{name}/"):
            with self.here.account.transaction() as tx:
                tx.rename_mailbox(name, new)

    @rule(name=st.sampled_from((*FOLDERS[1:], "Old")))
    def delete_here(self, name: str) -> None:
        if name in self.here.names():
            self.removed |= {self._number_here(name, uid) for uid in self.here.uids(name)}
            with self.here.account.transaction() as tx:
                tx.delete_mailbox(name)

    # ---- what somebody does there

    def _pick_there(self, data: st.DataObject) -> tuple[str, int] | None:
        found = [(name, message.uid) for name, box in sorted(self.there.mailboxes.items()) for message in box]
        return data.draw(st.sampled_from(found)) if found else None

    @rule(data=st.data(), flags=st.frozensets(st.sampled_from(FLAGS)), named=st.booleans())
    def add_there(self, data: st.DataObject, flags: Flags, named: bool) -> None:
        self.count += 1
        name = data.draw(st.sampled_from(sorted(self.there.mailboxes)))
        box = self.there.mailboxes[name]
        box.add(body(self.count, named=named), flags=flags, date=1_600_000_000 + self.count % 3)

    @rule(data=st.data(), flag=st.sampled_from(FLAGS), on=st.booleans())
    def flag_there(self, data: st.DataObject, flag: str, on: bool) -> None:
        picked = self._pick_there(data)
        if picked:
            box = self.there.mailboxes[picked[0]]
            flags = box.messages[picked[1]].flags
            box.set_flags(picked[1], flags | {flag} if on else flags - {flag})

    @rule(data=st.data())
    def remove_there(self, data: st.DataObject) -> None:
        picked = self._pick_there(data)
        if picked:
            box = self.there.mailboxes[picked[0]]
            self.removed.add(number_of(box.messages[picked[1]].data))
            box.remove(picked[1])

    @rule(data=st.data())
    def move_there(self, data: st.DataObject) -> None:
        picked = self._pick_there(data)
        if picked:
            box = self.there.mailboxes[picked[0]]
            target = self.there.mailboxes[data.draw(st.sampled_from(sorted(self.there.mailboxes)))]
            message = box.messages[picked[1]]
            box.remove(picked[1])
            target.add(message.data, flags=message.flags, date=message.mail.date)

    @rule(name=st.sampled_from(FOLDERS[1:]))
    def create_there(self, name: str) -> None:
        if name not in self.there.mailboxes:
            self.there.create(name)

    @rule(name=st.sampled_from(FOLDERS[1:]), new=st.sampled_from(("Old", "Work/Old", "Lists")))
    def rename_there(self, name: str, new: str) -> None:
        names = self.there.mailboxes
        clash = any(f"{new}{each[len(name) :]}" in names for each in names if each.startswith(f"{name}/"))
        if name in names and new not in names and not new.startswith(f"{name}/") and not clash:
            self.there.account.rename(name, new, "/")

    @rule(name=st.sampled_from((*FOLDERS[1:], "Old")))
    def delete_there(self, name: str) -> None:
        if name in self.there.mailboxes:
            self.removed |= {number_of(message.data) for message in self.there.mailboxes[name]}
            self.there.account.delete(name)

    @rule(name=st.sampled_from(("INBOX", "Work")))
    def renumber(self, name: str) -> None:
        if name in self.there.mailboxes:
            self.there.mailboxes[name].renumber()

    # ---- runs

    @rule(
        at=st.sampled_from(COMMANDS),
        nth=st.integers(1, 6),
        when=st.sampled_from(("before", "middle", "after")),
    )
    def cut(self, at: bytes, nth: int, when: str) -> None:
        """A run whose line is cut for good at some command."""
        self.there.change(breaks=(Break(at, nth=nth, when=when, times=None),))  # type: ignore[arg-type]
        try:
            self.here.sync()
        finally:
            self.there.change(breaks=())

    @rule()
    def sync(self) -> None:
        report = self.here.sync(allow_mass=True)
        assert report.equal, report.facts()
        ours = self.here.contents()
        theirs = {
            name: {(message.data, message.mail.date, frozenset(message.flags)) for message in box}
            for name, box in self.there.mailboxes.items()
            if len(box)
        }
        assert {name: set(counted) for name, counted in ours.items()} == theirs
        seen = [number_of(data) for counted in ours.values() for data, _, _ in counted.elements()]
        assert sum(map(len, self.there.mailboxes.values())) == len(seen)
        twice = {number for number in seen if seen.count(number) > 1}
        assert not twice - self.removed, f"twice: {twice}"
        lost = set(range(1, self.count + 1)) - set(seen)
        assert lost <= self.removed, f"lost: {lost - self.removed}"
        folders = {name for name in self.here.names() if name not in DEFAULTS}
        assert folders == set(self.there.mailboxes) - set(DEFAULTS), report.facts()
        quiet = self.here.sync()
        assert quiet.equal
        assert not any(quiet.total(name) for name in ("fetched", "uploaded", "removed_here", "removed_there"))

    @invariant()
    def nothing_is_lost_on_both_sides(self) -> None:
        if self.server is None:
            return
        seen = {number_of(data) for counted in self.here.contents().values() for data, _, _ in counted}
        seen |= {number_of(message.data) for box in self.there.mailboxes.values() for message in box}
        assert set(range(1, self.count + 1)) - seen <= self.removed


FULL_FORM = os.environ.get("MAILKEEP_TORTURE") == "full"
TwoSides.TestCase.settings = settings(
    max_examples=400 if FULL_FORM else 12,
    stateful_step_count=40 if FULL_FORM else 25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestTwoSides = TwoSides.TestCase
