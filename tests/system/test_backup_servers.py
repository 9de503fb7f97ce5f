"""The backup against real servers: Dovecot, Courier and our own, message for message, over every command and door.

Each is filled and read by the standard library's client, so that nothing of ours judges itself.
"""

import itertools
import json
import os
import poplib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mailkeep.store.store import Store
from tests.backup.archive import Source
from tests.backup.targets import Login, contents, without_empty
from tests.backup.targets import fill as put_here
from tests.courier import Courier
from tests.dovecot import Dovecot
from tests.messages import bulk, numbered, ugly
from tests.server import Server, run_command
from tests.system.torture.scenes import Contents, add_remote, look, without_gone

USERS = itertools.count(1)
FILLED: dict[str, Login] = {}
UGLY = [data for _, data in ugly()][::2]
EACH = 3  # messages in each folder


@dataclass
class Other:
    """A server that mail is pulled from and pushed to."""

    kind: str
    server: Any
    pop3: int | None = None
    separator: str = "/"
    prefix: str = ""

    def new(self) -> Login:
        """A user that nobody has used."""
        user = f"servers{os.getpid()}-{next(USERS)}@example.org"
        if isinstance(self.server, Server):
            self.server.add_user(user, "secret")
            return Login(self.server.port("imap"), user, "secret")
        port = self.server.port if isinstance(self.server, Courier) else self.server.imap
        return Login(port, user, self.server.password)

    def named(self, ours: str) -> str:
        """What a mailbox of ours is called there."""
        return ours if ours == "INBOX" else self.prefix + ours.replace("/", self.separator)

    def ours(self, theirs: str) -> str:
        return theirs if theirs == "INBOX" else theirs.removeprefix(self.prefix).replace(self.separator, "/")

    def contents(self, login: Login) -> Contents:
        """All that a user has there, by our names; in the shape of `look`."""
        return without_empty({self.ours(name): counted for name, counted in contents(login).items()})

    def filled(self) -> Login:
        """A user with mail that no test changes."""
        if self.kind not in FILLED:
            FILLED[self.kind] = self.new()
            fill(self, FILLED[self.kind])
        return FILLED[self.kind]


@pytest.fixture(autouse=True)
def long_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poplib, "_MAXLINE", 1 << 20)  # ugly mail has longer ones than poplib takes by itself


@pytest.fixture(scope="module")
def courier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Courier]:
    with Courier(tmp_path_factory.mktemp("courier")) as running:
        yield running


@pytest.fixture(scope="module")
def mailkeep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("other") / "data", doors=("imap", "pop3")) as running:
        yield running


@pytest.fixture(params=["dovecot", "courier", "mailkeep"])
def other(request: pytest.FixtureRequest) -> Other:
    server = request.getfixturevalue(request.param)
    if request.param == "courier":
        return Other(request.param, server, separator=".", prefix="INBOX.")
    if request.param == "dovecot":
        return Other(request.param, server, pop3=server.pop3)
    return Other(request.param, server, pop3=server.port("pop3"))


NAMES = ("Work", "Work/2026", "Work/2026/März", "a & b", 'quo"te', "日本語", "Sent", "Leaf")


def fill(other: Other, login: Login) -> None:
    """Folders, flags, keywords and dates that differ; ugly mail among it."""
    with closing(Source(login.port, login.user, login.password)) as source:
        there = {other.ours(name) for name in source.names()}
        for name in NAMES:
            if name not in there:
                source.create(other.named(name))
        source.add("INBOX", UGLY, flags=r"(\Seen $Label1)", date=1_500_000_000)
        source.add("INBOX", [numbered(1), numbered(1)], flags=r"(\Answered \Flagged)")
        for number, name in enumerate(NAMES):
            source.add(other.named(name), bulk(EACH, seed=number), flags="(Work)" if number % 2 else "")
        source.store("INBOX", "1:3", "-FLAGS", r"(\Seen)")


