"""Every kind of server and every fault by itself: what is there comes, each message once, with its flags, date and
folder; what cannot come is named with the reason that is true, and the exit code says which of the two it was.

The server's own mailboxes in memory are what is compared with, after the first pull and after all that may change.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mailkeep.testing import Break, Busy, Faulty, Ill, PopFaults
from mailkeep.testing.faults import FULL
from tests.backup.targets import Login
from tests.messages import numbered, ugly
from tests.steps import Nursery, Run
from tests.system.torture.scenes import (
    START,
    add_remote,
    bodies,
    brought,
    contents_there,
    equal_of,
    look,
    put,
    short,
    touch,
    without_gone,
)


@dataclass(frozen=True)
class Case:
    """A server. `runs`: so many at most until sets are equal; `undated`: it says no dates; `views`: no mailboxes."""

    name: str
    kind: str = "plain"
    faults: dict[str, Any] = field(default_factory=dict)
    runs: int = 1
    undated: bool = False
    provider: str | None = None
    views: frozenset[str] = frozenset()
    fetches_again: bool = False  # who renumbers without dates and ids can only be told by content

    def __str__(self) -> str:
        return self.name


VIEWS = frozenset(("[Gmail]/Markiert", "[Gmail]/Wichtig"))
POOR = tuple(name for name in FULL if name in {"IMAP4rev1", "AUTH=PLAIN", "NAMESPACE", "LITERAL+"})
CASES = (
    *(Case(kind, kind) for kind in ("plain", "exchange", "icloud")),
    Case("gmail", "gmail", views=VIEWS),
    Case("gmail, known as such", "gmail", provider="gmail", views=VIEWS),
    Case("o365", "o365", runs=3, fetches_again=True),
    Case("o365, known as such", "o365", runs=3, provider="outlook", fetches_again=True),
    Case("yahoo", "yahoo", runs=2),
    Case("yahoo, known as such", "yahoo", runs=2, provider="yahoo"),
    Case("icloud, known as such", "icloud", provider="icloud"),
    Case("domino", "domino", undated=True, fetches_again=True),
    Case("few capabilities", faults={"capabilities": POOR}),
    Case("hardly any capability", faults={"capabilities": ("IMAP4rev1",)}),
    Case("capabilities only when asked", faults={"tells_capabilities": False}),
    Case("other capabilities after the log-in", faults={"capabilities": POOR, "capabilities_after_login": FULL}),
    Case("short lines", faults={"line_max": 1000, "capabilities": POOR}),
    Case("two connections", faults={"connections_max": 2}, runs=2),
    Case("one connection", faults={"connections_max": 1}, runs=2),
    Case("little pipelining", faults={"pipeline_max": 2, "capabilities": POOR}, runs=2),
    Case("junk lines", faults={"junk_lines": (b"* FLAGS junk", b"* OK", b"* ", b"* X", b"* 5", b"* NO [X")}),
    Case("no texts", faults={"bare_ok": True}),
    Case("extra spaces", faults={"extra_spaces": True}),
    Case("log-ins later", faults={"login_unavailable": 1}, runs=2),
    Case("not connected at first", faults={"not_connected": 1}, runs=2),
    Case("dots and a prefix", faults={"separator": ".", "prefix": "INBOX."}),
    Case("another UIDVALIDITY each time", faults={"uidvalidity_lasts": 1}, runs=2),
    Case("names without quotes", faults={"unquoted_names": True}),
    Case("names as literals", faults={"literal_names": True}),
    Case("no special use unless asked", faults={"special_use_in_list": False}),
    Case("SEARCH leaves out", faults={"search_drops": 5}),
    Case("sizes that lie", faults={"size_error": 77}, fetches_again=True),
    Case("sizes too small", faults={"size_error": -20}, fetches_again=True),
    Case("RFC822 brings nothing", faults={"rfc822": "missing"}),
    Case("fetching sets flags", faults={"peek_sets_seen": True}),
    Case("no dates", faults={"bad_dates": True}, undated=True, fetches_again=True),
    Case("flags unasked", faults={"flags_unsolicited": True}),
    Case("busy now and then", faults={"busy": (Busy(every=5, times=6),)}, runs=2),
    Case("throttled", faults={"busy": (Busy(rb"FETCH", every=3, reply=b"BAD Request is throttled", times=4),)}, runs=2),
    Case("cut after so much", faults={"cut_after_bytes": 9000, "cut_times": 4}, runs=2),
    Case("BYE in the middle", faults={"breaks": (Break(rb"FETCH", nth=2, when="middle", bye=True, times=2),)}, runs=2),
    Case("BYE instead of IDLE", faults={"bye_on_idle": True}),
)


class Play:
    """A server that runs, and a store that is pulled into."""

    def __init__(self, case: Case, server: Faulty, nursery: Nursery, root: Path, *, protocol: str = "imap") -> None:
        self.case, self.server, self.nursery, self.root = case, server, nursery, root
        port = server.pop3_port if protocol == "pop3" else server.imap_port
        login = Login(port, server.user, server.password)
        add_remote(root, "there", "ann", login, protocol=protocol, provider=case.provider)

    def pull(self, *options: str) -> Run:
        run = self.nursery.run(self.root, "pull", "there", "--json", *options, "--data", str(self.root))
        assert run.code in (0, 1, 69, 75, 76), run.out + run.err
        if run.code in (0, 1):
            assert (run.code == 0) == equal_of(run), run.out
        return run

    def until_equal(self) -> int:
        """How many messages came, in as many runs as the case is given."""
        came, said = 0, []
        for _ in range(self.case.runs):
            run = self.pull()
            came += brought(run)
            said.append(run.out.splitlines()[-1] + run.err)
            if run.code == 0:
                return came
        raise AssertionError("\n".join(said))

    def compare(self) -> None:
        """Message for message."""
        there = {self.ours(name): counted for name, counted in contents_there(self.server).items()}
        here = without_gone(look(self.root, "ann"))
        for name in (there.keys() | here.keys()) - self.case.views:
            one, other = there.get(name, Counter()), here.get(name, Counter())
            if self.case.undated:
                one, other = (Counter((flags, 0, data) for flags, _, data in each.elements()) for each in (one, other))
            assert one == other, f"{name} lacks {short(one - other)}, has too many {short(other - one)}"

    def ours(self, name: str) -> str:
        faults = self.server.faults
        return name.removeprefix(faults.prefix).replace(faults.separator, "/") if name != "INBOX" else name

    def theirs(self, name: str) -> str:
        faults = self.server.faults
        return faults.prefix + name.replace("/", faults.separator)


@contextmanager
def played(case: Case, nursery: Nursery, root: Path) -> Iterator[Play]:
    with Faulty(case.kind, **case.faults) as server:
        yield Play(case, server, nursery, root)


def fill(play: Play) -> None:
    server = play.server
    put(server, "INBOX", [*(numbered(n) for n in range(25)), *(data for _, data in ugly()[:20])])
    put(server, play.theirs("Work"), [numbered(n, size=3000) for n in range(30, 39)], start=START + 90_000)
    put(server, play.theirs("Work/Two words"), [numbered(50), numbered(50), numbered(51)])


def change(play: Play) -> None:
    server = play.server
    inbox = server.mailboxes["INBOX"]
    work = server.mailboxes[play.theirs("Work")]
    put(server, "INBOX", [numbered(n) for n in range(100, 106)], start=START + 200_000)
    for uid, message in list(inbox.messages.items())[2:5]:
        inbox.remove(uid)
        if server.account.all_mail is not None:
            touch(server, message)
    for uid in list(inbox.messages)[6:12]:
        inbox.set_flags(uid, {"\\Seen", "\\Flagged"})
    put(server, play.theirs("Fresh"), [numbered(n) for n in range(60, 63)])
    if server.faults.labels:
        return
    work.renumber()
    work.remove(next(iter(work.messages)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_all_that_is_there_comes_as_it_is(case: Case, nursery: Nursery, tmp_path: Path) -> None:
    with played(case, nursery, tmp_path / "store") as play:
        fill(play)
        came = play.until_equal()
        assert case.fetches_again or came == 45 + 9 + 3
        play.compare()
        change(play)
        came = play.until_equal()
        play.compare()
        if not case.fetches_again:
            assert came == 9, "only what is unknown is fetched"
        if not play.server.faults.labels:
            lost = {data for flags, _, data in look(tmp_path / "store", "ann")["INBOX"] if "$Gone" in flags}
            assert lost == {numbered(2), numbered(3), numbered(4)}
        kept = bodies(look(tmp_path / "store", "ann"))
        assert case.runs > 1 or play.pull().code == 0
        assert bodies(look(tmp_path / "store", "ann")) == kept
        checked = nursery.run(tmp_path / "store", "verify", "--data", str(tmp_path / "store"))
        assert checked.code == 0, checked.out


@pytest.mark.parametrize(("command", "policy"), [("pull", {}), ("pull", {"gone": "mirror"}), ("sync", {})])
@pytest.mark.parametrize("capabilities", [POOR, FULL], ids=["poor", "rich"])
def test_a_limit_that_nobody_tells_takes_nothing_away(
    command: str, policy: dict[str, str], capabilities: tuple[str, ...], nursery: Nursery, tmp_path: Path
) -> None:
    """Gmail's users may limit folders to a thousand messages: the older ones are not gone, they are only not shown."""
    root = tmp_path / "store"
    with Faulty(capabilities=capabilities, folder_cap=1000) as server:
        add_remote(root, "there", "ann", Login(server.imap_port, server.user, server.password), **policy)
        put(server, "INBOX", [numbered(n) for n in range(1000)])
        for number in range(1000, 1020, 10):
            assert nursery.run(root, command, "there", "--data", str(root)).code == 0
            put(server, "INBOX", [numbered(n) for n in range(number, number + 10)])
        run = nursery.run(root, command, "there", "--json", "--data", str(root))
        assert run.code == 0 and equal_of(run), run.out + run.err
        here = look(root, "ann")["INBOX"]
        assert sum(here.values()) == 1020 and without_gone({"INBOX": here}) == {"INBOX": here}
        assert len(server.mailboxes["INBOX"]) == 1020


