"""Garbage collection removes what retention no longer keeps, nothing else, and may be killed at any step."""

import os
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mailkeep.errors import MessageMissing, StoreFull
from mailkeep.mail.query import Body
from mailkeep.store import collect as collection
from mailkeep.store import search
from mailkeep.store.account import Account
from mailkeep.store.blobs import HEADER_SIZE, PackWriter, pack_numbers, pack_path
from mailkeep.store.collect import CollectReport, collect
from mailkeep.store.repair import repair
from mailkeep.store.schema import select_value
from mailkeep.store.staging import Staged
from mailkeep.store.store import Store
from mailkeep.store.transaction import Transaction
from tests.messages import numbered
from tests.store.mail import live, look, make_store, problems, see

NOW = -10.0  # a time span that lies before everything: nothing is kept for the sake of its age


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store, account = make_store(tmp_path)
    live(account, rounds=60)
    yield store
    store.close()


@pytest.fixture
def account(store: Store) -> Account:
    return store.account("ann")


def collect_all(store: Store, account: Account) -> CollectReport:
    """All that can be collected now; the account's handles are closed, since a pack in use is left alone."""
    account.rest()
    return collect(store, grace_s=NOW, retention_s=NOW, cold_s=NOW)


def disk_bytes(account: Account) -> bytes:
    return b"".join(pack_path(account.packs, number).read_bytes() for number in pack_numbers(account.packs))


def expunge_half(account: Account) -> None:
    for box in account.mailboxes():
        uids = [uid for uid, *_ in account.fetch(box.id, range(1, 500), ("uid",))]
        if uids[::2]:
            with account.transaction() as tx:
                tx.expunge(box.id, uids[::2], only_deleted=False)


def test_keeps_all_that_is_live(store: Store, account: Account) -> None:
    expunge_half(account)
    before = look(account)
    report = collect_all(store, account)
    assert report.tombstones > 0
    assert report.emails > 0
    assert report.packs_rewritten >= 1
    assert report.compressed > 0
    assert report.skipped == []
    assert look(account) == before
    assert problems(store) == []
    assert see(store) == before


def test_removes_bytes_for_good(store: Store, account: Account) -> None:
    marked = b"Subject: secret\r\n\r\nxyzzy-" + b"plugh" * 100 + b"\r\n"
    with account.transaction() as tx:
        uid = tx.append(1, Staged.of(marked)).uid
    ((_, email),) = account.fetch(1, [uid], ("uid", "email"))
    with account.transaction() as tx:
        tx.expunge(1, [uid], only_deleted=False)
    assert account.read(email) == marked
    report = collect_all(store, account)
    assert report.packs_removed >= 1
    assert b"xyzzy" not in disk_bytes(account)
    with pytest.raises(MessageMissing):
        account.read(email)


def test_retention_keeps_tombstones_and_undelete_works_after_a_collection(store: Store, account: Account) -> None:
    with account.transaction() as tx:
        uid = tx.append(1, Staged.of(numbered(4711))).uid
    with account.transaction() as tx:
        tx.expunge(1, [uid], only_deleted=False)
    account.rest()
    report = collect(store, grace_s=NOW, retention_s=3600, cold_s=NOW)
    assert report.tombstones == 0
    assert report.packs_rewritten >= 1
    with account.transaction() as tx:
        assert tx.undelete(1, since=None) > 0
    assert numbered(4711) in [value[-1] for value in look(account).messages.values()]
    assert problems(store) == []


def test_changes_say_that_they_are_incomplete(store: Store, account: Account) -> None:
    since = account.mailbox("INBOX").highestmodseq
    with account.transaction() as tx:
        uid = tx.append(1, Staged.of(numbered(1))).uid
    with account.transaction() as tx:
        tx.expunge(1, [uid], only_deleted=False)
    assert account.changes(1, since).complete
    collect_all(store, account)
    changes = account.changes(1, since)
    assert not changes.complete
    with account.transaction() as tx:
        tx.append(1, Staged.of(numbered(2)))
    assert account.changes(1, changes.highestmodseq).complete


def test_an_index_that_missed_a_removal_and_its_tombstone_catches_up(store: Store, account: Account) -> None:
    box = max(account.mailboxes(), key=lambda box: box.messages)
    index = account.index(box.id)
    seen = index.uids.tolist()
    other = Store.open(store.root)  # another process, as it were
    with other.account("ann").transaction() as tx:
        gone = tx.expunge(box.id, seen[1:3], only_deleted=False)
        added = tx.append(box.id, Staged.of(numbered(7))).uid
    collect(other, grace_s=0, retention_s=-1)
    other.close()
    assert account.refresh()
    assert index.uids.tolist() == [uid for uid in seen if uid not in gone] + [added]
    batches = index.since(0)
    assert batches is not None
    (batch,) = batches
    assert (list(batch.removed), list(batch.added)) == (gone, [added])
    account.release(index)


