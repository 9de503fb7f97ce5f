"""One pass over a message's bytes to its tree of MIME parts, with the byte offsets of each (RFC 2045, 2046).

Knows header blocks, boundaries and the Content-* fields; decodes no body. Offsets tile the bytes exactly: a part is
header [start, body) and body [body, end); its children lie in order inside its body, and what lies between them (the
boundary lines, preamble and epilogue) belongs to it alone. The line break before a boundary line belongs to the
boundary (RFC 2046 section 5.1.1).

The hard idea is what a line starting with "--" means in broken mail. Every open boundary counts, the longest that the
line starts with wins, then the innermost; an outer one ends all inside it, even inside a header block. These are
Dovecot's rules, so that clients see the same parts here and there. Nothing raises; time is linear: the bytes are
searched forward once, and past the limits of parts and nesting all is one leaf.
"""

import mmap
import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple

from msgspec import Struct

from mailkeep.mail.header import HEADER_MAX, Buffer, guess_text
from mailkeep.mail.tokens import BROKEN, END, MORE, Cursor

PARTS_MAX = 10_000
NESTING_MAX = 100
HEADERS_MAX = 50 << 20  # all header blocks that are looked into, in bytes
BOUNDARY_MAX = 80  # RFC 2046 allows 70; longer ones are cut, as their lines may be

FIELD_SEPARATOR = b"\0"  # no value holds one

Params = tuple[tuple[bytes, bytes], ...]


class ContentType(NamedTuple):
    """A Content-Type value; type and subtype as written."""

    type: bytes
    subtype: bytes
    params: Params


class Disposition(NamedTuple):
    """A Content-Disposition value."""

    kind: bytes
    params: Params


class Part(Struct, frozen=True):
    """One part: offsets into the message, and what its Content-* fields say, as UTF-8 bytes.

    `type` and `subtype` are lower case and never empty; `written` has the field as it was written, None when there was
    none. `lines` counts the LFs of the body. `fields` has the header fields that an envelope shows, for the message
    itself and for the message inside a message/rfc822 part: lower-case name → value of the last one, or of all one
    after the other for addresses, with FIELD_SEPARATOR between them.
    """

    start: int
    body: int
    end: int
    lines: int
    type: str
    subtype: str
    params: Params
    id: bytes | None
    description: bytes | None
    encoding: str | None
    md5: bytes | None
    disposition: Disposition | None
    language: tuple[bytes, ...]
    location: bytes | None
    children: tuple["Part", ...]
    written: ContentType | None
    fields: dict[bytes, bytes]

    @property
    def is_multipart(self) -> bool:
        return self.type == "multipart"

    @property
    def is_message(self) -> bool:
        """Whether the body is itself a message with parts (one child)."""
        return self.type == "message" and self.subtype == "rfc822"


# ---- the values of Content-* fields


def _read_content_type(value: bytes) -> ContentType:
    cursor = Cursor(value)
    kind: list[bytes] = []
    subtype: list[bytes] = []
    if cursor.skip_space() != MORE or cursor.token(kind) != MORE or not cursor.at(b"/"):
        return ContentType(b"".join(kind), b"", ())
    cursor.pos += 1
    if cursor.skip_space() != MORE:
        return ContentType(b"".join(kind), b"", ())
    state = cursor.token(subtype)
    params = cursor.parameters() if state == MORE else ()
    return ContentType(b"".join(kind), b"".join(subtype), params)


def _read_disposition(value: bytes) -> Disposition | None:
    cursor = Cursor(value)
    kind: list[bytes] = []
    cursor.skip_space()
    if cursor.token(kind) == BROKEN:
        return None
    return Disposition(b"".join(kind), cursor.parameters())


def _read_encoding(value: bytes) -> str | None:
    cursor = Cursor(value)
    text: list[bytes] = []
    cursor.skip_space()
    if cursor.token(text) == BROKEN or cursor.skip_space() != END:
        return None
    return b"".join(text).decode("utf-8", "replace") or None


