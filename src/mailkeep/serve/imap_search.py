"""SEARCH: from the client's keys to the store's query, and back to numbers (RFC 9051 section 6.4.4).

What only asks for flags, UIDs and mod-sequences is answered from memory. Anything else goes to the store in a thread,
as one immutable tree without sequence numbers or `$`; its answer is cut down to what this client knows of, since the
store may have more by now, and shows no message that the view has not.
"""

from array import array
from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import chain, compress
from typing import Any

from mailkeep.errors import ProtocolError
from mailkeep.mail import query
from mailkeep.mail.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN
from mailkeep.mail.numset import NumSet, encode
from mailkeep.mail.query import Query
from mailkeep.serve.imap_peer import Peer, Result
from mailkeep.serve.imap_reply import Reply, no, ok
from mailkeep.serve.imap_view import View
from mailkeep.store import FlagSet
from mailkeep.wire import imap_response
from mailkeep.wire.imap_command import Search, SearchKey

SLICE = 8192  # rows looked at in one go
NUMBERS = 2000  # written in one go
_DONE = ok(b"SEARCH completed")
_ALL: Query = query.All()
_NONE: Query = query.Not(query.All())

_FLAGS = {"ANSWERED": ANSWERED, "DELETED": DELETED, "DRAFT": DRAFT, "FLAGGED": FLAGGED, "SEEN": SEEN}
_HEADERS = {"BCC": "Bcc", "CC": "Cc", "FROM": "From", "SUBJECT": "Subject", "TO": "To"}
_DATES: dict[str, tuple[type[query.Internal] | type[query.Sent] | type[query.SavedSince], str]] = {
    "BEFORE": (query.Internal, "BEFORE"),
    "ON": (query.Internal, "ON"),
    "SINCE": (query.Internal, "SINCE"),
    "SENTBEFORE": (query.Sent, "BEFORE"),
    "SENTON": (query.Sent, "ON"),
    "SENTSINCE": (query.Sent, "SINCE"),
    "SAVEDBEFORE": (query.SavedSince, "BEFORE"),
    "SAVEDON": (query.SavedSince, "ON"),
    "SAVEDSINCE": (query.SavedSince, "SINCE"),
}


def search(peer: Peer, command: Search) -> Result:
    """SEARCH and UID SEARCH, with the old answer or the new one (RFC 4731)."""
    if command.charset is not None and peer.enabled.utf8:
        raise ProtocolError("CHARSET is not allowed with UTF8=ACCEPT")  # RFC 6855 section 3
    if asks_modseq(command.program):
        peer.enabled.condstore = True
    try:
        tree = build(peer, command.program)
    except _Unsupported:
        return no(b"This search key is not supported", b"CANNOT")
    if in_memory(tree):
        return _from_memory(peer, command, tree)
    return _from_store(peer, command, tree)


def names_numbers(key: SearchKey) -> bool:
    """Whether sequence numbers occur in it: then no EXPUNGE may be told meanwhile (RFC 9051 section 7.5.1)."""
    if key.name == "SET":
        return isinstance(key.arguments[0], NumSet)
    return any(isinstance(part, SearchKey) and names_numbers(part) for part in key.arguments)


def asks_modseq(key: SearchKey) -> bool:
    """Whether MODSEQ occurs in it: then the answer has one too (RFC 7162 section 3.1.5)."""
    return key.name == "MODSEQ" or any(isinstance(part, SearchKey) and asks_modseq(part) for part in key.arguments)


class _Unsupported(Exception):
    """A key of an extension that is not advertised."""


# --- the tree ---


def build(peer: Peer, key: SearchKey) -> Query:
    """The store's query for a key. Sets become UIDs, \\Recent becomes UIDs, dates become days."""
    name, arguments = key.name, key.arguments
    if name in ("AND", "OR"):
        parts = tuple(build(peer, part) for part in arguments if isinstance(part, SearchKey))
        return query.And(parts) if name == "AND" else query.Or(parts)
    if name == "NOT":
        (part,) = arguments
        assert isinstance(part, SearchKey)
        return query.Not(build(peer, part))
    if name in _FLAGS:
        return query.HasFlag(_FLAGS[name])
    if name.startswith("UN") and name[2:] in _FLAGS:
        return query.Not(query.HasFlag(_FLAGS[name[2:]]))
    if name in _DATES:
        return _day(name, _int(arguments[0]))
    if name in _HEADERS:
        return query.Header(_HEADERS[name], str(arguments[0]))
    return _other(peer, name, arguments)


