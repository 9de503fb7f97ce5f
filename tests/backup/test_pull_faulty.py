"""Pulls from scripted servers, each with its provider's faults: all that is there comes, each once, with the reason
for what does not."""

import asyncio
import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailkeep.backup import books, conveyor
from mailkeep.backup import pull as pulling
from mailkeep.backup.imap_bodies import Clock
from mailkeep.backup.imap_remote import ImapConnection
from mailkeep.backup.ledger import RemoteReport
from mailkeep.backup.schedule import NEVER, Schedule, due_at
from mailkeep.backup.settings import find_remote
from mailkeep.backup.states import read_state
from mailkeep.errors import BadCredentials, StoreFull
from mailkeep.store.locks import locked
from mailkeep.testing import Break, Busy, Cut, Faults, Faulty, Ill, Proxy
from tests.backup.archive import NAME, Archive
from tests.messages import numbered, ugly

IMAP_KINDS = ("plain", "gmail", "o365", "exchange", "yahoo", "icloud", "domino")


@contextlib.contextmanager
def archive_of(server: Faulty, tmp_path: Path, *, port: int | None = None) -> Iterator[Archive]:
    made = Archive(tmp_path / "store", port or server.imap_port, user=server.user, password=server.password)
    try:
        yield made
    finally:
        made.close()


def fill(server: Faulty, count: int, box: str = "INBOX", first: int = 0) -> None:
    for number in range(first, first + count):
        server.mailboxes[box].add(numbered(number), date=1_700_000_000 + number, flags=["\\Seen"] if number % 3 else [])


def pulled(archive: Archive, runs: int = 5) -> RemoteReport:
    """Run until the sets are equal, as a schedule would."""
    report = archive.pull()
    for _ in range(runs):
        if report.equal:
            break
        report = archive.pull()
    return report


@pytest.mark.parametrize("kind", IMAP_KINDS)
def test_every_provider_gives_all_its_mail_in_the_end_and_none_twice(kind: str, tmp_path: Path) -> None:
    server = Faulty(kind)
    fill(server, 60)
    for _, data in ugly()[:20]:
        server.mailboxes["INBOX"].add(data, date=1_600_000_000)
    with server, archive_of(server, tmp_path) as archive:
        report = pulled(archive)
        assert report.equal, report.facts()
        wanted = Counter([*(numbered(n) for n in range(60)), *(data for _, data in ugly()[:20])])
        assert Counter(data for data, _, _ in archive.mailbox("INBOX")) == wanted
        fill(server, 5, first=100)
        report = pulled(archive)
        assert report.equal, report.facts()
        assert len(archive.mailbox("INBOX")) == 85


@pytest.mark.parametrize("kind", ["nil", "empty", "no", "bad", "missing", "hangup", "short", "bye"])
def test_one_bad_message_stops_nothing_and_is_booked(kind: str, tmp_path: Path) -> None:
    server = Faulty()
    fill(server, 10)
    server.mailboxes["INBOX"].add(numbered(50), ill=Ill(kind))  # type: ignore[arg-type]
    fill(server, 10, first=60)
    with server, archive_of(server, tmp_path) as archive:
        report = archive.pull()
        assert not report.equal
        assert len(archive.mailbox("INBOX")) == 20
        (inbox,) = [folder for folder in report.folders if folder.name == "INBOX"]
        assert [each.uid for each in inbox.listed] == [11]
        assert inbox.lacking == 1
        again = archive.pull()
        assert again.reasons() == report.reasons()
        assert again.total("fetched") == 0


def test_a_booked_failure_is_tried_again_so_often_and_then_when_asked(tmp_path: Path) -> None:
    server = Faulty()
    fill(server, 3)
    server.mailboxes["INBOX"].add(numbered(9), ill=Ill("no"))
    with server, archive_of(server, tmp_path) as archive:
        for _ in range(3):
            archive.pull()
        asked = len(server.commands(rb"FETCH|EXAMINE"))
        report = archive.pull()
        assert not report.equal
        assert report.reasons() == {"refused by the server": 1}
        assert len(server.commands(rb"FETCH|EXAMINE")) == asked, "given up"
        (bad,) = [message for message in server.mailboxes["INBOX"] if message.mail.ill is not None]
        bad.mail.ill = None
        assert archive.pull(retry=True).equal
        assert len(archive.mailbox("INBOX")) == 4


def test_a_replacement_is_not_archived_as_the_mail(tmp_path: Path) -> None:
    server = Faulty("exchange")
    fill(server, 3)
    server.mailboxes["INBOX"].add(b"X-Faulty: unreadable\r\n" + numbered(7))
    with server, archive_of(server, tmp_path) as archive:
        report = archive.pull()
        assert report.reasons() == {"replaced by the server": 1}
        assert len(archive.mailbox("INBOX")) == 3


