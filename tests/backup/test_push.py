"""Push: what was chosen is there afterwards, message for message; a second run copies nothing; a killed one goes on."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailkeep.backup.context import Context
from mailkeep.backup.push import push
from mailkeep.backup.push_ledger import PushReport
from mailkeep.backup.settings import Remote
from mailkeep.mail.selection import Selection
from mailkeep.store.account import Account
from mailkeep.store.store import Store
from tests.backup.targets import (
    Login,
    add_remote,
    contents,
    contents_of,
    fill,
    messages,
    subscriptions,
    without_empty,
)
from tests.dovecot import Dovecot
from tests.messages import bulk, numbered, ugly


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    with Dovecot() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture
def account(store: Store) -> Account:
    """Mail in several folders."""
    store.directory.add("ann@example.org")
    made = store.account("ann@example.org")
    fill(made, "INBOX", bulk(40))
    fill(made, "Sent", [numbered(n) for n in range(7)])
    fill(made, "Work/Zoë & Søn", bulk(12, 5))
    fill(made, "Work/Empty", [])
    return made


_users = iter(range(1_000_000))


@pytest.fixture
def login(dovecot: Dovecot) -> Login:
    return Login(dovecot.imap, f"user{next(_users)}@example.org", dovecot.password)


@pytest.fixture
def elsewhere(store: Store, login: Login) -> Remote:
    """A remote whose archive is another account."""
    store.directory.add("other")
    return add_remote(store, "elsewhere", store.account("other"), login)


def run(store: Store, account: Account, remote: Remote, *, plan: bool = False, **options: object) -> PushReport:
    return asyncio.run(push(Context(store, **options), account, remote, plan=plan))  # type: ignore[arg-type]


# ---- against Dovecot


def test_all_is_there_with_flags_dates_and_folders(
    store: Store, account: Account, elsewhere: Remote, login: Login
) -> None:
    report = run(store, account, elsewhere)
    assert report.equal, report.facts()
    assert report.total("copied") == report.total("chosen") == 59
    found = contents(login)
    assert without_empty(found) == without_empty(contents_of(account))
    assert "Work/Empty" in found
    client = login.connect()
    ours = account.mailbox("INBOX")
    rows = account.fetch(ours.id, account.snapshot(ours.id).uids, ("uid", "email"))
    assert [body for _, _, body in messages(client, "INBOX")] == [account.read(email) for _, email in rows]
    client.logout()
    assert {"Work/Empty", "Sent"} <= subscriptions(login)


def test_a_second_run_copies_nothing(store: Store, account: Account, elsewhere: Remote, login: Login) -> None:
    first = run(store, account, elsewhere)
    again = run(store, account, elsewhere)
    assert again.equal and again.total("copied") == 0 and again.total("there") == first.total("copied")
    fill(account, "INBOX", [numbered(n) for n in range(50, 53)], start=1_650_000_000)
    third = run(store, account, elsewhere)
    assert third.equal and third.total("copied") == 3
    assert without_empty(contents(login)) == without_empty(contents_of(account))


def test_ugly_mail_arrives_as_it_is_or_is_booked(
    store: Store, account: Account, elsewhere: Remote, login: Login
) -> None:
    bodies = [data for _, data in ugly()]
    fill(account, "Ugly", bodies)
    report = run(store, account, elsewhere, selection=Selection(folders=("Ugly",)))
    [folder] = report.folders
    assert folder.there + sum(folder.missing.values()) == folder.chosen == len(bodies)
    found = contents(login)["Ugly"]
    ours = contents_of(account)["Ugly"]
    assert sum((found & ours).values()) >= folder.there - folder.changed
    again = run(store, account, elsewhere, selection=Selection(folders=("Ugly",)))
    assert again.total("copied") == 0 and contents(login)["Ugly"] == found