def test_grace_keeps_bytes_and_old_packs(store: Store, account: Account) -> None:
    expunge_half(account)
    account.rest()
    packs = pack_numbers(account.packs)
    report = collect(store, grace_s=3600, retention_s=NOW, cold_s=NOW)
    assert report.packs_rewritten == 0  # written to a moment ago
    for number in packs:
        os.utime(pack_path(account.packs, number), (1, 1))
    report = collect(store, grace_s=3600, retention_s=NOW, cold_s=NOW)
    assert (report.packs_rewritten, report.packs_removed) == (len(packs), 0)
    assert set(packs) < set(pack_numbers(account.packs))
    assert problems(store) == []
    # A retired pack is not written to any more.
    sizes = [pack_path(account.packs, number).stat().st_size for number in packs]
    live(account, rounds=10, seed=5)
    assert [pack_path(account.packs, number).stat().st_size for number in packs] == sizes
    account.rest()
    assert collect(store, grace_s=NOW, retention_s=NOW).packs_removed == len(packs)
    assert problems(store) == []


def test_a_second_run_has_nothing_to_do(store: Store, account: Account) -> None:
    expunge_half(account)
    collect_all(store, account)
    account.rest()
    report = collect(store, grace_s=NOW, retention_s=NOW)
    assert (report.tombstones, report.emails, report.packs_rewritten) == (0, 0, 0)


def test_a_pack_that_is_written_to_is_left_alone(store: Store, account: Account) -> None:
    expunge_half(account)  # the account stays open: it holds its pack
    assert collect(store, grace_s=NOW, retention_s=NOW, cold_s=NOW).packs_rewritten == 0
    assert problems(store) == []


def test_repair_after_a_collection(store: Store, account: Account) -> None:
    expunge_half(account)
    live(account, rounds=20, seed=7)
    before = look(account)
    collect_all(store, account)
    live_before = see(store)
    assert live_before == before
    for name in ("mail.db", "mail.db-wal", "mail.db-shm"):
        (account.path / name).unlink(missing_ok=True)
    assert repair(store, account.info).lost == []
    assert see(store) == before
    assert problems(store) == []


def test_flag_changes_that_were_overtaken_go(store: Store, account: Account) -> None:
    uids = [uid for uid, *_ in account.fetch(1, range(1, 500), ("uid",))][:3]
    for number in range(300):
        with account.transaction() as tx:
            tx.store_flags(1, uids, "=", frozenset({f"K{number % 9}"}))
    expunge_half(account)
    before, size = look(account), len(disk_bytes(account))
    collect_all(store, account)
    assert len(disk_bytes(account)) < size - 300 * 64
    account.rest()
    for name in ("mail.db", "mail.db-wal", "mail.db-shm"):
        (account.path / name).unlink(missing_ok=True)
    repair(store, account.info)
    assert see(store) == before


def test_search_forgets_what_was_collected(store: Store, account: Account) -> None:
    while search.index_pending(account.path, 1000):
        pass
    expunge_half(account)
    wanted = list(search.search(account.path, account.mailbox("INBOX").id, Body("message")))
    collect_all(store, account)
    assert list(search.search(account.path, account.mailbox("INBOX").id, Body("message"))) == wanted
    live(account, rounds=10, seed=3)
    assert search.index_pending(account.path, 1000) == 0
    # The index was kept, not made anew.
    assert not (account.path / "search.bad").exists()


def test_a_damaged_pack_is_left_as_it_is(store: Store, account: Account) -> None:
    expunge_half(account)
    account.rest()
    path = pack_path(account.packs, pack_numbers(account.packs)[0])
    with closing(account.connect()) as db:
        offset = select_value(
            db, "SELECT max(e.offset) FROM email e JOIN message m ON m.email = e.id WHERE m.removed IS NULL"
        )
    data = bytearray(path.read_bytes())
    data[offset + HEADER_SIZE + 1] ^= 1
    path.write_bytes(data)
    kinds = {problem.kind for problem in problems(store)}
    report = collect_all(store, account)
    assert report.skipped
    assert path.exists()
    assert {problem.kind for problem in problems(store)} <= kinds


