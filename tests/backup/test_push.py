"""Push: what was chosen is there afterwards, message for message; a second run copies nothing; a killed one goes on."""

import asyncio
from collections import Counter

import pytest

from mailkeep.backup.context import Context
from mailkeep.backup.pace import Limits
from mailkeep.backup.pull import pull
from mailkeep.backup.push import push
from mailkeep.backup.push_ledger import PushReport
from mailkeep.backup.settings import Remote
from mailkeep.mail.query import HasFlag
from mailkeep.mail.selection import Selection
from mailkeep.store.account import Account
from mailkeep.store.store import Store
from mailkeep.testing import Break, Busy, Faulty
from mailkeep.testing.faults import FULL
from tests.backup.targets import (
    Login,
    add_remote,
    contents,
    contents_of,
    contents_of_faulty,
    faulty_login,
    fill,
    messages,
    subscriptions,
    without_empty,
)
from tests.dovecot import Dovecot
from tests.messages import bulk, numbered, ugly

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def account(store: Store) -> Account:
    """Mail in several folders."""
    store.directory.add("ann@example.org")
    made = store.account("ann@example.org")
    fill(made, "INBOX", bulk(40))
    fill(made, "Sent", [numbered(n) for n in range(7)])
    fill(made, "Work/Zoë & Søn", bulk(12, 5))
    fill(made, "Work/Empty", [])
    return made


_users = iter(range(1_000_000))


@pytest.fixture
def login(dovecot: Dovecot) -> Login:
    return Login(dovecot.imap, f"user{next(_users)}@example.org", dovecot.password)


@pytest.fixture
def elsewhere(store: Store, login: Login) -> Remote:
    """A remote whose archive is another account."""
    store.directory.add("other")
    return add_remote(store, "elsewhere", store.account("other"), login)


def run(store: Store, account: Account, remote: Remote, *, plan: bool = False, **options: object) -> PushReport:
    return asyncio.run(push(Context(store, **options), account, remote, plan=plan))  # type: ignore[arg-type]


# ---- against Dovecot


def test_all_is_there_with_flags_dates_and_folders(
    store: Store, account: Account, elsewhere: Remote, login: Login
) -> None:
    report = run(store, account, elsewhere)
    assert report.equal, report.facts()
    assert report.total("copied") == report.total("chosen") == 59
    found = contents(login)
    assert without_empty(found) == without_empty(contents_of(account))
    assert "Work/Empty" in found
    client = login.connect()
    ours = account.mailbox("INBOX")
    rows = account.fetch(ours.id, account.snapshot(ours.id).uids, ("uid", "email"))
    assert [body for _, _, body in messages(client, "INBOX")] == [account.read(email) for _, email in rows]
    client.logout()
    assert {"Work/Empty", "Sent"} <= subscriptions(login)


def test_a_second_run_copies_nothing(store: Store, account: Account, elsewhere: Remote, login: Login) -> None:
    first = run(store, account, elsewhere)
    again = run(store, account, elsewhere)
    assert again.equal and again.total("copied") == 0 and again.total("there") == first.total("copied")
    fill(account, "INBOX", [numbered(n) for n in range(50, 53)], start=1_650_000_000)
    third = run(store, account, elsewhere)
    assert third.equal and third.total("copied") == 3
    assert without_empty(contents(login)) == without_empty(contents_of(account))


def test_ugly_mail_arrives_as_it_is_or_is_booked(
    store: Store, account: Account, elsewhere: Remote, login: Login
) -> None:
    bodies = [data for _, data in ugly()]
    fill(account, "Ugly", bodies)
    report = run(store, account, elsewhere, selection=Selection(folders=("Ugly",)))
    [folder] = report.folders
    assert folder.there + sum(folder.missing.values()) == folder.chosen == len(bodies)
    found = contents(login)["Ugly"]
    ours = contents_of(account)["Ugly"]
    assert sum((found & ours).values()) >= folder.there - folder.changed
    again = run(store, account, elsewhere, selection=Selection(folders=("Ugly",)))
    assert again.total("copied") == 0 and contents(login)["Ugly"] == found


# ---- what the target does not take


def fresh_remote(store: Store, server: Faulty, **settings: object) -> Remote:
    """A remote whose archive is another account."""
    name = f"other{len(store.directory.list())}"
    store.directory.add(name)
    return add_remote(store, name, store.account(name), faulty_login(server), **settings)


