"""Staged messages into mailboxes: one result per recipient."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from mailkeep.delivery.deliver import check_room, deliver
from mailkeep.delivery.route import Recipient
from mailkeep.errors import AccountMissing, MailkeepError, OverQuota
from mailkeep.store.account import AccountInfo
from mailkeep.store.offload import Offload
from mailkeep.store.staging import Staged
from mailkeep.store.store import Store

MESSAGE = b"Subject: hello\r\n\r\nbody\r\n"


@pytest.fixture
def store(tmp_path: Path):
    store = Store.open(tmp_path / "data")
    store.directory.add("demo")
    store.directory.add("anna")
    store.directory.add("small", quota=10)
    yield store
    store.close()


def recipient(store: Store, name: str, detail: str | None = None) -> Recipient:
    account = store.directory.find(name)
    assert account is not None
    return Recipient(account, detail, name)


def run(store: Store, work: Callable[[Offload], Awaitable[None]]) -> None:
    async def inside() -> None:
        offload = Offload(store, asyncio.get_running_loop())
        try:
            await work(offload)
        finally:
            await offload.close()

    asyncio.run(inside())


def count(store: Store, name: str, mailbox: str = "INBOX") -> int:
    return store.account(name).mailbox(mailbox).messages


def test_each_recipient_has_a_result(store: Store) -> None:
    gone = Recipient(AccountInfo(9999, "gone", None, 0), None, "gone")  # type: ignore[arg-type]  # removed meanwhile

    async def work(offload: Offload) -> None:
        staged = Staged.of(MESSAGE)
        recipients = [recipient(store, "demo"), recipient(store, "small"), gone, recipient(store, "anna", "Junk")]
        results = await deliver(staged, recipients, store=store, offload=offload, internaldate=1_700_000_000)
        assert [type(result) for result in results] == [type(None), OverQuota, AccountMissing, type(None)]
        assert isinstance(results[1], MailkeepError)
        assert not results[1].temporary  # it can never fit

    run(store, work)
    assert (count(store, "demo"), count(store, "small"), count(store, "anna"), count(store, "anna", "Junk")) == (
        1,
        0,
        0,
        1,
    )
    account = store.account("demo")
    rows = account.fetch(account.mailbox("INBOX").id, [1], ("uid", "internaldate"))
    assert rows == [(1, 1_700_000_000)]


def test_room(store: Store) -> None:
    check_room(store, recipient(store, "demo"), 10**12)
    check_room(store, recipient(store, "small"), None)
    check_room(store, recipient(store, "small"), 10)
    with pytest.raises(OverQuota) as caught:
        check_room(store, recipient(store, "small"), 11)
    assert not caught.value.temporary

    async def work(offload: Offload) -> None:
        results = await deliver(
            Staged.of(b"12345678"), [recipient(store, "small")], store=store, offload=offload, internaldate=0
        )
        assert results == [None]

    run(store, work)
    check_room(store, recipient(store, "small"), 2)
    with pytest.raises(OverQuota) as caught:
        check_room(store, recipient(store, "small"), 3)
    assert caught.value.temporary