def test_gmail_comes_once_with_labels_as_mailboxes(tmp_path: Path) -> None:
    server = Faulty("gmail")
    work = server.create("Work/Überblick")
    fill(server, 10)
    fill(server, 4, "Work/Überblick", first=20)
    both = server.mailboxes["INBOX"].add(numbered(30))
    work.place(both.mail)
    server.mailboxes["[Gmail]/Spam"].add(numbered(40))
    with server, archive_of(server, tmp_path) as archive:
        report = archive.pull()
        assert report.equal, report.facts()
        assert report.total("fetched") == 16, "15 of All Mail, one of Spam"
        assert len(archive.mailbox("[Gmail]/Alle Nachrichten")) == 15
        assert len(archive.mailbox("INBOX")) == 11
        assert {data for data, _, _ in archive.mailbox("Work/Überblick")} == {numbered(n) for n in (20, 21, 22, 23, 30)}
        assert [data for data, _, _ in archive.mailbox("[Gmail]/Spam")] == [numbered(40)]
        follow_labels(server, archive)


def follow_labels(server: Faulty, archive: Archive) -> None:
    """A label that is taken away, one that is put on, a flag, a message that goes to the bin."""
    inbox, work = server.mailboxes["INBOX"], server.mailboxes["Work/Überblick"]
    first, second, third = list(inbox)[:3]
    inbox.remove(first.uid)
    work.place(second.mail)
    inbox.set_flags(third.uid, ["\\Flagged"])
    for message in (first, second):  # Gmail counts a label as a change of the message
        every = server.account.all_mail
        assert every is not None
        every.messages[message.mail.places[every]].modseq = server.account.next_modseq()
    report = archive.pull()
    assert report.equal, report.facts()
    assert report.total("fetched") == 0
    assert numbered(0) not in {data for data, _, _ in archive.mailbox("INBOX")}
    assert numbered(1) in {data for data, _, _ in archive.mailbox("Work/Überblick")}
    assert {flags for data, _, flags in archive.mailbox("INBOX") if data == numbered(2)} == {frozenset({"\\Flagged"})}
    assert len(archive.mailbox("[Gmail]/Alle Nachrichten")) == 15
    every = server.account.all_mail
    assert every is not None
    for box, uid in list(third.mail.places.items()):
        box.remove(uid)
    server.mailboxes["[Gmail]/Papierkorb"].place(third.mail)
    report = archive.pull()
    assert report.equal, report.facts()
    assert {flags for data, _, flags in archive.mailbox("INBOX") if data == numbered(2)} == {
        frozenset({"\\Flagged", "$Gone"})
    }
    assert [data for data, _, _ in archive.mailbox("[Gmail]/Papierkorb")] == [numbered(2)]


def test_what_a_provider_caps_is_not_taken_for_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    capped = property(lambda self: dataclasses.replace(self._link.quirks, folder_cap=20))
    monkeypatch.setattr(ImapConnection, "quirks", capped)
    server = Faulty("yahoo", busy=(), folder_cap=20)
    fill(server, 15)
    with server, archive_of(server, tmp_path) as archive:
        assert pulled(archive).equal
        fill(server, 15, first=15)
        for _ in range(2):
            report = archive.pull()
            assert report.equal, report.facts()
            assert len(archive.mailbox("INBOX")) == 30
            assert not [flags for _, _, flags in archive.mailbox("INBOX") if "$Gone" in flags]


def test_a_changing_uidvalidity_costs_no_second_copy(tmp_path: Path) -> None:
    server = Faulty()
    fill(server, 30)
    with server, archive_of(server, tmp_path) as archive:
        assert archive.pull().equal
        for _ in range(3):
            server.mailboxes["INBOX"].renumber()
            report = archive.pull()
            assert report.equal, report.facts()
            assert report.total("fetched") == 0
            assert report.total("recognised") == 30
        assert len(archive.mailbox("INBOX")) == 30
        assert not any("$Gone" in flags for _, _, flags in archive.mailbox("INBOX"))


def anonymous(number: int) -> bytes:
    """No Message-ID, and as long as the others."""
    return b"From: a@example.org\r\nSubject: the same\r\n\r\n%06d\r\n" % number


def test_a_servers_own_identities_are_kept_and_spare_the_second_download(tmp_path: Path) -> None:
    server = Faulty("gmail")
    home = next(box for box in server.mailboxes.values() if box.special_use == "\\All")
    for number in range(30):
        home.add(anonymous(number), date=1_700_000_000)
    with server, archive_of(server, tmp_path) as archive:
        assert pulled(archive).equal
        ours = home.name.replace(".", "/")
        before = archive.mailbox(ours)
        assert len(before) == 30
        for uid in list(home.messages)[::2]:
            home.set_flags(uid, {"\\Seen"})
        archive.pull()  # rows are written anew for their flags: the identity stays
        for _ in range(2):
            home.renumber()
            bytes_before = server.body_bytes
            report = pulled(archive)
            assert report.equal, report.facts()
            assert server.body_bytes == bytes_before
            assert report.total("recognised") == 30
            assert [data for data, _, _ in archive.mailbox(ours)] == [data for data, _, _ in before]
            assert not any("$Gone" in flags for _, _, flags in archive.mailbox(ours))


