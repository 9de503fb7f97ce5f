"""Mail that is filed on the server is filed here: not marked as gone for it, never lost for it, never twice."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailkeep.store.check import verify
from mailkeep.testing import Faulty, Ill
from tests.backup.archive import Archive, Source, quoted
from tests.backup.test_pull_faulty import archive_of, fill, pulled
from tests.dovecot import Dovecot
from tests.messages import numbered

NAMES = ("Archive", "Work")  # INBOX is always the first of the folders; between these two the order is by name


@pytest.fixture
def archive(dovecot: Dovecot, user: str, tmp_path: Path) -> Iterator[Archive]:
    made = Archive(tmp_path / "store", dovecot.imap, user=user, password=dovecot.password)
    yield made
    assert verify(made.store).problems == []
    made.close()


def move(source: Source, old: str, uids: str, new: str, *, by: str = "MOVE") -> None:
    assert source.client.select(quoted(old))[0] == "OK"
    assert source.client.uid(by, uids, quoted(new))[0] == "OK"
    source.client.unselect()
    if by == "COPY":
        source.expunge(old, uids)


def settled(archive: Archive, source: Source) -> bool:
    """Both sides are the same, the run that follows does nothing, and nothing comes back that is there already."""
    again = archive.pull()
    assert again.equal, again.facts()
    assert (again.total("fetched"), again.total("gone"), again.total("vanished")) == (0, 0, 0)
    assert archive.prove().equal
    same = archive.contents() == source.contents()
    with archive.account.transaction() as transaction:
        back = [transaction.undelete(box.id) for box in archive.account.mailboxes(hidden=True)]
    return same and not any(back)


@pytest.mark.parametrize("by", ["MOVE", "COPY"])
@pytest.mark.parametrize("way", [("INBOX", "Work"), ("Work", "INBOX"), NAMES, NAMES[::-1]])
@pytest.mark.parametrize("policy", ["show", "hide", "mirror"])
def test_what_is_filed_there_is_filed_here(
    source: Source, archive: Archive, by: str, way: tuple[str, str], policy: str
) -> None:
    old, new = way
    for name in NAMES:
        source.create(name)
    source.add(old, [numbered(n) for n in range(6)])
    source.add(new, [numbered(n) for n in range(10, 13)])
    if policy == "mirror":
        archive.change(gone="mirror")
    else:
        archive.store.directory.set_gone("ann", policy)
    assert archive.pull().equal
    move(source, old, "2:4", new, by=by)
    source.store(new, "4", "+FLAGS", r"(\Flagged)")
    report = archive.pull()
    assert report.equal, report.facts()
    assert (report.folder(old).moved, report.folder(old).gone, report.folder(old).vanished) == (3, 0, 0)
    assert settled(archive, source)


def test_what_is_copied_or_removed_has_not_moved(source: Source, archive: Archive) -> None:
    source.create("Work")
    source.add("INBOX", [numbered(n) for n in range(4)])
    archive.pull()
    source.client.select("INBOX")
    source.client.uid("COPY", "1", "Work")
    source.expunge("INBOX", "2")
    report = archive.pull()
    assert report.equal
    assert (report.folder("INBOX").moved, report.folder("INBOX").gone) == (0, 1)
    assert [("$Gone" in flags) for _, _, flags in archive.mailbox("INBOX")] == [False, True, False, False]
    source.expunge("INBOX", "1")
    report = archive.pull()
    assert report.folder("INBOX").gone == 2, "the copy is of an earlier run: who knows what it was made for"


@pytest.mark.parametrize(("moved", "left"), [("1", 1), ("2", 1), ("1:2", 0)])
def test_of_two_that_are_equal_each_is_one(source: Source, archive: Archive, moved: str, left: int) -> None:
    source.create("Work")
    source.add("INBOX", [numbered(1)] * 2, date=1_600_000_000)
    source.add("INBOX", [numbered(3)])
    archive.pull()
    move(source, "INBOX", moved, "Work")
    report = archive.pull()
    assert report.equal
    assert report.folder("INBOX").moved == 2 - left
    assert len(archive.mailbox("INBOX")) == left + 1
    assert settled(archive, source)


def test_of_two_that_are_equal_one_is_moved_and_one_removed(source: Source, archive: Archive) -> None:
    source.create("Work")
    source.add("INBOX", [numbered(1)] * 2)
    archive.pull()
    move(source, "INBOX", "1", "Work")
    source.expunge("INBOX", "2")
    report = archive.pull()
    assert report.equal
    assert (report.folder("INBOX").moved, report.folder("INBOX").gone) == (0, 2), "which is which cannot be said"
    assert len(archive.mailbox("Work")) == 1


def test_a_folder_whose_mail_was_moved_before_it_was_deleted(source: Source, archive: Archive) -> None:
    source.create("Old")
    source.create("New")
    source.add("Old", [numbered(n) for n in range(60)])
    archive.pull()
    move(source, "Old", "1:*", "New")
    source.client.delete("Old")
    assert archive.pull().equal
    assert archive.mailbox("Old") == []
    assert settled(archive, source)


def test_a_mirror_keeps_for_undelete_what_went_to_the_bin(source: Source, archive: Archive) -> None:
    source.create("Trash")
    source.add("INBOX", [numbered(n) for n in range(3)])
    archive.change(gone="mirror")
    archive.pull()
    move(source, "INBOX", "2", "Trash")
    archive.pull()
    source.expunge("Trash", "1")
    assert archive.pull().equal
    assert archive.contents() == source.contents()
    inbox = archive.account.mailbox("INBOX")
    with archive.account.transaction() as transaction:
        assert transaction.undelete(inbox.id) == 1


def test_what_its_owner_put_elsewhere_stays_there(source: Source, archive: Archive) -> None:
    source.create("Work")
    source.add("INBOX", [numbered(n) for n in range(3)])
    archive.pull()
    inbox = archive.account.mailbox("INBOX")
    with archive.account.transaction() as transaction:
        transaction.move(inbox.id, [2], transaction.create_mailbox("Mine").id)
    move(source, "INBOX", "2", "Work")
    assert archive.pull().equal
    assert [("$Gone" in flags) for _, _, flags in archive.mailbox("Mine")] == [True]
    assert len(archive.mailbox("Work")) == 1


def test_what_moved_away_and_comes_back(source: Source, archive: Archive) -> None:
    source.create("Work")
    source.add("INBOX", [numbered(n) for n in range(3)])
    archive.pull()
    for old, new, uid in (("INBOX", "Work", "2"), ("Work", "INBOX", "1"), ("INBOX", "Work", "4")):
        move(source, old, uid, new)
        report = archive.pull()
        assert report.equal
        assert report.folder(old).moved == 1
    assert settled(archive, source)


KILLED = """
import asyncio, os, signal, sys
from mailkeep.backup import moves
from mailkeep.backup.context import Context
from mailkeep.backup.pull import pull
from mailkeep.backup.settings import find_remote
from mailkeep.store.store import Store
from pathlib import Path
from mailkeep.store.transaction import Transaction
def die(*given): os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "before":
    moves.follow = die
