"""Two ways against real servers: what is done on either side is on both after a run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mailkeep.jobs.progress import Progress
from tests.backup.archive import Source
from tests.backup.two_sides import Here
from tests.dovecot import Dovecot
from tests.messages import numbered, ugly
from tests.server import Server


@pytest.fixture
def there(source: Source) -> Source:
    return source


@pytest.fixture
def here(dovecot: Dovecot, user: str, tmp_path: Path) -> Iterator[Here]:
    made = Here(tmp_path / "store", dovecot.imap, user=user, password=dovecot.password)
    yield made
    made.close()


def test_new_mail_goes_both_ways(there: Source, here: Here) -> None:
    there.add("INBOX", [data for _, data in ugly()], flags=r"(\Seen $Label)")
    there.create("Work/2026")
    there.add("Work/2026", [numbered(n) for n in range(3)], flags=r"(\Flagged)")
    here.create("Private")
    here.add("Private", numbered(7), numbered(8), flags=frozenset({"\\Answered", "Later"}))
    here.add("Sent", numbered(9))
    report = here.settle()
    assert here.contents() == there.contents()
    assert (report.total("fetched"), report.total("uploaded")) == (len(ugly()) + 3, 3)
    again = here.settle()
    assert (again.total("fetched"), again.total("uploaded"), again.actions) == (0, 0, [])


def test_flags_are_merged_one_by_one(there: Source, here: Here) -> None:
    there.add("INBOX", [numbered(1), numbered(2)], flags=r"(\Flagged Work)")
    here.settle()
    there.store("INBOX", "1", "+FLAGS", r"(\Seen)")
    there.store("INBOX", "1", "-FLAGS", "(Work)")
    here.flag("INBOX", 1, "+", "Later")
    here.flag("INBOX", 1, "-", "\\Flagged")
    here.settle()
    assert here.contents() == there.contents()
    assert {flags for data, _, flags in here.mailbox("INBOX") if data == numbered(1)} == {
        frozenset({"\\Seen", "Later"})
    }


def test_what_is_removed_on_one_side_goes_on_the_other(there: Source, here: Here) -> None:
    there.add("INBOX", [numbered(n) for n in range(6)])
    here.settle()
    there.expunge("INBOX", "1:2")
    here.expunge("INBOX", 5)
    report = here.settle()
    assert here.contents() == there.contents()
    assert {data for data, _, _ in here.mailbox("INBOX")} == {numbered(n) for n in (2, 3, 5)}
    assert (report.total("removed_here"), report.total("removed_there")) == (2, 1)
    with here.account.transaction() as tx:
        assert tx.undelete(here.id("INBOX")) >= 2


def test_moves_are_moves_on_the_other_side(there: Source, here: Here) -> None:
    there.create("Work")
    there.add("INBOX", [numbered(n) for n in range(4)])
    here.settle()
    here.move("INBOX", 1, "Work")
    there.client.select("INBOX")
    there.client.uid("MOVE", "2", "Work")
    there.client.unselect()
    report = here.settle()
    assert here.contents() == there.contents()
    assert (report.total("moved_here"), report.total("moved_there")) == (1, 1)
    assert (report.total("fetched"), report.total("uploaded")) == (0, 0)
    assert {data for data, _, _ in here.mailbox("Work")} == {numbered(0), numbered(1)}


def test_a_move_there_is_known_by_the_servers_own_identity(tmp_path: Path) -> None:
    """Ours speaks OBJECTID. No Message-IDs, one date and one size for all: nothing else tells them apart."""
    with Server(tmp_path / "there", users={"ann@example.org": "secret"}) as server:
        there = Source(server.port("imap"), "ann@example.org", "secret")
        here = Here(tmp_path / "here", server.port("imap"), user="ann@example.org", password="secret")
        try:
            there.create("Work")
            for number in range(6):
                there.add("INBOX", [b"From: a@example.org\r\nSubject: the same\r\n\r\n%06d\r\n" % number])
            here.settle()
            for old, new in (("INBOX", "Work"), ("Work", "INBOX")):
                there.client.select(old)
                there.client.uid("MOVE", "3:*" if old == "INBOX" else "1:2", new)
                there.client.unselect()
                progress = Progress()
                report = here.sync(progress=progress)
                assert report.equal, report.facts()
                assert here.contents() == there.contents()
                assert progress.items == 0, "nothing was fetched"
                assert report.total("moved_here") == (4 if old == "INBOX" else 2)
        finally:
            there.close()
            here.close()


def test_folders_are_made_renamed_and_removed_on_both_sides(there: Source, here: Here) -> None:
    for name in ("Alpha", "Alpha/Deep", "Beta", "Gamma", "Delta"):
        there.create(name)
        there.add(name, [numbered(len(name))])
    here.settle()
    with here.account.transaction() as tx:
        tx.rename_mailbox("Alpha", "Omega")
        tx.delete_mailbox("Gamma")
        tx.create_mailbox("Größe & Co")
    there.client.rename("Beta", "Psi")
    there.client.delete("Delta")
    report = here.settle()
    names = here.names() - {"Drafts", "Sent", "Junk", "Trash", "Archive"}
    assert names == {"INBOX", "Omega", "Omega/Deep", "Psi", "Größe & Co"}
    assert set(there.names()) - {"Drafts", "Sent", "Junk", "Trash", "Archive"} == names
    assert here.contents() == there.contents()
    assert (report.total("fetched"), report.total("uploaded")) == (0, 0), "what is renamed is not copied"
    assert here.settle().actions == []


def test_a_folder_that_changed_is_not_removed_with_the_rest(there: Source, here: Here) -> None:
    for name in ("Alpha", "Beta"):
        there.create(name)
        there.add(name, [numbered(1), numbered(2)])
    here.settle()
    with here.account.transaction() as tx:
        tx.delete_mailbox("Alpha")
    there.add("Alpha", [numbered(3)])
    here.flag("Beta", 2, "+", "\\Flagged")
    there.client.delete("Beta")
    here.settle()
    assert here.contents() == there.contents()
    assert {data for data, _, _ in here.mailbox("Alpha")} == {numbered(3)}
    assert {data for data, _, _ in here.mailbox("Beta")} == {numbered(2)}


def test_what_is_changed_beats_what_is_deleted(there: Source, here: Here) -> None:
    there.add("INBOX", [numbered(1), numbered(2), numbered(3)])
    there.create("Work")
    here.settle()
    here.expunge("INBOX", 1)
    there.store("INBOX", "1", "+FLAGS", r"(\Flagged)")
    here.flag("INBOX", 2, "+", "Important")
    there.expunge("INBOX", "2")
    here.move("INBOX", 3, "Work")
    there.expunge("INBOX", "3")
    here.settle()
    assert here.contents() == there.contents()
    assert {(data, flags) for data, _, flags in here.mailbox("INBOX")} == {
        (numbered(1), frozenset({"\\Flagged"})),
        (numbered(2), frozenset({"Important"})),
    }
    assert {data for data, _, _ in here.mailbox("Work")} == {numbered(3)}


def test_two_full_accounts_meet_without_a_copy(there: Source, here: Here) -> None:
    bodies = [data for _, data in ugly()]
    there.add("INBOX", bodies, flags=r"(\Seen)")
    here.add("INBOX", *bodies, flags=frozenset({"Mine"}))
    report = here.settle()
    assert here.contents() == there.contents()
    assert report.total("recognised") == len(bodies)
    assert (report.total("fetched"), report.total("uploaded")) == (0, 0)
    assert {flags for _, _, flags in here.mailbox("INBOX")} == {frozenset({"\\Seen", "Mine"})}


def test_a_pulled_archive_can_be_kept_the_same_from_then_on(
    there: Source, here: Here, dovecot: Dovecot, user: str
) -> None:
    import asyncio

    from mailkeep.backup import pull as pulling
    from mailkeep.backup.context import Context
    from mailkeep.backup.settings import find_remote

    there.add("INBOX", [numbered(n) for n in range(5)])
    asyncio.run(pulling.pull(Context(here.store), find_remote(here.store, "there")))
    here.expunge("INBOX", 2)
    here.flag("INBOX", 3, "+", "\\Flagged")
    there.store("INBOX", "4", "+FLAGS", r"(\Answered)")
    report = here.settle()
    assert here.contents() == there.contents()
    assert report.total("fetched") == 0
    assert sum(map(len, [here.uids("INBOX")])) == 4


def test_our_own_server_is_a_remote_as_any_other(tmp_path: Path) -> None:
    with Server(tmp_path / "other", users={"bea@example.org": "secret"}) as server:
        there = Source(server.port("imap"), "bea@example.org", "secret")
        here = Here(tmp_path / "store", server.port("imap"), user="bea@example.org", password="secret")
        try:
            there.create("Work")
            there.add("Work", [numbered(n) for n in range(3)], flags=r"(\Seen)")
            here.add("INBOX", *[data for _, data in ugly()], flags=frozenset({"Kept"}))
            here.settle()
            assert here.contents() == there.contents()
            here.move("Work", 1, "INBOX")
            here.expunge("Work", 2)
            there.store("Work", "3", "+FLAGS", r"(\Flagged)")
            there.client.rename("Work", "Done")
            here.settle()
            assert here.contents() == there.contents()
        finally:
            here.close()
            there.close()
