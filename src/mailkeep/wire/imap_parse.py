"""One finished command, as the framer cut it, to its class in imap_command (RFC 3501 and RFC 9051 section 6).

Knows every command's grammar and nothing of states: whether LOGIN is allowed now is the session's business. One table
maps the verb to its reader. Raises ProtocolError for bad grammar and CommandRefused for what is understood and refused.
"""

import binascii
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

from mailkeep.errors import ProtocolError
from mailkeep.mail.numset import NumSet
from mailkeep.wire import imap_command as command
from mailkeep.wire.imap_command import SAVED, Command
from mailkeep.wire.imap_fetch_items import parse_items
from mailkeep.wire.imap_search_key import parse_search
from mailkeep.wire.imap_syntax import REMEMBERED_MAX, CommandRefused, Cursor, decode_mailbox

# tag = 1*<any ASTRING-CHAR except "+">
_TAG = rb"([^\x00-\x20\x7f-\xff(){%*\"\\+]+)"
_HEAD = re.compile(_TAG + rb" +((?:UID +)?[A-Za-z]+)", re.IGNORECASE)
_TAG_ONLY = re.compile(_TAG + rb"(?: |$)")
_APPEND = re.compile(_TAG + rb" +APPEND +", re.IGNORECASE)
# "{" number64 ["+"] "}" at the end of the text; the framer has announced it
_ANNOUNCED = re.compile(rb"(~?)\{([0-9]+)\+?\}\Z")
_WITH_SET = re.compile(rb" +([0-9:*,]+|\$) +(.+)", re.DOTALL)
_MECHANISM = re.compile(rb"[A-Za-z0-9_-]{1,20}")
_BASE64 = re.compile(rb"=|[A-Za-z0-9+/]+={0,2}")
# ["+" / "-"] "FLAGS" [".SILENT"]
_STORE_MODE = re.compile(rb"([+-]?)FLAGS(\.SILENT)?(?= )", re.IGNORECASE)

_Reader = Callable[[Cursor], Command]

_STATUS_ITEMS = frozenset(
    (
        *("MESSAGES", "RECENT", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "DELETED", "SIZE", "HIGHESTMODSEQ"),
        *("MAILBOXID", "APPENDLIMIT"),  # RFC 8474, RFC 7889
    )
)
PATTERNS_MAX = 1000  # of one LIST
WILDCARDS_MAX = 200  # of all of them: each costs a look at each name
_LIST_SELECT = frozenset(("SUBSCRIBED", "REMOTE", "RECURSIVEMATCH", "SPECIAL-USE"))
_LIST_RETURN = frozenset(("SUBSCRIBED", "CHILDREN", "SPECIAL-USE"))


def parse(text: bytes, utf8: bool = False) -> tuple[bytes, Command]:
    """Tag and command of one finished command. Raises ProtocolError, CommandRefused."""
    head = _HEAD.match(text)
    if head is None:
        raise ProtocolError("Expected a tag and a command" if text else "Empty line")
    tag, verb = head.groups()
    read = _VERBS.get(verb) or _VERBS.get(b" ".join(verb.upper().split()))
    if read is None:
        raise ProtocolError("Unknown command")
    return tag, read(Cursor(text, head.end(), utf8))


def read_tag(text: bytes) -> bytes | None:
    """The tag, for answering a command that cannot be read; None when there is none."""
    match = _TAG_ONLY.match(text)
    return match[1] if match is not None else None


def parse_append(parts: tuple[bytes, ...], utf8: bool = False) -> tuple[bytes, command.Append] | None:
    """Tag and head of APPEND up to the announced message; None when what is announced is something else.

    append = "APPEND" SP mailbox [SP flag-list] [SP date-time] SP (literal / literal8 / "UTF8" SP "(" literal8 ")")
    """
    head = _APPEND.match(parts[0])
    if head is None:
        return None
    text = b"".join(parts)
    cursor = Cursor(text, head.end(), utf8)
    if _ANNOUNCED.match(text, cursor.pos):
        return None  # the name is sent as a literal; the message comes later
    raw_name = cursor.astring()
    cursor.space()
    flags = cursor.flag_list() if cursor.peek() == b"(" else ()
    cursor.skip_spaces()
    date = cursor.date_time() if cursor.peek() == b'"' else None
    cursor.skip_spaces()
    in_utf8 = text[cursor.pos : cursor.pos + 4].upper() == b"UTF8"
    if in_utf8:
        cursor.word()
        cursor.space()
        cursor.expect(b"(")
        cursor.skip_spaces()
    match = cursor.take(_ANNOUNCED, "message literal")
    # The name is looked at last: a name that we refuse is no reason to call good grammar bad.
    mailbox = decode_mailbox(raw_name, utf8)
    return head[1], command.Append(mailbox, flags, date, int(match[2]), utf8=in_utf8, binary=bool(match[1]))


