"""Runs of the backup that can be had again and again, from the same beginning: what is here, what is there, and what
must be so in the end.

A scene makes a server in memory and a store beside it, says which command is given, and after that whether nothing is
lost and nothing there twice. `Stage` plays one: each time with a fresh server on the same port and a fresh copy of the
store. What is compared are messages with their bytes, flags, dates and mailboxes, on both sides.
"""

import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from mailkeep.backup import seal
from mailkeep.backup.settings import Settings, pack
from mailkeep.store.store import Store
from mailkeep.testing import Break, Faulty, Proxy
from mailkeep.testing.state import State
from tests.backup.targets import Login, Message, contents_of_faulty, fill, without_empty
from tests.messages import bulk, numbered, ugly
from tests.steps import Nursery, Run

Contents = dict[str, Counter[Message]]
START = 1_600_000_000
FLAGS: tuple[tuple[str, ...], ...] = (
    (),
    ("\\Seen",),
    ("\\Seen", "\\Answered", "$Forwarded"),
    ("\\Flagged", "Work"),
    (),
)

# Few messages make many batches, and waits take no time.
TUNE = """
import asyncio, time, types
from mailkeep.backup import books, imap_bodies, pop3_pull, pull_folder, push, sync
pull_folder.BATCH_MESSAGES = pop3_pull.BATCH_MESSAGES = 4
books.STEP = 3
passed = [0.0]
async def sleep(seconds):
    passed[0] += seconds
    await asyncio.sleep(0)
def now():
    return time.time() + passed[0]
imap_bodies.Clock.__init__.__defaults__ = (now, sleep)
push.time = types.SimpleNamespace(time=now, monotonic=time.monotonic)
push.Push._pause = lambda self, seconds: sleep(seconds)
pop3_pull.PAUSE_S = push.WAIT_FIRST_S = sync.WAIT_FIRST_S = 0.0
"""


def put(server: Faulty, mailbox: str, messages: list[bytes], *, start: int = START) -> None:
    """With flags and dates that differ."""
    if mailbox not in server.mailboxes:
        server.create(mailbox)
    for number, data in enumerate(messages):
        flags = FLAGS[number % len(FLAGS)] if server.faults.keywords else ("\\Seen",) * (number % 2)
        server.mailboxes[mailbox].add(data, flags=flags, date=start + 61 * number)


def look(root: Path, account: str) -> Contents:
    """All that is in an account, also what is out of sight. `$Gone` is among the flags."""
    store = Store.open(root)
    try:
        here = store.account(account)
        found = {}
        for box in here.mailboxes(hidden=True):
            rows = here.fetch(box.id, here.snapshot(box.id).uids, ("uid", "flags", "internaldate", "email"))
            counted = Counter(
                (frozenset(here.flagset(flags).flags), date, here.read(email)) for _, flags, date, email in rows
            )
            if counted:
                found[box.name] = counted
        return found
    finally:
        store.close()


def without_gone(contents: Contents) -> Contents:
    """What is here and there."""
    return without_empty(
        {
            name: Counter({each: count for each, count in counted.items() if "$Gone" not in each[0]})
            for name, counted in contents.items()
        }
    )


def contents_there(server: Faulty) -> Contents:
    """All that a server has."""
    return without_empty(contents_of_faulty(server))


def bodies(contents: Contents) -> "Counter[bytes]":
    return Counter(data for counted in contents.values() for _, _, data in counted.elements())


def add_remote(root: Path, name: str, account: str, login: Login, **settings: Any) -> None:
    """A remote with its password sealed; the account is made if there is none."""
    store = Store.open(root)
    try:
        info = store.directory.find(account) or store.directory.add(account)
        chosen = {"protocol": "imap", "tls": "none", **settings}
        made = Settings(host=login.host, port=login.port, user=login.user, **chosen)
        sealed = seal.seal(root, name, seal.Kept(password=login.password))
        store.remotes.add(name, info.id, settings=pack(made), secret=sealed)
    finally:
        store.close()


