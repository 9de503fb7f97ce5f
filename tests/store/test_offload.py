"""Writing from an event loop: grouped, failing alone, told to the indexes before the answer; and between processes."""

import asyncio
import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from mailkeep.errors import MailboxMissing, StoreFull
from mailkeep.mail.flags import SEEN
from mailkeep.store import Account, Offload, Staged, Store, StoreResult, Transaction
from mailkeep.store.ledger import BOOT_GAP
from tests.messages import numbered
from tests.store.mail import problems


def run(store: Store, work: Callable[[Offload], Awaitable[None]]) -> None:
    """On a loop with an offload, all closed after."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        store.listen(loop)
        offload = Offload(store, loop)
        try:
            await asyncio.wait_for(work(offload), 60)
        finally:
            await offload.close()
            store.stop_listening()

    asyncio.run(main())


def appending(mailbox: int, number: int) -> Callable[[Transaction], int]:
    staged = Staged.of(numbered(number))
    return lambda tx: tx.append(mailbox, staged).uid


def test_many_writers_each_get_their_own_uid_and_the_index_has_them_at_once(store: Store, account: Account) -> None:
    async def work(offload: Offload) -> None:
        inbox = account.mailbox("INBOX").id
        index = await offload.index(account, inbox)

        async def one(number: int) -> int:
            uid = await offload.write(account, appending(inbox, number))
            assert index.position(uid) >= 0, "an index knows before the caller does"
            return uid

        uids = await asyncio.gather(*(one(number) for number in range(200)))
        assert sorted(uids) == list(range(1, 201))
        rows = account.fetch(inbox, range(1, 201), ("uid", "email"))
        assert [account.read(email) for _, email in rows] == [
            numbered(number) for _, number in sorted(zip(uids, range(200), strict=True))
        ]
        account.release(index)

    run(store, work)


def test_works_that_wait_go_into_one_transaction_and_fail_alone(store: Store, account: Account) -> None:
    async def work(offload: Offload) -> None:
        inbox = account.mailbox("INBOX").id
        gate, begun = threading.Event(), threading.Event()

        def slow(_: Transaction) -> None:
            begun.set()
            gate.wait(30)

        def bad(tx: Transaction) -> None:
            tx.append(inbox, Staged.of(numbered(50)), flags=frozenset({"$Bad"}))
            tx.create_mailbox("bad/one")
            raise ZeroDivisionError

        first = asyncio.ensure_future(offload.write(account, slow))
        await asyncio.to_thread(begun.wait, 30)
        before = account.mailbox("INBOX").highestmodseq
        waiting = [
            asyncio.ensure_future(offload.write(account, job))
            for job in (appending(inbox, 1), bad, appending(999, 2), appending(inbox, 50), appending(inbox, 50))
        ]
        await asyncio.sleep(0)
        gate.set()
        await first
        one, two, three, four, five = await asyncio.gather(*waiting, return_exceptions=True)
        assert (one, four, five) == (1, 2, 3)
        assert isinstance(two, ZeroDivisionError) and isinstance(three, MailboxMissing)
        assert account.keywords() == [] and len(account.mailboxes()) == 6
        rows = account.fetch(inbox, [1, 2, 3], ("uid", "email", "modseq"))
        assert [account.read(row[1]) for row in rows] == [numbered(1), numbered(50), numbered(50)]
        assert rows[1][1] == rows[2][1], "the same content within a group is one blob"
        modseqs = [row[2] for row in rows]
        assert modseqs[0] > before and len(set(modseqs)) == 3

    run(store, work)


def test_a_commit_that_fails_is_told_to_all_in_the_group_and_to_no_index(
    store: Store, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(offload: Offload) -> None:
        inbox = account.mailbox("INBOX").id
        index = await offload.index(account, inbox)
        await offload.write(account, appending(inbox, 0))

        def full(fd: int) -> None:
            raise OSError(28, os.strerror(28))

        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", full)
            results = await asyncio.gather(
                *(offload.write(account, appending(inbox, number)) for number in range(1, 20)), return_exceptions=True
            )
        assert all(isinstance(result, StoreFull) for result in results)
        assert index.uids.tolist() == [1]
        assert await offload.write(account, appending(inbox, 99)) == 2
        assert index.uids.tolist() == [1, 2]

    run(store, work)


def test_a_cancelled_caller_disturbs_nobody(store: Store, account: Account) -> None:
    async def work(offload: Offload) -> None:
        inbox = account.mailbox("INBOX").id
        tasks = [asyncio.ensure_future(offload.write(account, appending(inbox, number))) for number in range(10)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, int) for result in results[1::2])

    run(store, work)


def test_a_session_knows_its_own_changes(store: Store, account: Account) -> None:
    async def work(offload: Offload) -> None:
        inbox = account.mailbox("INBOX").id
        index = await offload.index(account, inbox)
        me, other = object(), object()
        heard = 0

        def hear() -> None:
            nonlocal heard
            heard += 1

        unwatch = index.watch(hear)
        await offload.write(account, appending(inbox, 1), by=me)
        await offload.write(
            account, lambda tx: tx.store_flags(inbox, [1], "+", frozenset({SEEN})), durable=False, by=other
        )
        assert [batch.by for batch in index.since(0) or []] == [me, other]
        assert heard == 2
        unwatch()

    run(store, work)


def test_flags_are_written_at_once_when_nothing_is_in_the_way(store: Store, account: Account) -> None:
    async def work(offload: Offload) -> None:
        inbox = account.mailbox("INBOX").id
        index = await offload.index(account, inbox)

        def flag(tx: Transaction) -> StoreResult:
            return tx.store_flags(inbox, [1], "+", frozenset({SEEN}))

        assert offload.write_now(account, flag) is None, "nothing is open yet"
        await offload.write(account, appending(inbox, 1))
        me = object()
        result = offload.write_now(account, flag, by=me)
        assert result == StoreResult([1], [])
        assert account.flagset(index.flags[0]).seen and (index.since(1) or [])[0].by is me
        assert account.mailbox("INBOX").unseen == 0

        waiting = asyncio.ensure_future(offload.write(account, appending(inbox, 2)))
        await asyncio.sleep(0)
        with account.write_lock:
            assert offload.write_now(account, flag) is None, "somebody writes"
        await waiting
        other_process = account.connect()
        try:
            other_process.execute("BEGIN IMMEDIATE")
            assert offload.write_now(account, flag) is None, "another process writes"
        finally:
            other_process.close()
        with pytest.raises(MailboxMissing):
            offload.write_now(account, lambda tx: tx.store_flags(999, [1], "+", frozenset({"x"})))
        assert account.keywords() == []
        assert offload.write_now(account, lambda tx: tx.store_flags(inbox, [1], "-", frozenset({SEEN}))) is not None
        assert account.mailbox("INBOX").unseen == 2

    run(store, work)


def test_a_watcher_that_fails_keeps_no_answer_back(store: Store, account: Account) -> None:
    async def work(offload: Offload) -> None:
        inbox = account.mailbox("INBOX").id
        index = await offload.index(account, inbox)
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        index.watch(lambda: 1 / 0 and None)
        uids = await asyncio.gather(*(offload.write(account, appending(inbox, number)) for number in range(10)))
        assert sorted(uids) == list(range(1, 11)) == index.uids.tolist()

    run(store, work)


def test_a_transaction_in_another_thread_reaches_the_index_on_the_loop(store: Store, account: Account) -> None:
    async def work(offload: Offload) -> None:
        inbox = account.mailbox("INBOX").id
        index = await offload.index(account, inbox)
        arrived = asyncio.Event()
        index.watch(arrived.set)

        def put() -> None:
            with account.transaction() as tx:
                tx.append(inbox, Staged.of(numbered(1)))

        await asyncio.to_thread(put)
        await arrived.wait()
        assert index.uids.tolist() == [1]

    run(store, work)


OTHER = """
import sys
from pathlib import Path
from mailkeep.store import Staged, Store
from tests.messages import numbered
store = Store.open(Path(sys.argv[1]), create=False)
account = store.account("ann@example.org")
inbox = account.mailbox("INBOX").id
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    with account.transaction() as tx:
        uid = tx.append(inbox, Staged.of(numbered(number))).uid
        if number % 5 == 0:
            tx.store_flags(inbox, [1], "+" if number % 2 else "-", frozenset({"k%d" % (number % 50)}))
    print(uid, flush=True)