# --- any state, not authenticated ---


def _plain(value: Command) -> _Reader:
    """A command without arguments."""

    def read(cursor: Cursor) -> Command:
        if cursor.pos != len(cursor.text):
            cursor.end()
        return value

    return read


def _id(cursor: Cursor) -> Command:
    """id = "ID" SP ("(" [string SP nstring *(SP string SP nstring)] ")" / nil) (RFC 2971)."""
    cursor.space()
    if cursor.peek() != b"(":
        if cursor.nstring() is not None:
            raise ProtocolError("Expected a list")
        cursor.end()
        return command.Id(None)
    cursor.expect(b"(")
    fields: list[tuple[str, str | None]] = []
    while cursor.more_in_list():
        name = cursor.string().decode("utf-8", "replace")
        cursor.space()
        value = cursor.nstring()
        fields.append((name, None if value is None else value.decode("utf-8", "replace")))
    cursor.end()
    return command.Id(tuple(fields))


def _login(cursor: Cursor) -> Command:
    cursor.space()
    user = cursor.astring()
    cursor.space()
    password = cursor.astring()
    cursor.end()
    return command.Login(user, password)


def _authenticate(cursor: Cursor) -> Command:
    """authenticate = "AUTHENTICATE" SP auth-type [SP (base64 / "=")] (RFC 4959)."""
    cursor.space()
    mechanism = cursor.take(_MECHANISM, "mechanism")[0].decode("ascii").upper()
    initial = None
    if not cursor.at_end():
        text = cursor.take(_BASE64, "base64")[0]
        cursor.end()
        try:
            initial = b"" if text == b"=" else binascii.a2b_base64(text, strict_mode=True)
        except binascii.Error:
            raise ProtocolError("Bad base64") from None
    return command.Authenticate(mechanism, initial)


# --- authenticated ---


def _enable(cursor: Cursor) -> Command:
    cursor.space()
    names = [cursor.word()]
    while not cursor.at_end():
        names.append(cursor.word())
    return command.Enable(tuple(names))


def _select(read_only: bool) -> _Reader:
    def read(cursor: Cursor) -> Command:
        cursor.space()
        mailbox = cursor.mailbox()
        condstore, qresync = False, None
        if not cursor.at_end():
            cursor.expect(b"(")
            while cursor.more_in_list():
                word = cursor.word()
                if word == "CONDSTORE":
                    condstore = True
                elif word == "QRESYNC":
                    cursor.space()
                    qresync = _qresync(cursor)
                else:
                    raise ProtocolError("Unknown select parameter")
            cursor.end()
        return command.Select(mailbox, read_only, condstore, qresync)

    return read


def _qresync(cursor: Cursor) -> command.QResync:
    """ "(" uidvalidity SP mod-sequence-value [SP known-uids] [SP seq-match-data] ")" (RFC 7162 section 3.2.5)."""
    cursor.expect(b"(")
    cursor.skip_spaces()
    uidvalidity = cursor.nz_number()
    cursor.space()
    modseq = cursor.number()  # 0 from clients that have nothing yet
    known = seqs = uids = None
    if cursor.more_in_list():
        if cursor.peek() != b"(":
            known = cursor.num_set()
        if known is None or cursor.more_in_list():
            cursor.expect(b"(")
            cursor.skip_spaces()
            seqs = cursor.num_set()
            cursor.space()
            uids = cursor.num_set()
            if cursor.more_in_list() or cursor.more_in_list():
                raise ProtocolError("Too many QRESYNC parameters")
    for numbers in (known, seqs, uids):
        if numbers is not None and numbers.star_ranges:
            raise ProtocolError("* is not allowed here")
    return command.QResync(uidvalidity, modseq, known, seqs, uids)


