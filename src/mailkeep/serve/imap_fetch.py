"""FETCH: rows of finished bytes from the store, joined with flags from memory (RFC 9051 section 6.4.5).

A list of items is compiled once into a plan: which columns to ask the store for, and one template of a response. What
needs no store (UID, FLAGS, MODSEQ) never touches it; listings go by slices of 128 rows through one `%`; messages with
body sections go one by one, cut out of the stored bytes by offset, and big ones flow in chunks.

A message that cannot be read costs its own response, and the tagged reply says NO; all others are sent.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import chain, compress
from typing import Any, Final, NamedTuple

from mailkeep.errors import MailkeepError, MessageMissing, ProtocolError, StoreError
from mailkeep.mail.flags import SEEN
from mailkeep.mail.header import select_fields
from mailkeep.mail.numset import NumSet
from mailkeep.mail.structure import decode_transfer, find_section
from mailkeep.serve.imap_peer import Peer, Result
from mailkeep.serve.imap_reply import Reply, from_error, no, ok
from mailkeep.serve.imap_select import changed_spans, vanished_earlier
from mailkeep.serve.imap_view import ROWS, Span, View, weave
from mailkeep.store import Account, Transaction
from mailkeep.wire.imap_command import Fetch, FetchBody, FetchItem, Section
from mailkeep.wire.imap_response import date_time, literal, nstring
from mailkeep.wire.imap_syntax import REMEMBERED_MAX

LISTED: Final = 128  # rows of a listing in one slice
BODIES: Final = 32  # messages with body sections in one slice
CROWDED_LISTED: Final = 10  # the same while others want the loop
CROWDED_BODIES: Final = 4
HEADERS_MAX: Final = 8  # header sets of one command that are remembered; what is beyond is no mail client's
SEEN_AT_ONCE: Final = 200  # messages marked \Seen in one transaction, before their bodies are sent
CHUNK: Final = 256 * 1024  # of a big body
SMALL: Final = 64 * 1024  # a message is read whole when several sections of it are wanted
PIECE: Final = 64 * 1024  # collected before it is written

OK = ok(b"FETCH completed")
_PLACE: Final = ("pack", "offset", "length", "codec")
_UNKNOWN_CTE = no(b"Transfer encoding is not known", b"UNKNOWN-CTE")

Column = Sequence[Any]


class Stored(NamedTuple):
    """An item that is a column of the store."""

    template: bytes
    column: str
    show: Callable[[Column], Column] | None = None  # from stored values to shown ones


def _dates(values: Column) -> Column:
    return [date_time(value) for value in values]


def _saved(values: Column) -> Column:
    return [b"NIL" if value is None else date_time(value) for value in values]


def _previews(values: Column) -> Column:
    return [nstring(value) for value in values]


_STORED: Final = {
    "ENVELOPE": Stored(b"ENVELOPE %b", "envelope"),
    "BODY": Stored(b"BODY %b", "body"),
    "BODYSTRUCTURE": Stored(b"BODYSTRUCTURE %b", "bodystructure"),
    "INTERNALDATE": Stored(b"INTERNALDATE %b", "internaldate", _dates),
    "RFC822.SIZE": Stored(b"RFC822.SIZE %d", "size"),
    "EMAILID": Stored(b"EMAILID (M%d)", "email"),
    "THREADID": Stored(b"THREADID (T%d)", "thread"),
    "SAVEDATE": Stored(b"SAVEDATE %b", "savedate", _saved),
    "PREVIEW": Stored(b"PREVIEW %b", "preview", _previews),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled list of items."""

    template: bytes  # of the items below, without the head `* n FETCH (` and the end
    memory: tuple[str, ...]  # UID, FLAGS, MODSEQ: in the order of the template
    stored: tuple[Stored, ...]  # in the order of the template, after `memory`
    utf8: bool  # ENVELOPE with 8-bit text
    headers: tuple[tuple[bytes, tuple[bytes, ...]], ...]  # (label, names): header sets of the whole message
    bodies: tuple[FetchBody, ...]  # all other sections
    whole: bytes  # the template of the one section, if that is the whole message; else empty
    marks_seen: bool
    in_memory: bool  # the store need not be asked

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns to fetch, after `uid`."""
        wanted = [stored.column for stored in self.stored]
        if self.utf8:
            wanted.append("envelope_utf8")
        if self.headers:
            wanted += ["email", "header_size"]
        if self.bodies:  # where they lie inside is asked for when it is needed: often the whole message is wanted
            wanted += ["email", "size"]
        return tuple(dict.fromkeys(wanted))


def compile_items(items: tuple[FetchItem, ...], utf8: bool) -> Plan:
    """The plan for a list of items, remembered unless it is a long one: a list may be a megabyte."""
    size = sum(len(item) if isinstance(item, str) else len(item.label) for item in items)
    return _remembered(items, utf8) if size <= REMEMBERED_MAX else _compile(items, utf8)


def _compile(items: tuple[FetchItem, ...], utf8: bool) -> Plan:
    memory = tuple(name for name in ("UID", "FLAGS", "MODSEQ") if name in items)
    stored = tuple(_STORED[item] for item in items if isinstance(item, str) and item in _STORED)
    headers: list[tuple[bytes, tuple[bytes, ...]]] = []
    bodies: list[FetchBody] = []
    for item in items:
        if isinstance(item, FetchBody):
            section = item.section
            own = section.text == "HEADER.FIELDS" and not section.path and item.partial is None
            if own and len(headers) < HEADERS_MAX:
                headers.append((item.label, tuple(sorted({name.lower() for name in section.fields}))))
            else:
                bodies.append(item)
    shown = {"UID": b"UID %d", "FLAGS": b"FLAGS (%b)", "MODSEQ": b"MODSEQ (%d)"}
    template = [shown[name] for name in memory] + [item.template for item in stored]
    template += [label.replace(b"%", b"%%") + b" {%d}\r\n%b" for label, _ in headers]
    return Plan(
        b" ".join(template),
        memory,
        stored,
        utf8 and "ENVELOPE" in items,
        tuple(headers),
        tuple(bodies),
        _whole_template(bodies, apart=bool(template)),
        any(isinstance(item, FetchBody) and not item.peek for item in items),
        not stored and not headers and not bodies,
    )


_remembered = lru_cache(maxsize=1024)(_compile)


def _whole_template(bodies: list[FetchBody], *, apart: bool) -> bytes:
    if len(bodies) != 1 or bodies[0].section != Section() or bodies[0].partial or bodies[0].kind.startswith("BINARY"):
        return b""
    return (b" " if apart else b"") + bodies[0].label + b" {%d}\r\n%b"


# --- the command ---


def fetch(peer: Peer, command: Fetch) -> Result:
    """FETCH and UID FETCH."""
    view, enabled, items = peer.selected, peer.enabled, command.items
    if command.vanished and not enabled.qresync:
        raise ProtocolError("QRESYNC is not enabled")
    spans = peer.spans(command.messages, uid=command.uid)
    if command.changed_since is not None:
        items = tuple(dict.fromkeys((*items, "MODSEQ")))
        spans = list(changed_spans(view, spans, command.changed_since))
    if "MODSEQ" in items:
        enabled.condstore = True
    if enabled.qresync and "UID" not in items:
        items = ("UID", *items)
    plan = compile_items(items, enabled.utf8)
    if command.vanished:
        peer.write(vanished_earlier(peer, _known(peer, command), command.changed_since or 0))
    if plan.marks_seen and not peer.read_only and _unseen(peer, view, spans):
        return _mark_and_fetch(peer, plan, spans)
    if plan.in_memory:
        return _from_memory(peer, view, plan, spans=spans)
    return _from_store(peer, view, plan, spans=spans)


def _known(peer: Peer, command: Fetch) -> NumSet:
    """The UIDs that a client asks about with VANISHED: also those that are gone, so not the view's."""
    messages = command.messages
    return messages.resolve(peer.selected.index.uidnext - 1) if isinstance(messages, NumSet) else NumSet.of(peer.saved)