def _read_languages(value: bytes) -> tuple[bytes, ...]:
    """Content-Language: 1#Language-tag (RFC 3282)."""
    cursor = Cursor(value)
    found: list[bytes] = []
    cursor.skip_space()
    while True:
        tag: list[bytes] = []
        state = cursor.atom(tag)
        if state == BROKEN:
            break
        found += tag
        if not cursor.at(b","):
            break
        cursor.pos += 1
        cursor.skip_space()
    return tuple(found)


# The same few values come again and again; long ones are not worth their memory.
_MEMO_MAX = 200
VALUE_MAX = 1 << 16  # bytes of a value that are read
_known_content_type = lru_cache(maxsize=1024)(_read_content_type)
_known_disposition = lru_cache(maxsize=512)(_read_disposition)
_known_encoding = lru_cache(maxsize=64)(_read_encoding)


def parse_content_type(value: bytes) -> ContentType:
    """A Content-Type value (unfolded or not). Broken ones give what could be read. Never raises."""
    return _known_content_type(value) if len(value) <= _MEMO_MAX else _read_content_type(value[:VALUE_MAX])


def parse_disposition(value: bytes) -> Disposition | None:
    """A Content-Disposition value (RFC 2183)."""
    return _known_disposition(value) if len(value) <= _MEMO_MAX else _read_disposition(value[:VALUE_MAX])


def parse_encoding(value: bytes) -> str | None:
    """A Content-Transfer-Encoding value as written, None when it is broken."""
    return _known_encoding(value) if len(value) <= _MEMO_MAX else _read_encoding(value[:VALUE_MAX])


# ---- header blocks

# The fields that are kept: those of ENVELOPE and threads, and the Content-* fields of BODYSTRUCTURE.
_MESSAGE_FIELDS = (b"date", b"subject", b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc", b"in-reply-to",
                   b"message-id", b"references")  # fmt: skip
_CONTENT_FIELDS = (b"content-type", b"content-transfer-encoding", b"content-id", b"content-description",
                   b"content-md5", b"content-disposition", b"content-language", b"content-location")  # fmt: skip
