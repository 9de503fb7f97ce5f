"""What a person types to find mail, as a search tree: `from:anna has:attachment -invoice since:2023`.

The language is Gmail's, as far as it can be answered from a message alone. One grammar:

    search  = *( ["AND"] choice )                   ; all of them
    choice  = part *( "OR" part )                   ; OR binds its two neighbours, closer than AND: as in Gmail
    part    = ["-"] ( "(" search ")" / field ":" value / value )
    value   = 1*( any character but white space and parentheses ) / DQUOTE *( any but DQUOTE ) DQUOTE

Knows the words and what each asks of a message; nothing of mailboxes, and no clock. Every error names the word that is
wrong and what it may be.
"""

import re
from collections.abc import Callable, Iterator
from datetime import date
from typing import Final

from mailkeep.errors import ProtocolError, UsageError
from mailkeep.mail.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN, canonical
from mailkeep.mail.query import (
    All,
    And,
    Body,
    HasAttachment,
    HasFlag,
    Header,
    Internal,
    Larger,
    Not,
    Or,
    Query,
    Smaller,
    Text,
)

LENGTH_MAX: Final = 10_000  # characters
WORDS_MAX: Final = 500
DEPTH_MAX: Final = 20  # parentheses in parentheses

KINDS: Final = ("mail", "event", "contact", "note", "task")
GONE: Final = "$Gone"  # the keyword of what its source no longer has

_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,3})?)\s?([kmgt]?)(?:i?b)?", re.IGNORECASE)
_DAY = re.compile(r"(\d{4})(?:[-/](\d{1,2})(?:[-/](\d{1,2}))?)?")


# ---- values


