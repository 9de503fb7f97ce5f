"""Two ways against servers that can do little, forget, renumber or go mad: nothing is lost for it."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from mailkeep.backup import sync as syncing
from mailkeep.backup.context import Context
from mailkeep.backup.pull import pull
from mailkeep.backup.settings import Settings, find_remote, pack
from mailkeep.errors import UsageError
from mailkeep.testing import Break, Faulty, Ill
from mailkeep.testing.faults import FULL
from tests.backup.two_sides import DATE, DEFAULTS, NAME, Here, Message
from tests.messages import numbered
from tests.server import run_command


def without(*names: str) -> tuple[str, ...]:
    return tuple(name for name in FULL if name not in names)


POOR = without("CONDSTORE", "QRESYNC", "UIDPLUS", "MOVE", "LIST-EXTENDED", "LIST-STATUS", "ESEARCH")


class Both:
    """A scripted server and an account here."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.servers: list[Faulty] = []
        self.accounts: list[Here] = []

    def __call__(self, kind: str = "plain", **faults: object) -> tuple[Faulty, Here]:
        server = Faulty(kind, **faults)  # type: ignore[arg-type]
        server.__enter__()
        self.servers.append(server)
        here = Here(self.root / "store", server.port, user=server.user, password=server.password)
        self.accounts.append(here)
        return server, here


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    made = Both(tmp_path)
    yield made
    for here in made.accounts:
        here.close()
    for server in made.servers:
        server.__exit__(None, None, None)


def contents(server: Faulty) -> dict[str, Counter[Message]]:
    return {
        name: Counter((each.data, each.mail.date, frozenset(each.flags)) for each in box)
        for name, box in server.mailboxes.items()
        if len(box)
    }


def fill(server: Faulty, name: str, *numbers: int) -> None:
    for number in numbers:
        server.mailboxes[name].add(numbered(number), date=DATE + number)


@pytest.mark.parametrize("capabilities", [FULL, POOR], ids=["all", "poor"])
def test_what_was_done_offline_is_done_there_at_reconnection(both: Both, capabilities: tuple[str, ...]) -> None:
    """RFC 4549 section 3: all that a client may have done while there was no line."""
    server, here = both(capabilities=capabilities)
    server.create("Lists")
    fill(server, "INBOX", *range(8))
    here.settle()
    here.create("Work")
    here.add("Work", numbered(20), flags=frozenset({"\\Draft"}))
    here.move("INBOX", 1, "Work")
    here.move("INBOX", 2, "Lists")
    here.flag("INBOX", 3, "+", "\\Seen", "\\Answered")
    here.expunge("INBOX", 4, 5)
    with here.account.transaction() as tx:
        tx.copy(here.id("INBOX"), [6], here.id("Lists"))
        tx.rename_mailbox("Lists", "Work/Lists")
    server.log.clear()
    report = here.settle()
    assert here.contents() == contents(server)
    assert {name: sum(each.values()) for name, each in contents(server).items()} == {
        "INBOX": 4,
        "Work": 2,
        "Work/Lists": 2,
    }
    assert report.total("fetched") == 0
    assert not [line for line in server.log if b"BODY" in line], "nothing came down for it"
    if capabilities is FULL:
        order = [
            line.split()[1:3] for line in server.log if line.split()[1] in (b"RENAME", b"CREATE", b"APPEND", b"UID")
        ]
        words = [b" ".join(each) if each[0] == b"UID" else each[0] for each in order]
        kinds = [word for word in words if word in (b"RENAME", b"CREATE", b"APPEND", b"UID MOVE", b"UID EXPUNGE")]
        assert kinds.index(b"RENAME") < kinds.index(b"APPEND") < kinds.index(b"UID MOVE") < kinds.index(b"UID EXPUNGE")