def _from_memory(peer: Peer, view: View, plan: Plan, *, spans: list[Span]) -> Result:
    wanted = plan.memory
    uid, flags, modseq = "UID" in wanted, "FLAGS" in wanted, "MODSEQ" in wanted
    if len(spans) == 1 and spans[0][1] - spans[0][0] <= ROWS:
        peer.write(view.rows(*spans[0], uid=uid, flags=flags, modseq=modseq))
        return OK
    return _stepwise(view.rows_of(spans, uid=uid, flags=flags, modseq=modseq))


def _stepwise(rows: Generator[bytes, None, None]) -> Generator[bytes, None, Reply]:
    yield from rows
    return OK


def _unseen(peer: Peer, view: View, spans: Iterable[Span]) -> bool:
    flagset = peer.account.flagset
    return any(not flagset(number).seen for start, stop in spans for number in set(view.flag_sets(start, stop)))


async def _mark_and_fetch(peer: Peer, plan: Plan, spans: list[Span]) -> Reply:
    """Set \\Seen, then send; the same FETCH response tells the flag (RFC 9051 section 6.4.5)."""
    view, flagset = peer.selected, peer.account.flagset
    end = OK
    for slice_spans in _slices(spans, lambda: SEEN_AT_ONCE):
        seen = {number: flagset(number).seen for start, stop in slice_spans for number in view.flag_sets(start, stop)}
        marked = [
            uid
            for start, stop in slice_spans
            for uid, number in zip(view.uids[start:stop], view.flag_sets(start, stop), strict=True)
            if not seen[number]
        ]
        if marked:
            await peer.services.offload.write(
                peer.account,
                partial(
                    Transaction.store_flags,
                    mailbox_id=view.index.mailbox_id,
                    uids=marked,
                    mode="+",
                    flags=frozenset((SEEN,)),
                ),
                durable=False,
                by=view,
            )
        reply: Reply = await peer.stream(_from_store(peer, view, plan, spans=slice_spans, marked=frozenset(marked)))
        if reply is not OK:
            end = reply
    return end


