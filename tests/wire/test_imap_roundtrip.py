"""`parse(format_command(tag, x)) == (tag, x)` for any command there can be."""

from datetime import date

from hypothesis import given, settings
from hypothesis import strategies as st

from mailkeep.mail.numset import NumSet
from mailkeep.wire import imap_command as c
from mailkeep.wire.imap_command import SAVED, Command, FetchBody, SearchKey, Section
from mailkeep.wire.imap_fetch_items import label
from mailkeep.wire.imap_format import format_command
from mailkeep.wire.imap_server import AppendData, AppendEnd, AppendStart, CommandReceived
from tests.wire.feeding import events

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
_OCTETS = st.binary(max_size=30).map(lambda value: value.replace(b"\0", b""))
_NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30).map(
    lambda name: "INBOX" if name.upper() == "INBOX" else name
)
_ATOMS = st.text("abcXYZ019$_-.=&+;", min_size=1, max_size=12)
_WORDS = _ATOMS.map(str.upper)
_FLAGS = st.one_of(st.sampled_from(["\\Seen", "\\Answered", "\\Deleted"]), _ATOMS)
_NUMBERS = st.integers(0, (1 << 63) - 1)
_NUMBER = st.integers(1, (1 << 32) - 1)
_PLAIN_SETS = st.lists(_NUMBER, min_size=1, max_size=8).map(NumSet.of)
_STARRED = st.tuples(_PLAIN_SETS, _NUMBER).map(lambda pair: NumSet(pair[0].ranges, (pair[1],)))
_SETS = st.one_of(_PLAIN_SETS, _STARRED, st.just(NumSet.parse(b"*")), st.just(SAVED))
_DAYS = st.dates(min_value=date(1, 1, 1)).map(date.toordinal)
_MODSEQS = st.one_of(st.none(), _NUMBERS)


def _keys(inner: st.SearchStrategy[SearchKey]) -> st.SearchStrategy[SearchKey]:
    # An OR at the end of an OR is the same search as one longer OR, and is read as that.
    last = inner.filter(lambda key: key.name != "OR")
    return st.one_of(
        st.lists(inner, min_size=2, max_size=4).map(lambda keys: SearchKey("AND", tuple(keys))),
        st.tuples(st.lists(inner, min_size=1, max_size=3), last).map(lambda p: SearchKey("OR", (*p[0], p[1]))),
        inner.map(lambda key: SearchKey("NOT", (key,))),
    )


_KEYS = st.recursive(
    st.one_of(
        st.sampled_from(["ALL", "SEEN", "UNSEEN", "NEW", "RECENT", "SAVEDATESUPPORTED"]).map(SearchKey),
        st.builds(lambda n, v: SearchKey(n, (v,)), st.sampled_from(["FROM", "TEXT", "BODY", "SUBJECT"]), _TEXT),
        st.builds(lambda n, v: SearchKey(n, (v,)), st.sampled_from(["ON", "SINCE", "SENTBEFORE", "SAVEDON"]), _DAYS),
        st.builds(lambda n, v: SearchKey(n, (v,)), st.sampled_from(["LARGER", "SMALLER", "MODSEQ"]), _NUMBERS),
        st.builds(lambda n, v: SearchKey(n, (v,)), st.sampled_from(["OLDER", "YOUNGER"]), _NUMBER),
        st.builds(lambda n, v: SearchKey(n, (v,)), st.sampled_from(["UID", "SET"]), _SETS),
        st.builds(lambda n, v: SearchKey(n, (v,)), st.sampled_from(["KEYWORD", "UNKEYWORD"]), _FLAGS),
        st.builds(lambda n, v: SearchKey("HEADER", (n, v)), _TEXT, _TEXT),
    ),
    _keys,
    max_leaves=12,
)

_PATHS = st.lists(_NUMBER, max_size=5).map(tuple)
_FIELDS = st.lists(st.text('abcDEF-"\\ ():]', min_size=1, max_size=8).map(str.encode), min_size=1, max_size=3).map(
    tuple
)
_SECTIONS = st.one_of(
    st.builds(Section, _PATHS, st.sampled_from(["", "HEADER", "TEXT"])),
    st.builds(Section, _PATHS.filter(bool), st.just("MIME")),
    st.builds(Section, _PATHS, st.sampled_from(["HEADER.FIELDS", "HEADER.FIELDS.NOT"]), _FIELDS),
)
_PARTIALS = st.one_of(st.none(), st.tuples(_NUMBERS, _NUMBERS))


def _body(kind: str, section: Section, peek: bool, partial: tuple[int, int] | None) -> FetchBody:
    return FetchBody(section, peek, partial, kind, label(kind, section, partial))  # type: ignore[arg-type]


