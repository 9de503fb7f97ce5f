"""A command as a client writes it: the mirror of imap_parse, `parse(format_command(tag, x)) == (tag, x)`.

Strict, and in the newest form that every server we meet reads; literals do not wait (LITERAL+). APPEND ends with the
announcement of its message. Knows nothing of answers.
"""

import binascii
from collections.abc import Callable
from datetime import date

from mailkeep.mail.mailbox_name import encode_utf7
from mailkeep.mail.numset import NumSet
from mailkeep.wire import imap_command as command
from mailkeep.wire.imap_command import ClientCommand, FetchBody, FetchItem, MessageSet, RawName, SearchKey
from mailkeep.wire.imap_fetch_items import label
from mailkeep.wire.imap_response import NIL, astring, date_time, flags_list, quoted
from mailkeep.wire.imap_syntax import MONTHS


def format_command(tag: bytes, value: ClientCommand, *, utf8: bool = False) -> bytes:
    """The whole command with its line end. `utf8`: the server agreed to UTF-8, so names are not modified UTF-7."""
    return b"%b %b\r\n" % (tag, _WRITERS[type(value)](value, utf8))


def _string(value: bytes, *, atom: bool = False, utf8: bool = False) -> bytes:
    text = (astring if atom else quoted)(value, utf8)
    # imap_response writes literals for a client, which never waits for us; here we must say that we do not.
    return text.replace(b"}\r\n", b"+}\r\n", 1) if text[:1] in (b"{", b"~") and text.endswith(value) else text


def _name(name: str, utf8: bool) -> bytes:
    if isinstance(name, RawName):
        return _string(name.raw, atom=True)
    return _string(name.encode("utf-8") if utf8 else encode_utf7(name), atom=True, utf8=utf8)


def _set(messages: MessageSet) -> bytes:
    return bytes(messages) if isinstance(messages, NumSet) else b"$"


def _words(words: tuple[str, ...] | list[str]) -> bytes:
    return b"(%b)" % " ".join(words).encode("ascii")


def _day(ordinal: int) -> bytes:
    day = date.fromordinal(ordinal)
    return f"{day.day}-{MONTHS[day.month - 1]}-{day.year:04}".encode("ascii")


def _id(value: command.Id, utf8: bool) -> bytes:
    if value.fields is None:
        return b"ID NIL"
    parts = []
    for name, text in value.fields:
        parts += [_string(name.encode("utf-8")), NIL if text is None else _string(text.encode("utf-8"))]
    return b"ID (%b)" % b" ".join(parts)


def _login(value: command.Login, utf8: bool) -> bytes:
    return b"LOGIN %b %b" % (_string(value.user, atom=True), _string(value.password, atom=True))


def _authenticate(value: command.Authenticate, utf8: bool) -> bytes:
    head = b"AUTHENTICATE " + value.mechanism.encode("ascii")
    if value.initial is None:
        return head
    return head + b" " + (binascii.b2a_base64(value.initial, newline=False) or b"=")


def _enable(value: command.Enable, utf8: bool) -> bytes:
    return " ".join(("ENABLE", *value.names)).encode("ascii")


def _select(value: command.Select, utf8: bool) -> bytes:
    line = (b"EXAMINE " if value.read_only else b"SELECT ") + _name(value.mailbox, utf8)
    parameters = [b"CONDSTORE"] if value.condstore else []
    if value.qresync is not None:
        known = value.qresync
        parts = [b"%d %d" % (known.uidvalidity, known.modseq)]
        if known.known_uids is not None:
            parts.append(bytes(known.known_uids))
        if known.match_seqs is not None and known.match_uids is not None:
            parts.append(b"(%b %b)" % (bytes(known.match_seqs), bytes(known.match_uids)))
        parameters.append(b"QRESYNC (%b)" % b" ".join(parts))
    return line + b" (%b)" % b" ".join(parameters) if parameters else line


def _create(value: command.Create, utf8: bool) -> bytes:
    uses = b" (USE %b)" % flags_list(value.special_use) if value.special_use else b""
    return b"CREATE " + _name(value.mailbox, utf8) + uses


def _rename(value: command.Rename, utf8: bool) -> bytes:
    return b"RENAME %b %b" % (_name(value.old, utf8), _name(value.new, utf8))