def _other(peer: Peer, name: str, arguments: tuple[Any, ...]) -> Query:
    match name:
        case "ALL" | "SAVEDATESUPPORTED":
            return _ALL
        case "SET" | "UID":
            return _uids(peer, arguments[0], uid=name == "UID")
        case "NEW":
            return query.And((_recent(peer), query.Not(query.HasFlag(SEEN))))
        case "OLD":
            return query.Not(_recent(peer))
        case "RECENT":
            return _recent(peer)
        case "KEYWORD":
            return query.HasFlag(arguments[0])
        case "UNKEYWORD":
            return query.Not(query.HasFlag(arguments[0]))
        case "HEADER":
            return query.Header(arguments[0], arguments[1])
        case "BODY":
            return query.Body(arguments[0])
        case "TEXT":
            return query.Text(arguments[0])
        case "LARGER":
            return query.Larger(arguments[0])
        case "SMALLER":
            return query.Smaller(arguments[0])
        case "MODSEQ":
            return query.ModSeqAtLeast(arguments[0])
        case "EMAILID":
            return query.SameEmail(_object(arguments[0], "M"))
        case "THREADID":
            return query.SameThread(_object(arguments[0], "T"))
    raise _Unsupported


def _object(text: str, kind: str) -> int:
    """The number in an object id as FETCH shows it (`M17`, `T4`); 0, which nothing has, for any other."""
    number = text[1:]
    if text[:1] != kind or not (number.isascii() and number.isdecimal()) or len(number) > 19:
        return 0
    return int(number) & 0x7FFF_FFFF_FFFF_FFFF  # what SQLite can hold


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def _day(name: str, day: int) -> Query:
    kind, relation = _DATES[name]
    if relation == "BEFORE":
        return kind(None, day)
    return kind(day, day + 1) if relation == "ON" else kind(day, None)


def _uids(peer: Peer, messages: Any, *, uid: bool) -> Query:
    # Ranges from end to end: what lies between and is not in the view is cut off the answer. A client may name the
    # whole mailbox a thousand times in one command.
    uids = peer.selected.uids
    spans = peer.spans(messages, uid=uid)
    return query.UIDs(NumSet(tuple((uids[start], uids[stop - 1]) for start, stop in spans))) if spans else _NONE


def _recent(peer: Peer) -> Query:
    recent = peer.selected.recent
    if not recent or peer.enabled.rev2:
        return _NONE
    return query.UIDs(NumSet(tuple((first, end - 1) for first, end in sorted(recent) if first < end)))


# --- from memory ---


def in_memory(tree: Query) -> bool:
    """Whether the index alone can answer it."""
    match tree:
        case query.And(parts) | query.Or(parts):
            return all(map(in_memory, parts))
        case query.Not(part):
            return in_memory(part)
    return isinstance(tree, query.All | query.HasFlag | query.UIDs | query.ModSeqAtLeast)


def _only_flags(tree: Query) -> bool:
    match tree:
        case query.And(parts) | query.Or(parts):
            return all(map(_only_flags, parts))
        case query.Not(part):
            return _only_flags(part)
    return isinstance(tree, query.All | query.HasFlag)


def _size(tree: Query) -> int:
    """How many tests it takes for one row, at most."""
    match tree:
        case query.And(parts) | query.Or(parts):
            return 1 + sum(map(_size, parts))
        case query.Not(part):
            return _size(part)
    return 1


Test = Callable[[int, FlagSet, int], bool]  # UID, flags, modseq


def _test(tree: Query) -> Test:
    """The tree as one function of a row."""
    match tree:
        case query.And(parts):
            tests = [_test(part) for part in parts]
            return lambda uid, flags, modseq: all(test(uid, flags, modseq) for test in tests)
        case query.Or(parts):
            tests = [_test(part) for part in parts]
            return lambda uid, flags, modseq: any(test(uid, flags, modseq) for test in tests)
        case query.Not(part):
            inner = _test(part)
            return lambda uid, flags, modseq: not inner(uid, flags, modseq)
        case query.HasFlag(flag):
            folded = flag.lower()
            return lambda uid, flags, modseq: any(name.lower() == folded for name in flags.flags)
        case query.UIDs(uids):
            return lambda uid, flags, modseq: uid in uids
        case query.ModSeqAtLeast(least):
            return lambda uid, flags, modseq: modseq >= least
    return lambda uid, flags, modseq: True


