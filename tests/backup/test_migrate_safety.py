"""A move into Mailkeep while the new account is lived in already, and while the old server is not itself."""

import asyncio

from mailkeep.backup.context import Context
from mailkeep.backup.ledger import REMOVED_HERE
from mailkeep.backup.migrate_here import LOST_PLACE, migrate_here
from mailkeep.store.store import Store
from mailkeep.testing import Faulty
from tests.backup.targets import add_remote, faulty_login, fill
from tests.messages import numbered


def test_what_is_delivered_here_meanwhile_is_not_taken_for_the_sources(store: Store) -> None:
    with Faulty() as server:
        inbox = server.mailboxes["INBOX"]
        for number in range(3):
            inbox.add(numbered(number), date=1_700_000_000 + number)
        store.directory.add("new")
        account = store.account("new")
        remote = add_remote(store, "old", account, faulty_login(server))
        assert asyncio.run(migrate_here(Context(store), remote, account)).equal
        fill(account, "INBOX", [numbered(50)])  # here it gets the UID that the next one there gets as well
        inbox.add(numbered(60), flags=["\\Flagged"])
        report = asyncio.run(migrate_here(Context(store), remote, account))
        ledger = report.folder("INBOX")
        assert not report.equal
        assert (ledger.kept, dict(ledger.missing)) == (3, {LOST_PLACE: 1})
        box = account.mailbox("INBOX")
        ((_, email, flags),) = account.fetch(box.id, [4], ("uid", "email", "flags"))
        assert (account.read(email), account.flagset(flags).flags) == (numbered(50), frozenset())


def test_a_source_that_is_suddenly_empty_removes_nothing(store: Store) -> None:
    with Faulty() as server:
        inbox = server.mailboxes["INBOX"]
        for number in range(60):
            inbox.add(numbered(number), date=1_700_000_000 + number)
        store.directory.add("new")
        account = store.account("new")
        remote = add_remote(store, "old", account, faulty_login(server))
        assert asyncio.run(migrate_here(Context(store), remote, account)).equal
        inbox.messages.clear()
        report = asyncio.run(migrate_here(Context(store), remote, account))
        assert account.mailbox("INBOX").messages == 60
        assert any("nothing is removed here" in note for note in report.folder("INBOX").notes)


def test_what_its_owner_removed_here_is_said_to_be_so(store: Store) -> None:
    with Faulty() as server:
        for number in range(3):
            server.mailboxes["INBOX"].add(numbered(number), date=1_700_000_000 + number)
        store.directory.add("new")
        account = store.account("new")
        remote = add_remote(store, "old", account, faulty_login(server))
        assert asyncio.run(migrate_here(Context(store), remote, account)).equal
        with account.transaction() as transaction:
            transaction.expunge(account.mailbox("INBOX").id, [2], only_deleted=False)
        report = asyncio.run(migrate_here(Context(store), remote, account))
        assert report.equal
        assert dict(report.folder("INBOX").missing) == {REMOVED_HERE: 1}
