"""A POP3 account comes here: from our own server, from Dovecot, and from servers that do it wrong or break off."""

import asyncio
import contextlib
import smtplib
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailkeep.backup import pop3_pull, pop3_remote, proof
from mailkeep.backup.context import Context
from mailkeep.backup.ledger import REMOVED_HERE, RemoteReport
from mailkeep.backup.settings import Remote, Settings, of_row, pack
from mailkeep.mail.selection import Selection
from mailkeep.store.store import Store
from mailkeep.testing import Break, Faulty, Ill, PopFaults
from tests import messages
from tests.dovecot import Dovecot
from tests.server import Server, program

NOW = 1_800_000_000


@dataclass
class Keep:
    """A store with an archive account and one POP3 remote of it."""

    store: Store
    remote: Remote
    now: int = NOW

    def pull(self, **given: Any) -> RemoteReport:
        """One run, as the command does it; what it found afterwards holds for all runs."""
        context = Context(self.store, now=lambda: self.now, **given)
        return asyncio.run(pop3_pull.pull(context, self.remote))

    def change(self, **changes: Any) -> None:
        self.remote = replace(self.remote, settings=msgspec.structs.replace(self.remote.settings, **changes))

    def held(self, mailbox: str = "INBOX") -> list[bytes]:
        """The messages that are here."""
        account = self.store.account("archive")
        account.refresh()
        box = account.mailbox(mailbox)
        index = account.index(box.id)
        try:
            return [account.read(email) for _, email in account.fetch(box.id, index.uids, ("uid", "email"))]
        finally:
            account.release(index)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with contextlib.closing(Store.open(tmp_path / "keep")) as opened:
        opened.directory.add("archive")
        yield opened


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pop3_pull, "PAUSE_S", 0)


def keep(store: Store, port: int, *, user: str = "ann@example.org", name: str = "pop", **given: Any) -> Keep:
    made = Settings(
        protocol="pop3",
        host="127.0.0.1",
        port=port,
        user=user,
        tls="none",
        **{"secret": "command", "command": "echo secret", **given},
    )
    account = store.directory.find("archive")
    assert account is not None
    return Keep(store, of_row(store.remotes.add(name, account.id, settings=pack(made))))


def fill(server: Faulty, count: int, *, first: int = 1) -> list[bytes]:
    """Numbered messages; returns what is in the maildrop then."""
    box = server.mailboxes["INBOX"]
    for number in range(first, first + count):
        box.add(messages.numbered(number, size=100 * (number % 7)))
    return drop_of(server)


def drop_of(server: Faulty) -> list[bytes]:
    return [message.data for message in server.mailboxes["INBOX"]]


def assert_equal(report: RemoteReport) -> None:
    assert report.error is None, report.error
    assert report.equal, report.facts()


def same(one: list[bytes], other: list[bytes]) -> bool:
    return Counter(one) == Counter(other)


# ---- servers that do it right


def test_from_our_own_server(store: Store, tmp_path: Path) -> None:
    mail = [data for _, data in messages.corpus() if data.endswith(b"\r\n") and len(data) > 2]
    mail = list(dict.fromkeys(mail))
    with Server(tmp_path / "data", users={"ann@example.org": "secret"}, doors=("pop3", "lmtp")) as server:
        with smtplib.LMTP("127.0.0.1", server.port("lmtp")) as lmtp:
            lmtp.ehlo()
        source = Store.open(server.data)
        with contextlib.closing(source):
            account = source.account("ann@example.org")
            inbox = account.mailbox("INBOX").id
            for data in mail:
                staging = source.stage()
                staging.write(data)
                staged = staging.finish()
                with account.transaction() as transaction:
                    transaction.append(inbox, staged)
                staged.close()
            kept = keep(store, server.port("pop3"))
            report = kept.pull()
            assert_equal(report)
            assert report.total("fetched") == report.total("server") == len(mail)
            assert same(kept.held(), mail)
            again = kept.pull()
            assert_equal(again)
            assert again.total("fetched") == again.total("recognised") == 0
            # Clients of the source find the same identifiers here.
            here = store.account("archive")
            assert len(here.uidls(here.mailbox("INBOX").id)) == len(mail)