STEPS = ["tombstones", "emails", "packs", "copied", "synced", "part", "switched", "unlink", "unlinked"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("nth", [1, 2])
def test_killed_at_any_step_nothing_is_lost(
    store: Store, account: Account, monkeypatch: pytest.MonkeyPatch, step: str, nth: int
) -> None:
    monkeypatch.setattr(collection, "_BATCH", 7)
    expunge_half(account)
    live(account, rounds=10, seed=11)
    before = look(account)
    account.rest()
    count = 0

    def die(what: str, done: int, total: int) -> None:
        nonlocal count
        count += what == step
        if count == nth:
            os._exit(9)

    child = os.fork()
    if child == 0:
        collect(store, grace_s=NOW, retention_s=NOW, cold_s=NOW, progress=die)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in ({9} if nth == 1 else {0, 9})
    assert problems(store) == []
    assert see(store) == before
    live(account, rounds=5, seed=12)
    later = look(account)
    collect_all(store, account)
    assert problems(store) == []
    assert see(store) == later
    for name in ("mail.db", "mail.db-wal", "mail.db-shm"):
        (account.path / name).unlink(missing_ok=True)
    assert repair(store, account.info).lost == []
    assert see(store) == later


@pytest.mark.parametrize("failing", ["add_stored", "flush"])
def test_a_full_disk_changes_nothing(
    store: Store, account: Account, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    expunge_half(account)
    before = look(account)
    account.rest()
    packs = pack_numbers(account.packs)

    def full(*_: object, **__: object) -> None:
        raise StoreFull("No space left in the mail store")

    with monkeypatch.context() as patched, pytest.raises(StoreFull):
        patched.setattr(PackWriter, failing, full)
        collect(store, grace_s=NOW, retention_s=NOW, cold_s=NOW)
    assert pack_numbers(account.packs) == packs
    assert see(store) == before
    assert problems(store) == []
    assert collect(store, grace_s=NOW, retention_s=NOW, cold_s=NOW).packs_rewritten == 1
    assert see(store) == before


def test_runs_beside_readers_and_writers(store: Store, account: Account) -> None:
    """One process reads and writes, another collects, again and again."""
    expunge_half(account)
    kept = {key: value[-1] for key, value in look(account).messages.items()}
    failures: list[BaseException] = []
    stop = threading.Event()

    def work() -> None:
        number = 0
        try:
            while not stop.is_set():
                number += 1
                with account.transaction() as tx:
                    uid = tx.append(1, Staged.of(numbered(50_000 + number, size=3000))).uid
                with account.transaction() as tx:
                    tx.expunge(1, [uid], only_deleted=False)
                if number % 5 == 0:
                    account.rest()  # gives the pack up, so that it can be rewritten
                for (name, old), data in kept.items():
                    box = account.mailbox(name)
                    ((_, email),) = account.fetch(box.id, [old], ("uid", "email"))
                    assert account.read(email) == data
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    other = Store.open(store.root)
    try:
        rewritten = 0
        for _ in range(3000):
            rewritten += collect(other, grace_s=NOW, retention_s=NOW, cold_s=NOW).packs_rewritten
            if rewritten >= 5 or failures:
                break
    finally:
        stop.set()
        thread.join()
        other.close()
    assert failures == []
    assert rewritten > 0
    assert problems(store) == []


def test_a_removed_account_is_deleted_when_its_time_is_over(store: Store, account: Account) -> None:
    account.rest()
    store.directory.remove("ann")
    (aside,) = (store.root / "accounts").glob("removed.*")
    assert collect(store, grace_s=0, retention_s=3600).accounts_removed == 0
    assert any(aside.glob("packs/*"))
    report = collect(store, grace_s=NOW, retention_s=NOW)
    assert (report.accounts_removed, report.skipped) == (1, [])
    assert not aside.exists()


def test_a_transaction_that_never_committed_is_not_missed_later(store: Store, account: Account) -> None:
    # Killed between the sync of its pack and its commit: the records are there, and nobody refers to them.
    expunge_half(account)
    with account.write_lock:
        ledger = account.begin(durable=True)
        Transaction(ledger).append(account.mailbox("INBOX").id, Staged.of(numbered(77, size=50_000)))
        ledger.flush_boxes()
        ledger._write_journal()
        ledger.abort()
    before = see(store)
    account.rest()
    assert collect_all(store, account).packs_removed
    account.rest()
    report = repair(store, store.directory.list()[0], rebuild=True)
    assert report.lost == []
    assert see(store).subscriptions == before.subscriptions
    assert problems(store) == []
