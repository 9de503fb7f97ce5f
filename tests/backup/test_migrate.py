"""Migration: into Mailkeep with the very numbers that clients know, and from server to server while it is pulled."""

import asyncio
import imaplib
import poplib
import re

import pytest

from mailkeep.backup.context import Context
from mailkeep.backup.migrate import migrate, plan_migration
from mailkeep.backup.migrate_here import Pop3Door, match_uidls, migrate_here
from mailkeep.errors import UsageError
from mailkeep.mail.query import All
from mailkeep.store.account import Account
from mailkeep.store.store import Store
from mailkeep.testing import Break, Faulty
from tests.backup.targets import (
    Login,
    add_remote,
    contents,
    contents_of,
    contents_of_faulty,
    faulty_login,
    subscriptions,
    without_empty,
)
from tests.dovecot import Dovecot
from tests.messages import bulk, numbered

pytestmark = pytest.mark.usefixtures("impatient")
_users = iter(range(1_000_000))


@pytest.fixture
def source(dovecot: Dovecot) -> Login:
    """An account that was lived in: gaps in its UIDs, flags, folders, subscriptions."""
    login = Login(dovecot.imap, f"mover{next(_users)}@example.org", dovecot.password)
    client = login.connect()
    for name in ("Work", "Work/A", "Old"):
        client.create(name)
        client.subscribe(name)
    client.unsubscribe("Old")
    flags = ("", "\\Seen", "\\Seen \\Flagged", "$Forwarded", "\\Answered Project")
    for name, bodies in (("INBOX", bulk(25)), ("Work/A", bulk(12, 3)), ("Sent", [numbered(n) for n in range(5)])):
        for number, body in enumerate(bodies):
            when = imaplib.Time2Internaldate(1_500_000_000 + number * 7200)
            client.append(f'"{name}"', flags[number % 5], when, body)
    for name in ("INBOX", '"Work/A"'):
        client.select(name)
        client.store("2,3,7", "+FLAGS", "\\Deleted")
        client.expunge()
    client.logout()
    return login


def target_account(store: Store, name: str = "new@example.org") -> Account:
    store.directory.add(name)
    return store.account(name)


def numbers(login: Login, folder: str) -> tuple[int, int, list[int]]:
    """UIDVALIDITY, UIDNEXT and all UIDs of a server's folder."""
    client = login.connect()
    _, [line] = client.status(f'"{folder}"', "(UIDVALIDITY UIDNEXT)")
    uidvalidity, uidnext = (int(re.search(rf"{word} (\d+)", line.decode())[1]) for word in ("UIDVALIDITY", "UIDNEXT"))
    client.select(f'"{folder}"', readonly=True)
    _, [found] = client.uid("SEARCH", "ALL")
    client.logout()
    return uidvalidity, uidnext, [int(uid) for uid in found.split()]


def numbers_here(account: Account, name: str) -> tuple[int, int, list[int]]:
    box = account.mailbox(name)
    return box.uidvalidity, box.uidnext, account.search(box.id, All()).tolist()


# ---- into Mailkeep


def test_clients_download_nothing_again(store: Store, source: Login, dovecot: Dovecot) -> None:
    account = target_account(store)
    remote = add_remote(store, "old", account, source)
    door = Pop3Door(dovecot.host, dovecot.pop3, "none")
    report = asyncio.run(migrate_here(Context(store), remote, account, pop3=door))
    assert report.equal, report.facts()
    assert without_empty(contents_of(account)) == without_empty(contents(source))
    for name in ("INBOX", "Work", "Work/A", "Sent", "Old"):
        assert numbers_here(account, name) == numbers(source, name), name
    assert {name for name in account.subscriptions() if name in ("Old", "Work", "Work/A")} == {"Work", "Work/A"}
    assert subscriptions(source) >= {"Work", "Work/A"}
    assert account.mailbox("Sent").special_use == ("\\Sent",)
    client = poplib.POP3(dovecot.host, dovecot.pop3)
    client.user(source.user)
    client.pass_(source.password)
    uidls = [line.split()[1].decode() for line in client.uidl()[1]]
    client.quit()
    inbox = account.mailbox("INBOX")
    assert [uidl for _, uidl in sorted(account.uidls(inbox.id).items())] == uidls


def test_it_may_run_until_the_day_of_the_change(store: Store, source: Login) -> None:
    account = target_account(store)
    remote = add_remote(store, "old", account, source)
    assert asyncio.run(migrate_here(Context(store), remote, account)).equal
    client = source.connect()
    client.select("INBOX")
    client.store("1:3", "+FLAGS", "\\Flagged")
    client.store("5,6", "+FLAGS", "\\Deleted")
    client.expunge()
    client.append("INBOX", "\\Seen", None, numbered(99))
    client.logout()
    report = asyncio.run(migrate_here(Context(store), remote, account))
    assert report.equal and report.total("fetched") == 1 and report.total("vanished") == 2, report.facts()
    assert without_empty(contents_of(account)) == without_empty(contents(source))
    assert numbers_here(account, "INBOX") == numbers(source, "INBOX")
    again = asyncio.run(migrate_here(Context(store), remote, account))
    assert again.equal and again.total("fetched") == again.total("flags") == again.total("vanished") == 0