WHOLE = frozenset(("BODY[]",))
ILLS: tuple[tuple[str, Ill, str | None], ...] = (
    ("nil", Ill("nil"), "answered with nothing"),
    ("empty", Ill("empty"), "answered with nothing"),
    ("missing", Ill("missing"), "answered with nothing"),
    ("no", Ill("no"), "refused by the server"),
    ("bad", Ill("bad"), "refused by the server"),
    ("hangup", Ill("hangup"), "refused by the server"),
    ("bye", Ill("bye"), "refused by the server"),
    ("short", Ill("short"), "refused by the server"),
    ("replaced", Ill("replaced"), "replaced by the server"),
    *((f"{kind}, mended", Ill(kind, times=1), None) for kind in ("nil", "no", "hangup", "short", "empty", "missing")),  # type: ignore[arg-type]
    *((f"{kind}, BODY[] only", Ill(kind, items=WHOLE), None) for kind in ("nil", "no", "empty", "missing", "bad")),  # type: ignore[arg-type]
    ("no, only by parts", Ill("no", items=WHOLE | {"RFC822"}), None),
)


@pytest.mark.parametrize(("name", "ill", "reason"), ILLS, ids=[name for name, _, _ in ILLS])
def test_one_ill_message_is_named_with_its_reason(
    name: str, ill: Ill, reason: str | None, nursery: Nursery, tmp_path: Path
) -> None:
    with played(Case(name, "exchange" if ill.kind == "replaced" else "plain"), nursery, tmp_path / "store") as play:
        put(play.server, "INBOX", [numbered(n) for n in range(10)])
        uid = play.server.mailboxes["INBOX"].add(numbered(77), date=START, ill=ill).uid
        put(play.server, "INBOX", [numbered(n) for n in range(20, 30)])
        run = play.pull()
        if reason is None:
            assert run.code == 0, run.out + run.err
            play.compare()
            return
        assert run.code == 1
        [folder] = [each for each in run.facts["remotes"][0]["folders"] if each["folder"] == "INBOX"]
        assert [(each["uid"], each["reason"]) for each in folder["messages"]] == [(uid, reason)]
        assert folder["missing"] == {reason: 1} and folder["kept"] == 20 and folder["server"] == 21
        assert f"UID {uid}" in run.err, "and people are told"
        assert play.pull().code == 1
        play.server.mailboxes["INBOX"].messages[uid].mail.ill = None
        assert play.pull("--retry").code == 0
        play.compare()