@dataclass(frozen=True)
class Scene:
    """`there` fills a server; `here` makes the store, and may run commands by `play`; `later` changes the server.

    `arguments` is the command that is put to the test. `judge` compares what is there with what is here in the end.
    """

    name: str
    arguments: tuple[str, ...]
    there: Callable[[Faulty], None]
    here: Callable[["Stage"], None]
    judge: Callable[["Stage"], None]
    later: Callable[[Faulty], None] = lambda server: None
    kind: str = "plain"
    faults: dict[str, Any] = field(default_factory=dict)
    safe: Callable[["Stage"], None] = lambda stage: None  # holds at any moment
    pop3: bool = False
    two: bool = False  # from `server` to `target`

    def __str__(self) -> str:
        return self.name


class Deadly(State):
    """The server's side of a kill: when the nth command has come in, the caller is no more."""

    __slots__ = ("at", "executed", "victim")

    @classmethod
    def of(cls, state: State, victim: Path, *, at: int, executed: bool) -> Self:
        made = cls(**{each.name: getattr(state, each.name) for each in fields(State)})
        made.victim, made.at, made.executed = victim, at, executed
        return made

    def breaks(self, line: bytes) -> Break | None:
        found = super().breaks(line)
        self.counts["deadly"] += 1
        if self.counts["deadly"] == self.at:
            os.kill(int(self.victim.read_text()), signal.SIGKILL)
            return found if self.executed else Break(times=None)
        return found


class Stage:
    """A scene being played. `root` is the store, `server` what is there; both are new after each `set`.

    `far`: the way to the server is a `proxy`, whose line can be cut.
    """

    def __init__(
        self, scene: Scene, nursery: Nursery, place: Path, *, far: bool = False, thorough: bool = True
    ) -> None:
        self.scene, self.nursery = scene, nursery
        self.place = place
        self.root = place / "store"
        self.server = self.target = Faulty()
        self.expected: Contents = {}  # here, after a run that nothing has disturbed
        self.proxy = Proxy(("127.0.0.1", 0))
        self.steps = self.commands = 0
        self.thorough = thorough
        self._ports = (0, 0, 0)
        self.runs = 0

    @property
    def login(self) -> Login:
        """Where the remote of the scene is."""
        return Login(self.proxy.port, self.server.user, self.server.password)

    @contextmanager
    def set(self) -> Iterator[Self]:
        """The beginning: the server as it is before the command."""
        scene, begun = self.scene, self.place / "begun"
        shutil.rmtree(self.root, ignore_errors=True)
        first = not begun.exists()
        if not first:
            shutil.copytree(begun, self.root, symlinks=True)
        # What the server gives out (UIDVALIDITY, UIDs) is the same each time.
        imap, pop3, second = self._ports
        server = Faulty(scene.kind, imap_port=imap, pop3_port=pop3, **scene.faults)
        target = Faulty(imap_port=second) if scene.two else server
        scene.there(server)
        with server, target if scene.two else nullcontext(), self.proxy:
            self.server, self.target = server, target
            self._ports = (server.imap_port, server.pop3_port, target.imap_port)
            self.proxy.to = ("127.0.0.1", server.pop3_port if scene.pop3 else server.imap_port)
            if first:
                scene.here(self)
                shutil.copytree(self.root, begun, symlinks=True)
            scene.later(server)
            target.log.clear()
            yield self

    def deadly(self, number: int, *, executed: bool) -> None:
        """Kill the next run when the server that is written to is given its nth command."""
        victim = self.nursery.place / "pid"
        self.target.state = Deadly.of(self.target.state, victim, at=number, executed=executed)

    def play(self, *arguments: str, at: int = 0, how: Any = "before") -> Run:
        """The command of the scene, or another."""
        self.runs += 1
        chosen = arguments or self.scene.arguments
        return self.nursery.run(self.root, *chosen, "--data", str(self.root), at=at, how=how)

    def whole(self) -> None:
        """Once without a disturbance: what is then is what is to be expected."""
        with self.set():
            run = self.play(*self.scene.arguments, "--json")
            assert run.code == 0, run.out + run.err
            assert run.steps > 10
            self.steps, self.commands = run.steps, len(self.target.log)
            self.expected = look(self.root, "ann")
            self.scene.judge(self)

    def ends_well(self, told: str) -> None:
        """The same command again, and once more: sets are equal, nothing is lost, nothing comes twice."""
        if self.thorough:
            self.sound(told)
        self.scene.safe(self)
        run = self.play(*self.scene.arguments, "--json")
        assert run.code == 0, f"{told}: then it ended with {run.code}: {run.out}{run.err}"
        assert equal_of(run), f"{told}: {run.out}"
        self.compare(told)
        self.sound(told)
        if not self.thorough:
            return
        run = self.play(*self.scene.arguments, "--json")
        assert run.code == 0 and equal_of(run), f"{told}: the third run ended with {run.code}: {run.out}{run.err}"
        assert brought(run) == 0, f"{told}: came once more: {run.out}"
        self.compare(told)

    def compare(self, told: str) -> None:
        found = look(self.root, "ann")
        for name in found.keys() | self.expected.keys():
            here, expected = found.get(name, Counter()), self.expected.get(name, Counter())
            lost, more = expected - here, here - expected
            assert not lost and not more, f"{told}: {name} lacks {short(lost)}, has too many {short(more)}"
        self.scene.judge(self)

    def sound(self, told: str) -> None:
        done = self.play("verify")
        assert done.code == 0, f"{told}: {done.out}{done.err}"