def _list(value: command.List, utf8: bool) -> bytes:
    parts = [value.kind.encode("ascii")]
    if value.select:
        parts.append(_words(sorted(value.select)))
    parts.append(_name(value.reference, utf8))
    patterns = [_name(pattern, utf8) for pattern in value.patterns]
    parts.append(b"(%b)" % b" ".join(patterns) if value.extended else patterns[0])
    returns = sorted(value.returns)
    if value.status:
        returns.append(f"STATUS ({' '.join(value.status)})")
    if returns:
        parts.append(b"RETURN " + _words(returns))
    return b" ".join(parts)


def _status(value: command.Status, utf8: bool) -> bytes:
    return b"STATUS %b %b" % (_name(value.mailbox, utf8), _words(value.items))


def _append(value: command.Append, utf8: bool) -> bytes:
    parts = [b"APPEND", _name(value.mailbox, utf8)]
    if value.flags:
        parts.append(flags_list(value.flags))
    if value.date is not None:
        parts.append(date_time(value.date))
    if value.utf8:
        parts.append(b"UTF8")
    # The message follows, and after it, when `utf8`, a closing parenthesis.
    announced = b"%b{%d+}" % (b"~" if value.binary else b"", value.size)
    return b" ".join(parts) + (b" (" if value.utf8 else b" ") + announced


def _expunge(value: command.Expunge, utf8: bool) -> bytes:
    return b"EXPUNGE" if value.uids is None else b"UID EXPUNGE " + _set(value.uids)


def _search(value: command.Search, utf8: bool) -> bytes:
    parts = [_verb("SEARCH", value.uid)]
    if value.returns is not None:
        parts.append(b"RETURN " + _words(sorted(value.returns)))
    if value.charset is not None:
        parts.append(b"CHARSET " + value.charset.encode("ascii"))
    # The outermost AND needs no parentheses, and old servers like it so.
    keys = value.program.arguments if value.program.name == "AND" else (value.program,)
    parts += [_key(key, value.charset or "utf-8") for key in keys]
    return b" ".join(parts)


def _key(key: object, charset: str) -> bytes:
    assert isinstance(key, SearchKey)
    name, arguments = key.name.encode("ascii"), key.arguments
    if key.name == "AND":
        return b"(%b)" % b" ".join(_key(part, charset) for part in arguments)
    if key.name == "OR":
        *first, last = (_key(part, charset) for part in arguments)
        return b" ".join(b"OR " + part for part in first) + b" " + last
    if key.name == "NOT":
        return b"NOT " + _key(arguments[0], charset)
    if key.name == "HEADER":
        field, text = map(str, arguments)
        return b"HEADER %b %b" % (_string(field.encode("utf-8")), _string(text.encode(charset)))
    if not arguments:
        return name
    (argument,) = arguments
    if key.name in ("SET", "UID"):
        numbers = _set(argument)  # type: ignore[arg-type]
        return numbers if key.name == "SET" else b"UID " + numbers
    if isinstance(argument, int):
        is_date = key.name.endswith(("BEFORE", "ON", "SINCE"))
        return name + b" " + (_day(argument) if is_date else b"%d" % argument)
    if key.name in ("KEYWORD", "UNKEYWORD"):
        return name + b" " + str(argument).encode("ascii")
    return name + b" " + _string(str(argument).encode(charset))


def _verb(verb: str, uid: bool) -> bytes:
    return (f"UID {verb}" if uid else verb).encode("ascii")


def _item(item: FetchItem) -> bytes:
    if isinstance(item, str):
        return item.encode("ascii")
    return _body(item)


def _body(item: FetchBody) -> bytes:
    if item.kind.startswith("RFC822"):
        return item.kind.encode("ascii")
    kind = item.kind + ".PEEK" if item.peek and item.kind != "BINARY.SIZE" else item.kind
    section = label(kind, item.section, None)
    return section if item.partial is None else section + b"<%d.%d>" % item.partial