def test_mail_of_its_own_is_never_renumbered(store: Store, source: Login) -> None:
    from tests.backup.targets import fill

    account = target_account(store)
    fill(account, "INBOX", [numbered(1)])
    before = numbers_here(account, "INBOX")
    remote = add_remote(store, "old", account, source)
    report = asyncio.run(migrate_here(Context(store), remote, account))
    assert not report.equal and "has mail of its own" in (report.folder("INBOX").error or "")
    assert numbers_here(account, "INBOX") == before
    assert numbers_here(account, "Work/A") == numbers(source, "Work/A")


def test_cut_anywhere_and_gone_on_the_numbers_stay(store: Store) -> None:
    with Faulty("plain") as server:
        for name, bodies in (("INBOX", bulk(30)), ("Sent", bulk(8, 2))):
            for body in bodies:
                server.mailboxes[name].add(body, flags=["\\Seen"], date=1_600_000_000)
        for uid in (3, 4, 9):
            server.mailboxes["INBOX"].remove(uid)
        account = target_account(store)
        remote = add_remote(store, "old", account, faulty_login(server))
        report = None
        for nth in range(1, 4):
            for when in ("before", "middle", "after"):
                server.change(breaks=(Break(rb"FETCH", nth=nth, when=when),))  # type: ignore[arg-type]
                report = asyncio.run(migrate_here(Context(store), remote, account))
        assert report is not None and report.equal, report.facts()
        assert without_empty(contents_of(account)) == without_empty(contents_of_faulty(server))
        login = faulty_login(server)
        assert numbers_here(account, "INBOX") == numbers(login, "INBOX")


# ---- UIDLs


@pytest.mark.parametrize(
    ("uidls", "sizes", "found"),
    [
        ([b"0000000300000011", b"0000000500000011"], [None, None], {3: "0000000300000011", 5: "0000000500000011"}),
        ([b"UID3-17", b"UID5-17"], [1, 1], {3: "UID3-17", 5: "UID5-17"}),
        ([b"17.5", b"17.3"], [1, 1], {3: "17.3", 5: "17.5"}),
        ([b"abc", b"def"], [100, 200], {3: "abc", 5: "def"}),
        ([b"abc", b"def"], [100, 201], {}),
        ([b"abc"], [100], {}),
        ([b"abc", b"abc"], [100, 200], {}),
        ([b"0000000300000012", b"0000000500000012"], [100, 200], {3: "0000000300000012", 5: "0000000500000012"}),
        ([b"a b", None], [100, 200], {}),
    ],
)
def test_whose_uidl_it_is(uidls: list[bytes], sizes: list[int], found: dict[int, str]) -> None:
    assert match_uidls(uidls, sizes, [(3, 100), (5, 200)], 17) == found


# ---- from server to server


def test_from_server_to_server(store: Store, source: Login, dovecot: Dovecot) -> None:
    old = add_remote(store, "old", target_account(store, "archive"), source)
    place = Login(dovecot.imap, source.user + ".new", dovecot.password)
    new = add_remote(store, "new", target_account(store, "spare"), place)
    plan = asyncio.run(plan_migration(Context(store), old, new))
    assert plan.total("copied") == 36 and plan.error is None, plan.facts()
    assert without_empty(contents(place)) == {}
    done = asyncio.run(migrate(Context(store), old, new))
    assert done.equal, done.facts()
    assert done.pushed.total("copied") == 36
    assert without_empty(contents(place)) == without_empty(contents(source))
    assert "Work/A" in subscriptions(place)
    client = source.connect()
    client.select("INBOX")
    client.store("1", "+FLAGS", "\\Deleted")
    client.expunge()
    client.append("INBOX", "\\Seen", None, numbered(77))
    client.logout()
    again = asyncio.run(migrate(Context(store), old, new))
    assert again.equal and again.pushed.total("copied") == 1, again.facts()
    # What was copied before and is gone at the source is not taken away: nothing is ever deleted on a target.
    assert sum(contents(place)["INBOX"].values()) == 23


def test_a_migration_that_is_cut_on_both_sides(store: Store) -> None:
    with Faulty("plain") as server, Faulty("plain") as place:
        for name, bodies in (("INBOX", bulk(30)), ("Sent", bulk(8, 2)), ("Archive", bulk(9, 4))):
            for body in bodies:
                server.mailboxes[name].add(body, flags=["\\Seen"], date=1_600_000_000)
        old = add_remote(store, "old", target_account(store, "archive"), faulty_login(server))
        new = add_remote(store, "new", target_account(store, "spare"), faulty_login(place))
        for nth in (1, 2, 5):
            server.change(breaks=(Break(rb"FETCH", nth=nth, when="middle"),))
            place.change(breaks=(Break(rb"APPEND", nth=nth * 4, when="after"),))
            done = asyncio.run(migrate(Context(store), old, new))
        assert done.equal, done.facts()
        assert contents_of_faulty(place) == contents_of_faulty(server)


def test_what_cannot_be_is_refused(store: Store, source: Login) -> None:
    old = add_remote(store, "old", target_account(store), source)
    with pytest.raises(UsageError, match="same remote"):
        asyncio.run(migrate(Context(store), old, old))