store.close()
"""


def other(root: Path, first: int, last: int) -> "subprocess.Popen[bytes]":
    """Another process that appends these numbers, and prints the UIDs it was given."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", OTHER, str(root), str(first), str(last)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )


def test_another_process_change_wakes_this_one(store: Store, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailkeep.store.store.POLL_S", 3600.0)  # the wake-up alone must do

    async def work(offload: Offload) -> None:
        inbox = account.mailbox("INBOX").id
        index = await offload.index(account, inbox)
        arrived = asyncio.Event()
        index.watch(arrived.set)
        process = other(store.root, 1, 2)
        await arrived.wait()
        assert index.uids.tolist() == [1]
        assert await asyncio.to_thread(process.wait, 30) == 0
        assert process.stdout is not None
        process.stdout.close()

    run(store, work)


def test_a_lost_wake_up_only_delays(store: Store, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailkeep.store.store.POLL_S", 0.01)
    second = Store.open(store.root)
    monkeypatch.setattr(second, "tell", lambda account: None)

    async def work(offload: Offload) -> None:
        inbox = account.mailbox("INBOX").id
        index = await offload.index(account, inbox)
        arrived = asyncio.Event()
        index.watch(arrived.set)
        with second.account("ann@example.org").transaction() as tx:
            tx.append(inbox, Staged.of(numbered(1)))
        await arrived.wait()
        assert index.uids.tolist() == [1]

    run(store, work)
    second.close()


def test_three_processes_write_one_mailbox(store: Store, account: Account) -> None:
    async def work(offload: Offload) -> None:
        inbox = account.mailbox("INBOX").id
        index = await offload.index(account, inbox)
        processes = [other(store.root, 1000 * n, 1000 * n + 40) for n in (1, 2)]
        mine = await asyncio.gather(*(offload.write(account, appending(inbox, number)) for number in range(40)))
        outputs = [await asyncio.to_thread(process.communicate, None, 60) for process in processes]
        theirs = [int(line) for out, _ in outputs for line in out.split()]
        assert [process.returncode for process in processes] == [0, 0]
        assert sorted([*mine, *theirs]) == list(range(1, 121)), "each UID once, none lost"
        account.refresh()
        assert index.uids.tolist() == list(range(1, 121))
        rows = account.fetch(inbox, range(1, 121), ("uid", "flags", "modseq", "email"))
        assert [row[1] for row in rows] == index.flags.tolist()
        assert [row[2] for row in rows] == index.modseqs.tolist()
        assert len({account.read(row[3]) for row in rows}) == 120
        assert len(list(account.packs.iterdir())) >= 2, "each process writes to a pack of its own"

    run(store, work)


def test_a_killed_writer_leaves_all_it_was_told_is_stored(store: Store, account: Account) -> None:
    inbox = account.mailbox("INBOX").id
    told: list[int] = []
    for round in range(1, 4):
        process = other(store.root, 1000 * round, 1000 * round + 900)
        assert process.stdout is not None
        for _ in range(7 * round):
            told.append(int(process.stdout.readline()))
        process.kill()
        process.wait()
        told += [int(line) for line in process.stdout.read().split()]
        process.stdout.close()
        index = account.index(inbox)
        account.refresh()
        assert set(told) <= set(index.uids)
        account.release(index)
        with account.transaction() as tx:
            told.append(tx.append(inbox, Staged.of(numbered(10_000 + round))).uid)
    assert problems(store) == []
    rows = account.fetch(inbox, sorted(told), ("uid", "email"))
    assert len({account.read(row[1]) for row in rows}) == len(told)


def test_wake_ups_for_the_dead_are_cleared_away(store: Store, account: Account) -> None:
    async def work(offload: Offload) -> None:
        pass

    second = Store.open(store.root)
    run(store, work)
    run_directory = store.root / "run"
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    here = os.getcwd()
    os.chdir(run_directory)
    try:
        dead.bind("1.dead")
    finally:
        os.chdir(here)
    dead.close()
    assert "1.dead" in os.listdir(run_directory)
    second.tell(second.account("ann@example.org"))
    assert "1.dead" not in os.listdir(run_directory)
    second.close()


def test_without_a_descriptor_to_wake_others_with_writing_goes_on(
    store: Store, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(offload: Offload) -> None:
        inbox = account.mailbox("INBOX").id
        listdir = os.listdir

        def no_more(path: str | int) -> list[str]:
            if isinstance(path, int):
                raise OSError(errno.EMFILE, "Too many open files")
            return listdir(path)

        index = await offload.index(account, inbox)
        assert await offload.write(account, appending(inbox, 1)) == 1
        (store.root / "run" / "another").touch()
        monkeypatch.setattr(os, "listdir", no_more)
        assert await offload.write(account, appending(inbox, 2)) == 2
        flagged = offload.write_now(account, lambda tx: tx.store_flags(inbox, [1], "+", frozenset({SEEN})))
        assert flagged is not None and flagged.changed == [1]
        assert account.flagset(index.flags[0]).seen
        monkeypatch.undo()
        assert await offload.write(account, appending(inbox, 3)) == 3
        account.release(index)

    run(store, work)


def test_flag_changes_are_synced_soon_after(store: Store, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for it, and a power cut takes the last second at most."""
    monkeypatch.setattr("mailkeep.store.store.SYNC_S", 0.001)
    synced = threading.Event()
    sync_log = Account.sync_log

    def noticing(self: Account) -> None:
        sync_log(self)
        synced.set()

    monkeypatch.setattr(Account, "sync_log", noticing)

    async def work(offload: Offload) -> None:
        inbox = account.mailbox("INBOX").id
        uid = await offload.write(account, appending(inbox, 1))
        assert not account.unsynced
        await offload.write(account, lambda tx: tx.store_flags(inbox, [uid], "+", frozenset({SEEN})), durable=False)
        assert await asyncio.to_thread(synced.wait, 30)
        assert not account.unsynced

    run(store, work)


def test_after_a_start_of_the_machine_no_modseq_means_something_else(
    store: Store, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut can take flag changes whose modseqs clients were told."""
    inbox = account.mailbox("INBOX").id
    with account.transaction() as tx:
        before = tx.append(inbox, Staged.of(numbered(1))).modseq
    account.rest()
    monkeypatch.setattr("mailkeep.store.ledger.BOOT", "another")
    with account.transaction() as tx:
        after = tx.append(inbox, Staged.of(numbered(2))).modseq
    with account.transaction() as tx:
        next_one = tx.append(inbox, Staged.of(numbered(3))).modseq
    assert after > before + BOOT_GAP
    assert next_one == after + 1
    assert [uid for uid, _, _ in account.changes(inbox, before).changed] == [2, 3]
    assert problems(store) == []