def own(rng: random.Random, scene: Scene) -> random.Random:
    """Each scene's own chance: else all would be struck in the same way."""
    return random.Random(f"{rng.random()} {scene}")


def some(count: int, few: int, rng: random.Random, *, full: bool) -> list[int]:
    """Which of 1 … count: all, or so many, spread evenly and moved by chance."""
    if full:
        return list(range(1, count + 1))
    width = count / few
    return [1 + int(width * (index + rng.random())) for index in range(few)]


def short(messages: "Counter[Message]") -> list[tuple[Any, ...]]:
    return [(count, sorted(flags), date, data[:90]) for (flags, date, data), count in messages.items()][:4]


def equal_of(run: Run) -> bool:
    """What a report of any command says."""
    facts = run.facts
    each = facts.get("remotes") or [facts]
    return all(found["equal"] is True for found in each)


def brought(run: Run) -> int:
    """How many messages went from one side to the other."""
    facts = run.facts
    each = facts.get("remotes") or [facts[part] for part in ("pull", "push") if part in facts] or [facts]
    return sum(int(found.get(way, 0)) for found in each for way in ("fetched", "copied", "uploaded"))


# ---- pull


def _mail(server: Faulty) -> None:
    put(server, "INBOX", [numbered(n) for n in range(14)])
    put(server, "Work/2026", [data for _, data in ugly()[:9]], start=START + 100_000)
    put(server, "Projects", [numbered(200), numbered(200), numbered(201, size=20_000)])


def _here(stage: Stage) -> None:
    add_remote(stage.root, "there", "ann", stage.login)


def _pulled(stage: Stage) -> None:
    _here(stage)
    run = stage.play("pull", "there")
    assert run.code == 0, run.out + run.err


def _same(stage: Stage) -> None:
    """What is not gone is what the server has."""
    assert without_gone(look(stage.root, "ann")) == contents_there(stage.server)


def _changes(server: Faulty) -> None:
    """All that may happen to a mailbox between two runs."""
    inbox, work = server.mailboxes["INBOX"], server.mailboxes["Work/2026"]
    put(server, "INBOX", [numbered(n) for n in range(30, 37)], start=START + 5000)
    for uid in (2, 3, 7):
        inbox.remove(uid)
    for uid in (1, 4, 5, 6):
        inbox.set_flags(uid, {"\\Flagged", "New"})
    work.remove(4)
    work.renumber()
    work.add(numbered(300), date=START)
    server.account.rename("Projects", "Old projects", "/")
    put(server, "Fresh", [numbered(n) for n in range(60, 66)])


