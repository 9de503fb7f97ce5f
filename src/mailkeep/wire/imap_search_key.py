"""The search program: RETURN options, charset, keys (RFC 9051 section 6.4.4, RFC 4731, 5032, 5182, 7162, 8474, 8514).

Depth is bounded before recursion can hurt. A chain `OR a OR b OR c …`, as clients build it for long lists, is read in
a loop and becomes one OR of many, so only real nesting counts.
"""

from mailkeep.errors import ProtocolError
from mailkeep.wire.imap_command import Search, SearchKey
from mailkeep.wire.imap_syntax import CommandRefused, Cursor

DEPTH_MAX = 100
KEYS_MAX = 5000  # in one program: clients that look for messages by their ids name some hundreds

_RETURNS = frozenset(("MIN", "MAX", "ALL", "COUNT", "SAVE"))
_PLAIN = frozenset(
    [
        "ALL",
        "ANSWERED",
        "DELETED",
        "DRAFT",
        "FLAGGED",
        "NEW",
        "OLD",
        "RECENT",
        "SEEN",
        "UNANSWERED",
        "UNDELETED",
        "UNDRAFT",
        "UNFLAGGED",
        "UNSEEN",
        "SAVEDATESUPPORTED",
    ]
)
_STRINGS = frozenset(("BCC", "BODY", "CC", "FROM", "SUBJECT", "TEXT", "TO"))
_DATES = frozenset(
    ("BEFORE", "ON", "SINCE", "SENTBEFORE", "SENTON", "SENTSINCE", "SAVEDBEFORE", "SAVEDON", "SAVEDSINCE")
)
_NUMBERS = frozenset(("LARGER", "SMALLER"))
_AGES = frozenset(("OLDER", "YOUNGER"))
_FLAGS = frozenset(("KEYWORD", "UNKEYWORD"))
_OBJECTS = frozenset(("EMAILID", "THREADID"))  # RFC 8474

# Charsets that a client may search in. Python knows more codecs, some of which take quadratic time or are none.
_CODECS: dict[str, str] = {
    name.lower(): name
    for name in (
        *("utf-8", "iso-2022-jp", "shift_jis", "euc-jp", "euc-kr", "big5", "gbk", "gb18030", "koi8-r", "koi8-u"),
        *(f"iso-8859-{part}" for part in range(1, 17) if part != 12),
        *(f"windows-{page}" for page in range(1250, 1259)),
    )
} | {"us-ascii": "utf-8", "utf8": "utf-8", "ascii": "utf-8", "gb2312": "gb18030"}


def parse_search(cursor: Cursor, uid: bool) -> Search:
    """Read what follows SEARCH. Raises ProtocolError, CommandRefused with BADCHARSET."""
    cursor.space()
    returns: frozenset[str] | None = None
    charset: str | None = None
    start = cursor.pos
    word = cursor.word() if cursor.peek().isalpha() else ""
    if word == "RETURN":
        cursor.space()
        returns = frozenset(cursor.words()) or frozenset(("ALL",))
        if not returns <= _RETURNS:
            raise ProtocolError("Unknown search return option")
        cursor.space()
        start = cursor.pos
        word = cursor.word() if cursor.peek().isalpha() else ""
    if word == "CHARSET":
        cursor.space()
        charset = cursor.astring().decode("ascii", "replace").upper()
        if charset.lower() not in _CODECS:
            raise CommandRefused("BADCHARSET (US-ASCII UTF-8)", "Charset is not supported")
        cursor.space()
    else:
        cursor.pos = start
    # Without CHARSET it is US-ASCII in RFC 3501 and UTF-8 in RFC 9051; the second includes the first.
    program = _Keys(cursor, _CODECS[(charset or "utf-8").lower()]).program()
    cursor.end()
    return Search(uid, program, returns, charset)


class _Keys:
    """The keys of one program, in one charset."""

    __slots__ = ("_codec", "_cursor", "_left")

    def __init__(self, cursor: Cursor, codec: str) -> None:
        self._cursor = cursor
        self._codec = codec
        self._left = KEYS_MAX

    def program(self) -> SearchKey:
        """search-key *(SP search-key) up to the end."""
        keys = [self._key(DEPTH_MAX)]
        while not self._cursor.at_end():
            keys.append(self._key(DEPTH_MAX))
        return keys[0] if len(keys) == 1 else SearchKey("AND", tuple(keys))

    def _key(self, depth: int) -> SearchKey:
        if depth <= 0:
            raise ProtocolError("Search is nested too deeply")
        self._left -= 1
        if self._left < 0:
            raise CommandRefused("LIMIT", "Too many search keys")
        cursor = self._cursor
        octet = cursor.peek()
        if octet == b"(":
            return self._list(depth)
        if octet.isdigit() or octet in (b"*", b"$"):
            return SearchKey("SET", (cursor.set(),))
        name = cursor.word()
        if name in _PLAIN:
            return SearchKey(name)
        cursor.space()
        if name == "NOT":
            return SearchKey("NOT", (self._key(depth - 1),))
        if name == "OR":
            return self._or(depth)
        return SearchKey(name, self._arguments(name))

    def _list(self, depth: int) -> SearchKey:
        self._cursor.expect(b"(")
        keys = []
        while self._cursor.more_in_list():
            keys.append(self._key(depth - 1))
        if not keys:
            raise ProtocolError("Empty search list")
        return keys[0] if len(keys) == 1 else SearchKey("AND", tuple(keys))

    def _or(self, depth: int) -> SearchKey:
        cursor = self._cursor
        keys = [self._key(depth - 1)]
        while True:
            cursor.space()
            start = cursor.pos
            if cursor.peek() in (b"O", b"o") and cursor.word() == "OR":
                cursor.space()
                keys.append(self._key(depth - 1))
                continue
            cursor.pos = start
            last = self._key(depth - 1)
            return SearchKey("OR", (*keys, *(last.arguments if last.name == "OR" else (last,))))

    def _arguments(self, name: str) -> tuple[object, ...]:
        cursor = self._cursor
        if name in _STRINGS:
            return (self._text(),)
        if name in _DATES:
            return (cursor.date(),)
        if name == "HEADER":
            field = cursor.astring().decode("utf-8", "replace")
            cursor.space()
            return (field, self._text())
        if name == "UID":
            return (cursor.set(),)
        if name in _FLAGS:
            return (cursor.flag(),)
        if name in _NUMBERS:
            return (cursor.number(),)
        if name in _OBJECTS:
            return (cursor.astring().decode("utf-8", "replace"),)
        if name in _AGES:
            return (cursor.nz_number(),)
        if name == "MODSEQ":
            return (self._modseq(),)
        raise ProtocolError("Unknown search key")

    def _text(self) -> str:
        try:
            return self._cursor.astring().decode(self._codec)
        except UnicodeDecodeError:
            raise ProtocolError("Search text is not in its charset") from None

    def _modseq(self) -> int:
        """MODSEQ [entry-name SP entry-type-req] number (RFC 7162 section 3.1.5); the entry is read and not used."""
        cursor = self._cursor
        if cursor.peek() == b'"':
            cursor.string()
            cursor.space()
            if cursor.word() not in ("ALL", "PRIV", "SHARED"):
                raise ProtocolError("Bad entry type")
            cursor.space()
        return cursor.number()
