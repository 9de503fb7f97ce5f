"""SEARCH on a scripted server: one message after the other is held against the keys."""

from collections.abc import Iterator
from datetime import date
from typing import Any

from mailkeep.mail.flags import SYSTEM_FLAGS
from mailkeep.mail.header import decode_words, header_end, iter_fields, unfold
from mailkeep.mail.numset import NumSet
from mailkeep.mail.text import normalise, searchable
from mailkeep.testing.mailboxes import Message
from mailkeep.testing.peer import Peer
from mailkeep.testing.reply import Refused
from mailkeep.wire.imap_command import SearchKey

_EPOCH = date(1970, 1, 1).toordinal()
_FLAGS = {name[1:].upper(): name for name in SYSTEM_FLAGS}


def matches(peer: Peer, key: SearchKey, *, seq: int, message: Message) -> bool:
    """Whether a message is what the key asks for. Raises Refused for a key that is not supported."""
    name, arguments = key.name, key.arguments
    parts: Iterator[bool] = (
        matches(peer, part, seq=seq, message=message) for part in arguments if isinstance(part, SearchKey)
    )
    match name:
        case "ALL" | "OLD":
            return True
        case "NEW" | "RECENT":
            return False
        case "AND":
            return all(parts)
        case "OR":
            return any(parts)
        case "NOT":
            return not any(parts)
        case "SET" | "UID":
            return _in_set(peer, arguments[0], message.uid if name == "UID" else seq, uid=message.uid)
        case "KEYWORD" | "UNKEYWORD":
            has = str(arguments[0]).lower() in {flag.lower() for flag in message.flags}
            return has == (name == "KEYWORD")
        case "MODSEQ":
            return message.modseq >= _number(arguments[0])
        case "LARGER":
            return len(message.data) > _number(arguments[0])
        case "SMALLER":
            return len(message.data) < _number(arguments[0])
    if name.removeprefix("UN") in _FLAGS:
        return (_FLAGS[name.removeprefix("UN")] in message.flags) == (name in _FLAGS)
    if name in ("SINCE", "BEFORE", "ON", "SENTSINCE", "SENTBEFORE", "SENTON"):
        return _on_day(name, _number(arguments[0]), message)
    return _holds(name, [str(argument) for argument in arguments], message)


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


def _in_set(peer: Peer, numbers: Any, number: int, *, uid: int) -> bool:
    if not isinstance(numbers, NumSet):
        return uid in peer.saved
    view = peer.selected
    return number in numbers.resolve((view.uids[-1] if view.uids else 0) if number == uid else len(view.uids))


def _on_day(name: str, wanted: int, message: Message) -> bool:
    sent = name.startswith("SENT")
    day = message.mail.rendered.sent_day if sent else message.mail.date // 86400 + _EPOCH
    if day is None:
        return False
    match name.removeprefix("SENT"):
        case "SINCE":
            return day >= wanted
        case "BEFORE":
            return day < wanted
    return day == wanted


def _holds(name: str, texts: list[str], message: Message) -> bool:
    data = message.data
    if name in ("TEXT", "BODY"):
        found, needle = searchable(data), normalise(texts[0])
        return needle in found.body or (name == "TEXT" and needle in found.headers)
    if name == "HEADER":
        name, needle = texts
    elif name in ("FROM", "TO", "CC", "BCC", "SUBJECT"):
        needle = texts[0]
    else:
        raise Refused("BAD", f"Unknown SEARCH key {name}")
    wanted, needle = name.lower().encode(), normalise(needle)
    return any(
        needle in normalise(decode_words(unfold(value)))
        for field, value in iter_fields(data[: header_end(data)])
        if field.lower() == wanted
    )
