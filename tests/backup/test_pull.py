"""Pulls from a real Dovecot: what is there is here, message for message, whatever happens in between."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailkeep.backup import folders
from mailkeep.errors import StoreFull
from mailkeep.jobs.progress import Progress
from mailkeep.mail.selection import Selection
from tests import messages
from tests.backup.archive import Archive, Source, quoted
from tests.dovecot import Dovecot
from tests.messages import numbered, ugly
from tests.server import Server


@pytest.fixture
def archive(dovecot: Dovecot, user: str, tmp_path: Path) -> Iterator[Archive]:
    made = Archive(tmp_path / "store", dovecot.imap, user=user, password=dovecot.password)
    yield made
    made.close()


def test_the_first_pull_brings_everything_as_it_is(source: Source, archive: Archive) -> None:
    source.add("INBOX", [data for _, data in ugly()], flags=r"(\Seen $Label)")
    source.create("Work/2026")
    source.add("Work/2026", [numbered(n) for n in range(5)], flags=r"(\Flagged)")
    source.add("Sent", [numbered(9)])
    report = archive.pull()
    assert report.equal, report.facts()
    assert archive.contents() == source.contents()
    assert report.total("fetched") == len(ugly()) + 6
    again = archive.pull()
    assert again.equal
    assert again.total("fetched") == 0
    assert {folder.way for folder in again.folders} == {"unchanged"}
    assert archive.contents() == source.contents()


def test_what_is_new_and_flags_are_followed(source: Source, archive: Archive) -> None:
    source.add("INBOX", [numbered(n) for n in range(20)])
    archive.pull()
    source.add("INBOX", [numbered(n) for n in range(20, 25)], flags=r"(\Draft)")
    source.store("INBOX", "3:5", "+FLAGS", r"(\Seen $Work)")
    report = archive.pull()
    assert report.equal
    assert (report.total("fetched"), report.total("flags")) == (5, 3)
    assert archive.contents() == source.contents()
    source.store("INBOX", "4", "-FLAGS", "($Work)")
    assert archive.pull().total("flags") == 1
    assert archive.contents() == source.contents()


def test_what_vanishes_stays_marked_since_when(source: Source, archive: Archive) -> None:
    source.add("INBOX", [numbered(n) for n in range(6)])
    archive.pull()
    source.expunge("INBOX", "2,4")
    report = archive.pull(now=lambda: 1_700_000_000)
    assert report.equal
    (inbox,) = [folder for folder in report.folders if folder.name == "INBOX"]
    assert (inbox.server, inbox.kept, inbox.gone, inbox.vanished) == (4, 4, 2, 2)
    marked = {data for data, _, flags in archive.mailbox("INBOX") if "$Gone" in flags}
    assert marked == {numbered(1), numbered(3)}
    box = archive.account.remote_boxes(1)[[b.name for b in archive.account.remote_boxes(1)].index("INBOX")]
    rows = archive.account.remote_uids(box.id)
    assert dict(zip(rows.uids, rows.gone, strict=True)) == {1: 0, 2: 1_700_000_000, 3: 0, 4: 1_700_000_000, 5: 0, 6: 0}
    later = archive.pull()
    assert (later.total("gone"), later.total("vanished")) == (2, 0)


def test_a_mirror_removes_what_vanished(source: Source, archive: Archive) -> None:
    source.add("INBOX", [numbered(n) for n in range(4)])
    archive.change(gone="mirror")
    archive.pull()
    source.expunge("INBOX", "1:2")
    assert archive.pull().equal
    assert archive.contents() == source.contents()


def test_what_is_gone_can_be_out_of_sight(source: Source, archive: Archive) -> None:
    source.add("INBOX", [numbered(n) for n in range(4)])
    archive.store.directory.set_gone("ann", "hide")
    archive.pull()
    source.expunge("INBOX", "1")
    assert archive.pull().equal
    assert [data for data, _, _ in archive.mailbox("INBOX")] == [numbered(n) for n in (1, 2, 3)]
    assert [data for data, _, _ in archive.mailbox("Gone/INBOX")] == [numbered(0)]
    assert archive.pull().total("gone") == 1


def test_a_message_removed_here_does_not_come_again(source: Source, archive: Archive) -> None:
    source.add("INBOX", [numbered(n) for n in range(3)])
    archive.pull()
    inbox = archive.account.mailbox("INBOX")
    with archive.account.transaction() as transaction:
        transaction.expunge(inbox.id, [2], only_deleted=False)
    source.add("INBOX", [numbered(7)])
    assert archive.pull().total("fetched") == 1
    assert len(archive.mailbox("INBOX")) == 3


def test_a_message_moved_here_stays_where_it_was_put(source: Source, archive: Archive) -> None:
    source.add("INBOX", [numbered(n) for n in range(3)])
    archive.pull()
    inbox = archive.account.mailbox("INBOX")
    with archive.account.transaction() as transaction:
        mine = transaction.create_mailbox("Mine")
        transaction.move(inbox.id, [2], mine.id)
    source.store("INBOX", "2", "+FLAGS", r"(\Seen)")
    archive.pull()
    assert [flags for _, _, flags in archive.mailbox("Mine")] == [frozenset({"\\Seen"})]
    assert len(archive.mailbox("INBOX")) == 2


def test_another_uidvalidity_fetches_only_what_is_unknown(source: Source, archive: Archive) -> None:
    source.create("Box")
    source.add("Box", [data for _, data in ugly()], flags=r"(\Seen)")
    archive.pull()
    before = archive.contents()
    source.client.delete("Box")
    source.create("Box")
    kept = [data for _, data in ugly()][5:]
    source.add("Box", kept, flags=r"(\Answered)", date=1_600_000_000 + 5 * 60)
    source.add("Box", [numbered(77)])
    report = archive.pull()
    assert report.equal, report.facts()
    (box,) = [folder for folder in report.folders if folder.name == "Box"]
    assert box.way == "other UIDVALIDITY"
    assert box.fetched == 1
    assert box.recognised == len(kept)
    live = [row for row in archive.mailbox("Box") if "$Gone" not in row[2]]
    assert sorted(live) == sorted(source.mailbox("Box").elements())
    assert len(archive.mailbox("Box")) == len(ugly()) + 1, "what vanished stays, and nothing is there twice"
    assert set(before["Box"]) != set(archive.contents()["Box"])
    assert box.gone == box.vanished == 5
    again = archive.pull()
    assert (again.total("fetched"), again.total("recognised"), again.total("gone")) == (0, 0, 5)


def test_our_own_server_is_believed_which_message_is_which(tmp_path: Path) -> None:
    """It speaks OBJECTID. Without Message-IDs, of one date and one size, messages are known by that alone."""
    mail = [b"From: a@example.org\r\nSubject: the same\r\n\r\n%06d\r\n" % number for number in range(20)]
    with Server(tmp_path / "there", users={"ann@example.org": "secret"}) as server:
        source = Source(server.port("imap"), "ann@example.org", "secret")
        archive = Archive(tmp_path / "here", server.port("imap"), user="ann@example.org", password="secret")
        try:
            source.create("Box")
            for each in mail:
                source.add("Box", [each])
            assert archive.pull().equal
            source.client.delete("Box")
            source.create("Box")
            for each in reversed(mail):
                source.add("Box", [each])
            source.store("Box", "1", "+FLAGS", r"(\Seen)")
            progress = Progress()
            report = archive.pull(progress=progress)
            assert report.equal, report.facts()
            assert (progress.items_total, report.total("recognised")) == (0, 20)
            assert [data for data, _, flags in archive.mailbox("Box") if "\\Seen" in flags] == [mail[-1]]
        finally:
            source.close()
            archive.close()


def test_a_renamed_folder_is_renamed_here(source: Source, archive: Archive) -> None:
    source.create("Old")
    source.create("Old/Sub")
    source.add("Old", [numbered(n) for n in range(5)])
    source.add("Old/Sub", [numbered(n) for n in range(5, 8)])
    archive.pull()
    ids = {box.name: box.id for box in archive.account.mailboxes()}
    source.client.rename("Old", "New")
    source.add("New", [numbered(50)])
    report = archive.pull()
    assert report.equal, report.facts()
    assert report.total("fetched") == 1
    assert archive.contents() == source.contents()
    assert archive.account.mailbox("New").id == ids["Old"]
    assert archive.account.mailbox("New/Sub").id == ids["Old/Sub"]
    assert report.removed == []


def test_a_folder_renamed_to_below_itself(source: Source, archive: Archive) -> None:
    source.create("Projects")
    source.add("Projects", [numbered(n) for n in range(3)])
    archive.pull()
    source.client.rename("Projects", "Aside")
    source.client.rename("Aside", "Projects/Old")
    report = archive.pull()
    assert report.equal, report.facts()
    assert archive.contents() == source.contents()
    assert report.total("fetched") == 0


def test_a_rename_that_was_broken_off_goes_on(
    source: Source, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.create("Old")
    source.add("Old", [numbered(n) for n in range(5)])
    archive.pull()
    source.client.rename("Old", "New")

    def dies(*_: object) -> None:
        raise StoreFull("No space left on the disk")

    with monkeypatch.context() as patch:
        patch.setattr(folders, "_renamed", dies)
        assert not archive.pull().equal
    report = archive.pull()
    assert report.equal, report.facts()
    assert report.total("fetched") == 0
    assert report.removed == []
    assert archive.contents() == source.contents()


def test_a_deleted_folder_stays_and_is_marked(source: Source, archive: Archive) -> None:
    source.create("Doomed")
    source.add("Doomed", [numbered(n) for n in range(3)])
    archive.pull()
    source.client.delete("Doomed")
    report = archive.pull()
    assert report.removed == ["Doomed"]
    assert report.equal
    assert [flags for _, _, flags in archive.mailbox("Doomed")] == [frozenset({"$Gone"})] * 3
    assert archive.pull().removed == ["Doomed"]
    archive.change(gone="mirror")


def test_a_folder_deleted_and_made_again_is_another(source: Source, archive: Archive) -> None:
    source.create("Phoenix")
    source.add("Phoenix", [numbered(1)])
    archive.pull()
    source.client.delete("Phoenix")
    archive.pull()
    source.create("Phoenix")
    source.add("Phoenix", [numbered(2)])
    assert archive.pull().equal
    assert sorted(archive.mailbox("Phoenix"))[-1][0] == numbered(2)
    assert {("$Gone" in flags) for _, _, flags in archive.mailbox("Phoenix")} == {True, False}


@pytest.mark.parametrize(
    "name",
    ["Ünïcode", "日本語/メール", "a & b", 'quo"te', "with \\ back", "tab less ", "sp  ace", "%star", "INBOX/below"],
)
def test_odd_folder_names(source: Source, archive: Archive, name: str) -> None:
    source.create(name)
    source.add(name, [numbered(1)])
    report = archive.pull()
    assert report.equal, report.facts()
    assert len(archive.mailbox(name)) == 1
    assert archive.pull().total("fetched") == 0


def test_filters_leave_out_and_are_explained(source: Source, archive: Archive) -> None:
    source.add("INBOX", [numbered(n) for n in range(4)], flags=r"(\Seen)")
    source.add("INBOX", [numbered(n) for n in range(4, 10)])
    source.create("Other")
    source.add("Other", [numbered(99)])
    unread = Selection(folders=("INBOX",), flags=("unread",))
    report = archive.pull(selection=unread)
    assert report.equal, report.facts()
    assert report.reasons() == {"filtered": 4}
    assert "Other" in report.left_out
    assert len(archive.mailbox("INBOX")) == 6
    assert archive.pull(selection=unread).folders[0].way == "unchanged"
    found = archive.pull(selection=Selection(query="message"))
    assert found.equal, found.facts()
    everything = archive.pull()
    assert everything.equal
    assert everything.reasons() == {}
    assert archive.contents() == source.contents()


def test_a_filter_on_the_text_keeps_only_what_matches(source: Source, archive: Archive) -> None:
    source.add("INBOX", [numbered(n) for n in range(10)])
    report = archive.pull(selection=Selection(query='"message 7."'))
    assert report.equal
    assert report.reasons() == {"filtered": 9}
    assert [data for data, _, _ in archive.mailbox("INBOX")] == [numbered(7)]


def test_too_large_is_booked_and_makes_it_unequal(source: Source, archive: Archive) -> None:
    source.add("INBOX", [numbered(1), numbered(2, size=50_000)])
    report = archive.pull(size_max=10_000)
    assert not report.equal
    assert report.reasons() == {"too large": 1}
    assert archive.pull().equal, "without the limit it comes"


def test_the_whole_tree_can_go_below_a_mailbox(source: Source, archive: Archive) -> None:
    source.add("INBOX", [numbered(1)])
    source.create("Work")
    source.add("Work", [numbered(2)])
    assert archive.pull(into="Old mail").equal
    assert {"Old mail/Inbox", "Old mail/Work"} <= {box.name for box in archive.account.mailboxes()}
    assert archive.pull().equal
    assert len(archive.all_bytes()) == 2


def test_after_the_rows_are_lost_everything_is_recognised_by_origin(source: Source, archive: Archive) -> None:
    source.add("INBOX", [numbered(n) for n in range(30)])
    archive.pull()
    source.store("INBOX", "2", "+FLAGS", r"(\Seen)")
    with archive.account.transaction() as transaction:
        for box in archive.account.remote_boxes(1):
            transaction.drop_remote_box(box.id)
    report = archive.pull()
    assert report.equal
    assert (report.total("fetched"), report.total("recognised")) == (0, 30)
    assert archive.contents() == source.contents()


def test_a_big_message_comes_whole(source: Source, archive: Archive) -> None:
    big = numbered(1, size=12 << 20)
    source.add("INBOX", [big, numbered(2)])
    assert archive.pull().equal
    assert archive.contents() == source.contents()


def test_a_wrong_password_is_one_try_and_an_error(source: Source, dovecot: Dovecot, tmp_path: Path) -> None:
    archive = Archive(tmp_path / "other", dovecot.imap, user="x@example.org", password="wrong")
    try:
        report = archive.pull()
        assert report.error is not None
        assert "wrong" not in str(report.facts())
        assert not report.equal
    finally:
        archive.close()


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from mailkeep.backup import books, conveyor
from mailkeep.backup.context import Context
from mailkeep.backup.pull import pull
from mailkeep.backup.settings import find_remote
from mailkeep.store.store import Store

root, batches, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
conveyor.BATCH_MESSAGES = size
keep = books.Books.keep
def dying(self, rows):
    global batches
    batches -= 1
    if batches < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return keep(self, rows)
books.Books.keep = dying
store = Store.open(root)
asyncio.run(pull(Context(store), find_remote(store, "there")))
"""