def change(other: Other, login: Login) -> None:
    """What may happen in between: new mail, flags, losses, a folder made, one renamed, one deleted."""
    with closing(Source(login.port, login.user, login.password)) as source:
        source.add("INBOX", [numbered(n) for n in range(50, 55)], flags=r"(\Draft)", date=1_650_000_000)
        source.store("INBOX", "5:9", "+FLAGS", r"(\Flagged $Done)")
        source.store("INBOX", "10:12", "-FLAGS", r"(\Seen $Label1)")
        source.expunge("INBOX", "13,15:16")
        source.create(other.named("Fresh"))
        source.add(other.named("Fresh"), [numbered(n) for n in range(70, 73)])
        # Of one with others below it Courier says "Fatal error".
        source._ok(source.client.rename(other.named("Leaf"), '"' + other.named("Old leaf") + '"'))
        source._ok(source.client.delete('"' + other.named("a & b").replace("&", "&-") + '"'))


def done(*arguments: str, root: Path, code: int = 0) -> dict[str, Any]:
    """What a command says of its end."""
    run = run_command(*arguments, "--json", "--data", str(root), check=False)
    assert run.returncode == code, run.stdout + run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    return dict((found.get("remotes") or [found])[0])


def test_pull_again_and_again_is_what_the_server_has(other: Other, tmp_path: Path) -> None:
    login, root = other.new(), tmp_path / "store"
    fill(other, login)
    add_remote(root, "there", "ann", login)
    first = done("pull", "there", root=root)
    assert first["equal"] and first["fetched"] == len(UGLY) + 2 + EACH * len(NAMES)
    assert look(root, "ann") == other.contents(login)
    assert done("pull", "there", root=root)["fetched"] == 0
    change(other, login)
    second = done("pull", "there", root=root)
    # Courier gives all mailboxes that are made in one second one UIDVALIDITY, and who is renamed may be another then.
    assert second["equal"] and second["fetched"] - 8 in ((0, EACH) if other.kind == "courier" else (0,)), second
    found = look(root, "ann")
    assert without_gone(found) == other.contents(login)
    kept = Counter(data for _, _, data in found["INBOX"].elements())
    assert sum(kept.values()) == len(UGLY) + 2 + 5, "what was expunged stays"
    assert [sorted(flags) for flags, _, _ in found["a & b"]] == [["$Gone", "Work"]] * EACH
    assert done("pull", "there", root=root)["fetched"] == 0
    assert run_command("verify", "--data", str(root)).returncode == 0
    against = run_command("verify", "--against-server", "there", "--data", str(root), check=False)
    assert against.returncode == 0, against.stdout + against.stderr


def test_push_puts_it_back_and_once(other: Other, tmp_path: Path) -> None:
    login, back, root = other.filled(), other.new(), tmp_path / "store"
    add_remote(root, "there", "ann", login)
    done("pull", "there", root=root)
    add_remote(root, "back", "spare", back)
    pushed = done("push", "ann", "back", root=root)
    assert pushed["equal"], pushed
    assert other.contents(back) == other.contents(login)
    again = done("push", "ann", "back", root=root)
    assert again["equal"] and again["copied"] == 0
    assert other.contents(back) == other.contents(login)


def test_migrate_from_one_to_the_next(other: Other, tmp_path: Path, dovecot: Dovecot) -> None:
    """From each of them to Dovecot, where names, flags, dates and bytes are then the same."""
    login, root = other.filled(), tmp_path / "store"
    target = Other("dovecot", dovecot)
    new = target.new()
    add_remote(root, "old", "ann", login)
    add_remote(root, "new", "bob", new)
    moved = done("migrate", "old", "new", root=root)
    assert moved["equal"], moved
    assert target.contents(new) == other.contents(login)
    again = done("migrate", "old", "new", root=root)
    assert again["equal"] and again["push"]["copied"] == 0, again
    assert target.contents(new) == other.contents(login)