def _with_policy(*, hide: bool = False, **settings: str) -> Callable[[Stage], None]:
    def here(stage: Stage) -> None:
        add_remote(stage.root, "there", "ann", stage.login, **settings)
        if hide:
            store = Store.open(stage.root)
            store.directory.set_gone("ann", "hide")
            store.close()
        run = stage.play("pull", "there")
        assert run.code == 0, run.out + run.err

    return here


def _labelled(server: Faulty) -> None:
    put(server, "INBOX", [numbered(n) for n in range(10)])
    put(server, "Work", [numbered(n) for n in range(20, 25)])
    work = server.mailboxes["Work"]
    for message in list(server.mailboxes["INBOX"])[:3]:
        work.place(message.mail)
    put(server, "[Gmail]/Spam", [numbered(40)])


def touch(server: Faulty, message: Any) -> None:
    """Gmail counts another label as a change of the message, wherever it lies."""
    every = server.account.all_mail
    assert every is not None
    every.messages[message.mail.places[every]].modseq = server.account.next_modseq()


def _labels_later(server: Faulty) -> None:
    inbox, work = server.mailboxes["INBOX"], server.mailboxes["Work"]
    one, two, three, four = list(inbox)[3:7]
    inbox.remove(one.uid)
    work.place(two.mail)
    inbox.set_flags(three.uid, {"\\Flagged"})
    for message in (one, two):
        touch(server, message)
    for box, uid in list(four.mail.places.items()):
        box.remove(uid)
    server.mailboxes["[Gmail]/Papierkorb"].place(four.mail)
    put(server, "Fresh", [numbered(n) for n in range(60, 66)])


def _gmail_same(stage: Stage) -> None:
    """Labels as mailboxes, but for those that are no place of a message."""
    views = {"[Gmail]/Markiert", "[Gmail]/Wichtig"}
    there = {name: each for name, each in contents_of_faulty(stage.server).items() if name not in views}
    here = {name: each for name, each in without_gone(look(stage.root, "ann")).items() if name not in views}
    assert here == without_empty(there)


# ---- POP3


def _drop(server: Faulty) -> None:
    # POP3 cannot say that a last line has no end, nor when a message came that has no date.
    odd = [data for _, data in ugly() if data.endswith(b"\r\n") and b"\r\nDate: Tue, 20" in data][:6]
    put(server, "INBOX", [*bulk(11, seed=5), numbered(1), numbered(2, size=9000), *odd])


def _pop3(leave: str) -> Callable[[Stage], None]:
    def here(stage: Stage) -> None:
        add_remote(stage.root, "there", "ann", stage.login, protocol="pop3", leave=leave)

    return here


def _maildrop(stage: Stage) -> "Counter[bytes]":
    return Counter(message.data for message in stage.server.mailboxes["INBOX"])


def _all_of_the_drop() -> "Counter[bytes]":
    server = Faulty("pop3")
    _drop(server)
    return Counter(message.data for message in server.mailboxes["INBOX"])


def _nothing_lost(stage: Stage) -> None:
    """Each message is on one of the sides, and here at most once."""
    here = bodies(look(stage.root, "ann"))
    assert not _all_of_the_drop() - (here | _maildrop(stage)), "a message is on neither side"
    assert not here - _all_of_the_drop(), "a message is here twice"


def _dropped(*, emptied: bool) -> Callable[[Stage], None]:
    def judge(stage: Stage) -> None:
        assert bodies(look(stage.root, "ann")) == _all_of_the_drop()
        assert _maildrop(stage) == (Counter() if emptied else _all_of_the_drop())

    return judge


# ---- push and migrate