def _fetch(value: command.Fetch, utf8: bool) -> bytes:
    line = b"%b %b (%b)" % (_verb("FETCH", value.uid), _set(value.messages), b" ".join(map(_item, value.items)))
    if value.changed_since is None:
        return line
    return line + b" (CHANGEDSINCE %d%b)" % (value.changed_since, b" VANISHED" if value.vanished else b"")


def _store(value: command.Store, utf8: bool) -> bytes:
    parts = [_verb("STORE", value.uid), _set(value.messages)]
    if value.unchanged_since is not None:
        parts.append(b"(UNCHANGEDSINCE %d)" % value.unchanged_since)
    sign = "" if value.mode == "=" else value.mode
    parts.append(f"{sign}FLAGS{'.SILENT' if value.silent else ''}".encode("ascii"))
    return b" ".join((*parts, flags_list(value.flags)))


def _to_mailbox(value: command.Copy | command.Move, utf8: bool) -> bytes:
    verb = _verb(type(value).__name__.upper(), value.uid)
    return b"%b %b %b" % (verb, _set(value.messages), _name(value.mailbox, utf8))


def _compress(value: command.Compress, utf8: bool) -> bytes:
    return b"COMPRESS " + value.algorithm.encode("ascii")


def _notify(value: command.Notify, utf8: bool) -> bytes:
    """notify = "NOTIFY" SP ("SET" [status-indicator] SP event-groups / "NONE") (RFC 5465 section 8)."""
    if not value.groups:
        return b"NOTIFY NONE"
    parts = [b"NOTIFY SET STATUS" if value.status else b"NOTIFY SET"]
    for group in value.groups:
        head = group.mailboxes.encode("ascii")
        if group.names:
            head += b" (%b)" % b" ".join(_name(name, utf8) for name in group.names)
        events = b" ".join(_notify_event(event, group.fetch) for event in group.events)
        parts.append(b"(%b %b)" % (head, b"(%b)" % events if events else b"NONE"))
    return b" ".join(parts)


def _notify_event(event: str, fetch: tuple[FetchItem, ...]) -> bytes:
    items = b" (%b)" % b" ".join(map(_item, fetch)) if fetch and event == "MessageNew" else b""
    return event.encode("ascii") + items


def _get_quota_root(value: command.GetQuotaRoot, utf8: bool) -> bytes:
    return b"GETQUOTAROOT " + _name(value.mailbox, utf8)


def _store_labels(value: command.StoreLabels, utf8: bool) -> bytes:
    sign = "" if value.mode == "=" else value.mode
    item = f"{sign}X-GM-LABELS{'.SILENT' if value.silent else ''}".encode("ascii")
    labels = b" ".join(
        label.encode("ascii")
        if label.startswith("\\") and label[1:].isalnum() and label.isascii()
        else _name(label, utf8)
        for label in value.labels
    )
    return b"%b %b %b (%b)" % (_verb("STORE", value.uid), _set(value.messages), item, labels)


def _one_mailbox(value: command.Delete | command.Subscribe | command.Unsubscribe, utf8: bool) -> bytes:
    return type(value).__name__.upper().encode("ascii") + b" " + _name(value.mailbox, utf8)


def _plain(value: ClientCommand, utf8: bool) -> bytes:
    return type(value).__name__.upper().encode("ascii")


_WRITERS: dict[type, Callable[..., bytes]] = {
    command.Id: _id,
    command.Login: _login,
    command.Authenticate: _authenticate,
    command.Enable: _enable,
    command.Select: _select,
    command.Create: _create,
    command.Delete: _one_mailbox,
    command.Subscribe: _one_mailbox,
    command.Unsubscribe: _one_mailbox,
    command.Rename: _rename,
    command.List: _list,
    command.Status: _status,
    command.Append: _append,
    command.Expunge: _expunge,
    command.Search: _search,
    command.Fetch: _fetch,
    command.Store: _store,
    command.Copy: _to_mailbox,
    command.Move: _to_mailbox,
    command.Compress: _compress,
    command.Notify: _notify,
    command.GetQuotaRoot: _get_quota_root,
    command.StoreLabels: _store_labels,
    **dict.fromkeys(
        (
            *(command.Capability, command.Noop, command.Logout, command.StartTls, command.Namespace),
            *(command.Idle, command.Check, command.Close, command.Unselect),
        ),
        _plain,
    ),
}
