"""Disks that fail: at each write, sync and commit in turn.

What was acknowledged is there, the rest is not, and the store goes on when the disk does.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from mailkeep.errors import MailboxMissing, StoreBusy, StoreCorrupt, StoreFull, StoreReadOnly
from mailkeep.mail.flags import SEEN
from mailkeep.store import Account, Staged, Store, Transaction
from mailkeep.store.blobs import (
    BLOB,
    HEADER_SIZE,
    PACK_HEAD_SIZE,
    Damage,
    PackWriter,
    Record,
    pack_numbers,
    pack_path,
    read_record,
    walk,
)
from tests.messages import numbered
from tests.store.mail import problems


class Disk:
    """The system's calls, failing from the n-th on, once or until told otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.fail_at: int | None = None
        self.fail_all = False
        self.error = errno.ENOSPC
        self.short = False
        for name in ("pwritev", "fdatasync"):
            monkeypatch.setattr(os, name, self.wrap(getattr(os, name)))

    def wrap(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(fd: int, *args: Any) -> Any:
            self.count += 1
            if self.fail_at is not None and (
                self.count == self.fail_at or (self.fail_all and self.count > self.fail_at)
            ):
                if self.short and args:  # some of it was written before there was no space
                    real(fd, [bytes(args[0][0])[:10]], *args[1:])
                raise OSError(self.error, os.strerror(self.error))
            return real(fd, *args)

        return call


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def inbox(account: Account) -> int:
    return account.mailbox("INBOX").id


def contents(account: Account) -> list[bytes]:
    rows = account.fetch(inbox(account), list(range(1, 50)), ("uid", "email", "modseq"))
    index = account.index(inbox(account))
    account.release(index)
    return [account.read(row[1]) for row in rows if row[0] in set(index.uids)]


def records(account: Account) -> list[Record | Damage]:
    found: list[Record | Damage] = []
    for path in sorted(account.packs.iterdir()):
        fd = os.open(path, os.O_RDONLY)
        try:
            found += walk(fd)
        finally:
            os.close(fd)
    return found


def put(account: Account, number: int, size: int = 0) -> None:
    with account.transaction() as tx:
        tx.append(inbox(account), Staged.of(numbered(number, size=size)), flags=frozenset({f"k{number}"}))


@pytest.mark.parametrize("size", [0, 3 << 20])
@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize(
    ("error", "raised"), [(errno.ENOSPC, StoreFull), (errno.EROFS, StoreReadOnly), (errno.EIO, StoreReadOnly)]
)
def test_a_failing_pack_loses_nothing_that_was_acknowledged(
    store: Store, account: Account, disk: Disk, *, error: int, raised: type[Exception], short: bool, size: int
) -> None:
    put(account, 1, size)
    disk.count, disk.error, disk.short = 0, error, short
    put(account, 2, size)
    calls, expected = disk.count, [numbered(1, size=size), numbered(2, size=size)]
    for fail_at in range(1, calls + 1):
        disk.count, disk.fail_at = 0, fail_at
        before = account.mailboxes()
        with pytest.raises(raised):
            put(account, 10 + fail_at, size)
        disk.fail_at = None
        assert account.mailboxes() == before
        assert contents(account) == expected
        assert not any(isinstance(found, Damage) for found in records(account)), "no half record stays"
        put(account, 20 + fail_at, size)
        expected.append(numbered(20 + fail_at, size=size))
        assert contents(account) == expected
    assert problems(store) == []
    assert account.keywords() == ["k1", "k2", *sorted(f"k{20 + number}" for number in range(1, calls + 1))]


def test_a_disk_that_stays_full_is_told_each_time_and_not_held_against_the_store(
    store: Store, account: Account, disk: Disk
) -> None:
    put(account, 1)
    disk.count, disk.fail_at, disk.fail_all = 0, 1, True
    for number in range(2, 5):
        with pytest.raises(StoreFull):
            put(account, number)
        with pytest.raises(StoreFull), account.transaction(durable=False) as tx:
            tx.store_flags(inbox(account), [1], "+", frozenset({SEEN}))
    assert contents(account) == [numbered(1)]
    disk.fail_at = None
    put(account, 5)
    assert contents(account) == [numbered(1), numbered(5)]
    assert problems(store) == []


def test_one_large_message_without_space_fails_alone(account: Account, disk: Disk) -> None:
    put(account, 0)
    small, large = Staged.of(numbered(1)), Staged.of(numbered(2, size=3 << 20))
    with account.transaction() as tx:
        tx.append(inbox(account), small)
        disk.count, disk.fail_at = 0, 2  # first what waits is written, then the large one
        with pytest.raises(StoreFull):
            tx.append(inbox(account), large)
        disk.fail_at = None
        tx.append(inbox(account), Staged.of(numbered(3)))
    assert contents(account) == [numbered(0), numbered(1), numbered(3)]
    assert not any(isinstance(found, Damage) for found in records(account))


@contextmanager
def page_limit(account: Account) -> Iterator[None]:
    """SQLite may not grow its file: what a full disk is to it."""
    with account.write_lock:
        db = account._writer_db("FULL")
        pages = db.execute("PRAGMA page_count").get
        db.execute(f"PRAGMA max_page_count={pages}")
    yield
    with account.write_lock:
        account._writer_db("FULL").execute("PRAGMA max_page_count=1000000")


def test_a_full_database_fails_the_writes_and_comes_back(store: Store, account: Account) -> None:
    put(account, 0)
    done = [numbered(0)]
    with page_limit(account):
        for number in range(1, 200):
            try:
                put(account, number)
            except StoreFull:
                break
            done.append(numbered(number))
        else:
            pytest.fail("the limit did not bite")
        with pytest.raises(StoreFull):
            for number in range(200, 400):
                put(account, number)
                done.append(numbered(number))
    assert [account.read(row[1]) for row in account.fetch(inbox(account), range(1, 500), ("uid", "email"))] == done
    put(account, 1000)
    assert account.mailbox("INBOX").messages == len(done) + 1
    index = account.index(inbox(account))
    assert len(index.uids) == len(done) + 1
    assert problems(store) == []


def test_a_failed_commit_is_no_commit(store: Store, account: Account) -> None:
    put(account, 1)
    boxes = account.mailboxes()
    with pytest.raises(StoreFull), account.write_lock:
        ledger = account.begin(durable=True)
        ledger.db.set_commit_hook(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
        try:
            Transaction(ledger).append(boxes[0].id, Staged.of(numbered(2)))
            try:
                account.commit(ledger)
            except ZeroDivisionError:
                raise StoreFull("as the hook asked") from None
        finally:
            ledger.db.set_commit_hook(None)
    assert account.mailboxes() == boxes
    put(account, 3)
    assert contents(account) == [numbered(1), numbered(3)]
    assert problems(store) == []
    assert not any(isinstance(found, Damage) for found in records(account))


def test_another_holding_the_write_lock_for_long_is_busy(account: Account) -> None:
    other = apsw.Connection(str(account.path / "mail.db"))
    try:
        other.execute("BEGIN IMMEDIATE")
        with account.write_lock:
            account._writer_db("FULL").set_busy_timeout(0)
        with pytest.raises(StoreBusy):
            put(account, 1)
        other.execute("ROLLBACK")
        put(account, 2)
    finally:
        other.close()
    assert contents(account) == [numbered(2)]


# ---- what a kill leaves


def torn(account: Account, cut: int) -> None:
    """A pack whose last record lost its last `cut` bytes."""
    [path] = account.packs.iterdir()
    os.truncate(path, path.stat().st_size - cut)


@pytest.mark.parametrize("cut", [1, 30, 70, 200])
def test_the_next_owner_cuts_off_a_torn_tail(store: Store, account: Account, cut: int) -> None:
    put(account, 1)
    account.rest()
    writer = PackWriter.open(account.packs, lambda number: None)
    staged = Staged.of(numbered(7))
    writer.add(BLOB, staged.data(), staged.sha256)
    writer.flush(sync=True)
    writer.close()
    torn(account, cut)
    put(account, 2)
    assert contents(account) == [numbered(1), numbered(2)]
    assert not any(isinstance(found, Damage) for found in records(account))


def test_garbage_and_zeros_after_the_end_are_cut_off(store: Store, account: Account) -> None:
    put(account, 1)
    for garbage in (b"\0" * 5000, b"MKR1" * 100, os.urandom(300)):
        account.rest()
        [path] = account.packs.iterdir()
        with path.open("ab") as file:
            file.write(garbage)
        put(account, 2)
        assert not any(isinstance(found, Damage) for found in records(account))
    assert len(list(account.packs.iterdir())) == 1


def test_a_pack_with_damage_in_the_middle_is_left_alone(store: Store, account: Account) -> None:
    put(account, 1)
    put(account, 2)
    account.rest()
    [path] = account.packs.iterdir()
    db = apsw.Connection(str(account.path / "mail.db"))
    db.execute("DELETE FROM pack; UPDATE state SET pack = 0")  # nothing known: it looks from the start
    db.close()
    first = next(found for found in records(account) if isinstance(found, Record) and found.kind == BLOB)
    with path.open("r+b") as file:
        file.seek(first.offset + HEADER_SIZE + 5)
        file.write(b"X")
    size = path.stat().st_size
    put(account, 3)
    assert path.stat().st_size == size
    assert len(list(account.packs.iterdir())) == 2
    with pytest.raises(StoreCorrupt):
        account.read(1)
    assert account.read(3) == numbered(3)


def test_a_record_inside_a_message_never_passes_for_one(tmp_path: Path) -> None:
    packs = tmp_path
    inner = PackWriter.create(packs)
    inner.add(BLOB, b"forged", b"x" * 32)
    inner.flush(sync=True)
    inner.close()
    forged = (packs / "1.pack").read_bytes()[PACK_HEAD_SIZE:]
    outer = PackWriter.create(packs)
    outer.add(BLOB, forged, b"y" * 32)
    outer.flush(sync=True)
    outer.close()
    path = packs / "2.pack"
    data = bytearray(path.read_bytes())
    data[PACK_HEAD_SIZE] ^= 1  # the outer header
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        assert [type(found) for found in walk(fd)] == [Damage]
    finally:
        os.close(fd)


def test_every_single_byte_of_damage_is_seen(tmp_path: Path) -> None:
    writer = PackWriter.create(tmp_path)
    staged = Staged.of(b"Subject: x\r\n\r\n")
    writer.add(BLOB, staged.data(), staged.sha256)
    writer.flush(sync=True)
    writer.close()
    path = tmp_path / "1.pack"
    sound = path.read_bytes()
    for at in range(len(sound)):
        damaged = bytearray(sound)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        fd = os.open(path, os.O_RDONLY)
        try:
            assert [type(found) for found in walk(fd)] == [Damage], at
        finally:
            os.close(fd)
    path.write_bytes(sound)
    fd = os.open(path, os.O_RDONLY)
    try:
        [found] = walk(fd)
        assert isinstance(found, Record) and read_record(fd, found) == staged.data()
    finally:
        os.close(fd)


def test_an_append_to_a_mailbox_that_is_gone_stores_nothing(account: Account) -> None:
    [path] = account.packs.iterdir()
    put(account, 1)
    size = path.stat().st_size
    with pytest.raises(MailboxMissing), account.transaction() as tx:
        tx.append(999, Staged.of(numbered(2)))
    assert path.stat().st_size == size


def test_a_pack_whose_sync_failed_is_not_written_again_and_packs_do_not_pile_up(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(number: int) -> int:
        with account.transaction() as tx:
            return tx.append(inbox(account), Staged.of(numbered(number))).uid

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    assert put(1) == 1
    packs = pack_numbers(account.packs)
    before = pack_path(account.packs, packs[0]).read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        for _ in range(4):
            with pytest.raises(StoreReadOnly):
                put(2)
    assert put(2) == 2
    assert pack_numbers(account.packs) == [*packs, packs[-1] + 1]
    assert pack_path(account.packs, packs[0]).read_bytes() == before
    assert contents(account) == [numbered(1), numbered(2)]