def test_from_dovecot(store: Store, dovecot: Dovecot) -> None:
    mail = [messages.numbered(number, size=900) for number in range(50)]
    user = "pop3-pull@example.org"
    with smtplib.LMTP("127.0.0.1", dovecot.lmtp) as lmtp:
        for data in mail:
            lmtp.sendmail("from@example.org", [user], data)
    kept = keep(store, dovecot.pop3, user=user)
    report = kept.pull()
    assert_equal(report)
    assert report.total("fetched") == 50
    assert len(set(kept.held())) == 50
    with smtplib.LMTP("127.0.0.1", dovecot.lmtp) as lmtp:
        lmtp.sendmail("from@example.org", [user], messages.numbered(50))
    kept.change(leave="verified")
    report = kept.pull()
    assert_equal(report)
    assert report.total("fetched") == 1
    assert any("51 messages deleted" in note for note in report.folders[0].notes)
    report = kept.pull()
    assert_equal(report)
    assert report.total("server") == 0
    assert len(set(kept.held())) == 51


# ---- servers that do it wrong


ODD = {
    "good": PopFaults(),
    "one at a time": PopFaults(pipelining=False),
    "no capabilities": PopFaults(capa=False, pipelining=False),
    "repeated UIDLs": PopFaults(uidl="repeated"),
    "no UIDL": PopFaults(uidl="missing"),
    "no UIDL, no TOP": PopFaults(uidl="missing", top=False),
    "empty UIDLs": PopFaults(uidl="empty"),
    "changing UIDLs": PopFaults(uidl="changing"),
    "changing UIDLs, no TOP": PopFaults(uidl="changing", top=False),
    "long UIDLs with junk": PopFaults(uidl="long"),
    "sizes too large": PopFaults(size_error=7),
    "sizes too small": PopFaults(size_error=-40),
    "no sizes": PopFaults(list_sizes=False, uidl="missing"),
    "lines in LF": PopFaults(bare_lf=True),
    "STAT counts wrong": PopFaults(stat_error=3),
}


@pytest.mark.parametrize("name", ODD)
def test_everything_comes_once(store: Store, name: str) -> None:
    with Faulty("plain", pop=ODD[name]) as server:
        mail = fill(server, 30)
        kept = keep(store, server.pop3_port)
        report = kept.pull()
        assert_equal(report)
        assert report.total("fetched") == 30
        assert same(kept.held(), mail)
        retrieved = sum(line.startswith(b"RETR") for line in server.log)
        report = kept.pull()
        assert_equal(report)
        assert report.total("fetched") == 0
        assert same(kept.held(), mail)
        if ODD[name].top:
            # Told by UIDL or by header: nothing is downloaded twice.
            assert sum(line.startswith(b"RETR") for line in server.log) == retrieved
        mail = fill(server, 5, first=31)
        report = kept.pull()
        assert_equal(report)
        assert report.total("fetched") == 5
        assert same(kept.held(), mail)


@pytest.mark.parametrize("name", ODD)
def test_what_is_on_disk_is_deleted_and_nothing_else(store: Store, name: str) -> None:
    with Faulty("plain", pop=ODD[name]) as server:
        mail = fill(server, 12)
        bad = server.mailboxes["INBOX"].add(messages.numbered(99), ill=Ill("no"))
        kept = keep(store, server.pop3_port, leave="delete")
        report = kept.pull()
        assert report.folders[0].missing == {"refused by the server": 1}
        assert drop_of(server) == [bad.data]
        assert same(kept.held(), mail)
        later = fill(server, 3, first=50)[1:]
        kept.pull()
        assert drop_of(server) == [bad.data]
        assert same(kept.held(), mail + later)


def test_equal_messages_stay_as_many_as_they_are(store: Store) -> None:
    for name in ("good", "no UIDL", "changing UIDLs, no TOP"):
        with Faulty("plain", pop=ODD[name]) as server:
            for _ in range(3):
                server.mailboxes["INBOX"].add(messages.numbered(1))
            kept = keep(store, server.pop3_port, name=name.replace(" ", "-").replace(",", ""), into=name)
            assert kept.pull().total("fetched") == 3
            assert kept.pull().total("fetched") == 0
            assert kept.held(name) == [messages.numbered(1)] * 3