def _slices(spans: Iterable[Span], size: Callable[[], int]) -> Iterator[list[Span]]:
    """The same positions in portions of `size`, which may change on the way."""
    portion: list[Span] = []
    room = size()
    for first, stop in spans:
        start = first
        while stop - start >= room:
            yield [*portion, (start, start + room)]
            start += room
            portion, room = [], size()
        if start < stop:
            portion.append((start, stop))
            room -= stop - start
    if portion:
        yield portion


# --- rows ---


@dataclass(slots=True)
class _Rows:
    """One slice: what memory and the store say of some messages, as parallel columns."""

    seqs: Column
    uids: Column
    flags: Column
    modseqs: Column
    stored: dict[str, Column]
    missing: bool = False  # the store knows some of them no more


def _read_rows(peer: Peer, view: View, spans: list[Span], columns: tuple[str, ...]) -> _Rows:
    uids = view.uids_in(spans)
    rows = peer.account.fetch(view.index.mailbox_id, uids, ("uid", *columns))
    if len(spans) == 1:
        start, stop = spans[0]
        seqs: Column = range(start + 1, stop + 1)
        flags: Column = view.flags_wire(start, stop)
        modseqs: Column = view.modseqs_at(start, stop)
    else:
        seqs = list(chain.from_iterable(range(start + 1, stop + 1) for start, stop in spans))
        flags = list(chain.from_iterable(view.flags_wire(start, stop) for start, stop in spans))
        modseqs = list(chain.from_iterable(view.modseqs_at(start, stop) for start, stop in spans))
    stored = zip(*rows, strict=True) if rows else ((),) * (len(columns) + 1)
    result = _Rows(seqs, uids, flags, modseqs, dict(zip(("uid", *columns), stored, strict=True)))
    if len(rows) != len(uids):
        there = set(result.stored["uid"])
        kept = [uid in there for uid in uids]
        result.seqs, result.uids = list(compress(seqs, kept)), list(compress(uids, kept))
        result.flags, result.modseqs = list(compress(flags, kept)), list(compress(modseqs, kept))
        result.missing = True
    return result


def _woven(plan: Plan, rows: _Rows) -> list[Column]:
    """The columns of the plan's template, header sets apart."""
    known = {"UID": rows.uids, "FLAGS": rows.flags, "MODSEQ": rows.modseqs}
    columns: list[Column] = [known[name] for name in plan.memory]
    for item in plan.stored:
        values = rows.stored[item.column]
        if item.column == "envelope" and plan.utf8:
            values = [utf8 or plain for plain, utf8 in zip(values, rows.stored["envelope_utf8"], strict=True)]
        columns.append(values if item.show is None else item.show(values))
    return columns


@dataclass(slots=True)
class _Outcome:
    """What went wrong for single messages; the first of the worst kind decides the reply."""

    reply: Reply = field(default=OK)

    def missing(self) -> None:
        if self.reply is OK:
            self.reply = no(b"Some of the messages are gone", b"EXPUNGEISSUED")

    def failed(self, error: MailkeepError) -> None:
        if isinstance(error, MessageMissing):
            self.missing()
        else:
            self.reply = from_error(error)