def test_another_uidvalidity_removes_nothing_and_copies_nothing(both: Both) -> None:
    server, here = both()
    fill(server, "INBOX", *range(6))
    here.settle()
    server.mailboxes["INBOX"].renumber()
    here.flag("INBOX", 2, "+", "\\Flagged")
    fill(server, "INBOX", 7)
    report = here.settle()
    assert here.contents() == contents(server)
    assert (report.total("fetched"), report.total("uploaded"), report.total("recognised")) == (1, 0, 6)
    assert report.total("removed_here") == report.total("removed_there") == 0


def test_an_emptied_folder_is_asked_about(both: Both) -> None:
    server, here = both()
    fill(server, "INBOX", *range(80))
    here.settle()
    inbox = server.mailboxes["INBOX"]
    for message in inbox:
        inbox.remove(message.uid)
    fill(server, "INBOX", 100)
    report = here.sync()
    assert not report.equal
    (folder,) = [each for each in report.folders if each.name == "INBOX"]
    assert "--allow-mass-delete" in (folder.error or "")
    assert len(here.uids("INBOX")) == 81, "what is new came all the same"
    assert here.sync(allow_mass=True).equal
    assert here.contents() == contents(server)
    here.expunge("INBOX", *here.uids("INBOX"))
    here.settle()


@pytest.mark.parametrize("side", ["there", "here"])
def test_an_account_that_loses_a_little_of_every_folder_at_once_is_asked_about(both: Both, side: str) -> None:
    server, here = both()
    names = ("INBOX", "A", "B", "C")
    for number, name in enumerate(names):
        if name != "INBOX":
            server.create(name)
        fill(server, name, *range(100 * number, 100 * number + 20))
    here.settle()
    for name in names:
        if side == "here":
            here.expunge(name, *here.uids(name))
        else:
            for message in server.mailboxes[name]:
                server.mailboxes[name].remove(message.uid)
    report = here.sync()
    assert not report.equal
    assert all("--allow-mass-delete" in (each.error or "") for each in report.folders if each.name in names)
    left = sum(len(here.uids(name)) if side == "there" else len(server.mailboxes[name]) for name in names)
    assert left == 80
    assert here.sync(allow_mass=True).equal


def test_uids_that_begin_anew_under_the_same_uidvalidity_are_left_to_a_pull(both: Both) -> None:
    server, here = both()
    fill(server, "INBOX", *range(8))
    here.settle()
    inbox = server.mailboxes["INBOX"]
    inbox.messages.clear()
    inbox.uidnext = 1
    fill(server, "INBOX", *range(100, 105))
    report = here.sync()
    assert not report.equal
    assert (len(here.uids("INBOX")), len(inbox)) == (8, 5), "nothing is removed, and nothing taken for another"
    context = Context(here.store)
    assert asyncio.run(pull(context, find_remote(here.store, NAME))).equal
    here.settle()
    assert {data for data, _, _ in here.mailbox("INBOX")} >= {numbered(n) for n in (*range(8), *range(100, 105))}
    assert len(inbox) == 5


def test_a_deletion_of_most_of_a_folder_here_is_asked_about_too(both: Both) -> None:
    server, here = both()
    fill(server, "INBOX", *range(80))
    here.settle()
    here.expunge("INBOX", *here.uids("INBOX")[:60])
    assert not here.sync().equal
    assert len(server.mailboxes["INBOX"]) == 80
    assert here.sync(allow_mass=True).equal
    assert len(server.mailboxes["INBOX"]) == 20


def test_keywords_that_a_server_does_not_keep_stay_here(both: Both) -> None:
    server, here = both(keywords=False)
    here.add("INBOX", numbered(1), flags=frozenset({"Work", "\\Seen"}))
    fill(server, "INBOX", 2)
    here.settle()
    here.flag("INBOX", here.uid_of("INBOX", numbered(2)), "+", "Later")
    report = here.settle()
    assert report.total("flags_there") == 0
    assert {flags for _, _, flags in here.mailbox("INBOX")} == {frozenset({"Work", "\\Seen"}), frozenset({"Later"})}
    server.mailboxes["INBOX"].set_flags(1, {"\\Flagged"})
    here.settle()
    assert any("Later" in flags for _, _, flags in here.mailbox("INBOX"))