_ADDRESSES = frozenset((b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc"))
_LAST_WINS = frozenset(_MESSAGE_FIELDS) - _ADDRESSES
_KEPT = frozenset((*_MESSAGE_FIELDS, *_CONTENT_FIELDS, b"mime-version"))


# A kept field at the start of a line. The LF before it is part of the match, so that the search runs from LF to LF.
_FIELD = re.compile(rb"(?i)\n(" + b"|".join(sorted(_KEPT)) + rb")[ \t]*:[ \t]*([^\n]*(?:\n[ \t][^\n]*)*)")


def _kept_fields(data: bytes | mmap.mmap, start: int, end: int) -> Iterable[tuple[bytes, bytes]]:
    """The kept fields of a header block, as (name, value) as written, without the space around the colon."""
    if start == 0:
        data = b"\n" + data[:end]  # only the first block lacks the LF before it
        end += 1
    else:
        start -= 1
    if end - start <= 65536:
        found: list[tuple[bytes, bytes]] = _FIELD.findall(data, start, end)
        return found
    # A list of a million tiny fields would fill the memory.
    return ((match[1], match[2]) for match in _FIELD.finditer(data, start, end))


def _clean(value: bytes) -> bytes:
    """The value as UTF-8, with a bare LF for each fold, without NULs."""
    value = value.removesuffix(b"\r")
    if b"\n" in value:
        value = value.replace(b"\r\n", b"\n")
    if value.isascii():
        return value.replace(b"\0", b"\xef\xbf\xbd") if b"\0" in value else value
    return guess_text(value).replace("\0", "\ufffd").encode("utf-8", "replace")


def _gives_way(name: bytes, value: bytes) -> bool:
    """Whether a later field of this name is taken, since this one says nothing."""
    if name == b"content-disposition":
        return (found := parse_disposition(value)) is None or not found.params
    if name == b"content-transfer-encoding":
        return parse_encoding(value) is None
    return name == b"content-language" and not _read_languages(value[:VALUE_MAX])


def read_fields(data: bytes | mmap.mmap, start: int, end: int) -> dict[bytes, bytes]:
    """The kept fields of a header block, by lower-case name.

    Of repeated ones the first Content-*, all addresses, and the last of the others of ENVELOPE.
    """
    fields: dict[bytes, bytes] = {}
    repeated: dict[bytes, list[bytes]] = {}
    for name, raw in _kept_fields(data, start, end):
        key = name.lower()
        value = _clean(raw)
        if key in fields:
            if key in _ADDRESSES:
                repeated.setdefault(key, [fields[key]]).append(value)
                continue
            if key not in _LAST_WINS and not _gives_way(key, fields[key]):
                continue
        fields[key] = value
    for key, values in repeated.items():
        fields[key] = FIELD_SEPARATOR.join(values)
    return fields


# ---- the tree


class _Node:
    """A part while the scan is on."""

    __slots__ = ("body", "children", "content", "digest", "end", "fields", "is_message", "is_multipart", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.body = start
        self.end = start
        self.children: list[_Node] = []
        self.fields: dict[bytes, bytes] = {}
        self.content: ContentType | None = None
        self.is_message = False
        self.is_multipart = False
        self.digest = False


# The end of a header block, or a line in it that may be a boundary.
_HEADER_STOP = re.compile(rb"\n(?:\r?\n|(?=--))")
_FIRST_STOP = re.compile(rb"\r?\n|(?=--)")
_BOUNDARY_HIT = tuple[int, int, int, bool]  # where the boundary begins, its line, its index in the stack, is it closing


class _Scan:
    """The state of one pass: the path from the root to the open part, and the boundaries that are open."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self.data = data
        self.size = len(data)
        self.path: list[_Node] = []
        self.boundaries: list[tuple[bytes, int]] = []  # (boundary, length of the path at its multipart)
        self.needle = b"\n--"
        self.prefixes: tuple[bytes, ...] = ()
        self.parts = 0
        self.header_budget = HEADERS_MAX
        self.header_closed = False  # whether the last header block ended with a blank line

    def open(self, start: int) -> _Node:
        node = _Node(start)
        if self.path:
            self.path[-1].children.append(node)
        self.path.append(node)
        self.parts += 1
        return node

    def close(self, depth: int, end: int) -> None:
        """Close all parts below the first `depth` of the path."""
        for node in self.path[depth:]:
            node.end = end
        del self.path[depth:]

    def set_boundaries(self, boundaries: list[tuple[bytes, int]]) -> None:
        self.boundaries = boundaries
        texts = [text for text, _ in boundaries]
        self.prefixes = tuple(texts)
        # All open boundaries at once are found by what they have in common.
        low, high = (min(texts), max(texts)) if texts else (b"", b"")
        width = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
        self.needle = b"\n--" + low[:width]

    def boundary_at(self, line: int) -> tuple[int, bool] | None:
        """Which boundary the line at this offset is ("--" is there), and whether it closes its multipart."""
        text = bytes(self.data[line + 2 : line + 2 + BOUNDARY_MAX + 4])
        if not text.startswith(self.prefixes):
            return None
        stop = text.find(b"\n")
        content = text if stop < 0 else text[:stop].removesuffix(b"\r")
        best, best_size = -1, -1
        for index in range(len(self.boundaries) - 1, -1, -1):
            boundary = self.boundaries[index][0]
            if len(boundary) > best_size and content.startswith(boundary):
                best, best_size = index, len(boundary)
                # "--foo--" closes "foo", unless a boundary is called "foo--".
                if content in (boundary, boundary + b"--"):
                    break
        if best < 0:
            return None
        return best, text.startswith(b"--", best_size)

    def next_boundary(self, pos: int) -> _BOUNDARY_HIT | None:
        """The first boundary line from the start of a line at `pos` on."""
        if not self.boundaries:
            return None
        data = self.data
        if data[pos : pos + 2] == b"--" and (hit := self.boundary_at(pos)):
            return pos, pos, *hit
        find = data.find
        while True:
            pos = find(self.needle, pos)
            if pos < 0:
                return None
            if hit := self.boundary_at(pos + 1):
                begin = pos - 1 if pos > 0 and data[pos - 1 : pos] == b"\r" else pos
                return begin, pos + 1, *hit
            pos += 1

    def read_header(self, node: _Node) -> _BOUNDARY_HIT | None:
        """Read the header block at the node's start and set where its body begins.

        Returns the boundary that cuts the block off, if one does: an enclosing one, since its own is not open yet.
        """
        data, start = self.data, node.start
        hit: _BOUNDARY_HIT | None = None
        match = _FIRST_STOP.match(data, start)
        if match is None:
            match = _HEADER_STOP.search(data, start)
        while match is not None and match.end() == match.start() + (match.start() != start):
            # "--" at the start of a line
            line = match.end()
            if self.boundaries and (found := self.boundary_at(line)):
                begin = match.start()
                if begin > start and data[begin - 1 : begin] == b"\r":
                    begin -= 1
                hit = (begin, line, *found)
                break
            match = _HEADER_STOP.search(data, line)
        if hit is not None:
            node.body = hit[0]
        else:
            node.body = self.size if match is None else match.end()
        length = min(node.body - start, HEADER_MAX, self.header_budget)
        self.header_budget -= length
        node.fields = read_fields(data, start, start + length)
        self.header_closed = hit is None and match is not None
        return hit

    def boundary_after_header(self, node: _Node) -> _BOUNDARY_HIT | None:
        """An enclosing boundary right after the header: it owns the blank line, and the part has no body."""
        line = node.body
        if not self.boundaries or not self.header_closed or self.data[line : line + 2] != b"--":
            return None
        found = self.boundary_at(line)
        if found is None or self.boundaries[found[0]][1] == len(self.path):
            return None  # none, or its own first one
        node.body -= 2 if self.data[line - 2 : line] == b"\r\n" else 1
        return node.body, line, *found

    def classify(self, node: _Node, parent: _Node | None) -> bytes | None:
        """Decide what the part is, once its header is read. Returns the boundary of a multipart that has one."""
        fields = node.fields
        value = fields.get(b"content-type")
        in_multipart = parent is not None and parent.is_multipart
        if value is None and not in_multipart and b"mime-version" not in fields:
            # Neither MIME-Version nor Content-Type: not MIME, its other Content-* fields mean nothing.
            for name in _CONTENT_FIELDS:
                fields.pop(name, None)
        if value is None:
            node.is_message = parent is not None and parent.digest  # RFC 2046 section 5.1.5
        else:
            node.content = content = parse_content_type(value)
            kind, subtype = content.type.lower(), content.subtype.lower()
            if not subtype:
                # Broken: RFC 2045 section 5.2 wants plain text for what cannot be read, but a name that is there and
                # is not "text" stands for something else.
                readable = kind in (b"", b"text", b"multipart", b"message")
                node.content = None if readable else ContentType(b"application", b"octet-stream", content.params)
            node.is_message = kind == b"message" and subtype == b"rfc822"
            node.is_multipart = kind == b"multipart" and bool(subtype)
            node.digest = node.is_multipart and subtype == b"digest"
        if (node.is_message or node.is_multipart) and (self.parts >= PARTS_MAX or len(self.path) >= NESTING_MAX):
            # Too deep or too many: the rest is one opaque leaf.
            node.is_message = node.is_multipart = False
            params = () if node.content is None else node.content.params
            node.content = ContentType(b"application", b"octet-stream", params)
        if node.is_multipart and node.content is not None:
            for name, text in node.content.params:
                if name.lower() == b"boundary":
                    return text[:BOUNDARY_MAX]
        return None

    def run(self) -> _Node:
        """Scan the whole message; returns the root."""
        root = node = self.open(0)
        while True:
            hit = self.read_header(node)
            boundary = self.classify(node, self.path[-2] if len(self.path) > 1 else None)
            if hit is None and boundary is not None and self.header_closed:
                self.set_boundaries([*self.boundaries, (boundary, len(self.path))])
            if hit is None:
                hit = self.boundary_after_header(node)
            if hit is None and not node.is_message:
                hit = self.next_boundary(node.body)
            elif hit is None:
                node = self.open(node.body)
                continue
            else:
                # Nothing follows the header. Its last line break is the boundary's, so it is its parents' too.
                depth = len(self.path) - 1
                if node.is_message:
                    self.open(node.body)
                self.close(depth, node.body)
                hit = (hit[1], *hit[1:])
            following = self.follow(hit)
            if following is None:
                self.close(0, self.size)
                return root
            node = following

    def follow(self, hit: _BOUNDARY_HIT | None) -> _Node | None:
        """Go past boundary lines to the next part's header; None at the end of the message."""
        while hit is not None:
            begin, line, index, closing = hit
            depth = self.boundaries[index][1]
            self.close(depth, begin)
            stop = self.data.find(b"\n", line)
            kept = self.boundaries[: index + (not closing)]
            if len(kept) != len(self.boundaries):
                self.set_boundaries(kept)
            if stop < 0:
                return None
            if not closing and self.parts < PARTS_MAX:
                return self.open(stop + 1)
            hit = self.next_boundary(stop + 1)
        return None


class _Lines:
    """How many LFs lie between offsets that are known beforehand; each byte is counted once."""

    def __init__(self, data: Buffer, offsets: Iterable[int]) -> None:
        places = sorted(set(offsets))
        counts = [_count_lines(data, low, high) for low, high in pairwise(places)]
        self.before = dict(zip(places, accumulate(counts, initial=0), strict=True))

    def between(self, low: int, high: int) -> int:
        return self.before[high] - self.before[low]


def _count_lines(data: Buffer, start: int, end: int) -> int:
    if isinstance(data, bytes):
        return data.count(b"\n", start, end)
    chunk = 1 << 20  # an mmap has no count()
    return sum(bytes(data[at : min(at + chunk, end)]).count(b"\n") for at in range(start, end, chunk))


def _offsets(node: _Node) -> Iterable[int]:
    stack = [node]
    while stack:
        node = stack.pop()
        yield node.body
        yield node.end
        stack += node.children


def _freeze(node: _Node, lines: _Lines | None, data: Buffer, envelope: bool) -> Part:
    fields = node.fields
    content = node.content
    kind, subtype = "text", "plain"
    params: Params = ()
    if node.is_message:
        kind, subtype = "message", "rfc822"
    if content is not None:
        params = content.params
        kind = content.type.decode("utf-8", "replace").lower()
        subtype = content.subtype.decode("utf-8", "replace").lower()
    get = fields.get
    encoding, disposition, language = (
        get(b"content-transfer-encoding"),
        get(b"content-disposition"),
        get(b"content-language"),
    )
    return Part(
        node.start,
        node.body,
        node.end,
        _count_lines(data, node.body, node.end) if lines is None else lines.between(node.body, node.end),
        kind,
        subtype,
        params,
        get(b"content-id"),
        get(b"content-description"),
        None if encoding is None else parse_encoding(encoding),
        get(b"content-md5"),
        None if disposition is None else parse_disposition(disposition),
        () if language is None else _read_languages(language[:VALUE_MAX]),
        get(b"content-location"),
        tuple([_freeze(child, lines, data, node.is_message) for child in node.children]),
        content,
        fields if envelope else {},
    )


def scan(data: Buffer) -> Part:
    """The tree of parts of a message. One pass, linear time, never raises."""
    if isinstance(data, memoryview):
        data = bytes(data)
    root = _Scan(data).run()
    lines = _Lines(data, _offsets(root)) if root.children else None
    return _freeze(root, lines, data, True)