def _from_store(
    peer: Peer, view: View, plan: Plan, *, spans: Iterable[Span], marked: frozenset[int] = frozenset()
) -> Generator[bytes, None, Reply]:
    outcome = _Outcome()
    account = peer.account
    sets = [account.header_set(names) for _, names in plan.headers]
    columns = plan.columns + tuple(f"headers:{number}" for number in sets if number is not None)
    careful = (*columns, "header_size", "sections") if plan.bodies else columns
    hasty = plan.whole != b"" and not marked
    placed = columns + _PLACE
    template = b"* %d FETCH (" + plan.template
    calm, crowded = (BODIES, CROWDED_BODIES) if plan.bodies else (LISTED, CROWDED_LISTED)
    # Of a message: the more of it there is to do, the fewer messages at a time.
    sections = len(plan.headers) + len(plan.bodies) // 8 + len(plan.template) // 1024 or 1
    for portion in _slices(spans, lambda: max((crowded if peer.crowded else calm) // sections, 1)):
        rows = _read_rows(peer, view, portion, placed if hasty else careful)
        whole = _whole_messages(account, rows) if hasty else None
        if hasty and whole is None:
            rows = _read_rows(peer, view, portion, careful)
        if rows.missing:
            outcome.missing()
            if not rows.seqs:
                continue
        woven: list[Column] = [rows.seqs, *_woven(plan, rows)]
        for (_, names), number in zip(plan.headers, sets, strict=True):
            values = _headers(account, rows, names, number=number, outcome=outcome)
            woven += [[len(value) for value in values], values]
        if whole is not None:
            woven += [[len(value) for value in whole], whole]
            yield weave(template + plan.whole + b")\r\n", woven)
        elif plan.bodies or marked:
            yield from _with_bodies(peer, plan, rows, woven=woven, marked=marked, outcome=outcome)
        else:
            yield weave(template + b")\r\n", woven)
    return outcome.reply


def _headers(
    account: Account, rows: _Rows, names: tuple[bytes, ...], *, number: int | None, outcome: _Outcome
) -> list[bytes]:
    """A header set of each message: remembered, or cut now and remembered."""
    emails, sizes = rows.stored["email"], rows.stored["header_size"]
    values: list[Any] = [None] * len(emails) if number is None else list(rows.stored[f"headers:{number}"])
    absent = [at for at, value in enumerate(values) if value is None]
    if absent:
        wanted = frozenset(names)
        read = account.read_many([(emails[at], 0, sizes[at]) for at in absent])
        for at, header in zip(absent, read, strict=True):
            if not isinstance(header, bytes):
                outcome.failed(header)
            values[at] = select_fields(header, wanted) if isinstance(header, bytes) else b"\r\n"
        if number is not None:
            fresh = [
                (emails[at], values[at])
                for at, header in zip(absent, read, strict=True)
                if type(header) is bytes and len(values[at]) <= SMALL
            ]
            account.remember_headers(number, fresh)
    return values


# --- bodies ---


def _with_bodies(
    peer: Peer, plan: Plan, rows: _Rows, *, woven: list[Column], marked: frozenset[int], outcome: _Outcome
) -> Generator[bytes, None, None]:
    """Responses one by one: the template's part, then the sections."""
    ready: list[bytes] = []
    size = 0
    messages = _messages(peer.account, rows) if plan.bodies else []
    for at, (seq, *values) in enumerate(zip(*woven, strict=True)):
        items = [plan.template % tuple(values)] if plan.template else []
        if rows.uids[at] in marked:
            if "FLAGS" not in plan.memory:
                items.append(b"FLAGS (%b)" % rows.flags[at])
            if peer.enabled.condstore and "MODSEQ" not in plan.memory:
                items.append(b"MODSEQ (%d)" % rows.modseqs[at])
        big: list[_Big] = []
        try:
            for body in plan.bodies:
                item = messages[at].section(body)
                items.append(item) if isinstance(item, bytes) else big.append(item)
        except _UnknownEncoding:
            outcome.reply = _UNKNOWN_CTE
            continue
        except StoreError as error:
            outcome.failed(error)
            continue
        ready.append(b"* %d FETCH (%b" % (seq, b" ".join(items)))
        if big:
            yield b"".join(ready)
            ready, size = [], 0
            yield from _flow(peer, big, first=not items)
        ready.append(b")\r\n")
        size += len(ready[-2]) if len(ready) > 1 else 0
        if size > PIECE:
            yield b"".join(ready)
            ready, size = [], 0
    if ready:
        yield b"".join(ready)


@dataclass(slots=True)
class _Big:
    """A section too big for one piece."""

    label: bytes
    start: int
    length: int
    read: Callable[[int, int], bytes]


class _UnknownEncoding(Exception):
    """BINARY of a part whose transfer encoding nobody knows."""


def _flow(peer: Peer, sections: list[_Big], *, first: bool) -> Generator[bytes, None, None]:
    """Big sections in chunks. From the literal's head to its end nothing else may be written."""
    for section in sections:
        peer.in_literal = True
        yield b"%b%b {%d}\r\n" % (b"" if first else b" ", section.label, section.length)
        first = False
        for offset in range(0, section.length, CHUNK):
            yield section.read(section.start + offset, min(CHUNK, section.length - offset))
        peer.in_literal = False


def _whole_messages(account: Account, rows: _Rows) -> list[bytes] | None:
    """The messages of a slice in full; None when one is big or cannot be read, which takes more care."""
    if max(rows.stored["size"], default=0) > SMALL:
        return None
    return account.read_placed(list(zip(*[rows.stored[name] for name in _PLACE], strict=True)))


def _messages(account: Account, rows: _Rows) -> "list[_Message]":
    """The messages of a slice; small ones are read whole, all at once."""
    columns = [rows.stored[name] for name in ("email", "size", "header_size", "sections")]
    small = [(email, 0, None) for email, size in zip(columns[0], columns[1], strict=True) if size <= SMALL]
    whole = iter(account.read_many(small))
    return [
        _Message(account, email, size, header_size, sections, whole=next(whole) if size <= SMALL else None)
        for email, size, header_size, sections in zip(*columns, strict=True)
    ]


class _Message:
    """The stored bytes of one message, all of them at hand if it is small."""

    __slots__ = ("_account", "_email", "_header_size", "_sections", "_size", "_whole")

    def __init__(
        self,
        account: Account,
        email: int,
        size: int,
        header_size: int,
        sections: bytes,
        *,
        whole: bytes | StoreError | None,
    ) -> None:
        self._account = account
        self._email = email
        self._size = size
        self._header_size = header_size
        self._sections = sections
        self._whole = whole

    def _read(self, start: int, length: int) -> bytes:
        whole = self._whole
        if whole is None:
            return self._account.read(self._email, start, length) if length else b""
        if isinstance(whole, StoreError):
            raise whole
        return whole[start : start + length]

    def _span(self, path: tuple[int, ...], text: str) -> tuple[int, int, str] | None:
        """(start, length, transfer encoding), None when there is no such part."""
        if not path:
            if text == "HEADER":
                return 0, self._header_size, ""
            if text == "TEXT":
                return self._header_size, self._size - self._header_size, ""
            return 0, self._size, ""
        found = find_section(self._sections, path, text)
        return None if found is None else (found.start, found.length, found.encoding)

    def section(self, body: FetchBody) -> bytes | _Big:
        """`LABEL value`, or what is to flow. Raises StoreError, _UnknownEncoding."""
        section, label = body.section, body.label
        fields = section.text.startswith("HEADER.FIELDS")
        span = self._span(section.path, "HEADER" if fields else section.text)
        if span is None:  # no such part: empty, as Dovecot has it
            return label + (b" 0" if body.kind == "BINARY.SIZE" else b' ""')
        start, length, encoding = span
        if body.kind.startswith("BINARY"):
            return self._binary(body, start, length, encoding=encoding)
        if fields:
            names = frozenset(name.lower() for name in section.fields)
            data = select_fields(self._read(start, length), names, exclude=section.text == "HEADER.FIELDS.NOT")
            data = _part_of(data, body.partial)
        else:
            if body.partial is not None:
                first, count = body.partial
                start += min(first, length)
                length = min(count, max(length - first, 0))
            if length > CHUNK:
                return _Big(label, start, length, self._read)
            data = self._read(start, length)
        return b"%b {%d}\r\n%b" % (label, len(data), data)

    def _binary(self, body: FetchBody, start: int, length: int, *, encoding: str) -> bytes | _Big:
        if length > CHUNK and encoding in ("", "7bit", "8bit", "binary") and body.kind == "BINARY.SIZE":
            return b"%b %d" % (body.label, length)
        data = decode_transfer(self._read(start, length), encoding)
        if data is None:
            raise _UnknownEncoding
        if body.kind == "BINARY.SIZE":
            return b"%b %d" % (body.label, len(data))
        return body.label + b" " + literal(_part_of(data, body.partial))


def _part_of(data: bytes, partial_: tuple[int, int] | None) -> bytes:
    return data if partial_ is None else data[partial_[0] : partial_[0] + partial_[1]]