_PARTS = st.builds(Section, _PATHS)
_ITEMS = st.one_of(
    st.sampled_from(["FLAGS", "UID", "ENVELOPE", "INTERNALDATE", "RFC822.SIZE", "BODY", "BODYSTRUCTURE", "PREVIEW"]),
    st.builds(_body, st.just("BODY"), _SECTIONS, st.booleans(), _PARTIALS),
    st.builds(_body, st.just("BINARY"), _PARTS, st.booleans(), _PARTIALS),
    st.builds(_body, st.just("BINARY.SIZE"), _PARTS, st.just(True), st.none()),
    st.just(FetchBody(Section(), False, None, "RFC822", b"RFC822")),
)


@st.composite
def _fetches(draw: st.DrawFn) -> c.Fetch:
    uid = draw(st.booleans())
    items = draw(st.lists(_ITEMS, min_size=1, max_size=6, unique=True))
    if uid:
        items = ["UID", *(item for item in items if item != "UID")]
    since = draw(_MODSEQS)
    vanished = draw(st.booleans()) and uid and since is not None
    return c.Fetch(uid, draw(_SETS), tuple(items), since, vanished)


_STATUS = st.lists(st.sampled_from(["MESSAGES", "UIDNEXT", "UNSEEN", "SIZE"]), min_size=1, unique=True).map(tuple)
_LISTS = st.builds(
    c.List,
    st.just("LIST"),
    _NAMES,
    st.lists(_NAMES, min_size=1, max_size=3).map(tuple),
    st.just(True),
    st.frozensets(st.sampled_from(["SUBSCRIBED", "REMOTE", "SPECIAL-USE"])),
    st.frozensets(st.sampled_from(["SUBSCRIBED", "CHILDREN", "SPECIAL-USE"])),
    st.one_of(st.just(()), _STATUS),
)
_MATCHED = st.tuples(_PLAIN_SETS, _PLAIN_SETS)
_QRESYNCS = st.builds(
    lambda validity, modseq, known, matched: c.QResync(validity, modseq, known, *(matched or (None, None))),
    _NUMBER,
    _NUMBERS,
    st.one_of(st.none(), _PLAIN_SETS),
    st.one_of(st.none(), _MATCHED),
)
_ID_FIELDS = st.lists(st.tuples(_TEXT, st.one_of(st.none(), _TEXT)), max_size=4).map(tuple)
_COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.sampled_from([c.Noop(), c.Capability(), c.Logout(), c.StartTls(), c.Namespace(), c.Check(), c.Close()]),
    st.builds(c.Id, st.one_of(st.none(), _ID_FIELDS)),
    st.builds(c.Login, _OCTETS, _OCTETS),
    st.builds(c.Enable, st.lists(_WORDS, min_size=1, max_size=3).map(tuple)),
    st.builds(c.Select, _NAMES, st.booleans(), st.booleans(), st.one_of(st.none(), _QRESYNCS)),
    st.builds(c.Create, _NAMES, st.sampled_from([(), ("\\Sent",), ("\\Junk", "\\Trash")])),
    st.builds(c.Delete, _NAMES),
    st.builds(c.Subscribe, _NAMES),
    st.builds(c.Unsubscribe, _NAMES),
    st.builds(c.Rename, _NAMES, _NAMES),
    _LISTS,
    st.builds(c.List, st.sampled_from(["LIST", "LSUB"]), _NAMES, st.tuples(_NAMES)),
    st.builds(c.Status, _NAMES, _STATUS),
    st.builds(c.Expunge, st.one_of(st.none(), _SETS)),
    st.builds(
        c.Search,
        st.booleans(),
        _KEYS,
        st.one_of(st.none(), st.frozensets(st.sampled_from(["MIN", "MAX", "ALL", "SAVE"]), min_size=1)),
        st.sampled_from([None, "UTF-8", "GB18030"]),
    ),
    _fetches(),
    st.builds(
        c.Store,
        st.booleans(),
        _SETS,
        st.sampled_from(["=", "+", "-"]),
        st.booleans(),
        st.lists(_FLAGS, max_size=4).map(tuple),
        _MODSEQS,
    ),
    st.builds(c.Copy, st.booleans(), _SETS, _NAMES),
    st.builds(c.Move, st.booleans(), _SETS, _NAMES),
)  # fmt: skip


@given(_COMMANDS, st.booleans())
@settings(max_examples=600, deadline=None)
def test_what_is_written_is_read_back(command: Command, utf8: bool) -> None:
    line = format_command(b"A1", command, utf8=utf8)
    assert events([line], utf8=utf8) == [CommandReceived(b"A1", command)]


_APPENDS = st.builds(
    c.Append,
    _NAMES,
    st.lists(_FLAGS, max_size=4).map(tuple),
    st.one_of(st.none(), st.integers(-(10**10), 10**11)),
    st.just(3),
)


@given(_APPENDS, st.booleans())
@settings(deadline=None)
def test_an_append_is_read_back(append: c.Append, utf8: bool) -> None:
    line = format_command(b"A1", append, utf8=utf8) + b"abc\r\n"
    assert events([line], utf8=utf8) == [AppendStart(b"A1", append), AppendData(b"abc"), AppendEnd()]