def _create(cursor: Cursor) -> Command:
    """create-param =/ "USE" SP "(" [use-attr *(SP use-attr)] ")" (RFC 6154)."""
    cursor.space()
    mailbox = cursor.mailbox()
    uses: tuple[str, ...] = ()
    if not cursor.at_end():
        cursor.expect(b"(")
        while cursor.more_in_list():
            if cursor.word() != "USE":
                raise ProtocolError("Unknown create parameter")
            cursor.space()
            uses = cursor.flag_list()
        cursor.end()
    return command.Create(mailbox, uses)


def _one_mailbox(
    make: type[command.Delete] | type[command.Subscribe] | type[command.Unsubscribe],
) -> _Reader:
    def read(cursor: Cursor) -> Command:
        cursor.space()
        mailbox = cursor.mailbox()
        cursor.end()
        return make(mailbox)

    return read


def _rename(cursor: Cursor) -> Command:
    cursor.space()
    old = cursor.mailbox()
    cursor.space()
    new = cursor.mailbox()
    cursor.end()
    return command.Rename(old, new)


def _status_items(cursor: Cursor) -> tuple[str, ...]:
    items = cursor.words()
    if not items or not _STATUS_ITEMS.issuperset(items):
        raise ProtocolError("Unknown status item")
    return tuple(dict.fromkeys(items))


def _status(cursor: Cursor) -> Command:
    cursor.space()
    mailbox = cursor.mailbox()
    cursor.space()
    items = _status_items(cursor)
    cursor.end()
    return command.Status(mailbox, items)


def _wildcards(pattern: str) -> int:
    return pattern.count("*") + pattern.count("%")


def _lsub(cursor: Cursor) -> Command:
    cursor.space()
    reference = cursor.pattern()
    cursor.space()
    pattern = cursor.pattern()
    cursor.end()
    if _wildcards(reference) + _wildcards(pattern) > WILDCARDS_MAX:
        raise CommandRefused("LIMIT", "Too many patterns")
    return command.List("LSUB", reference, (pattern,))


def _list(cursor: Cursor) -> Command:
    """list = "LIST" [SP list-select-opts] SP mailbox SP mbox-or-pat [SP list-return-opts] (RFC 5258 section 6)."""
    cursor.space()
    select: frozenset[str] = frozenset()
    extended = cursor.peek() == b"("
    if extended:
        select = frozenset(cursor.words())
        # RECURSIVEMATCH needs a criterion to recurse for (section 3.1)
        if not select <= _LIST_SELECT or ("RECURSIVEMATCH" in select and select <= {"RECURSIVEMATCH", "REMOTE"}):
            raise ProtocolError("Bad list selection options")
        cursor.skip_spaces()  # RFC 5819 section 4 itself has an example without a space
    reference = cursor.pattern()
    cursor.space()
    patterns = [] if cursor.peek() == b"(" else [cursor.pattern()]
    if not patterns:
        extended = True
        cursor.expect(b"(")
        while cursor.more_in_list():
            patterns.append(cursor.pattern())
        if not patterns:
            raise ProtocolError("No pattern")
    if len(patterns) > PATTERNS_MAX or sum(map(_wildcards, (reference, *patterns))) > WILDCARDS_MAX:
        raise CommandRefused("LIMIT", "Too many patterns")
    returns: set[str] = set()
    status: tuple[str, ...] = ()
    if not cursor.at_end():
        extended = True
        if cursor.word() != "RETURN":
            raise ProtocolError("Expected RETURN")
        cursor.space()
        status = _list_returns(cursor, returns)
        cursor.end()
    return command.List("LIST", reference, tuple(patterns), extended, select, frozenset(returns), status)


def _list_returns(cursor: Cursor, returns: set[str]) -> tuple[str, ...]:
    """return-option =/ status-option (RFC 5819); fills `returns`, gives the STATUS items."""
    status: tuple[str, ...] = ()
    cursor.expect(b"(")
    while cursor.more_in_list():
        word = cursor.word()
        if word == "STATUS":
            cursor.space()
            status = _status_items(cursor)
        elif word in _LIST_RETURN:
            returns.add(word)
        else:
            raise ProtocolError("Unknown list return option")
    return status


def _append(cursor: Cursor) -> Command:
    # With its literal announced it never comes here: see parse_append.
    raise ProtocolError("APPEND needs a message literal")


# --- selected ---