def test_a_message_shorter_than_announced_stays_on_the_server(store: Store) -> None:
    with Faulty("plain", pop=PopFaults(size_error=100_000)) as server:
        mail = fill(server, 3)
        kept = keep(store, server.pop3_port, leave="delete")
        report = kept.pull()
        assert_equal(report)
        assert same(kept.held(), mail)
        assert drop_of(server) == mail
        assert any("it stays on the server" in note for note in report.folders[0].notes)


def test_an_identifier_given_to_another_message(store: Store) -> None:
    """UIDLs that are the messages' numbers name another one once the first is deleted."""
    with Faulty("plain") as server:
        first = fill(server, 2)
        kept = keep(store, server.pop3_port)
        kept.pull()
        box = server.mailboxes["INBOX"]
        taken = box.messages[1].mail.id
        box.remove(1)
        other = box.add(messages.numbered(77, size=3000))
        other.mail.id = taken
        report = kept.pull()
        assert_equal(report)
        assert same(kept.held(), [*first, other.data])


def test_forgotten_deletions_bring_nothing_twice(store: Store) -> None:
    with Faulty("plain", pop=PopFaults(forgets_deletions=True)) as server:
        mail = fill(server, 5)
        kept = keep(store, server.pop3_port, leave="delete")
        for _ in range(3):
            assert_equal(kept.pull())
            assert same(kept.held(), mail)


MODES = [
    PopFaults(uidl=uidl, top=top) for uidl in ("unique", "repeated", "missing", "changing") for top in (True, False)
]
STEPS = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 4)),
    st.tuples(st.just("equal"), st.integers(0, 9)),
    st.tuples(st.just("remove"), st.integers(0, 9)),
    st.tuples(st.just("mode"), st.integers(0, len(MODES) - 1)),
    st.tuples(st.just("cut"), st.integers(1, 6)),
    st.tuples(st.just("leave"), st.integers(0, 1)),
    st.tuples(st.just("pull"), st.just(0)),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, min_size=3, max_size=14))
