"""The importer over a real store: origins, batches, labels, a kill at every batch."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mailkeep.errors import StoreFull
from mailkeep.export import importer as importing
from mailkeep.export.importer import Importer
from mailkeep.export.item import Bad, Item
from mailkeep.store.account import Account
from mailkeep.store.check import verify
from mailkeep.store.job_rows import jobs
from mailkeep.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "data")
    store.directory.add("anna")
    yield store
    store.close()


def item(number: int, *mailboxes: str, flags: frozenset[str] = frozenset()) -> Item:
    data = b"Subject: %d\r\n\r\nbody\r\n" % number
    return Item(f"#{number}", len(data), iter((data[:5], data[5:])), mailboxes or ("",), flags, 1_700_000_000 + number)


def run(store: Store, items: list[Item | Bad], into: str | None = None) -> Importer:
    importer = Importer(store, store.account("anna"), into)
    for _ in importer.items(items):
        pass
    return importer


def rows(account: Account, name: str) -> list[tuple[int, frozenset[str], int]]:
    box = account.mailbox(name)
    found = account.fetch(box.id, range(1, box.uidnext), ("uid", "flags", "internaldate"))
    return [(uid, account.flagset(flags).flags, when) for uid, flags, when in found]


def test_one_message_under_three_labels_is_three_rows_and_one_blob(store: Store) -> None:
    run(store, [item(1, "INBOX", "Work", "Work/Plans", "Work")])
    account = store.account("anna")
    assert [box.messages for box in account.mailboxes() if box.name in ("INBOX", "Work", "Work/Plans")] == [1, 1, 1]
    emails = {
        account.fetch(account.mailbox(name).id, [1], ("uid", "email"))[0][1] for name in ("INBOX", "Work", "Work/Plans")
    }
    assert len(emails) == 1
    assert {"Work", "Work/Plans"} <= account.subscriptions()


def test_flags_and_dates_are_kept(store: Store) -> None:
    run(store, [item(1, flags=frozenset({"\\Seen", "$Later"}))])
    assert rows(store.account("anna"), "INBOX") == [(1, frozenset({"\\Seen", "$Later"}), 1_700_000_001)]


def test_gmails_system_labels_go_to_the_mailboxes_that_serve_for_them(store: Store) -> None:
    account = store.account("anna")
    with account.transaction() as transaction:
        transaction.rename_mailbox("Junk", "Rubbish")
    run(store, [item(1, "Junk"), item(2, "Sent")])
    assert account.mailbox("Rubbish").messages == 1 and account.mailbox("Sent").messages == 1


def test_names_that_cannot_be_are_bad_items(store: Store) -> None:
    importer = run(store, [item(1, "a" * 300), item(2, "x\x00y"), item(3, "ok / fine//")])
    assert importer.summary.failed == 2 and list(importer.summary.mailboxes) == ["ok/fine"]


def test_what_was_deleted_stays_deleted_but_a_mailbox_made_again_is_filled_again(store: Store) -> None:
    account = store.account("anna")
    run(store, [item(1, "Work"), item(2, "Work")])
    with account.transaction() as transaction:
        transaction.expunge(account.mailbox("Work").id, [1], only_deleted=False)
    assert run(store, [item(1, "Work"), item(2, "Work")]).summary.already == 2
    with account.transaction() as transaction:
        transaction.delete_mailbox("Work")
    assert run(store, [item(1, "Work"), item(2, "Work")]).summary.added == 2


def test_stopped_after_any_batch_it_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "BATCH_MESSAGES", 3)
    total = 0
    for stop_after in (1, 2, 1, 3, 99):
        importer = Importer(store, store.account("anna"))
        for done, _ in enumerate(importer.items([item(number // 2) for number in range(30)]), 1):
            if done == stop_after:
                break
        total += importer.summary.added
    assert total == 30 and store.account("anna").mailbox("INBOX").messages == 30
    assert verify(store).problems == []


def test_a_full_disk_stops_it_and_leaves_nothing_half(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from mailkeep.store.transaction import Transaction

    append, calls = Transaction.append, iter(range(100))

    def failing(self: Transaction, *arguments: object, **options: object) -> object:
        if next(calls) == 4:
            raise StoreFull("No space left in the mail store")
        return append(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(importing, "BATCH_MESSAGES", 3)
    monkeypatch.setattr(Transaction, "append", failing)
    with pytest.raises(StoreFull):
        run(store, [item(number) for number in range(9)])
    assert store.account("anna").mailbox("INBOX").messages == 3
    monkeypatch.undo()
    assert run(store, [item(number) for number in range(9)]).summary.added == 6


def test_the_job_row_tells_how_far_it_came(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "BATCH_MESSAGES", 2)
    mail = tmp_path / "mail"
    mail.mkdir()
    for number in range(5):
        (mail / f"{number}.eml").write_bytes(b"Subject: %d\n\n" % number)
    account = store.account("anna")
    importer = Importer(store, account)

    def interrupt(_: object) -> None:
        if importer.progress.items == 4:
            raise KeyboardInterrupt

    importer.progress.listener = interrupt
    with pytest.raises(KeyboardInterrupt):
        importer.files([mail])
    (row,) = jobs(store, account.info.id)
    assert (row.state, int.from_bytes(row.cursor or b"", "big")) == ("stopped", 4)
    summary = Importer(store, account).files([mail])
    assert (summary.resumed_at, summary.added, summary.already) == (4, 1, 4)
    (row,) = jobs(store, account.info.id)
    assert row.state == "done"
    assert Importer(store, account).files([mail]).resumed_at is None