@pytest.mark.parametrize("batches", [0, 1, 3, 6])
def test_killed_between_batches_it_goes_on_and_nothing_is_twice(
    source: Source, dovecot: Dovecot, user: str, tmp_path: Path, batches: int
) -> None:
    source.add("INBOX", messages.bulk(40, seed=batches))
    source.create("Two")
    source.add("Two", messages.bulk(30, seed=batches))
    archive = Archive(tmp_path / "store", dovecot.imap, user=user, password=dovecot.password)
    archive.close()
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "store"), str(batches), "10"]
    assert subprocess.run(arguments, timeout=60).returncode == -signal.SIGKILL
    archive = Archive(tmp_path / "store", dovecot.imap, user=user, password=dovecot.password)
    try:
        before = sum(archive.all_bytes().values())
        report = archive.pull()
        assert report.equal, report.facts()
        assert report.total("fetched") == 70 - before
        assert archive.contents() == source.contents()
    finally:
        archive.close()


def test_the_server_asked_again_agrees_or_says_what_lacks(source: Source, archive: Archive) -> None:
    source.add("INBOX", [numbered(n) for n in range(10)])
    assert archive.prove().facts()["missing"] == {"not pulled yet": 10}
    archive.pull()
    report = archive.prove()
    assert report.equal, report.facts()
    assert (report.total("kept"), report.total("flags"), report.total("dates")) == (10, 0, 0)
    source.store("INBOX", "3", "+FLAGS", r"(\Seen)")
    source.add("INBOX", [numbered(11)])
    inbox = archive.account.mailbox("INBOX")
    with archive.account.transaction() as transaction:
        transaction.expunge(inbox.id, [5], only_deleted=False)
    report = archive.prove()
    assert not report.equal
    assert report.reasons() == {"not pulled yet": 1, "removed here by its owner": 1}
    assert report.total("flags") == 1
    archive.pull()
    assert archive.prove().equal, "what the owner removed is no lack"


def test_from_our_own_server_everything_comes_as_it_is(tmp_path: Path) -> None:
    with Server(tmp_path / "there", users={"ann@example.org": "secret"}) as server:
        source = Source(server.port("imap"), "ann@example.org", "secret")
        archive = Archive(tmp_path / "here", server.port("imap"), user="ann@example.org", password="secret")
        try:
            source.add("INBOX", [data for _, data in ugly()], flags=r"(\Seen $Label)")
            source.create("Wörk/2026")
            source.add("Wörk/2026", [numbered(n) for n in range(5)], flags=r"(\Flagged)")
            assert archive.pull().equal
            assert archive.contents() == source.contents()
            source.expunge("INBOX", "3")
            source.store("INBOX", "5:9", "-FLAGS", r"(\Seen)")
            source.client.rename(quoted("Wörk/2026"), "Done")
            source.add("Done", [numbered(50)])
            report = archive.pull()
            assert report.equal, report.facts()
            assert (report.total("fetched"), report.total("vanished"), report.total("flags")) == (1, 1, 5)
            assert archive.contents()["Done"] == source.contents()["Done"]
            assert archive.prove().equal
        finally:
            source.close()
            archive.close()
