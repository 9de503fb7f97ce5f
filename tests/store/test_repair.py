"""Repair brings back from the packs what a client saw, and says what it cannot."""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import msgspec
import pytest

from mailkeep.errors import StoreBusy
from mailkeep.mail.query import Body
from mailkeep.store import search
from mailkeep.store.account import Account
from mailkeep.store.blobs import (
    BLOB,
    JOURNAL,
    Journal,
    PackWriter,
    Placed,
    encode_journal,
    pack_numbers,
    pack_path,
)
from mailkeep.store.repair import RECOVERED, repair
from mailkeep.store.staging import Staged
from mailkeep.store.store import Store
from tests.messages import numbered
from tests.store.mail import live, look, make_store, problems, see
from tests.store.test_verify import first_blob, flip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store, account = make_store(tmp_path)
    live(account, rounds=60)
    yield store
    store.close()


@pytest.fixture
def account(store: Store) -> Account:
    return store.account("ann")


def lose_database(account: Account) -> None:
    account.rest()
    for name in ("mail.db", "mail.db-wal", "mail.db-shm"):
        (account.path / name).unlink(missing_ok=True)


def execute(account: Account, sql: str) -> None:
    account.rest()
    db = apsw.Connection(str(account.path / "mail.db"))
    db.execute(sql)
    db.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_lost_database_comes_back_whole(tmp_path: Path, seed: int) -> None:
    store, account = make_store(tmp_path)
    live(account, rounds=120, seed=seed)
    before = look(account)
    origins = [b"o%d-%d" % (number, extra) for number in range(120) for extra in range(3)]
    known = account.known_origins(origins)
    lose_database(account)
    report = repair(store, account.info)
    assert (report.action, report.lost, report.recovered) == ("rebuilt", [], 0)
    store.close()
    store = Store.open(tmp_path)
    account = store.account("ann")
    assert look(account) == before
    assert account.known_origins(origins) == known
    assert problems(store) == []
    # Life goes on, and what was given before is not given again.
    live(account, rounds=20, seed=seed + 100)
    assert problems(store) == []
    lose_database(account)
    repair(store, account.info)
    assert problems(store) == []
    store.close()


def test_modseqs_go_on_above_what_clients_know(store: Store, account: Account) -> None:
    highest = max(box.highestmodseq for box in account.mailboxes())
    lose_database(account)
    repair(store, account.info)
    with account.transaction() as tx:
        assert tx.append(1, Staged.of(numbered(1))).modseq > highest


def test_tombstones_can_still_be_undeleted(store: Store, account: Account) -> None:
    with account.transaction() as tx:
        uid = tx.append(1, Staged.of(numbered(777_777))).uid
    with account.transaction() as tx:
        tx.expunge(1, [uid], only_deleted=False)
    lose_database(account)
    repair(store, account.info)
    before = account.mailbox("INBOX").messages
    with account.transaction() as tx:
        assert tx.undelete(1, since=None) >= 1
    assert account.mailbox("INBOX").messages > before
    assert problems(store) == []


def test_a_sound_account_is_left_alone(store: Store, account: Account) -> None:
    account.rest()
    report = repair(store, account.info)
    assert (report.action, report.problems) == ("nothing", [])


def test_counters_are_set_right_in_place(store: Store, account: Account) -> None:
    before = see(store)
    execute(account, "UPDATE mailbox SET messages = 99, size = 1, checksum = 2, unseen = 3, deleted = 4")
    report = repair(store, account.info)
    assert report.action == "counters"
    assert report.aside is None
    assert see(store) == before
    assert problems(store) == []


def test_the_broken_database_is_kept(store: Store, account: Account) -> None:
    account.rest()
    (account.path / "mail.db").write_bytes(b"no database" * 999)
    report = repair(store, account.info)
    assert report.aside is not None
    assert report.aside.read_bytes() == b"no database" * 999
    assert problems(store) == []


def test_refuses_while_somebody_has_the_account_open(store: Store, account: Account) -> None:
    account.mailboxes()
    with pytest.raises(StoreBusy):
        repair(store, account.info)


def test_damaged_bytes_are_named_and_the_rest_comes_back(store: Store, account: Account) -> None:
    before = see(store)
    pack, offset = first_blob(account)
    flip(pack_path(account.packs, pack), offset + 20)
    report = repair(store, account.info)
    assert report.action == "nothing"  # a new database would not help
    assert len(report.lost) == 2
    lose_database(account)
    report = repair(store, account.info)
    assert report.action == "rebuilt"
    assert any("UID" in line for line in report.lost)
    after = see(store)
    missing = before.messages.keys() - after.messages.keys()
    assert 1 <= len(missing) == report.lost_count - 1
    assert all(after.messages[key] == before.messages[key] for key in after.messages)
    assert problems(store) != []  # the damaged record is still there, but …
    assert {problem.kind for problem in problems(store)} == {"pack"}