else:
    Transaction.drop_remote_messages = die
store = Store.open(Path(sys.argv[1]))
asyncio.run(pull(Context(store), find_remote(store, "there")))
"""


@pytest.mark.parametrize("when", ["before", "within"])
def test_a_run_that_is_killed_leaves_too_much_and_never_too_little(
    source: Source, dovecot: Dovecot, user: str, tmp_path: Path, when: str
) -> None:
    source.create("Work")
    source.add("INBOX", [numbered(n) for n in range(3)])
    archive = Archive(tmp_path / "store", dovecot.imap, user=user, password=dovecot.password)
    archive.pull()
    archive.close()
    move(source, "INBOX", "2", "Work")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "store"), when]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
    archive = Archive(tmp_path / "store", dovecot.imap, user=user, password=dovecot.password)
    try:
        assert archive.pull().equal
        assert verify(archive.store).problems == []
        assert [("$Gone" in flags) for _, _, flags in archive.mailbox("INBOX")] == [False, True, False]
        assert [data for data, _, _ in archive.mailbox("Work")] == [numbered(1)]
    finally:
        archive.close()


def test_at_gmail_a_label_that_is_taken_away_is_no_move(tmp_path: Path) -> None:
    server = Faulty("gmail")
    server.mailboxes.pop(next(name for name, box in server.mailboxes.items() if box.special_use == "\\All"))
    fill(server, 4)
    work = server.create("Work")
    with server, archive_of(server, tmp_path) as archive:
        assert pulled(archive).equal
        work.add(numbered(2), date=1_700_000_002)
        server.mailboxes["INBOX"].remove(3)
        report = pulled(archive)
        assert (report.total("moved"), report.total("gone")) == (0, 1)


def test_the_new_place_failed_so_the_old_copy_stays(tmp_path: Path) -> None:
    server = Faulty()
    fill(server, 4)
    work = server.create("Work")
    with server, archive_of(server, tmp_path) as archive:
        assert archive.pull().equal
        inbox = server.mailboxes["INBOX"]
        data = inbox.messages[2].data
        inbox.remove(2)
        message = work.add(data, date=1_700_000_001, ill=Ill("no"))
        assert not archive.pull().equal
        assert sum("$Gone" in flags for _, _, flags in archive.mailbox("INBOX")) == 1
        assert archive.all_bytes()[data] == 1
        message.mail.ill = None
        assert archive.pull().equal
        assert archive.all_bytes()[data] == 2, "found in another run: the mark stays"