@pytest.mark.parametrize("leave", ["keep", "verified"])
def test_pop3_brings_the_maildrop(other: Other, tmp_path: Path, leave: str) -> None:
    if other.pop3 is None:
        pytest.skip("Courier's POP3 server is a package of its own")
    login, root = other.new(), tmp_path / "store"
    with closing(Source(login.port, login.user, login.password)) as source:
        source.add("INBOX", [*bulk(20), *(data for data in UGLY if data.endswith(b"\r\n"))])
    before = maildrop(other.pop3, login)
    add_remote(root, "there", "ann", Login(other.pop3, login.user, login.password), protocol="pop3", leave=leave)
    first = done("pull", "there", root=root)
    assert first["equal"] and first["fetched"] == sum(before.values())
    assert bodies_of(look(root, "ann")) == before
    assert maildrop(other.pop3, login) == (before if leave == "keep" else Counter())
    with closing(Source(login.port, login.user, login.password)) as source:
        source.add("INBOX", [numbered(5)])
    assert done("pull", "there", root=root)["fetched"] == 1
    assert bodies_of(look(root, "ann")) == before + Counter([numbered(5)])


def test_the_archive_is_a_mailbox_at_every_door(other: Other, tmp_path: Path) -> None:
    login, root = other.filled(), tmp_path / "store"
    add_remote(root, "there", "ann", login)
    done("pull", "there", root=root)
    run_command("user", "passwd", "ann", "--password-stdin", "--data", str(root), stdin="mine\n")
    with Server(root, doors=("imap", "pop3")) as server:
        archive = Login(server.port("imap"), "ann", "mine")
        assert Other("mailkeep", server).contents(archive) == other.contents(login)
        there = other.contents(login)["INBOX"]
        in_lines = Counter(ended(data) for _, _, data in there.elements())
        assert maildrop(server.port("pop3"), archive) == in_lines


def bodies_of(contents: Contents) -> "Counter[bytes]":
    return Counter(data for _, _, data in contents["INBOX"].elements())


def ended(data: bytes) -> bytes:
    """As POP3 says it, whose last line always has an end."""
    return data if data.endswith(b"\r\n") else data + b"\r\n"


def maildrop(port: int, login: Login) -> "Counter[bytes]":
    """What a POP3 client finds."""
    client = poplib.POP3("127.0.0.1", port)
    try:
        client.user(login.user)
        client.pass_(login.password)
        count, _ = client.stat()
        return Counter(b"".join(line + b"\r\n" for line in client.retr(n)[1]) for n in range(1, count + 1))
    finally:
        client.quit()


def test_sync_makes_both_sides_the_same(other: Other, tmp_path: Path) -> None:
    login, root = other.new(), tmp_path / "store"
    fill(other, login)
    add_remote(root, "there", "ann", login)
    assert done("sync", "there", root=root)["equal"]
    assert look(root, "ann") == other.contents(login)
    change(other, login)
    work_here(root)
    both = done("sync", "there", root=root)
    assert both["equal"], both
    there = other.contents(login)
    assert look(root, "ann") == there
    assert {data for _, _, data in there["Mine"]} == {numbered(n) for n in range(410, 414)}
    assert numbered(400) in {data for _, _, data in there["INBOX"]}, "what was written here is there"
    assert "a & b" not in there and "Old leaf" in there
    again = done("sync", "there", root=root)
    assert again["equal"] and again["fetched"] == again["uploaded"] == 0
    assert other.contents(login) == there


def work_here(root: Path) -> None:
    """What the owner does without a connection."""
    with closing(Store.open(root)) as store:
        account = store.account("ann")
        inbox, sent = account.mailbox("INBOX"), account.mailbox("Sent")
        uids = list(account.snapshot(inbox.id).uids)
        put_here(account, "INBOX", [numbered(400), numbered(401)])
        put_here(account, "Mine", [numbered(n) for n in range(410, 414)])
        with account.transaction() as transaction:
            transaction.store_flags(inbox.id, uids[20:23], "+", frozenset({"\\Flagged", "Mine"}))
            transaction.expunge(inbox.id, uids[24:26], only_deleted=False)
            transaction.move(inbox.id, uids[27:28], sent.id)