def test_flags_that_a_server_loses_when_it_takes_a_message_are_set_after(both: Both) -> None:
    server, here = both(lost_flags_on_append=frozenset({"\\Flagged"}))
    here.add("INBOX", numbered(1), flags=frozenset({"\\Flagged", "\\Seen"}))
    here.settle()
    assert here.contents() == contents(server)
    assert next(iter(server.mailboxes["INBOX"])).flags == {"\\Flagged", "\\Seen"}


def test_others_marks_are_not_expunged_for_ours(both: Both) -> None:
    server, here = both(capabilities=POOR)
    fill(server, "INBOX", *range(4))
    here.settle()
    inbox = server.mailboxes["INBOX"]
    inbox.set_flags(1, {"\\Deleted"})
    here.expunge("INBOX", 3)
    report = here.sync()
    assert {each.uid for each in inbox} == {1, 2, 3, 4}
    assert any("marked" in note for note in report.notes)
    inbox.set_flags(1, set())
    here.settle()
    assert {each.uid for each in inbox} == {1, 2, 4}


@pytest.mark.parametrize("when", ["before", "middle", "after"])
@pytest.mark.parametrize("capabilities", [FULL, POOR], ids=["all", "poor"])
def test_a_line_cut_at_every_command(both: Both, capabilities: tuple[str, ...], when: str, full: bool) -> None:
    """The same work again and again, each time cut one command later; then it is done, once."""
    server, here = both(capabilities=capabilities)
    server.create("Work")
    nth = 0
    rounds = 0
    while True:
        nth += 1 if full else 5
        rounds += 1
        base = nth * 10
        fill(server, "INBOX", *range(base, base + 4))
        here.settle()
        here.add("INBOX", numbered(base + 5), date=DATE + base + 5)
        here.move("INBOX", here.uid_of("INBOX", numbered(base)), "Work")
        here.flag("INBOX", here.uid_of("INBOX", numbered(base + 1)), "+", "\\Seen")
        here.expunge("INBOX", here.uid_of("INBOX", numbered(base + 2)))
        fill(server, "Work", base + 6)
        struck = len(server.log)
        server.change(breaks=(Break(rb".", nth=nth, when=when, times=None),))  # type: ignore[arg-type]
        cut = here.sync()
        server.change(breaks=())
        here.settle()
        assert here.contents() == contents(server)
        bodies = Counter(data for counted in here.contents().values() for data, _, _ in counted.elements())
        assert set(bodies.values()) == {1}
        assert len(bodies) == rounds * 5
        if cut.equal or len(server.log) - struck < nth:
            break
    assert nth > 10


def test_a_message_that_cannot_be_had_stops_nothing(both: Both) -> None:
    server, here = both()
    fill(server, "INBOX", 1)
    server.mailboxes["INBOX"].add(numbered(2), ill=Ill("no"))
    fill(server, "INBOX", 3)
    here.add("INBOX", numbered(4))
    report = here.sync()
    assert not report.equal
    assert sum(folder.missing.total() for folder in report.folders) == 1
    assert len(here.uids("INBOX")) == 3
    assert len(server.mailboxes["INBOX"]) == 4
    next(each for each in server.mailboxes["INBOX"] if each.mail.ill).mail.ill = None
    here.settle()
    assert here.contents() == contents(server)


def test_gmails_views_take_no_part(both: Both) -> None:
    server, here = both("gmail")
    fill(server, "INBOX", 1, 2)
    server.create("Projects")
    report = here.settle()
    assert not [name for name in here.names() if "All" in name or "Alle" in name]
    here.move("INBOX", 1, "Projects")
    here.settle()
    assert {each.data for each in server.mailboxes["Projects"]} == {numbered(1)}
    assert report.total("fetched") == 2


