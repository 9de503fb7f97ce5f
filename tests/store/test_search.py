"""Search answers exactly what a scan of every message would, however the index stands."""

import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailkeep.mail.header import decode_words, header_end, iter_fields
from mailkeep.mail.numset import NumSet
from mailkeep.mail.query import (
    All,
    And,
    Body,
    HasAttachment,
    HasFlag,
    Header,
    Internal,
    Larger,
    ModSeqAtLeast,
    Not,
    Or,
    Query,
    SavedSince,
    Sent,
    Smaller,
    Text,
    UIDs,
    matches,
)
from mailkeep.mail.selection import Known
from mailkeep.mail.structure import render
from mailkeep.mail.text import Searchable, normalise, searchable
from mailkeep.store import search, search_index
from mailkeep.store.account import Account
from mailkeep.store.staging import Staged
from mailkeep.store.store import Store
from tests.messages import bulk, corpus

FLAGS = (frozenset(), frozenset({"\\Seen"}), frozenset({"\\Seen", "$Forwarded"}), frozenset({"\\Flagged", "Work"}))


@dataclass(frozen=True)
class Plain:
    """A message as `matches` sees it, made of its bytes alone."""

    data: bytes
    uid: int
    flags: frozenset[str]
    internaldate: int
    savedate: int
    modseq: int
    email: int = 0  # not searched for here
    thread: int = 0

    @property
    def size(self) -> int:
        return len(self.data)

    @cached_property
    def sent_day(self) -> int | None:
        return render(self.data).sent_day

    @property
    def has_attachment(self) -> bool:
        return bool(Known(data=self.data).has_attachment)

    @cached_property
    def _fields(self) -> list[tuple[str, str]]:
        header = self.data[: header_end(self.data)]
        return [(name.decode("latin-1").lower(), decode_words(value)) for name, value in iter_fields(header)]

    def header(self, name: str) -> list[str]:
        return [value for field_name, value in self._fields if field_name == name.lower()]

    def searchable(self) -> Searchable:
        return self._searchable

    @cached_property
    def _searchable(self) -> Searchable:
        return searchable(self.data)


@dataclass
class Box:
    """An account with mail in INBOX, and the same mail as plain subjects."""

    account: Account
    mailbox: int
    subjects: list[Plain] = field(default_factory=list)

    def scan(self, query: Query) -> list[int]:
        return [subject.uid for subject in self.subjects if matches(query, subject)]

    def search(self, query: Query) -> list[int]:
        found = search.search(self.account.path, self.mailbox, query)
        assert isinstance(found, array)
        return list(found)


def fill(account: Account, messages: list[bytes]) -> Box:
    box = Box(account, account.mailbox("INBOX").id)
    with account.transaction() as tx:
        for number, data in enumerate(messages):
            staged = Staged.of(data)
            tx.append(
                box.mailbox, staged, flags=FLAGS[number % len(FLAGS)], internaldate=1_700_000_000 + number * 40_000
            )
    uids = range(1, len(messages) + 1)
    rows = account.fetch(box.mailbox, uids, ("uid", "flags", "internaldate", "savedate", "modseq"))
    for data, (uid, flags, internaldate, savedate, modseq) in zip(messages, rows, strict=True):
        box.subjects.append(Plain(data, uid, account.flagset(flags).flags, internaldate, savedate, modseq))
    return box


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    store = Store.open(tmp_path_factory.mktemp("store"))
    store.directory.add("ann")
    messages = [data for _, data in corpus() if len(data) < 200_000][:250] + bulk(60)
    yield fill(store.account("ann"), messages)
    store.close()


@pytest.fixture
def small(tmp_path: os.PathLike[str]) -> Iterator[Box]:
    store = Store.open(tmp_path)  # type: ignore[arg-type]
    store.directory.add("ann")
    yield fill(store.account("ann"), bulk(30))
    store.close()


@pytest.fixture(autouse=True)
def always_indexed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "FEW", -1)


# --- needles taken from the mail itself


