"""Servers with a past: numbers that go back, folders that show too little, filters that come and go. Nothing of the
archive is lost by that, nothing comes twice, and the ledger says what is so."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailkeep.backup import books
from mailkeep.backup.imap_remote import ImapConnection, RemoteMailbox
from mailkeep.backup.ledger import REMOVED_HERE
from mailkeep.errors import StoreFull
from mailkeep.mail.selection import Selection
from mailkeep.testing import Faulty
from tests.backup.archive import Archive
from tests.backup.test_pull_faulty import archive_of, fill
from tests.messages import numbered


@contextlib.contextmanager
def scene(tmp_path: Path, count: int, **settings: Any) -> Iterator[tuple[Faulty, Archive]]:
    """A server with so many messages in INBOX, pulled once."""
    server = Faulty()
    fill(server, count)
    with server, archive_of(server, tmp_path) as archive:
        archive.change(**settings)
        assert archive.pull().equal
        yield server, archive


def gone(archive: Archive, name: str = "INBOX") -> int:
    return sum("$Gone" in flags for _, _, flags in archive.mailbox(name))


def test_a_mirror_does_not_believe_a_folder_that_is_suddenly_empty(tmp_path: Path) -> None:
    with scene(tmp_path, 120, gone="mirror") as (server, archive):
        fill(server, 150, box=server.create("Work").name, first=1000)
        archive.pull()
        inbox = server.mailboxes["INBOX"]
        there = dict(inbox.messages)
        inbox.messages.clear()
        report = archive.pull()
        assert any("--allow-mass-delete" in note for note in report.folder("INBOX").notes)
        assert gone(archive) == len(archive.mailbox("INBOX")) == 120
        inbox.messages.update(there)
        assert archive.pull().equal
        assert (gone(archive), len(archive.mailbox("INBOX"))) == (0, 120)
        inbox.messages.clear()
        archive.pull()
        archive.pull(allow_mass=True)
        assert archive.mailbox("INBOX") == []


def test_a_mirror_does_not_believe_many_small_folders_that_are_suddenly_empty(tmp_path: Path) -> None:
    with scene(tmp_path, 30, gone="mirror") as (server, archive):
        for name in ("A", "B", "C"):
            fill(server, 30, box=server.create(name).name, first=100 * ord(name))
        archive.pull()
        there = {name: dict(box.messages) for name, box in server.mailboxes.items()}
        for box in server.mailboxes.values():
            box.messages.clear()
        assert any("--allow-mass-delete" in note for note in archive.pull().notes)
        assert archive.all_bytes().total() == 120
        for name, box in server.mailboxes.items():
            box.messages.update(there[name])
        assert archive.pull().equal
        assert [gone(archive, name) for name in ("INBOX", "A", "B", "C")] == [0, 0, 0, 0]


def test_a_mirror_keeps_a_large_folder_that_was_deleted_until_told(tmp_path: Path) -> None:
    with scene(tmp_path, 200, gone="mirror") as (server, archive):
        fill(server, 60, box=server.create("Work").name, first=1000)
        archive.pull()
        del server.mailboxes["Work"]
        assert archive.pull().removed == ["Work"]
        assert gone(archive, "Work") == len(archive.mailbox("Work")) == 60
        archive.pull(allow_mass=True)
        assert "Work" not in [box.name for box in archive.account.mailboxes()]


def test_another_uidvalidity_removes_nothing_from_a_mirror(tmp_path: Path) -> None:
    with scene(tmp_path, 20, gone="mirror") as (server, archive):
        inbox = server.mailboxes["INBOX"]
        for uid in (1, 2, 3):
            inbox.remove(uid)
        inbox.renumber()
        report = archive.pull()
        assert report.equal
        assert report.total("vanished") == gone(archive) == 3
        assert len(archive.mailbox("INBOX")) == 20


def test_numberings_that_come_and_go_are_taken_up_again(tmp_path: Path) -> None:
    with scene(tmp_path, 20) as (server, archive):
        inbox = server.mailboxes["INBOX"]
        first, everything = inbox.uidvalidity, dict(inbox.messages)
        for turn in range(5):
            other = turn % 2 == 0
            inbox.uidvalidity = first + 1000 if other else first
            inbox.messages = dict(list(everything.items())[:15]) if other else dict(everything)
            report = archive.pull()
            assert report.equal, report.facts()
            assert (report.total("fetched"), report.total("gone")) == (0, 5 if other else 0)
            assert (len(archive.mailbox("INBOX")), gone(archive)) == (20, 5 if other else 0)


@pytest.mark.parametrize("before", [0, 30])
def test_what_a_broken_run_filtered_comes_when_the_filter_is_lifted(
    before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise StoreFull("no room")

    with scene(tmp_path, before) as (server, archive):
        fill(server, 5, first=100)
        with monkeypatch.context() as patched:
            patched.setattr(books.Books, "finish", broken)
            assert not archive.pull(selection=Selection(smaller=1)).equal
        assert archive.pull().equal
        assert len(archive.mailbox("INBOX")) == before + 5


def test_keywords_beyond_what_an_account_can_have_stop_nothing(tmp_path: Path) -> None:
    with scene(tmp_path, 30) as (server, archive):
        for number, message in enumerate(list(server.mailboxes["INBOX"])):
            server.mailboxes["INBOX"].set_flags(message.uid, {"\\Seen", *(f"k{number}-{n}" for n in range(80))})
        fill(server, 5, first=100)
        report = archive.pull()
        assert report.equal, report.facts()
        assert report.folder("INBOX").notes == ["keywords left out, the account has too many"]
        assert len(archive.mailbox("INBOX")) == 35
        assert all("\\Seen" in flags for _, _, flags in archive.mailbox("INBOX")[:30])
        server.mailboxes["INBOX"].remove(1)
        report = archive.pull()
        assert (report.equal, report.total("gone")) == (True, 1)


def test_a_list_without_inbox_is_not_equal_and_marks_nothing(tmp_path: Path) -> None:
    with scene(tmp_path, 3) as (server, archive):
        fill(server, 4, box=server.create("Work").name)
        archive.pull()
        del server.mailboxes["INBOX"], server.mailboxes["Work"]
        report = archive.pull()
        assert not report.equal
        assert report.folder("Work").error == "the server did not list it this time"
        assert gone(archive) == gone(archive, "Work") == 0
        assert not archive.prove().equal


def test_a_folder_that_is_not_listed_any_more_but_opens_is_pulled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scene(tmp_path, 3) as (server, archive):
        fill(server, 4, box=server.create("Work").name)
        archive.pull()
        fill(server, 4, box="Work", first=100)
        every = ImapConnection.list_mailboxes

        async def some(connection: ImapConnection, **given: Any) -> list[RemoteMailbox]:
            return [each for each in await every(connection, **given) if each.name != "Work"]

        monkeypatch.setattr(ImapConnection, "list_mailboxes", some)
        report = archive.pull()
        assert report.equal
        assert [data for data, _, _ in archive.mailbox("Work")][4:] == [numbered(n) for n in range(100, 104)]
        assert archive.prove().folder("Work").kept == 8


def test_a_uid_that_is_given_again_is_another_message(tmp_path: Path) -> None:
    with scene(tmp_path, 10) as (server, archive):
        inbox = server.mailboxes["INBOX"]
        inbox.remove(10)
        archive.pull()
        inbox.uidnext = 10  # a server that counts from the highest that there is
        inbox.gone.clear()
        inbox.add(numbered(77), date=1_700_001_000)
        report = archive.pull()
        assert (report.equal, report.total("fetched")) == (True, 1)
        held = {data: flags for data, _, flags in archive.mailbox("INBOX")}
        assert len(held) == 11
        assert ("$Gone" in held[numbered(9)], "$Gone" in held[numbered(77)]) == (True, False)


def test_a_folder_whose_uids_begin_anew_under_the_same_uidvalidity(tmp_path: Path) -> None:
    with scene(tmp_path, 8) as (server, archive):
        inbox = server.mailboxes["INBOX"]
        inbox.messages.clear()
        inbox.uidnext = 1
        fill(server, 4, first=200)
        inbox.add(numbered(7), date=1_700_000_007, flags=["\\Seen"])  # one of before, at another UID
        report = archive.pull()
        assert (report.equal, report.total("fetched"), report.total("recognised")) == (True, 4, 1)
        held = {data: "$Gone" in flags for data, _, flags in archive.mailbox("INBOX")}
        assert held == {numbered(n): n < 7 for n in (*range(8), *range(200, 204))}
        report = archive.pull()
        assert (report.equal, report.total("fetched"), len(archive.mailbox("INBOX"))) == (True, 0, 12)


def test_what_its_owner_removed_is_not_said_to_be_kept(tmp_path: Path) -> None:
    with scene(tmp_path, 5) as (server, archive):
        fill(server, 4, box=server.create("Work").name, first=100)
        archive.pull()
        with archive.account.transaction() as transaction:
            transaction.delete_mailbox("Work")
            transaction.expunge(transaction.mailbox("INBOX").id, [1, 2], only_deleted=False)
        for more in (0, 1):
            fill(server, more, first=200)
            report = archive.pull()
            assert report.equal
            assert (report.folder("INBOX").kept, report.folder("Work").kept) == (3 + more, 0)
            assert report.reasons() == {REMOVED_HERE: 6}


def test_what_a_mirror_removed_comes_again_when_the_server_has_it_again(tmp_path: Path) -> None:
    with scene(tmp_path, 10, gone="mirror") as (server, archive):
        inbox = server.mailboxes["INBOX"]
        with archive.account.transaction() as transaction:
            transaction.expunge(transaction.mailbox("INBOX").id, [1], only_deleted=False)
        there = dict(inbox.messages)
        for uid in (1, 5, 6):
            del inbox.messages[uid]
        archive.pull()
        assert len(archive.mailbox("INBOX")) == 7
        archive.change(gone="keep")
        inbox.messages = there
        report = archive.pull()
        assert (report.equal, report.total("fetched")) == (True, 2)
        assert len(archive.mailbox("INBOX")) == 9, "but what its owner removed stays away"
        assert report.reasons() == {REMOVED_HERE: 1}


@pytest.mark.parametrize("below", [False, True])
def test_a_folder_that_was_renamed_and_one_made_anew_with_its_name(below: bool, tmp_path: Path) -> None:
    with scene(tmp_path, 3) as (server, archive):
        fill(server, 12, box=server.create("Work").name, first=100)
        if below:
            fill(server, 5, box=server.create("Work/A").name, first=150)
        archive.pull()
        server.account.rename("Work", "Old work", "/")
        fill(server, 4, box=server.create("Work").name, first=200)
        report = archive.pull()
        assert (report.equal, report.total("fetched"), report.total("gone")) == (True, 4, 0)
        assert [data for data, _, _ in archive.mailbox("Old work")] == [numbered(n) for n in range(100, 112)]
        assert [data for data, _, _ in archive.mailbox("Work")] == [numbered(n) for n in range(200, 204)]
        if below:
            assert len(archive.mailbox("Old work/A")) == 5
        report = archive.pull()
        assert (report.equal, report.total("fetched")) == (True, 0)


@pytest.mark.parametrize("killed", [False, True])
def test_gmail_whose_all_mail_is_hidden_later_brings_nothing_twice(
    killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise StoreFull("no room")

    server = Faulty("gmail")
    fill(server, 10)
    with server, archive_of(server, tmp_path) as archive:
        assert archive.pull().equal
        server.mailboxes["[Gmail]/Alle Nachrichten"].selectable = False
        if killed:
            with monkeypatch.context() as patched:
                patched.setattr(books.Books, "adopt", broken)
                assert not archive.pull().equal
        fill(server, 2, first=50)
        report = archive.pull()
        assert (report.equal, report.total("fetched"), len(archive.mailbox("INBOX"))) == (True, 2, 12)
        assert gone(archive) == 0
        server.mailboxes["[Gmail]/Alle Nachrichten"].selectable = True
        assert archive.pull().equal
        assert len(archive.mailbox("INBOX")) == len(archive.mailbox("[Gmail]/Alle Nachrichten")) == 12


def test_a_server_does_not_say_what_it_lacks_itself(tmp_path: Path) -> None:
    with scene(tmp_path, 3) as (server, archive):
        server.mailboxes["INBOX"].set_flags(1, {"\\Seen", "$Gone"})
        server.mailboxes["INBOX"].add(numbered(9), flags=["$Gone", "Work"])
        report = archive.pull()
        assert (report.equal, gone(archive), report.total("gone")) == (True, 0, 0)