def test_whatever_a_server_does_nothing_is_lost_and_nothing_comes_twice(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """A server whose UIDLs change their kind, whose mail comes and goes, and whose line is cut now and then."""
    root = tmp_path_factory.mktemp("keep")
    with contextlib.closing(Store.open(root)) as store, Faulty("plain", pop=MODES[0]) as server:
        store.directory.add("archive")
        kept = keep(store, server.pop3_port)
        offered: dict[int, bytes] = {}  # mail that a pull could have met
        bodies: dict[int, bytes] = {}  # … and one that came to its end did meet
        number = 0
        for what, value in [*steps, ("pull", 0), ("pull", 0)]:
            box = server.mailboxes["INBOX"]
            there = list(box.messages)
            if what == "add":
                for _ in range(value):
                    number += 1
                    box.add(messages.numbered(number, size=66 * (number % 3)))
            elif what == "equal" and there:
                box.add(box.messages[there[value % len(there)]].data)
            elif what == "remove" and there:
                box.remove(there[value % len(there)])
            elif what == "mode":
                server.state.faults = replace(server.faults, pop=MODES[value])
            elif what == "cut":
                server.state.counts.clear()
                server.state.faults = replace(
                    server.faults, breaks=(Break(rb"RETR|DELE|QUIT", nth=value, when="middle"),)
                )
            elif what == "leave":
                kept.change(leave=("keep", "delete")[value])
            elif what == "pull":
                before = {message.mail.id: message.data for message in box}
                report = kept.pull()
                held = Counter(kept.held())
                offered |= before
                if report.error is None:
                    bodies |= before
                # Nothing that was there is in neither place; no content is here more often than it ever was there.
                assert all(data in held or data in drop_of(server) for data in before.values())
                assert held <= Counter(offered.values()), "something came twice"
        assert set(bodies.values()) <= set(kept.held())


# ---- when mail is deleted


def test_left_for_some_days(store: Store) -> None:
    with Faulty("plain") as server:
        mail = fill(server, 3)
        kept = keep(store, server.pop3_port, leave="days", leave_days=10)
        kept.pull()
        assert len(drop_of(server)) == 3
        kept.now += 9 * 86400
        fill(server, 1, first=9)
        kept.pull()
        assert len(drop_of(server)) == 4
        kept.now += 86400
        kept.pull()
        assert drop_of(server) == [messages.numbered(9, size=200)]
        assert len(kept.held()) == len(mail) + 1


def test_not_deleted_when_it_cannot_be_read_back(store: Store) -> None:
    with Faulty("plain") as server:
        mail = fill(server, 3)
        kept = keep(store, server.pop3_port, leave="keep")
        kept.pull()
        for pack_file in store.account("archive").packs.glob("*.pack"):
            data = pack_file.read_bytes()
            pack_file.write_bytes(data.replace(b"This is message 2", b"This is message X"))
        kept.change(leave="verified")
        report = kept.pull()
        assert drop_of(server) == [mail[1]]
        assert any("could not be read back" in note for note in report.folders[0].notes)


def test_what_was_removed_here_does_not_come_again(store: Store) -> None:
    with Faulty("plain", pop=PopFaults()) as server:
        fill(server, 3)
        kept = keep(store, server.pop3_port)
        kept.pull()
        account = store.account("archive")
        with account.transaction() as transaction:
            transaction.expunge(account.mailbox("INBOX").id, [2], only_deleted=False)
        report = kept.pull()
        assert_equal(report)
        assert len(kept.held()) == 2
        assert dict(report.folders[0].missing) == {REMOVED_HERE: 1}


# ---- asked again


@pytest.mark.parametrize("name", ["good", "no UIDL", "changing UIDLs"])
def test_a_proof_asks_the_server_and_changes_nothing(store: Store, name: str) -> None:
    def proved() -> RemoteReport:
        return asyncio.run(proof.prove(Context(store), kept.remote))

    with Faulty("plain", pop=ODD[name]) as server:
        fill(server, 8)
        kept = keep(store, server.pop3_port)
        assert dict(proved().folders[0].missing) == {"not pulled yet": 8}
        kept.pull()
        assert_equal(proved())
        fill(server, 1, first=20)
        account = store.account("archive")
        with account.transaction() as transaction:
            transaction.expunge(account.mailbox("INBOX").id, [2], only_deleted=False)
        report = proved()
        assert report.total("kept") == 7
        assert dict(report.folders[0].missing) == {"not pulled yet": 1, REMOVED_HERE: 1}
        assert not any(line.startswith(b"RETR") for line in server.log[-12:])
        assert proved().facts()["missing"] == report.facts()["missing"]


# ---- filters


def test_filters(store: Store) -> None:
    with Faulty("plain") as server:
        fill(server, 20)
        kept = keep(store, server.pop3_port, leave="delete")
        report = kept.pull(selection=Selection(query="subject:7"))
        assert_equal(report)
        assert report.total("fetched") == 2
        assert report.folders[0].missing["filtered"] == 18
        assert len(drop_of(server)) == 18
        asked = sum(line.startswith(b"TOP") for line in server.log)
        kept.pull(selection=Selection(query="subject:7"))
        assert sum(line.startswith(b"TOP") for line in server.log) == asked
        report = kept.pull(size_max=400)
        assert set(report.folders[0].missing) == {"too large"}
        report = kept.pull()
        assert_equal(report)
        assert len(kept.held()) == 20
        assert drop_of(server) == []


def test_a_filter_that_was_lifted_stays_lifted_though_the_run_was_cut(store: Store) -> None:
    with Faulty("plain") as server:
        fill(server, 12)
        kept = keep(store, server.pop3_port)
        assert_equal(kept.pull(selection=Selection(query="subject:7")))
        server.change(breaks=(Break(rb"(?i)RETR", times=None),))
        assert not kept.pull().equal
        server.change(breaks=())
        assert_equal(kept.pull())
        assert len(kept.held()) == 12


def test_a_search_in_the_body(store: Store) -> None:
    with Faulty("plain") as server:
        fill(server, 12)
        kept = keep(store, server.pop3_port)
        report = kept.pull(selection=Selection(query='body:"message 11"'))
        assert_equal(report)
        assert kept.held() == [messages.numbered(11, size=400)]


def test_the_maildrop_is_not_meant(store: Store) -> None:
    with Faulty("plain") as server:
        fill(server, 2)
        report = keep(store, server.pop3_port).pull(selection=Selection(folders=("Work",)))
        assert report.left_out == ["INBOX"]
        assert report.equal
        assert server.log == []


# ---- a daily allowance


def test_the_bytes_of_a_day_are_kept_to(store: Store) -> None:
    with Faulty("plain") as server:
        mail = fill(server, 20)
        size = sum(map(len, mail))
        kept = keep(store, server.pop3_port, leave="delete", bytes_per_day=size // 2)
        days = 0
        while len(kept.held()) < 20:
            before = sum(map(len, kept.held()))
            report = kept.pull()
            assert sum(map(len, kept.held())) - before <= size // 2
            assert report.error is None
            if report.resume_at is not None:
                assert report.stopped is not None
                assert len(drop_of(server)) == 20
                assert kept.now < report.resume_at <= kept.now + 2 * 86400
                kept.now = report.resume_at
            days += 1
            assert days < 6
        assert days >= 2
        assert same(kept.held(), mail)


def test_a_message_larger_than_the_allowance_comes_alone(store: Store) -> None:
    with Faulty("plain") as server:
        server.mailboxes["INBOX"].add(messages.numbered(1, size=10_000))
        kept = keep(store, server.pop3_port, bytes_per_day=1000)
        assert_equal(kept.pull())


# ---- several into one


def test_several_accounts_into_one_mailbox(store: Store) -> None:
    with Faulty("plain") as one, Faulty("plain") as two:
        mail = fill(one, 4) + fill(two, 6)
        kept = [keep(store, server.pop3_port, name=name) for name, server in (("one", one), ("two", two))]
        for each in (*kept, *kept):
            assert_equal(each.pull())
        assert same(kept[0].held(), mail)


# ---- cut and killed


@pytest.mark.parametrize("pop", [PopFaults(), PopFaults(pipelining=False), PopFaults(uidl="missing")])
@pytest.mark.parametrize("when", ["before", "middle", "after"])
@pytest.mark.parametrize("at", [rb"RETR", rb"DELE", rb"QUIT", rb"UIDL", rb"STAT"])
def test_cut_anywhere(store: Store, at: bytes, when: Any, pop: PopFaults) -> None:
    with Faulty("plain", pop=pop, breaks=(Break(at, nth=3, when=when), Break(at, nth=9, when=when))) as server:
        mail = fill(server, 12)
        kept = keep(store, server.pop3_port, leave="delete")
        for _ in range(4):
            kept.pull()
            assert set(mail) <= set(kept.held()) | set(drop_of(server))
            assert len(set(kept.held())) == len(kept.held())
        kept.pull()
        assert same(kept.held(), mail)


def test_one_message_that_always_breaks_the_line_does_not_hold_up_the_others(store: Store) -> None:
    with Faulty("plain") as server:
        mail = fill(server, 6)
        bad = server.mailboxes["INBOX"].add(messages.numbered(99), ill=Ill("short"))
        mail = [*mail, *fill(server, 3, first=20)[7:]]
        kept = keep(store, server.pop3_port, leave="delete")
        report = kept.pull()
        assert report.error is None
        assert dict(report.folders[0].missing) == {"failed": 1}
        assert same(kept.held(), mail)
        assert drop_of(server) == [bad.data]


@pytest.mark.parametrize("pipelining", [True, False])
def test_a_missing_dot_is_not_a_missing_message(
    store: Store, pipelining: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DOT_WAIT_S", "DOT_WAIT_AGAIN_S", "STALL_S"):
        monkeypatch.setattr(pop3_remote, name, 0.2)
    with Faulty("plain", pop=PopFaults(dot=False, pipelining=pipelining)) as server:
        mail = fill(server, 4)
        kept = keep(store, server.pop3_port)
        report = kept.pull()
        assert_equal(report)
        assert same(kept.held(), mail)


def test_an_end_in_the_middle_is_found_out(store: Store) -> None:
    """A server that never stuffs: what follows the false end is no answer, and the piece is not taken for the mail."""
    with Faulty("plain", pop=PopFaults(stuffing=False)) as server:
        broken = messages.numbered(1) + b"first\r\n.\r\nsecond\r\n"
        server.mailboxes["INBOX"].add(broken)
        mail = fill(server, 4, first=2)[1:]
        kept = keep(store, server.pop3_port, leave="delete")
        report = kept.pull()
        assert dict(report.folders[0].missing) == {"failed": 1}
        assert same(kept.held(), mail)
        assert broken in drop_of(server)


def test_stopped_by_the_user(store: Store) -> None:
    with Faulty("plain") as server:
        mail = fill(server, 700)
        kept = keep(store, server.pop3_port, leave="delete")

        async def run() -> RemoteReport:
            context = Context(store, now=lambda: NOW)
            context.progress.listener = lambda progress: context.stop.set() if progress.items else None
            return await pop3_pull.pull(context, kept.remote)

        report = asyncio.run(run())
        assert report.stopped is not None
        assert not report.equal
        assert 0 < len(kept.held()) < 700
        assert len(drop_of(server)) == 700
        assert_equal(kept.pull())
        assert same(kept.held(), mail)
        assert drop_of(server) == []


class Killing(list[bytes]):
    """A server's log that kills the client with -9 as soon as it hears the nth command of a kind."""

    def __init__(self, at: bytes, nth: int) -> None:
        super().__init__()
        self.at, self.nth = at, nth
        self.process: subprocess.Popen[bytes] | None = None

    def append(self, line: bytes) -> None:
        super().append(line)
        if line.startswith(self.at):
            self.nth -= 1
            if not self.nth and self.process is not None:
                self.process.kill()


@pytest.mark.parametrize("uidl", ["unique", "missing"])
def test_killed_anywhere(store: Store, uidl: Any) -> None:
    """Enough messages for several commits; killed in the first, between, while deleting, and at the very end."""
    kills = [(b"RETR", 2), (b"RETR", 300), (b"RETR", 500), (b"DELE", 3), (b"QUIT", 1)]
    with Faulty("plain", pop=PopFaults(uidl=uidl)) as server:
        mail = fill(server, 600)
        kept = keep(store, server.pop3_port, name="pop", leave="verified")
        for at, nth in kills:
            log = Killing(at, nth)
            server.state.log = log
            log.process = subprocess.Popen([*program(), "pull", "pop", "--quiet", "--data", str(store.root)])
            log.process.wait(60)
            held, there = kept.held(), drop_of(server)
            assert len(set(held)) == len(held)
            assert set(held) | set(there) == set(mail)
        assert_equal(kept.pull())
        assert same(kept.held(), mail)
        assert drop_of(server) == []


# ---- log-in


def test_a_refused_log_in_is_final(store: Store) -> None:
    with Faulty("plain", password="other") as server:
        report = keep(store, server.pop3_port).pull()
        assert report.error is not None
        assert "refused the log-in" in report.error
        assert "secret" not in report.error
        assert server.state.connections == 1
        assert sum(line.startswith((b"PASS", b"AUTH")) for line in server.log) == 1


def test_busy_is_not_refused(store: Store) -> None:
    with Faulty("plain", pop=PopFaults(in_use=1)) as server:
        fill(server, 1)
        kept = keep(store, server.pop3_port)
        report = kept.pull()
        assert report.error is not None
        assert "locked" in report.error
        assert_equal(kept.pull())


def test_after_a_repair_without_rows_nothing_is_fetched(store: Store) -> None:
    with Faulty("plain") as server:
        mail = fill(server, 5)
        kept = keep(store, server.pop3_port)
        kept.pull()
        account = store.account("archive")
        with account.transaction() as transaction:
            for box in account.remote_boxes(kept.remote.id):
                transaction.drop_remote_box(box.id)
        report = kept.pull()
        assert_equal(report)
        assert report.total("fetched") == 0
        assert report.total("recognised") == 5
        assert same(kept.held(), mail)


def test_a_large_message_flows_through_the_disk(store: Store) -> None:
    with Faulty("plain") as server:
        large = messages.numbered(1) + b"x" * 70 * 100_000 + b"\r\n"
        server.mailboxes["INBOX"].add(large)
        kept = keep(store, server.pop3_port)
        assert_equal(kept.pull())
        assert kept.held() == [large]