def needles(box: Box) -> st.SearchStrategy[str]:
    texts = [text for s in box.subjects for text in (s.searchable().headers, s.searchable().body) if text]

    def cut(pick: tuple[int, float, int]) -> str:
        text = texts[pick[0] % len(texts)]
        start = int(pick[1] * max(len(text) - 1, 0))
        return text[start : start + pick[2]]

    cuts = st.tuples(st.integers(0, len(texts) - 1), st.floats(0, 1), st.integers(1, 24)).map(cut)
    cased = st.tuples(cuts, st.sampled_from([str.upper, str.title, str])).map(lambda pair: pair[1](pair[0]))
    foreign = st.sampled_from(
        ["", "شكرا", "مرحبا", "你好", "会", "😀", "İ", "ß", "ﬁ", "\0", "\r", "\x01", "é", "e\u0301", "\ufffd", "zzzqqq"]
    )
    return st.one_of(cuts, cased, foreign, st.text(max_size=4))


def queries(box: Box) -> st.SearchStrategy[Query]:
    needle = needles(box)
    count = len(box.subjects)
    names = st.sampled_from(["Subject", "from", "TO", "Message-ID", "Received", "X-Nowhere", "list-id"])
    days = st.one_of(st.none(), st.integers(719_163 + 19_600, 719_163 + 20_500))
    text = st.one_of(
        needle.map(Text), needle.map(Body), st.tuples(names, st.one_of(needle, st.just(""))).map(lambda t: Header(*t))
    )
    cheap: st.SearchStrategy[Query] = st.one_of(
        st.sampled_from([All(), HasAttachment()]),
        st.sampled_from(["\\Seen", "\\FLAGGED", "$forwarded", "work", "Nosuch"]).map(HasFlag),
        st.integers(0, 20_000).map(Larger),
        st.integers(0, 20_000).map(Smaller),
        st.tuples(days, days).map(lambda t: Internal(*t)),
        st.tuples(days, days).map(lambda t: Sent(*t)),
        st.tuples(days, days).map(lambda t: SavedSince(*t)),
        st.integers(0, count * 2).map(ModSeqAtLeast),
        st.sets(st.integers(1, count + 5), max_size=250).map(lambda uids: UIDs(NumSet.of(uids))),
    )
    return st.recursive(
        st.one_of(text, cheap),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3).map(lambda parts: And(tuple(parts))),
            st.lists(inner, max_size=3).map(lambda parts: Or(tuple(parts))),
            inner.map(Not),
        ),
        max_leaves=5,
    )


COMMON = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_equals_a_scan(box: Box) -> None:
    @COMMON
    @given(queries(box))
    def check(query: Query) -> None:
        assert box.search(query) == box.scan(query)

    check()


def test_text_equals_a_scan_for_every_kind_of_needle(box: Box) -> None:
    @COMMON
    @given(needles(box))
    def check(needle: str) -> None:
        for query in (Text(needle), Body(needle), Header("subject", needle), Not(Text(needle))):
            assert box.search(query) == box.scan(query)

    check()


def test_a_lagging_index_is_completed_by_a_scan(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "CATCH_UP", 0)
    assert search_index.discard(box.account.path)
    assert search.index_pending(box.account.path, 100) > 0

    @settings(COMMON, max_examples=60)
    @given(queries(box))
    def check(query: Query) -> None:
        assert box.search(query) == box.scan(query)

    check()
    while search.index_pending(box.account.path, 1000):
        pass


# --- the index may be thrown away, damaged, or speak of other mail


def test_short_and_long_needles_of_many_scripts(tmp_path_factory: pytest.TempPathFactory) -> None:
    store = Store.open(tmp_path_factory.mktemp("store"))
    store.directory.add("ann")
    bodies = ["Grüße aus Köln", "会議は明日です", "اجتماع غدا صباحا", "party 🎉🎉 tonight", "plain ascii", "ends in 会"]
    messages = [
        f"Subject: {n}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{body}".encode()
        for n, body in enumerate(bodies)
    ]
    box = fill(store.account("ann"), messages)
    for needle, wanted in [
        ("会", [2, 6]),
        ("会議", [2]),
        ("GRÜSSE", [1]),
        ("غدا", [3]),
        ("🎉", [4]),
        ("🎉🎉", [4]),
        ("明日です", [2]),
        ("z", []),
    ]:
        assert box.search(Body(needle)) == wanted, needle
    store.close()


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 300])
def test_a_damaged_index_is_made_anew(small: Box, content: bytes) -> None:
    wanted = small.scan(Body("garden"))
    assert small.search(Body("garden")) == wanted
    path = small.account.path / "search.db"
    for suffix in ("-wal", "-shm"):
        path.with_name(f"search.db{suffix}").unlink(missing_ok=True)
    path.write_bytes(content)
    assert small.search(Body("garden")) == wanted
    assert small.search(Body("garden")) == wanted
    assert search.index_pending(small.account.path, 1000) == 0