def test_where_sizes_lie_content_tells_after_a_renumbering(tmp_path: Path) -> None:
    server = Faulty("exchange")
    fill(server, 12)
    with server, archive_of(server, tmp_path) as archive:
        assert pulled(archive).equal
        server.mailboxes["INBOX"].renumber()
        assert pulled(archive).equal
        assert len(archive.mailbox("INBOX")) == 12


@pytest.mark.parametrize("nth", range(1, 22))
@pytest.mark.parametrize("when", ["before", "middle", "after"])
def test_cut_at_any_command_the_next_run_ends_equal(nth: int, when: str, tmp_path: Path) -> None:
    server = Faulty(breaks=(Break(nth=nth, when=when),))  # type: ignore[arg-type]
    fill(server, 12)
    server.create("Work")
    fill(server, 8, "Work", first=50)
    with server, archive_of(server, tmp_path) as archive:
        report = pulled(archive, 3)
        assert report.equal, report.facts()
        assert Counter(archive.all_bytes()) == Counter(numbered(n) for n in [*range(12), *range(50, 58)])


@pytest.mark.parametrize("cut", [200, 900, 2000, 5000, 9000])
def test_a_line_that_is_cut_again_and_again_comes_to_its_end(cut: int, tmp_path: Path) -> None:
    server = Faulty(faults=Faults(cut_after_bytes=cut + 2500, cut_times=6))
    fill(server, 40)
    with server, archive_of(server, tmp_path) as archive:
        assert pulled(archive).equal
        assert len(archive.mailbox("INBOX")) == 40


def test_a_busy_server_is_waited_for(tmp_path: Path) -> None:
    server = Faulty(busy=(Busy(every=2, times=8),))
    fill(server, 30)
    with server, archive_of(server, tmp_path) as archive:
        assert pulled(archive).equal


def test_stopped_in_the_middle_what_came_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conveyor, "BATCH_MESSAGES", 10)
    server = Faulty()
    fill(server, 300)
    with server, Proxy(("127.0.0.1", server.imap_port), bytes_per_s=60_000) as proxy:  # noqa: SIM117
        with archive_of(server, tmp_path, port=proxy.port) as archive:

            async def run() -> RemoteReport:
                context = archive.context()
                context.progress.listener = lambda progress: (
                    progress.items >= 20 and loop.call_soon_threadsafe(context.stop.set)
                )
                loop = asyncio.get_running_loop()
                return await pulling.pull(context, find_remote(archive.store, NAME))

            report = asyncio.run(run())
            assert report.stopped is not None
            assert not report.equal
            came = len(archive.mailbox("INBOX"))
            assert 20 <= came < 300
            (inbox,) = [folder for folder in report.folders if folder.name == "INBOX"]
            assert inbox.kept == came
    with server, archive_of(server, tmp_path) as archive:
        archive.change(port=server.imap_port)
        assert pulled(archive).equal
        assert len(archive.mailbox("INBOX")) == 300


def test_a_cut_in_the_middle_of_a_body(tmp_path: Path) -> None:
    server = Faulty()
    fill(server, 20)
    cuts = [Cut(at=rb"This is message 7\.", times=1), Cut(at=rb"This is message 15\.", times=2)]
    with server, Proxy(("127.0.0.1", server.imap_port), cuts=cuts) as proxy:  # noqa: SIM117
        with archive_of(server, tmp_path, port=proxy.port) as archive:
            assert pulled(archive).equal
            assert len(archive.mailbox("INBOX")) == 20


@pytest.mark.parametrize("kind", ["exchange", "icloud", "domino", "gmail"])
def test_flags_and_losses_are_followed_whatever_the_server_can(kind: str, tmp_path: Path) -> None:
    server = Faulty(kind)
    fill(server, 20)
    inbox = server.mailboxes["INBOX"]
    with server, archive_of(server, tmp_path) as archive:
        assert pulled(archive).equal
        flags = {message.data: frozenset(message.flags) for message in inbox}
        assert {data: flags for data, _, flags in archive.mailbox("INBOX")} == flags
        inbox.set_flags(list(inbox)[4].uid, ["\\Flagged", "\\Seen"])
        lost = list(inbox)[7]
        for box, uid in list(lost.mail.places.items()):
            box.remove(uid)
        assert pulled(archive).equal
        assert archive.pull().equal
        here = {data: flags for data, _, flags in archive.mailbox("INBOX")}
        assert here[numbered(4)] == {"\\Flagged", "\\Seen"}
        assert "$Gone" in here[numbered(7)]
        assert sum("$Gone" in flags for flags in here.values()) == 1


