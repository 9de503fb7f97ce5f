"""What is alike is not one, and what a server changes as it takes it does not come twice."""

import asyncio
from collections import Counter

import pytest

from mailkeep.backup.context import Context
from mailkeep.backup.pull import pull
from mailkeep.backup.push import push
from mailkeep.store.staging import Staged
from mailkeep.store.store import Store
from mailkeep.testing import Break, Faulty
from mailkeep.testing.faults import FULL
from tests.backup.targets import add_remote, faulty_login
from tests.messages import numbered

pytestmark = pytest.mark.usefixtures("impatient")
_HEAD = b"Subject: s\r\nDate: Tue, 20 Jan 2026 10:00:00 +0000\r\nFrom: a@b.example\r\n\r\n"
_ALIKE = [
    *(numbered(1) for _ in range(3)),
    *(b"Message-ID: <x@y.example>\r\n" + _HEAD + text for text in (b"one\r\n", b"two\r\n", b"three\r\n")),
    *(_HEAD + text for text in (b"aaaa\r\n", b"bbbb\r\n", b"aaaa\r\n", b"nul \0\r\n")),
    *(b"x", b"\r\n", b"no header at all", b"A: \xff\xfe\r\n\r\n\x80\r\n"),
]


@pytest.mark.parametrize("cut", [None, "before", "middle", "after"])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("uidplus", [True, False])
def test_messages_that_are_alike_all_come_and_each_once(
    store: Store, uidplus: bool, own: bool, cut: str | None
) -> None:
    breaks = () if cut is None else (Break(rb"(?i)APPEND", nth=5, when=cut),)  # type: ignore[arg-type]
    capabilities = tuple(name for name in FULL if uidplus or name != "UIDPLUS")
    with Faulty(breaks=breaks, capabilities=capabilities) as server:
        store.directory.add("ann")
        store.directory.add("archive")
        account = store.account("ann")
        with account.transaction() as transaction:
            for name, bodies in (("INBOX", _ALIKE), ("Work", _ALIKE[:4])):
                box = transaction.mailbox(name) if name == "INBOX" else transaction.create_mailbox(name)
                for body in bodies:
                    transaction.append(box.id, Staged.of(body), internaldate=1_600_000_000)
        remote = add_remote(store, "there", account if own else store.account("archive"), faulty_login(server))
        for _ in range(3):
            report = asyncio.run(push(Context(store), account, remote))
        assert report.equal, report.facts()
        for name, bodies in (("INBOX", _ALIKE), ("Work", _ALIKE[:4])):
            mended = Counter(body.replace(b"\0", b"") for body in bodies)
            assert Counter(message.data for message in server.mailboxes[name]) == mended
        if own:
            pulled = asyncio.run(pull(Context(store), remote))
            assert (pulled.equal, pulled.total("fetched")) == (True, 0)