def _fetch(uid: bool) -> _Reader:
    def read(cursor: Cursor) -> Command:
        match = _WITH_SET.match(cursor.text, cursor.pos)
        if match is None:
            raise ProtocolError("Expected a message set and fetch items")
        numbers, asked = match.groups()
        return command.Fetch(uid, _set(numbers), *parse_items(asked, uid))

    return read


def _store(uid: bool) -> _Reader:
    def read(cursor: Cursor) -> Command:
        match = _WITH_SET.match(cursor.text, cursor.pos)
        if match is None:
            raise ProtocolError("Expected a message set and flags")
        numbers, change = match.groups()
        read_change = _remembered_change if len(change) <= REMEMBERED_MAX else _store_change
        return command.Store(uid, _set(numbers), *read_change(change))

    return read


def _set(text: bytes) -> command.MessageSet:
    return SAVED if text == b"$" else NumSet.parse(text)


def _store_change(text: bytes) -> tuple[Literal["=", "+", "-"], bool, tuple[str, ...], int | None]:
    """store = … [SP store-modifiers] SP store-att-flags (RFC 7162 section 3.1.3); a client has few of them."""
    cursor = Cursor(text)
    unchanged_since = None
    if cursor.skip(b"("):
        while cursor.more_in_list():
            if cursor.word() != "UNCHANGEDSINCE":
                raise ProtocolError("Unknown store modifier")
            cursor.space()
            unchanged_since = cursor.number()
        cursor.space()
    match = cursor.take(_STORE_MODE, "FLAGS")
    sign: bytes = match[1]
    mode: Literal["=", "+", "-"] = "+" if sign == b"+" else "-" if sign == b"-" else "="
    cursor.space()
    if cursor.peek() == b"(":
        flags = cursor.flag_list()
        cursor.end()
    else:
        listed = [cursor.flag()]
        while not cursor.at_end():
            listed.append(cursor.flag())
        flags = tuple(listed)
    return mode, match[2] is not None, flags, unchanged_since


_remembered_change = lru_cache(maxsize=512)(_store_change)


def _search(uid: bool) -> _Reader:
    return lambda cursor: parse_search(cursor, uid)


def _to_mailbox(make: type[command.Copy] | type[command.Move], uid: bool) -> _Reader:
    def read(cursor: Cursor) -> Command:
        cursor.space()
        messages = cursor.set()
        cursor.space()
        mailbox = cursor.mailbox()
        cursor.end()
        return make(uid, messages, mailbox)

    return read


def _uid_expunge(cursor: Cursor) -> Command:
    cursor.space()
    messages = cursor.set()
    cursor.end()
    return command.Expunge(messages)


_VERBS: dict[bytes, _Reader] = {
    b"CAPABILITY": _plain(command.Capability()),
    b"NOOP": _plain(command.Noop()),
    b"LOGOUT": _plain(command.Logout()),
    b"STARTTLS": _plain(command.StartTls()),
    b"NAMESPACE": _plain(command.Namespace()),
    b"IDLE": _plain(command.Idle()),
    b"CHECK": _plain(command.Check()),
    b"CLOSE": _plain(command.Close()),
    b"UNSELECT": _plain(command.Unselect()),
    b"EXPUNGE": _plain(command.Expunge()),
    b"ID": _id,
    b"LOGIN": _login,
    b"AUTHENTICATE": _authenticate,
    b"ENABLE": _enable,
    b"SELECT": _select(read_only=False),
    b"EXAMINE": _select(read_only=True),
    b"CREATE": _create,
    b"DELETE": _one_mailbox(command.Delete),
    b"SUBSCRIBE": _one_mailbox(command.Subscribe),
    b"UNSUBSCRIBE": _one_mailbox(command.Unsubscribe),
    b"RENAME": _rename,
    b"STATUS": _status,
    b"LIST": _list,
    b"LSUB": _lsub,
    b"APPEND": _append,
    b"UID EXPUNGE": _uid_expunge,
    b"FETCH": _fetch(uid=False),
    b"UID FETCH": _fetch(uid=True),
    b"STORE": _store(uid=False),
    b"UID STORE": _store(uid=True),
    b"SEARCH": _search(uid=False),
    b"UID SEARCH": _search(uid=True),
    b"COPY": _to_mailbox(command.Copy, uid=False),
    b"UID COPY": _to_mailbox(command.Copy, uid=True),
    b"MOVE": _to_mailbox(command.Move, uid=False),
    b"UID MOVE": _to_mailbox(command.Move, uid=True),
}
