"""Verify finds what is wrong and nothing else, and may run while the account is written to."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from mailkeep.errors import StoreBusy
from mailkeep.store.account import Account
from mailkeep.store.blobs import HEADER_SIZE, pack_numbers, pack_path
from mailkeep.store.check import verify
from mailkeep.store.locks import locked
from mailkeep.store.staging import Staged
from mailkeep.store.store import Store
from tests.messages import numbered
from tests.store.mail import live, make_store, problems


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store, account = make_store(tmp_path)
    live(account, rounds=40)
    yield store
    store.close()


@pytest.fixture
def account(store: Store) -> Account:
    return store.account("ann")


def test_a_sound_account_has_no_problems(store: Store, account: Account) -> None:
    report = verify(store)
    assert report.problems == []
    assert report.unlisted == []
    assert report.counts["accounts"] == 1
    assert report.counts["messages"] == account.usage().messages
    assert report.counts["tombstones"] > 0
    assert report.counts["mailboxes"] >= len(account.mailboxes())


LAST = "(SELECT max(key) FROM message WHERE removed IS NULL)"
TAMPERED: list[tuple[str, str]] = [
    ("UPDATE mailbox SET messages = messages + 1 WHERE name = 'INBOX'", "counter"),
    ("UPDATE mailbox SET unseen = unseen + 1 WHERE name = 'INBOX'", "counter"),
    ("UPDATE mailbox SET deleted = deleted + 1 WHERE name = 'INBOX'", "counter"),
    ("UPDATE mailbox SET size = size - 1 WHERE name = 'INBOX'", "counter"),
    ("UPDATE mailbox SET checksum = checksum + 1 WHERE name = 'INBOX'", "counter"),
    ("UPDATE mailbox SET uidnext = 1 WHERE name = 'INBOX'", "counter"),
    ("UPDATE mailbox SET highestmodseq = 0 WHERE name = 'INBOX'", "modseq"),
    ("UPDATE state SET modseq = modseq - 1", "modseq"),
    (f"UPDATE message SET flags = 999 WHERE key = {LAST}", "message"),
    (f"UPDATE message SET size = 1 WHERE key = {LAST}", "message"),
    (f"UPDATE message SET email = 9999 WHERE key = {LAST}", "message"),
    (
        "UPDATE message SET key = 77 << 32 | 1 WHERE key = (SELECT max(key) FROM message WHERE removed IS NULL)",
        "message",
    ),
    (f"UPDATE message SET removed = 1 WHERE key = {LAST}", "modseq"),
    (f"DELETE FROM message WHERE key = {LAST}", "journal"),
    ("UPDATE message SET removed = NULL WHERE key = (SELECT max(key) FROM message WHERE fate = 1)", "journal"),
    ("UPDATE mailbox SET name = 'Elsewhere' WHERE name = 'Trash'", "journal"),
    ("UPDATE mailbox SET uidvalidity = 1 WHERE name = 'Trash'", "journal"),
    ("UPDATE mailbox SET removed = 1 WHERE name = 'Trash'", "journal"),
    ("DELETE FROM subscription WHERE name = 'Trash'", "journal"),
    ("UPDATE email SET offset = offset + 1 WHERE id = 3", "email"),
    ("UPDATE email SET pack = 12 WHERE id = 3", "email"),
    ("UPDATE email SET sha256 = zeroblob(32) WHERE id = 3", "email"),
    ("DELETE FROM email WHERE id = (SELECT email FROM message WHERE removed IS NULL LIMIT 1)", "message"),
]


@pytest.mark.parametrize(("sql", "kind"), TAMPERED)
def test_finds_a_wrong_row(store: Store, account: Account, sql: str, kind: str) -> None:
    account.rest()
    db = apsw.Connection(str(account.path / "mail.db"))
    db.execute(sql)
    assert db.changes() == 1
    db.close()
    found = problems(store)
    assert kind in {problem.kind for problem in found}
    assert {problem.account for problem in found} == {"ann"}
    assert all(problem.text and problem.remedy and problem.where for problem in found)


def first_blob(account: Account) -> tuple[int, int]:
    """Pack and offset of a live message's stored bytes."""
    account.rest()
    db = apsw.Connection(str(account.path / "mail.db"))
    sql = "SELECT pack, offset FROM email JOIN message ON email = id WHERE removed IS NULL ORDER BY id LIMIT 1"
    pack, offset = next(iter(db.execute(sql)))
    db.close()
    return pack, offset + HEADER_SIZE


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x40]))


def test_finds_a_flipped_bit_in_a_message(store: Store, account: Account) -> None:
    pack, offset = first_blob(account)
    flip(pack_path(account.packs, pack), offset + 20)
    assert {problem.kind for problem in problems(store)} == {"blob", "pack"}


def test_finds_a_flipped_bit_in_a_record_header(store: Store, account: Account) -> None:
    pack, offset = first_blob(account)
    flip(pack_path(account.packs, pack), offset - HEADER_SIZE + 30)
    assert {problem.kind for problem in problems(store)} >= {"email", "pack"}


def test_finds_a_missing_pack(store: Store, account: Account) -> None:
    account.rest()
    for number in pack_numbers(account.packs):
        pack_path(account.packs, number).unlink()
    assert {problem.kind for problem in problems(store)} >= {"email", "journal"}


def test_finds_a_missing_or_ruined_database(store: Store, account: Account) -> None:
    account.rest()
    (account.path / "mail.db").write_bytes(b"this is no database" * 1000)
    assert [problem.kind for problem in problems(store)] == ["database"]
    (account.path / "mail.db").unlink()
    assert [problem.kind for problem in problems(store)] == ["database"]


def test_a_killed_writers_tail_is_no_problem(store: Store, account: Account) -> None:
    account.rest()
    with pack_path(account.packs, pack_numbers(account.packs)[-1]).open("ab") as file:
        file.write(os.urandom(1000))
    assert problems(store) == []
    assert verify(store).counts["unfinished tails"] == 1


def test_names_directories_of_no_account(store: Store) -> None:
    (store.root / "accounts" / "4711").mkdir()
    assert verify(store).unlisted == ["4711"]


def test_runs_beside_writers(store: Store, account: Account) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with account.transaction() as tx:
                appended = tx.append(1, Staged.of(numbered(90_000 + number)))
                tx.store_flags(1, [appended.uid], "+", frozenset({"\\Seen"}))
                if number % 3 == 0:
                    tx.expunge(1, [appended.uid], only_deleted=False)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(20):
            assert problems(store) == []
    finally:
        stop.set()
        thread.join()


def test_waits_for_no_collection(store: Store, account: Account) -> None:
    with locked(account.path / "gc.lock", alone=True, busy="busy"), pytest.raises(StoreBusy):
        verify(store)


def test_stops_when_told(store: Store) -> None:
    answers: Callable[[], bool] = iter([False, *[True] * 100]).__next__
    assert verify(store, cancelled=answers).problems == []