POPS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("plain", {}),
    ("repeated UIDLs", {"uidl": "repeated"}),
    ("no UIDL", {"uidl": "missing"}),
    ("empty UIDLs", {"uidl": "empty"}),
    ("changing UIDLs", {"uidl": "changing"}),
    ("long UIDLs", {"uidl": "long"}),
    ("neither CAPA nor TOP", {"capa": False, "top": False, "pipelining": False}),
    ("sizes that lie", {"size_error": 13}),
    ("LIST says 0", {"list_sizes": False}),
    ("bare line feeds", {"bare_lf": True}),
    ("STAT counts wrong", {"stat_error": 2}),
    ("in use at first", {"in_use": 1}),
)


@pytest.mark.parametrize(("name", "faults"), POPS, ids=[name for name, _ in POPS])
def test_pop3_brings_each_once(name: str, faults: dict[str, Any], nursery: Nursery, tmp_path: Path) -> None:
    case = Case(name, runs=2)
    with Faulty("plain", pop=PopFaults(**faults)) as server:
        play = Play(case, server, nursery, tmp_path / "store", protocol="pop3")
        put(server, "INBOX", [*(numbered(n) for n in range(12)), numbered(3), numbered(90, size=50_000)])
        assert play.until_equal() == 14
        assert bodies(look(play.root, "ann")) == Counter(each.data for each in server.mailboxes["INBOX"])
        put(server, "INBOX", [numbered(n) for n in range(20, 25)])
        play.until_equal()
        assert bodies(look(play.root, "ann")) == Counter(each.data for each in server.mailboxes["INBOX"])