def test_an_exchange_that_loses_flags_throttles_and_numbers_anew(
    store: Store, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailkeep.backup.push.limits_of", lambda *_, **__: Limits())  # else four a second
    with Faulty("o365") as server:
        server.user = account.info.name
        remote = fresh_remote(store, server, provider="o365")
        fill(account, "Deleted", bulk(4, 9))
        report = run(store, account, remote)
        assert report.equal, report.facts()
        found, ours = contents_of_faulty(server), contents_of(account)
        assert report.counted("lost") == {"$Forwarded": 12, "Work": 12}
        for mine, theirs in (("INBOX", "INBOX"), ("Sent", "Sent Items"), ("Deleted", "Deleted")):
            kept = Counter({(system(flags), date, data): n for (flags, date, data), n in ours[mine].items()})
            assert found[theirs] == kept, mine
        again = run(store, account, remote)
        assert again.equal and again.total("copied") == 0
        assert contents_of_faulty(server) == found


def system(flags: frozenset[str]) -> frozenset[str]:
    return frozenset(flag for flag in flags if flag.startswith("\\"))


def test_what_is_too_large_or_has_too_long_a_line_is_planned_and_booked(store: Store, account: Account) -> None:
    fill(account, "Big", [b"Subject: big\r\n\r\n" + b"x\r\n" * 3000, b"Subject: small\r\n\r\nhi\r\n"])
    capabilities = (*FULL, "APPENDLIMIT=5000")
    with Faulty("plain", append_max=5000, capabilities=capabilities) as server:
        remote = fresh_remote(store, server)
        chosen = Selection(folders=("Big",))
        plan = run(store, account, remote, plan=True, selection=chosen)
        assert plan.append_max == 5000 and plan.counted("missing") == {"too large for the server": 1}
        assert plan.total("copied") == 1 and plan.estimate_s is not None
        assert server.commands(rb"^\S+ (UID )?(APPEND|CREATE|SUBSCRIBE|STORE)") == []
        report = run(store, account, remote, selection=chosen)
        assert not report.equal and report.counted("missing") == plan.counted("missing")
        assert report.total("there") == 1
    fill(account, "Long", [b"Subject: long\r\n\r\n" + b"x" * 20_000 + b"\r\n", b"Subject: short\r\n\r\nhi\r\n"])
    with Faulty("plain") as server:
        remote = fresh_remote(store, server, provider="o365")
        report = run(store, account, remote, selection=Selection(folders=("Long",)))
        assert report.counted("missing") == {"has a line longer than the server takes": 1}
        assert report.total("there") == 1


def test_a_server_without_uidplus_and_literal_plus(store: Store, account: Account) -> None:
    plain = ("IMAP4rev1",)
    with Faulty("plain", capabilities=plain, append_date_ignored=True) as server:
        remote = fresh_remote(store, server)
        report = run(store, account, remote)
        assert report.equal, report.facts()
        again = run(store, account, remote)
        assert again.equal and again.total("copied") == 0
        bodies = Counter(data for box in contents_of_faulty(server).values() for _, _, data in box.elements())
        assert bodies == Counter(data for box in contents_of(account).values() for _, _, data in box.elements())


def test_names_and_folders_of_the_target(store: Store, account: Account) -> None:
    fill(account, "a.b", [numbered(1)])
    with Faulty("plain", prefix="INBOX.", separator=".") as server:
        remote = fresh_remote(store, server)
        report = run(store, account, remote)
        assert report.equal, report.facts()
        found = contents_of_faulty(server)
        assert {"INBOX.Work.Zoë & Søn", "INBOX.a_b", "INBOX.Work.Empty"} <= set(found)
        assert sum(found["Sent"].values()) == 7
    with Faulty("gmail") as server:
        remote = fresh_remote(store, server, provider="gmail")
        report = run(store, account, remote, selection=Selection(folders=("Sent", "Work/*")))
        assert report.equal, report.facts()
        found = contents_of_faulty(server)
        assert sum(found["[Gmail]/Gesendet"].values()) == 7 and sum(found["Work/Zoë & Søn"].values()) == 12


def test_everything_below_a_folder_and_a_selection(store: Store, account: Account) -> None:
    with Faulty("plain") as server:
        remote = fresh_remote(store, server)
        chosen = Selection(not_folders=("Work/*",), flags=("flagged",))
        report = run(store, account, remote, selection=chosen, into="Back/2024")
        assert report.equal and report.total("chosen") == 9
        found = without_empty(contents_of_faulty(server))
        assert {name: sum(each.values()) for name, each in found.items()} == {"Back/2024/Inbox": 8, "Back/2024/Sent": 1}
        again = run(store, account, remote, selection=chosen, into="Back/2024")
        assert again.equal and again.total("copied") == 0


def test_a_message_that_breaks_the_server_is_found_out(store: Store, account: Account) -> None:
    fill(account, "Sent", [b"Subject: poison\r\n\r\nx" + b"y" * 1234 + b"\r\n"])
    size = len(b"Subject: poison\r\n\r\nx" + b"y" * 1234 + b"\r\n")
    with Faulty("plain", breaks=(Break(rb"APPEND .*\{%d" % size, times=None),)) as server:
        remote = fresh_remote(store, server)
        report = run(store, account, remote)
        assert report.counted("missing") == {"the server cuts the connection": 1}
        assert report.total("there") == 59 == report.total("chosen") - 1


def test_a_full_target_ends_the_run_and_says_so(store: Store, account: Account) -> None:
    full = Busy(rb"APPEND", every=10, reply=b"NO [OVERQUOTA] Mailbox is full")
    with Faulty("plain", busy=(full,)) as server:
        remote = fresh_remote(store, server)
        report = run(store, account, remote)
        assert report.stopped is not None and "no more room" in report.stopped and not report.equal
        assert report.counted("missing") == {"not sent yet": 50}


# ---- cut, killed, and gone on


@pytest.mark.parametrize("when", ["before", "after"])
def test_cut_at_every_append_and_nothing_is_doubled(store: Store, account: Account, when: str) -> None:
    """The answer that was lost with the line is the one that doubles messages elsewhere."""
    with Faulty("plain") as server:
        remote = fresh_remote(store, server)
        chosen = Selection(folders=("Work/*", "Sent"))
        for nth in range(1, 30, 4):
            server.change(breaks=(Break(rb"APPEND", nth=nth, when=when),))  # type: ignore[arg-type]
            report = run(store, account, remote, selection=chosen)
            assert report.equal, report.facts()
        found = without_empty(contents_of_faulty(server))
        ours = contents_of(account)
        assert found == without_empty({name: each for name, each in ours.items() if name != "INBOX"})


# ---- back to where it came from


@pytest.mark.parametrize("gone", ["show", "hide"])
def test_what_is_put_back_is_not_pulled_again(store: Store, login: Login, dovecot: Dovecot, gone: str) -> None:
    """Pulled, lost at the source, pushed back; the next pull fetches nothing, and nothing is marked gone any more."""
    source = Login(dovecot.imap, login.user + ".x", dovecot.password)
    client = source.connect()
    for number in range(10):
        client.append("INBOX", "\\Seen" if number % 2 else "", None, numbered(number))
    client.logout()
    store.directory.add("archive")
    archive = store.account("archive")
    remote = add_remote(store, "source", archive, source)
    assert asyncio.run(pull(Context(store), remote)).equal
    client = source.connect()
    client.select("INBOX")
    client.store("2:4", "+FLAGS", "\\Deleted")
    client.expunge()
    client.logout()
    before = contents_of(archive)
    store.directory.set_gone("archive", gone)
    archive = store.account("archive")
    assert asyncio.run(pull(Context(store), remote)).total("gone") == 3
    kept = {"show": 10, "hide": 7}
    assert archive.mailbox("INBOX").messages == kept[gone]
    plan = run(store, archive, remote, plan=True)
    assert plan.total("copied") == plan.total("gone") == 3, plan.facts()
    report = run(store, archive, remote)
    assert report.equal and report.total("copied") == 3, report.facts()
    again = asyncio.run(pull(Context(store), remote))
    assert again.equal and again.total("fetched") == 0, again.facts()
    assert contents_of(archive) == before and contents(source)["INBOX"] == before["INBOX"]
    box = archive.mailbox("INBOX")
    assert archive.search(box.id, HasFlag("$Gone")).tolist() == []
    assert run(store, archive, remote).total("copied") == 0


def test_an_account_that_is_pulled_and_pushed_elsewhere_keeps_its_origins(
    store: Store, login: Login, elsewhere: Remote
) -> None:
    """A push to a third server leaves nothing behind that a pull of the first would stumble over."""
    with Faulty("plain") as server:
        for number in range(10):
            server.mailboxes["INBOX"].add(numbered(number), flags=[], date=1_600_000_000)
        store.directory.add("archive")
        archive = store.account("archive")
        source = add_remote(store, "source", archive, faulty_login(server))
        assert asyncio.run(pull(Context(store), source)).equal
        assert run(store, archive, elsewhere).equal
        server.mailboxes["INBOX"].renumber()
        again = asyncio.run(pull(Context(store), source))
        assert again.equal and again.total("fetched") == 0, again.facts()
        assert run(store, archive, elsewhere).total("copied") == 0
        assert without_empty(contents(login)) == without_empty(contents_of(archive))


def test_nothing_to_do_asks_for_a_listing_and_no_more(store: Store, account: Account) -> None:
    with Faulty("plain") as server:
        remote = fresh_remote(store, server)
        assert run(store, account, remote).equal
        server.log.clear()
        again = run(store, account, remote)
        assert again.equal and again.total("there") == 59
        assert server.commands(rb"SELECT|EXAMINE|FETCH|APPEND|CREATE") == []


def test_names_differ_only_by_case_at_a_server_without_case(store: Store, account: Account) -> None:
    fill(account, "Projects", [numbered(1)])
    fill(account, "projects", [numbered(2)])
    with Faulty("gmail") as server:
        remote = fresh_remote(store, server, provider="gmail")
        report = run(store, account, remote, selection=Selection(folders=("projects*",)))
        assert report.equal, report.facts()
        names = {folder.name for folder in report.folders}
        assert len({name.casefold() for name in names}) == 2
        assert [folder.note for folder in report.folders if folder.note] == ["another folder has this name there"]


def test_names_that_the_server_refuses_get_others(store: Store, account: Account) -> None:
    fill(account, "Work/a;b", [numbered(3)])
    fill(account, "Deep/er/and/deeper", [numbered(4)])
    for fault in (
        {"name_seven_bit": True, "name_forbidden": ";&"},
        {"depth_max": 1},
        {"name_max": 20},
        {"either_mail_or_folders": True},
    ):
        with Faulty("plain", **fault) as server:  # type: ignore[arg-type]
            remote = fresh_remote(store, server)
            report = run(store, account, remote)
            assert report.equal, (fault, report.facts())
            assert Counter(contents_of_faulty(server)["INBOX"]) == contents_of(account)["INBOX"]
            again = run(store, account, remote)
            assert again.equal and again.total("copied") == 0, fault
            assert [folder.name for folder in again.folders] == [folder.name for folder in report.folders]


@pytest.mark.parametrize("fault", [{"keywords_max": 1}, {"keyword_length_max": 5}])
def test_keywords_that_a_mailbox_has_no_room_for_are_left_out(
    store: Store, account: Account, fault: dict[str, int]
) -> None:
    with Faulty("plain", **fault) as server:  # type: ignore[arg-type]
        remote = fresh_remote(store, server)
        report = run(store, account, remote)
        assert report.equal and report.counted("lost"), report.facts()
        found, ours = contents_of_faulty(server), contents_of(account)
        for name in ("INBOX", "Sent"):
            for flags, date, data in found[name]:
                assert any(flags <= mine and {date, data} == {d, b} for mine, d, b in ours[name]), name
            assert sum(found[name].values()) == sum(ours[name].values())


def test_cut_at_every_command_and_nothing_is_doubled(store: Store, account: Account) -> None:
    """Each command of a run in its turn is the one at which the line is cut, before or after it was done."""
    chosen = Selection(folders=("Sent", "Work/Empty"))
    with Faulty("plain") as server:
        assert run(store, account, fresh_remote(store, server), selection=chosen).equal
        commands = len(server.log)
    ours = {name: each for name, each in contents_of(account).items() if name == "Sent"}
    for nth in range(3, commands + 1):
        for when in ("before", "after"):
            with Faulty("plain", breaks=(Break(rb".", nth=nth, when=when),)) as server:  # type: ignore[arg-type]
                remote = fresh_remote(store, server)
                run(store, account, remote, selection=chosen)
                report = run(store, account, remote, selection=chosen)
                assert report.equal, (nth, when, report.facts())
                assert without_empty(contents_of_faulty(server)) == ours, (nth, when)


def test_a_domino_that_makes_message_ids_of_its_own(store: Store, account: Account) -> None:
    with Faulty("domino") as server:
        remote = fresh_remote(store, server, provider="domino")
        first = run(store, account, remote, selection=Selection(folders=("Sent", "INBOX")))
        assert first.equal, first.facts()
        again = run(store, account, remote, selection=Selection(folders=("Sent", "INBOX")))
        assert again.equal and again.total("copied") == 0, again.facts()


def test_a_server_that_keeps_one_of_equal_messages_is_not_sent_them_for_ever(store: Store) -> None:
    store.directory.add("eve")
    account = store.account("eve")
    fill(account, "INBOX", [b"Subject: the same\r\n\r\ntext\r\n"] * 2)
    with Faulty("gmail") as server:
        remote = add_remote(store, "gmail", account, faulty_login(server))
        report = asyncio.run(push(Context(store), account, remote))
        assert len(server.commands(rb"APPEND")) <= 6
    assert not report.equal
    assert sum(report.counted("missing").values()) == 1