def test_watching_brings_what_comes_at_once(tmp_path: Path) -> None:
    server = Faulty()
    fill(server, 3)
    with server, archive_of(server, tmp_path) as archive:

        async def watch() -> list[int]:
            context = archive.context(clock=Clock())
            counted = []
            async with asyncio.timeout(30):
                async for report in pulling.follow(context, find_remote(archive.store, NAME)):
                    counted.append(report.total("fetched"))
                    if sum(counted) >= 5:
                        context.stop.set()
                    else:
                        asyncio.get_running_loop().call_later(0.3, fill, server, 1, "INBOX", 10 + len(counted))
            return counted

        assert asyncio.run(watch())[:3] == [3, 1, 1]


def test_what_came_before_a_silence_is_kept_though_the_run_is_killed(tmp_path: Path) -> None:
    server = Faulty()
    fill(server, 30)
    with server, Proxy(("127.0.0.1", server.imap_port)) as proxy:  # noqa: SIM117
        with archive_of(server, tmp_path, port=proxy.port) as archive:

            async def run() -> None:
                came = asyncio.Event()
                context = archive.context()
                context.progress.listener = lambda progress: progress.items and loop.call_soon_threadsafe(came.set)
                loop = asyncio.get_running_loop()
                server.change(bytes_per_s=3000.0)
                going = asyncio.ensure_future(pulling.pull(context, find_remote(archive.store, NAME)))
                async with asyncio.timeout(30):
                    await came.wait()
                assert archive.mailbox("INBOX"), "committed while the rest is on its way"
                context.stop.set()
                await going

            asyncio.run(run())


@pytest.mark.parametrize("dies_in", ["fill_shelf", "adopt", "keep", "clear_shelf", "finish"])
def test_a_recognition_that_is_broken_off_goes_on_though_numbers_change_again(
    dies_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise StoreFull("No space left on the disk")

    server = Faulty()
    fill(server, 30)
    inbox = server.mailboxes["INBOX"]
    with server, archive_of(server, tmp_path) as archive:
        assert archive.pull().equal
        for first in (40, 50):
            inbox.renumber()
            fill(server, 1, first=first)
            with monkeypatch.context() as patch:
                patch.setattr(books.Books, dies_in, dies)
                assert not archive.pull().equal
        inbox.remove(next(iter(inbox)).uid)
        inbox.renumber()
        report = archive.pull()
        assert report.equal, report.facts()
        data = Counter(data for data, _, _ in archive.mailbox("INBOX"))
        assert data == Counter(numbered(n) for n in [*range(30), 40, 50])
        assert [data for data, _, flags in archive.mailbox("INBOX") if "$Gone" in flags] == [numbered(0)]
        ways = [folder.way for folder in archive.pull().folders]
        assert set(ways) == {"unchanged"}


def test_who_watches_tries_a_refused_log_in_once(tmp_path: Path) -> None:
    """Neither the next pull nor the wait for news tries the password again; and the schedule lets it be as well."""

    async def watched(archive: Archive, *, then: str | None = None) -> list[RemoteReport]:
        reports = []
        remote = find_remote(archive.store, NAME)
        async for report in pulling.follow(archive.context(), remote, poll_s=0.01):
            reports.append(report)
            if then is not None:
                server.change(login_refused=then)
        return reports

    with Faulty("plain", login_refused="[AUTHENTICATIONFAILED] no") as server, archive_of(server, tmp_path) as archive:
        fill(server, 1)
        (report,) = asyncio.run(watched(archive))
        assert isinstance(report.failure, BadCredentials)
        assert len(server.commands(rb"AUTHENTICATE|LOGIN")) == 1
        assert due_at(Schedule(60), read_state(find_remote(archive.store, NAME).state), now=1 << 40) == NEVER
        server.change(login_refused=None)
        first, second = asyncio.run(watched(archive, then="[AUTHENTICATIONFAILED] no more"))
        assert first.equal
        assert isinstance(second.failure, BadCredentials)
        assert len(server.commands(rb"AUTHENTICATE|LOGIN")) == 3
        # What did not get as far as to log in does not lift it.
        lock = archive.account.path / f"remote-{find_remote(archive.store, NAME).id}.lock"
        with locked(lock, alone=True, busy=""):
            assert "under way" in (archive.pull().error or "")
        assert read_state(find_remote(archive.store, NAME).state)["last"]["refused"]
        server.change(login_refused=None)
        archive.pull()
        assert not read_state(find_remote(archive.store, NAME).state)["last"]["refused"]