def _from_memory(peer: Peer, command: Search, tree: Query) -> Generator[bytes, None, Reply]:
    """Split off a top-level set, so that `UID 5 UNSEEN` looks at one row; then test row by row, or set by set."""
    view, flagset = peer.selected, peer.account.flagset
    parts = tree.parts if isinstance(tree, query.And) else (tree,)
    sets = [part.uids for part in parts if isinstance(part, query.UIDs)]
    rest = query.And(tuple(part for part in parts if not isinstance(part, query.UIDs)))
    spans = [(0, view.count)] if view.count else []
    if sets:
        spans = [(start, min(stop, view.count)) for start, stop in sets[0].slices(view.uids) if start < view.count]
        rest = query.And((*rest.parts, *map(query.UIDs, sets[1:])))
    test, by_set = _test(rest), _only_flags(rest)
    portion = SLICE if by_set else max(SLICE // _size(rest), 1)
    uids, found = view.uids, array(view.uids.typecode)
    for first, end in spans:
        for start in range(first, end, portion):
            stop = min(start + portion, end)
            numbers = view.flag_sets(start, stop)
            if by_set:
                good = {number: test(0, flagset(number), 0) for number in set(numbers)}
                if all(good.values()):
                    found.extend(uids[start:stop])
                elif any(good.values()):
                    found.extend(compress(uids[start:stop], map(good.__getitem__, numbers)))
            else:
                rows = zip(uids[start:stop], map(flagset, numbers), view.modseqs_at(start, stop), strict=True)
                found.extend(row[0] for row in rows if test(*row))
            if stop - first >= portion:
                yield b""
    yield from answer(peer, command, found)
    return _DONE


async def _from_store(peer: Peer, command: Search, tree: Query) -> Reply:
    view = peer.selected
    try:
        found = await peer.services.offload.read(
            lambda: peer.account.search(view.index.mailbox_id, tree, cancelled=lambda: peer.closed)
        )
    except BaseException:
        if command.returns is not None and "SAVE" in command.returns:
            peer.saved = ()  # RFC 5182 section 2.1
        raise
    known = array(view.uids.typecode)
    for start, stop in view.spans_of(found):
        known.extend(view.uids[start:stop])
    await peer.stream(answer(peer, command, known))
    return _DONE


# --- the answer ---


def answer(peer: Peer, command: Search, uids: Sequence[int]) -> Generator[bytes, None, None]:
    """SEARCH or ESEARCH for these UIDs, rising; keeps them as `$` if asked."""
    view, returns = peer.selected, command.returns
    modseq = asks_modseq(command.program)
    numbers = uids if command.uid else _numbers(view, uids)
    if returns is None and not peer.enabled.rev2:
        yield from _old_answer(numbers, _highest(view, uids) if modseq and uids else None)
        return
    returns = returns or frozenset(("ALL",))
    if "SAVE" in returns:
        _save(peer, returns, uids)
        if returns == {"SAVE"}:
            return
    told = _told(returns, uids)
    yield imap_response.esearch(
        peer.tag,
        uid=command.uid,
        smallest=numbers[0] if "MIN" in returns and numbers else None,
        largest=numbers[-1] if "MAX" in returns and numbers else None,
        found=encode(numbers) if "ALL" in returns else None,
        count=len(numbers) if "COUNT" in returns else None,
        modseq=_highest(view, told) if modseq and told else None,
    )


def _old_answer(numbers: Sequence[int], modseq: int | None) -> Generator[bytes, None, None]:
    """`* SEARCH 1 2 3 [(MODSEQ n)]`: as `imap_response.search_line`, in pieces, for it may name a whole mailbox."""
    if len(numbers) <= NUMBERS:
        yield imap_response.search_line(numbers, modseq=modseq)
        return
    yield b"* SEARCH"
    for start in range(0, len(numbers), NUMBERS):
        portion = numbers[start : start + NUMBERS]
        yield (b" %d" * len(portion)) % tuple(portion)
    yield b" (MODSEQ %d)\r\n" % modseq if modseq is not None else b"\r\n"


def _numbers(view: View, uids: Sequence[int]) -> Sequence[int]:
    if len(uids) == view.count:
        return range(1, view.count + 1)
    return list(chain.from_iterable(range(start + 1, stop + 1) for start, stop in view.spans_of(uids)))


def _told(returns: frozenset[str], uids: Sequence[int]) -> Sequence[int]:
    """Those of which MODSEQ is the highest (RFC 7162 section 3.1.10): the ends, when only these are asked for."""
    if not uids or returns & {"ALL", "COUNT"}:
        return uids
    ends = [uids[0]] if "MIN" in returns else []
    return [*ends, uids[-1]] if "MAX" in returns else ends


def _save(peer: Peer, returns: frozenset[str], uids: Sequence[int]) -> None:
    """RFC 5182 section 2.4: with MIN or MAX alone only these are kept."""
    peer.saved = tuple(_told(returns, uids) if returns & {"MIN", "MAX"} else uids)


def _highest(view: View, uids: Iterable[int]) -> int:
    return max((max(view.modseqs_at(start, stop)) for start, stop in view.spans_of(uids)), default=0)