def parse_size(text: str) -> int:
    """`5M`, `300 KiB`, `1048576` → bytes (units of 1024). Raises UsageError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text[:40]}: not a size; give one such as 300K, 5M or 1G")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def parse_days(text: str) -> tuple[date, date]:
    """`2023-05-17`, `2023-05` or `2023` → its first day and the first day after it. Raises UsageError."""
    match = _DAY.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError
        year, month, day = int(match[1]), int(match[2] or 1), int(match[3] or 1)
        first = date(year, month, day)
        if match[3]:
            return first, date.fromordinal(first.toordinal() + 1)
        if match[2]:
            return first, date(year + month // 12, month % 12 + 1, 1)
        return first, date(year + 1, 1, 1)
    except (ValueError, OverflowError):
        raise UsageError(f"{text[:40]}: not a day; give one such as 2023-05-17, or 2023-05 or 2023") from None


_FLAG_WORDS: Final = {
    "seen": SEEN, "read": SEEN, "flagged": FLAGGED, "starred": FLAGGED, "answered": ANSWERED, "replied": ANSWERED,
    "draft": DRAFT, "deleted": DELETED, "gone": GONE,
}  # fmt: skip
_NEGATED_FLAG_WORDS: Final = {"unseen": SEEN, "unread": SEEN, "unflagged": FLAGGED, "unanswered": ANSWERED}


def parse_flag(text: str) -> Query:
    """`\\Seen`, `unread`, `!flagged`, `$Forwarded` → what it asks. Raises UsageError."""
    name, wanted = text.strip(), True
    if name.startswith("!"):
        name, wanted = name[1:].strip(), False
    word = name.lower()
    if word in _NEGATED_FLAG_WORDS:
        found, wanted = _NEGATED_FLAG_WORDS[word], not wanted
    else:
        found = _FLAG_WORDS.get(word, name)
    try:
        flag = canonical(found)
    except ProtocolError:
        raise UsageError(
            f"{text[:40]}: not a flag; give seen, flagged, answered, draft, deleted or a keyword, `!` before it for not"
        ) from None
    return HasFlag(flag) if wanted else Not(HasFlag(flag))


# What shows that an item is no mail: fields of its header and a text in them. Content-Type is what the item is itself
# (an invitation is a mail with a calendar part); the others are said by Apple (notes), Exchange and Kolab.
_KIND_FIELDS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "event": (
        ("Content-Type", "text/calendar"),
        ("Content-Class", "content-classes:appointment"),
        ("Message-Class", "IPM.Appointment"),
        ("X-Message-Class", "IPM.Appointment"),
        ("X-Kolab-Type", "vnd.kolab.event"),
        ("X-Uniform-Type-Identifier", "com.apple.mail-event"),
    ),
    "contact": (
        ("Content-Type", "text/vcard"),
        ("Content-Type", "text/x-vcard"),
        ("Content-Type", "text/directory"),
        ("Content-Class", "content-classes:person"),
        ("Content-Class", "content-classes:contact"),
        ("Message-Class", "IPM.Contact"),
        ("Message-Class", "IPM.DistList"),
        ("X-Message-Class", "IPM.Contact"),
        ("X-Message-Class", "IPM.DistList"),
        ("X-Kolab-Type", "vnd.kolab.contact"),
        ("X-Kolab-Type", "vnd.kolab.distribution-list"),
    ),
    "note": (
        ("X-Uniform-Type-Identifier", "com.apple.mail-note"),
        ("Content-Class", "content-classes:note"),
        ("Message-Class", "IPM.StickyNote"),
        ("X-Message-Class", "IPM.StickyNote"),
        ("X-Kolab-Type", "vnd.kolab.note"),
        ("X-Kolab-Type", "vnd.kolab.journal"),
    ),
    "task": (
        ("Content-Type", "component=VTODO"),
        ("Content-Type", 'component="VTODO"'),
        ("X-Uniform-Type-Identifier", "com.apple.mail-todo"),
        ("Content-Class", "content-classes:task"),
        ("Message-Class", "IPM.Task"),
        ("X-Message-Class", "IPM.Task"),
        ("X-Kolab-Type", "vnd.kolab.task"),
    ),
}


def kind_query(kind: str) -> Query:
    """What a message of this kind looks like. Raises UsageError for a kind that there is not."""
    word = kind.strip().lower()
    if word not in KINDS:
        raise UsageError(f"{kind[:40]}: not a kind of item; give one of {', '.join(KINDS)}")
    if word == "mail":
        return And(tuple(Not(_any_header(_KIND_FIELDS[other])) for other in KINDS[1:]))
    found = _any_header(_KIND_FIELDS[word])
    # text/calendar may hold tasks as well; then it says so.
    return And((found, Not(_any_header(_KIND_FIELDS["task"])))) if word == "event" else found


def _any_header(fields: tuple[tuple[str, str], ...]) -> Query:
    return Or(tuple(Header(name, text) for name, text in fields))


# ---- fields


def _headers(*names: str) -> Callable[[str], Query]:
    def parse(value: str) -> Query:
        found = tuple(Header(name, value) for name in names)
        return found[0] if len(found) == 1 else Or(found)

    return parse


def _since(value: str) -> Query:
    return Internal(parse_days(value)[0].toordinal(), None)


def _before(value: str) -> Query:
    return Internal(None, parse_days(value)[0].toordinal())


def _on(value: str) -> Query:
    first, end = parse_days(value)
    return Internal(first.toordinal(), end.toordinal())


def _is(value: str) -> Query:
    word = value.lower()
    if word not in _FLAG_WORDS and word not in _NEGATED_FLAG_WORDS:
        known = ", ".join(sorted({*_FLAG_WORDS, *_NEGATED_FLAG_WORDS}))
        raise UsageError(f"is:{value[:40]}: there is no such state; give one of {known}")
    return parse_flag(value)


def _has(value: str) -> Query:
    if value.lower() not in ("attachment", "attachments"):
        raise UsageError(f"has:{value[:40]}: only has:attachment can be asked; for a keyword give keyword:NAME")
    return HasAttachment()


FIELDS: Final[dict[str, Callable[[str], Query]]] = {
    "from": _headers("From"),
    "to": _headers("To", "Cc", "Bcc"),
    "cc": _headers("Cc"),
    "bcc": _headers("Bcc"),
    "subject": _headers("Subject"),
    "list": _headers("List-Id"),
    "id": _headers("Message-ID"),
    "body": Body,
    "text": Text,
    "has": _has,
    "is": _is,
    "keyword": parse_flag,
    "kind": kind_query,
    "since": _since,
    "after": _since,
    "before": _before,
    "on": _on,
    "larger": lambda value: Larger(parse_size(value)),
    "smaller": lambda value: Smaller(parse_size(value)),
}


# ---- grammar

_TOKEN = re.compile(r'\s*(?:(-?\()|(\))|(-?)(?:([A-Za-z]+):)?(?:"([^"]*)("?)|([^\s()"]+)))')
_Token = tuple[str, bool, str, str]  # kind: "(", ")", "OR", "AND" or "word"; negated; field; value


def parse_search(text: str) -> Query:
    """The tree of a search text; of an empty one, All. Raises UsageError, which says what to write instead."""
    if len(text) > LENGTH_MAX:
        raise UsageError(f"the search has more than {LENGTH_MAX:,} characters; give a shorter one")
    tokens = list(_tokens(text))
    if len(tokens) > WORDS_MAX:
        raise UsageError(f"the search has more than {WORDS_MAX} words; give fewer")
    query, pos = _search(tokens, 0, 0)
    if pos < len(tokens):
        raise UsageError('the search has a ")" without "("; put words with parentheses in quotes')
    return query


def _tokens(text: str) -> Iterator[_Token]:
    text, pos = text.strip(), 0
    while pos < len(text):
        match = _TOKEN.match(text, pos)
        if match is None:
            raise UsageError(f"the search cannot be read at {text[pos:].strip()[:40]}; put it in double quotes")
        opens, closes, minus, field, phrase, quote, word = match.groups()
        pos = match.end()
        if opens:
            yield "(", opens[0] == "-", "", ""
        elif closes:
            yield ")", False, "", ""
        elif phrase is not None:
            if not quote:
                raise UsageError('the search has a `"` that does not end; put another after the phrase')
            yield "word", bool(minus), field or "", phrase
        elif word in ("OR", "AND") and not field and not minus:
            yield word, False, "", ""
        else:
            yield "word", bool(minus), field or "", word


def _search(tokens: list[_Token], pos: int, depth: int) -> tuple[Query, int]:
    if depth > DEPTH_MAX:
        raise UsageError(f"the search has more than {DEPTH_MAX} parentheses in each other; give a simpler one")
    parts: list[Query] = []
    while pos < len(tokens) and tokens[pos][0] != ")":
        if tokens[pos][0] == "AND" and parts:
            pos += 1
            if pos == len(tokens) or tokens[pos][0] == ")":
                raise UsageError("the search has nothing after AND; give a word there, or put `and` in quotes")
        part, pos = _choice(tokens, pos, depth)
        parts.append(part)
    if not parts:
        return All(), pos
    return (parts[0] if len(parts) == 1 else And(tuple(parts))), pos


def _choice(tokens: list[_Token], pos: int, depth: int) -> tuple[Query, int]:
    part, pos = _part(tokens, pos, depth)
    parts = [part]
    while pos < len(tokens) and tokens[pos][0] == "OR":
        part, pos = _part(tokens, pos + 1, depth)
        parts.append(part)
    return (parts[0] if len(parts) == 1 else Or(tuple(parts))), pos


def _part(tokens: list[_Token], pos: int, depth: int) -> tuple[Query, int]:
    if pos == len(tokens) or tokens[pos][0] in (")", "OR", "AND"):
        raise UsageError("the search has an OR or AND without a word beside it; give one, or put it in quotes")
    kind, negated, field, value = tokens[pos]
    pos += 1
    if kind == "(":
        query, pos = _search(tokens, pos, depth + 1)
        if pos == len(tokens):
            raise UsageError('the search has a "(" without ")"; put words with parentheses in quotes')
        pos += 1
    else:
        query = _word(field, value)
    return (Not(query) if negated else query), pos


def _word(field: str, value: str) -> Query:
    if not field:
        name = value[:-1]
        if value.endswith(":") and name.lower() in FIELDS:
            raise UsageError(f"{value} has nothing right after it; write {value}word, or {value}one OR {value}other")
        return Text(value)
    parse = FIELDS.get(field.lower())
    if parse is None:
        if field.lower() in ("in", "label", "folder"):
            raise UsageError(f"{field}: cannot be searched for; choose folders with --folder")
        raise UsageError(
            f"{field}: is not known; there are {', '.join(name + ':' for name in FIELDS)} "
            f'(to look for the text itself: "{field}:{value[:20]}")'
        )
    return parse(value)