def test_a_plan_changes_nothing(both: Both) -> None:
    server, here = both()
    fill(server, "INBOX", 1)
    here.settle()
    server.create("Work")
    fill(server, "INBOX", 2)
    here.create("Mine")
    here.expunge("INBOX", 1)
    before = (contents(server), here.contents(), here.names())
    report = here.sync(plan=True)
    assert (contents(server), here.contents(), here.names()) == before
    assert (report.total("fetched"), report.total("removed_there")) == (1, 1)
    assert report.actions == ["Mine made on the server", "Work made here"]


def test_who_cannot_be_synchronised_is_told_what_to_do(both: Both) -> None:
    _, here = both()
    store = here.store
    store.directory.set_access("ann", "read")
    with pytest.raises(UsageError, match="user access ann full"):
        here.sync()
    store.directory.set_access("ann", "full")
    settings = Settings("pop3", "127.0.0.1", 1, "ann", tls="none")
    store.remotes.add("post", here.account.info.id, settings=pack(settings))
    with pytest.raises(UsageError, match="mailkeep pull post"):
        asyncio.run(syncing.sync(Context(store), find_remote(store, "post")))


def test_two_remotes_in_one_account_do_not_take_each_others_mail(both: Both) -> None:
    _, here = both()
    here.settle()
    settings = Settings("imap", "127.0.0.1", 1, "ann", tls="none")
    here.store.remotes.add("second", here.account.info.id, settings=pack(settings))
    with pytest.raises(UsageError, match="account of its own"):
        asyncio.run(syncing.sync(Context(here.store), find_remote(here.store, "second")))


def test_a_tree_below_a_folder_of_ours(both: Both) -> None:
    server, here = both()
    settings = find_remote(here.store, "there").settings
    remote = find_remote(here.store, "there")
    here.store.remotes.update(remote.id, settings=pack(msgspec.structs.replace(settings, into="Old account")))
    fill(server, "INBOX", 1)
    server.create("Work")
    here.add("INBOX", numbered(5))
    here.settle()
    here.create("Old account/Mine")
    here.add("Old account/Mine", numbered(6))
    here.settle()
    below = {f"Old account/{name}" for name in DEFAULTS}
    wanted = {"INBOX", "Old account", "Old account/Inbox", "Old account/Work", "Old account/Mine"}
    assert here.names() - set(DEFAULTS) - below == wanted
    assert contents(server).keys() == {"INBOX", "Mine"}
    assert len(server.mailboxes["INBOX"]) == 1


def test_the_command_says_what_it_did(both: Both) -> None:
    server, here = both()
    fill(server, "INBOX", 1, 2)
    data = str(both.root / "store")
    planned = run_command("sync", "--plan", "--data", data)
    assert "to do: 2 brought here" in planned.stdout
    done = json.loads(run_command("sync", "--json", "--data", data).stdout.splitlines()[-1])
    assert (done["code"], done["remotes"][0]["fetched"], done["remotes"][0]["equal"]) == (0, 2, True)
    assert run_command("sync", "there", "--data", data).stdout == "", "cron hears nothing when all is well"
    here.store.directory.set_access("ann", "read")
    refused = run_command("sync", "--data", data, check=False)
    assert refused.returncode == 2
    assert "mailkeep user access ann full" in refused.stderr


def test_following_sees_what_happens_on_either_side(both: Both) -> None:
    server, here = both()
    fill(server, "INBOX", 1)
    stop = asyncio.Event()

    async def follow() -> list[int]:
        seen = []
        context = Context(here.store, stop=stop)
        async for report in syncing.follow(context, find_remote(here.store, "there")):
            seen.append(report.total("fetched") + report.total("uploaded"))
            if sum(seen) == 1 and seen[-1] == 0:
                fill(server, "INBOX", 2)
            elif sum(seen) == 2 and seen[-1] == 0:
                await asyncio.to_thread(here.add, "INBOX", numbered(3))
            elif sum(seen) == 3:
                stop.set()
        return seen

    seen = asyncio.run(asyncio.wait_for(follow(), 60))
    assert sum(seen) == 3
    assert len(here.uids("INBOX")) == len(server.mailboxes["INBOX"]) == 3