def test_bytes_without_a_journal_go_to_recovered(store: Store, account: Account) -> None:
    lose_database(account)
    staged = Staged.of(numbered(123_456))
    writer = PackWriter.create(account.packs)
    writer.add(BLOB, staged.data(), staged.sha256)
    writer.flush(sync=True)
    writer.close()
    report = repair(store, account.info)
    assert report.recovered == 1
    seen = see(store)
    assert [value[-1] for (name, _), value in seen.messages.items() if name == RECOVERED] == [numbered(123_456)]
    assert RECOVERED in account.subscriptions()
    assert problems(store) == []
    lose_database(account)
    assert repair(store, account.info).recovered == 0  # it is in the journal now
    assert see(store) == seen


def test_a_lost_pack_with_the_beginning(store: Store, account: Account) -> None:
    """The journals that made the mailboxes are gone; what lies in other packs comes back, UIDs kept."""
    account.rest()
    number = pack_numbers(account.packs)[-1]
    writer = PackWriter.create(account.packs)  # so that the next transaction begins another pack
    other = writer.number
    writer.close()
    lock = os.open(pack_path(account.packs, number), os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with account.transaction() as tx:
        uid = tx.append(1, Staged.of(numbered(55_555))).uid
    account.rest()
    os.close(lock)
    assert other in pack_numbers(account.packs)
    pack_path(account.packs, number).unlink()
    lose_database(account)
    report = repair(store, account.info)
    assert any("name is not known" in line for line in report.lost)
    assert [(key[1], value[-1]) for key, value in see(store).messages.items()] == [(uid, numbered(55_555))]
    assert account.mailbox("INBOX").messages == 0
    assert problems(store) == []


def forge(account: Account, journal: Journal, *data: bytes) -> None:
    """A transaction's records in a pack, without its rows."""
    writer = PackWriter.create(account.packs)
    for each in data:
        staged = Staged.of(each)
        writer.add(BLOB, each, staged.sha256)
    payload = encode_journal(journal)
    writer.add(JOURNAL, payload, Staged.of(payload).sha256)
    writer.flush(sync=True)
    writer.close()


def state(account: Account) -> tuple[int, int]:
    account.rest()
    db = apsw.Connection(str(account.path / "mail.db"))
    row = next(iter(db.execute("SELECT modseq, txn FROM state")))
    db.close()
    return row


@pytest.mark.parametrize("followed", [True, False])
def test_a_transaction_that_never_committed_takes_no_acknowledged_uid(
    store: Store, account: Account, followed: bool
) -> None:
    """Killed between sync and commit; its modseq and UID were given again, and that one was acknowledged."""
    modseq, txn = state(account)
    uidnext = account.mailbox("INBOX").uidnext
    ghost = numbered(31_337)
    account.rest()
    op = Placed(modseq + 1, 1, uidnext, Staged.of(ghost).sha256, 1, 1, [], None)
    forge(account, Journal(424_242, txn, time.time() - 60, [op]), ghost)
    with account.transaction() as tx:
        kept = tx.append(1, Staged.of(numbered(42)))
    assert (kept.uid, kept.modseq) == (uidnext, modseq + 1)
    if followed:
        with account.transaction() as tx:
            tx.append(1, Staged.of(numbered(43)))
    assert problems(store) == []
    lose_database(account)
    repair(store, account.info)
    messages = see(store).messages
    assert messages["INBOX", uidnext][-1] == numbered(42)
    # What nobody was promised may come back, beside the others.
    assert [value[-1] for (name, _), value in messages.items() if name == RECOVERED] == [ghost]


def test_after_a_power_cut_what_was_acknowledged_outranks_flags_that_were_lost(tmp_path: Path) -> None:
    store, account = make_store(tmp_path)
    inbox = account.mailbox("INBOX").id
    with account.transaction() as tx:
        tx.append(inbox, Staged.of(numbered(1)))
    account.rest()
    before = (account.path / "mail.db").read_bytes()
    for mode in ("+", "-"):  # two: the second journal names the first as its parent
        with account.transaction(durable=False) as tx:
            tx.store_flags(inbox, [1], mode, frozenset({"\\Flagged"}))
    lose_database(account)
    (account.path / "mail.db").write_bytes(before)  # the journals were in the pack, the commits not on the disk
    store.close()
    store = Store.open(tmp_path)
    account = store.account("ann")
    with account.transaction() as tx:
        assert tx.append(inbox, Staged.of(numbered(2))).uid == 2
    assert not problems(store)
    expected = look(account)
    lose_database(account)
    report = repair(store, account.info)
    assert (report.recovered, report.lost) == (0, [])
    assert see(store).messages.keys() == expected.messages.keys() == {("INBOX", 1), ("INBOX", 2)}
    store.close()


def test_a_uid_that_a_dead_journal_names_is_not_given_again(store: Store, account: Account) -> None:
    modseq, txn = state(account)
    ghost = numbered(31_338)
    account.rest()
    op = Placed(modseq + 1, 1, 5000, Staged.of(ghost).sha256, 1, 1, [], None)
    forge(account, Journal(424_243, txn, time.time() - 60, [op]), ghost)
    with account.transaction() as tx:
        tx.append(1, Staged.of(numbered(44)))
    lose_database(account)
    repair(store, account.info)
    assert account.mailbox("INBOX").uidnext > 5000


@pytest.mark.parametrize("step", ["built", "set aside"])
def test_killed_on_the_way_it_is_run_again(store: Store, account: Account, step: str) -> None:
    before = see(store)
    account.rest()
    (account.path / "mail.db").write_bytes(b"no database" * 999)

    def die(what: str, done: int, total: int) -> None:
        if what == step:
            os._exit(9)

    child = os.fork()
    if child == 0:
        repair(store, account.info, die)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert repair(store, account.info).action == "rebuilt"
    assert see(store) == before
    assert problems(store) == []


def test_search_starts_anew_after_a_repair(store: Store, account: Account) -> None:
    while search.index_pending(account.path, 1000):
        pass
    wanted = list(search.search(account.path, account.mailbox("INBOX").id, Body("message")))
    assert wanted
    lose_database(account)
    repair(store, account.info)
    assert list(search.search(account.path, account.mailbox("INBOX").id, Body("message"))) == wanted


def ruin(path: Path, offset: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xaa" * length)


@pytest.mark.parametrize("lost", [False, True])
def test_a_ruined_pack_head_is_written_anew(store: Store, account: Account, lost: bool) -> None:
    before = see(store)
    fake = bytes(128) + b"MKR1" + bytes(60) + b"MKR1"  # a message may hold what looks like a record
    with account.transaction() as tx:
        uid = tx.append(1, Staged.of(fake)).uid
        tx.expunge(1, [uid], only_deleted=False)
    account.rest()
    path = pack_path(account.packs, pack_numbers(account.packs)[0])
    head = path.read_bytes()[:16]
    ruin(path, 0, 16)
    assert {problem.kind for problem in problems(store)} >= {"pack", "email"}
    if lost:
        lose_database(account)
    report = repair(store, account.info)
    assert report.heads_mended == 1
    assert report.action == ("rebuilt" if lost else "nothing")
    assert path.read_bytes()[:16] == head
    assert see(store).messages == before.messages
    assert problems(store) == []


def test_a_ruined_beginning_of_a_pack_loses_nothing_that_can_still_be_read(store: Store, account: Account) -> None:
    """The head, and with it the records that made the mailboxes."""
    before = see(store)
    account.rest()
    path = pack_path(account.packs, pack_numbers(account.packs)[0])
    ruin(path, 0, 100)
    report = repair(store, account.info)
    assert report.heads_mended == 1
    assert report.action == "rebuilt"
    assert see(store) == before
    assert {problem.kind for problem in problems(store)} <= {"pack"}
    # What was saved has a journal of its own now.
    lose_database(account)
    repair(store, account.info)
    assert see(store).messages == before.messages


def test_a_ruined_record_header_loses_nothing_that_can_still_be_read(store: Store, account: Account) -> None:
    before = see(store)
    pack, offset = first_blob(account)
    ruin(pack_path(account.packs, pack), offset - 64 + 8, 40)  # magic, digest and more; not the CRC of the bytes
    assert repair(store, account.info).action == "rebuilt"
    assert see(store) == before


def test_a_row_that_no_journal_knows_is_kept(store: Store, account: Account) -> None:
    execute(
        account,
        "INSERT INTO message (key, email, size, flags, modseq, internaldate, savedate, added) "
        "SELECT 1 << 32 | 9000, id, size, 1, 1, 5, 6, 1 FROM email LIMIT 1",
    )
    report = repair(store, account.info)
    assert report.adopted == 1
    assert ("INBOX", 9000) in see(store).messages
    assert problems(store) == []
    assert account.mailbox("INBOX").uidnext == 9001


def test_packs_of_before_are_read_as_they_were_meant(tmp_path: Path) -> None:
    """The journal of a mailbox deleted by an earlier version: all in it lost their origins, without a word of it."""
    store, account = make_store(tmp_path)
    message = Staged.of(numbered(1))
    modseq = 1000  # above all that there are
    inbox = account.mailbox("INBOX").id
    account.rest()
    writer = PackWriter.create(account.packs)
    writer.add(BLOB, message.data(), message.sha256)
    ops = [
        ["create", modseq + 1, 20, "Old", 99, [], 5],
        ["place", modseq + 2, 20, 1, message.sha256, 5, 5, [], b"o"],
        ["remove", modseq + 3, 20, b"1", 3, 5],
        ["delete", modseq + 3, 20, 5],
        ["place", modseq + 4, inbox, 1, message.sha256, 6, 6, [], b"o"],
    ]
    journal = msgspec.msgpack.encode([7, 0, time.time(), ops])
    writer.add(JOURNAL, journal, hashlib.sha256(journal).digest())
    writer.flush(sync=True)
    writer.close()
    lose_database(account)
    assert repair(store, account.info).lost == []
    account = store.account("ann")
    assert account.find_origins([b"o"]) == {b"o": (inbox, 1, True)}
    assert [box.name for box in account.removed_mailboxes()] == ["Old"]
    assert problems(store) == []
    store.close()