def _to_push(stage: Stage) -> None:
    add_remote(stage.root, "there", "spare", stage.login)
    store = Store.open(stage.root)
    store.directory.add("ann")
    account = store.account("ann")
    fill(account, "INBOX", bulk(14, seed=2))
    fill(account, "Work/A", [numbered(n) for n in (1, 2, 2, 3)])
    fill(account, "Sent", [numbered(n) for n in range(20, 25)])
    store.close()


def _pushed(stage: Stage) -> None:
    assert contents_there(stage.server) == look(stage.root, "ann")


def _to_migrate(stage: Stage) -> None:
    _here(stage)
    login = Login(stage.target.imap_port, stage.target.user, stage.target.password)
    add_remote(stage.root, "new", "spare", login)


def _migrated(stage: Stage) -> None:
    assert contents_there(stage.target) == contents_there(stage.server)


# ---- sync


def _mail_below(server: Faulty) -> None:
    """With the mailbox that `sync` would make there for what lies below it."""
    server.create("Work")
    _mail(server)


def _synced(stage: Stage) -> None:
    """Once the same; then the owner works here, without a connection."""
    _here(stage)
    run = stage.play("sync", "there")
    assert run.code == 0, run.out + run.err
    store = Store.open(stage.root)
    account = store.account("ann")
    inbox, projects = account.mailbox("INBOX"), account.mailbox("Projects")
    uids = list(account.snapshot(inbox.id).uids)
    fill(account, "INBOX", [numbered(n) for n in range(400, 406)])
    fill(account, "Mine", [numbered(n) for n in range(410, 414)])
    with account.transaction() as transaction:
        transaction.store_flags(inbox.id, uids[8:11], "+", frozenset({"\\Flagged", "Mine"}))
        transaction.expunge(inbox.id, uids[11:13], only_deleted=False)
        transaction.move(inbox.id, uids[13:14], projects.id)
    store.close()


def _changes_there(server: Faulty) -> None:
    inbox = server.mailboxes["INBOX"]
    put(server, "INBOX", [numbered(n) for n in range(30, 35)], start=START + 5000)
    for uid in (2, 3):
        inbox.remove(uid)
    for uid in (1, 4, 9):
        inbox.set_flags(uid, {"\\Seen", "New"})
    put(server, "Fresh", [numbered(n) for n in range(60, 64)])
    server.account.rename("Work/2026", "Work/Old", "/")


def _both_the_same(stage: Stage) -> None:
    assert contents_there(stage.server) == look(stage.root, "ann")


PULL = ("pull", "there")
SCENES = (
    Scene("first pull", PULL, _mail, _here, _same),
    Scene("pull of changes", PULL, _mail, _pulled, _same, _changes),
    Scene("pull into a mirror", PULL, _mail, _with_policy(gone="mirror"), _same, _changes),
    Scene("pull, gone out of sight", PULL, _mail, _with_policy(hide=True), _same, _changes),
    Scene("first pull of Gmail", PULL, _labelled, _here, _gmail_same, kind="gmail"),
    Scene("pull of Gmail's changes", PULL, _labelled, _pulled, _gmail_same, _labels_later, kind="gmail"),
    Scene(
        "POP3, kept", PULL, _drop, _pop3("keep"), _dropped(emptied=False), kind="pop3", safe=_nothing_lost, pop3=True
    ),
    Scene("POP3, deleted", PULL, _drop, _pop3("delete"), _dropped(emptied=True), safe=_nothing_lost, pop3=True),
    Scene(
        "POP3, verified",
        PULL,
        _drop,
        _pop3("verified"),
        _dropped(emptied=True),
        kind="pop3",
        safe=_nothing_lost,
        pop3=True,
    ),
    Scene("first sync", ("sync", "there"), _mail_below, _here, _both_the_same),
    Scene("sync of changes", ("sync", "there"), _mail_below, _synced, _both_the_same, _changes_there),
    Scene("migrate", ("migrate", "there", "new"), _mail, _to_migrate, _migrated, two=True),
    Scene("push", ("push", "ann", "there"), lambda server: None, _to_push, _pushed),
)
