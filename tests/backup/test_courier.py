"""Against Courier, where every name begins with "INBOX.": put there, pulled back, moved, message for message."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailkeep.backup.context import Context
from mailkeep.backup.migrate import migrate
from mailkeep.backup.migrate_here import migrate_here
from mailkeep.backup.pull import pull
from mailkeep.backup.push import push
from mailkeep.store.store import Store
from tests.backup.targets import Login, add_remote, contents, contents_of, fill, without_empty
from tests.courier import Courier
from tests.messages import bulk, numbered


@pytest.fixture(scope="module")
def courier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Courier]:
    with Courier(tmp_path_factory.mktemp("courier")) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "store")
    for name in ("ann", "archive", "spare", "new"):
        opened.directory.add(name)
    fill(opened.account("ann"), "INBOX", bulk(30))
    fill(opened.account("ann"), "Sent", [numbered(n) for n in range(7)])
    fill(opened.account("ann"), "Work/Zoë 2.0", bulk(11, 5))
    yield opened
    opened.close()


_THERE = {"INBOX": "INBOX", "Sent": "INBOX.Sent", "Work/Zoë 2.0": "INBOX.Work.Zoë 2_0"}


def test_pushed_pulled_and_moved(store: Store, courier: Courier) -> None:
    ann = store.account("ann")
    login, other = (Login(courier.port, user, courier.password) for user in ("ann", "bob"))
    there = add_remote(store, "there", store.account("spare"), login)
    report = asyncio.run(push(Context(store), ann, there))
    assert report.equal and report.total("copied") == 48, report.facts()
    ours = without_empty(contents_of(ann))
    assert without_empty(contents(login)) == {_THERE[name]: each for name, each in ours.items()}
    assert asyncio.run(push(Context(store), ann, there)).total("copied") == 0

    source = add_remote(store, "source", store.account("archive"), login)
    pulled = asyncio.run(pull(Context(store), source))
    assert pulled.equal, pulled.facts()
    archive = {name.replace("2_0", "2.0"): each for name, each in contents_of(store.account("archive")).items()}
    assert without_empty(archive) == ours

    target = add_remote(store, "target", store.account("new"), other)
    moved = asyncio.run(migrate(Context(store), source, target))
    assert moved.equal, moved.facts()
    assert without_empty(contents(other)) == without_empty(contents(login))


def test_moved_here_with_its_numbers(store: Store, courier: Courier) -> None:
    login = Login(courier.port, "carl", courier.password)
    there = add_remote(store, "there", store.account("spare"), login)
    assert asyncio.run(push(Context(store), store.account("ann"), there)).equal
    client = login.connect()
    client.select("INBOX")
    client.store("3:5", "+FLAGS", "\\Deleted")
    client.expunge()
    _, [found] = client.uid("SEARCH", "ALL")
    uids = [int(uid) for uid in found.split()]
    _, [status] = client.status("INBOX", "(UIDVALIDITY)")
    client.logout()
    new = store.account("new")
    moved = asyncio.run(migrate_here(Context(store), add_remote(store, "source", new, login), new))
    assert moved.equal, moved.facts()
    inbox = new.mailbox("INBOX")
    assert new.snapshot(inbox.id).uids.tolist() == uids and str(inbox.uidvalidity).encode() in status
    here = Counter(each for name in contents_of(new).values() for each in name.elements())
    assert here == Counter(each for name in contents(login).values() for each in name.elements())
    assert {"INBOX", "Sent", "Work/Zoë 2_0"} <= {box.name for box in new.mailboxes()}