def test_damage_inside_the_index_costs_time_only(small: Box) -> None:
    queries = [Body("garden"), Header("subject", "report"), Text("in"), Not(Text("station"))]
    wanted = [small.scan(query) for query in queries]
    assert [small.search(query) for query in queries] == wanted
    path = small.account.path / "search.db"
    data = bytearray(path.read_bytes())
    for page in range(3, len(data) // 4096):
        data[page * 4096 + 8 : page * 4096 + 2000] = os.urandom(1992)
    path.write_bytes(data)
    assert [small.search(query) for query in queries] == wanted
    assert [small.search(query) for query in queries] == wanted


def test_an_index_of_other_mail_is_thrown_away(small: Box, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = Store.open(tmp_path_factory.mktemp("other"))
    other.directory.add("bob")
    their = fill(other.account("bob"), bulk(40, seed=99))
    while search.index_pending(their.account.path, 1000):
        pass
    (small.account.path / "search.db").write_bytes((their.account.path / "search.db").read_bytes())
    other.close()
    for query in (Body("garden"), Text("report")):
        assert small.search(query) == small.scan(query)


def test_expunged_messages_are_not_found(small: Box) -> None:
    found = small.search(Text("example"))
    with small.account.transaction() as tx:
        tx.expunge(small.mailbox, found[:5], only_deleted=False)
    assert small.search(Text("example")) == found[5:]


def test_cancelled_early(small: Box) -> None:
    assert list(search.search(small.account.path, small.mailbox, Text("e"), cancelled=lambda: True)) == []


def test_many_keys_and_ranges(small: Box) -> None:
    many = UIDs(NumSet.of(range(1, 2000, 2)))
    assert small.search(And((many, Not(Body("zzzz"))))) == [uid for uid in range(1, 31) if uid % 2]
    wide = Or(tuple(Text(f"nothing{n}") for n in range(100)) + tuple(Larger(10**9 + n) for n in range(2000)))
    assert small.search(wide) == []


def test_a_full_disk_makes_search_slower_not_different(small: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise apsw.FullError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(search_index, "_padded", full)
        assert search.index_pending(small.account.path, 100) == 0
        assert small.search(Body("garden")) == small.scan(Body("garden"))
    assert search.index_pending(small.account.path, 100) == 0
    assert small.search(Body("garden")) == small.scan(Body("garden"))


def test_a_foreign_index_in_use_is_not_waited_for(small: Box) -> None:
    while search.index_pending(small.account.path, 1000):
        pass
    db = apsw.Connection(str(small.account.path / "search.db"))
    db.execute("UPDATE meta SET digest = x'00'")
    db.close()
    with search_index.writing(small.account.path):
        assert search.index_pending(small.account.path, 1000) == 0
        assert small.search(Body("garden")) == small.scan(Body("garden"))
    assert small.search(Body("garden")) == small.scan(Body("garden"))


def test_text_that_sqlite_cannot_hold_is_indexed_all_the_same(small: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """NULs and halves of surrogate pairs: found by what stands around them, and by themselves."""
    odd = search_index.Texts("subject: x", "before \ud800\0 after", [("subject", "x")])
    monkeypatch.setattr(search, "texts_of", lambda data: odd)
    for needle in ("before", "\ud800", "\0 a", "\ud800\0", "after", "er"):
        assert small.search(Body(needle)) == list(range(1, 31)), needle
    for needle in ("\ufffd", "\x01", "rx", "\0\0"):
        assert small.search(Body(needle)) == [], needle


def test_a_needle_is_normalised_like_the_text() -> None:
    assert normalise("STRASSE") == normalise("straße")
